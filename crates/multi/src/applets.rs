//! The table of programs in this binary, picked by `argv[0]` or the first argument.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// A program.
pub(crate) struct Applet {
    pub(crate) name: &'static str,
    what: &'static str,
    main: fn(Vec<OsString>) -> ExitCode,
    #[cfg_attr(not(feature = "talk"), expect(dead_code, reason = "completions and pages are for people"))]
    command: fn() -> clap::Command,
}

/// Programs that people start by their own names.
#[cfg(feature = "talk")]
pub(crate) const LINKS: &[&str] =
    &["sshnp", "npt", "sshnpd", "at_activate", "srvd", "srv", "npp", "npp_file", "npp_atserver"];

#[cfg(feature = "talk")]
impl Applet {
    /// Its command line.
    pub(crate) fn command(&self) -> clap::Command {
        (self.command)()
    }
}

const APPLETS: &[Applet] = &[
    #[cfg(feature = "clients")]
    Applet {
        name: "sshnp",
        what: "ssh into a device",
        main: postern_tunnel::sshnp_main,
        command: postern_tunnel::sshnp_command,
    },
    #[cfg(feature = "clients")]
    Applet {
        name: "npt",
        what: "bring a port of a device here",
        main: postern_tunnel::npt_main,
        command: postern_tunnel::npt_command,
    },
    #[cfg(feature = "clients")]
    Applet {
        name: "connect",
        what: "join standard input and output with a device: ssh's ProxyCommand",
        main: postern_tunnel::connect_main,
        command: postern_tunnel::connect_command,
    },
    #[cfg(feature = "clients")]
    Applet {
        name: "agent",
        what: "keep logins and sessions warm for connect",
        main: postern_tunnel::agent_main,
        command: postern_tunnel::agent_command,
    },
    #[cfg(feature = "clients")]
    Applet {
        name: "hostkeys",
        what: "host keys of a device: ssh's KnownHostsCommand",
        main: postern_tunnel::hostkeys_main,
        command: postern_tunnel::hostkeys_command,
    },
    #[cfg(feature = "clients")]
    Applet {
        name: "known-hosts",
        what: "host keys that devices have signed, for other programs",
        main: postern_tunnel::known_hosts_main,
        command: postern_tunnel::known_hosts_command,
    },
    #[cfg(feature = "clients")]
    Applet {
        name: "ssh-config",
        what: "teach ssh the names of devices",
        main: postern_tunnel::ssh_config_main,
        command: postern_tunnel::ssh_config_command,
    },
    #[cfg(feature = "device")]
    Applet { name: "sshnpd", what: "the device daemon", main: postern_device::main, command: postern_device::command },
    #[cfg(feature = "invite")]
    Applet {
        name: "invite",
        what: "print a line with which a machine joins as a device",
        main: postern_join::invite_main,
        command: postern_join::invite_command,
    },
    #[cfg(all(feature = "invite", feature = "activate"))]
    Applet {
        name: "activate",
        what: "become the owner of atSigns that a server's operator hands over",
        main: |args| postern_join::activate_main(args, postern_enroll::main),
        command: postern_join::activate_command,
    },
    #[cfg(feature = "join")]
    Applet {
        name: "join",
        what: "become the device that an invitation speaks of",
        main: postern_join::join_main,
        command: postern_join::join_command,
    },
    #[cfg(feature = "join")]
    Applet { name: "leave", what: "undo join", main: postern_join::leave_main, command: postern_join::leave_command },
    #[cfg(feature = "device")]
    Applet {
        name: "usage",
        what: "what this device costs in bytes",
        main: postern_device::usage_main,
        command: postern_device::usage_command,
    },
    #[cfg(feature = "activate")]
    Applet {
        name: "at_activate",
        what: "make the keys of an atSign",
        main: postern_enroll::main,
        command: postern_enroll::command,
    },
    #[cfg(feature = "relay")]
    Applet { name: "srvd", what: "the relay", main: postern_relay::main, command: postern_relay::command },
    #[cfg(feature = "policy")]
    Applet {
        name: "npp",
        what: "the policy service, and its rules from afar",
        main: postern_policy::main,
        command: postern_policy::command,
    },
    #[cfg(feature = "policy")]
    Applet {
        name: "npp_file",
        what: "the policy service with rules in a file",
        main: postern_policy::file_main,
        command: postern_policy::file_command,
    },
    #[cfg(feature = "policy")]
    Applet {
        name: "npp_atserver",
        what: "the policy service with groups as records",
        main: postern_policy::atserver_main,
        command: postern_policy::atserver_command,
    },
    #[cfg(feature = "srv")]
    Applet {
        name: "srv",
        what: "one end of a relay session, for programs that start it",
        main: postern_srv::main,
        command: postern_srv::command,
    },
    #[cfg(feature = "audit")]
    Applet {
        name: "audit",
        what: "checks and prints the journals of sessions",
        main: postern_audit::main,
        command: postern_audit::command,
    },
    #[cfg(feature = "trust")]
    Applet {
        name: "pin",
        what: "whose keys are known",
        main: postern_trust::pin_main,
        command: postern_trust::pin_command,
    },
    #[cfg(feature = "trust")]
    Applet {
        name: "fingerprint",
        what: "the keys of this user, and what others show",
        main: postern_trust::fingerprint_main,
        command: postern_trust::fingerprint_command,
    },
    #[cfg(feature = "doctor")]
    Applet {
        name: "doctor",
        what: "what is wrong, why, and what to do",
        main: crate::doctor::main,
        command: crate::doctor::command,
    },
    #[cfg(feature = "server")]
    Applet {
        name: "server",
        what: "the directory and the atServers",
        main: postern_server::main,
        command: postern_server::command,
    },
    #[cfg(feature = "talk")]
    Applet {
        name: "status",
        what: "what of this runs here, and who is in",
        main: crate::status::main,
        command: crate::status::command,
    },
    #[cfg(feature = "talk")]
    Applet {
        name: "config",
        what: "configuration files: checked, shown, explained",
        main: crate::config::main,
        command: crate::config::command,
    },
    #[cfg(feature = "talk")]
    Applet { name: "man", what: "manual pages", main: crate::man::main, command: crate::man::command },
    #[cfg(feature = "talk")]
    Applet {
        name: "completions",
        what: "completions for a shell, with the names of your devices",
        main: crate::completions::main,
        command: crate::completions::command,
    },
];

/// Runs the applet that the arguments name.
///
/// Exit status 2: no such applet; otherwise the applet's own.
pub(crate) fn run(mut args: Vec<OsString>) -> ExitCode {
    #[cfg(feature = "talk")]
    if let Some(code) = crate::completions::answer(&args) {
        return code;
    }
    if let Some(applet) = args.first().and_then(|name| find(name)) {
        return (applet.main)(args);
    }
    if args.len() > 1 {
        args.remove(0);
    } else {
        return usage(std::io::stderr(), 2);
    }
    let word = args.first().cloned().unwrap_or_default();
    match word.to_str() {
        Some("--help" | "-h" | "help") => usage(std::io::stdout(), 0),
        Some("--version" | "-V") => {
            let _ = writeln!(std::io::stdout(), "postern {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => match find(&word) {
            Some(applet) => (applet.main)(args),
            None => {
                let word = word.to_string_lossy();
                let _ = writeln!(std::io::stderr(), "postern: there is no program {word:?} in this binary");
                usage(std::io::stderr(), 2)
            }
        },
    }
}

/// Reads the command line of one of this crate's own programs. Else the code to end with: help was shown, or what is wrong.
#[cfg(feature = "talk")]
pub(crate) fn flags<F: clap::Parser>(args: Vec<OsString>) -> Result<F, ExitCode> {
    F::try_parse_from(args).map_err(|error| {
        let _ = error.print();
        ExitCode::from(if error.use_stderr() { 2 } else { 0 })
    })
}

/// All of them under one name, for completions and manual pages.
#[cfg(feature = "talk")]
pub(crate) fn whole() -> clap::Command {
    let programs = APPLETS.iter().map(|applet| applet.command().name(applet.name).about(applet.what));
    clap::Command::new("postern")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Reach machines that have no open port")
        .long_about(
            "Reach machines that have no open port.\n\nOne binary, many programs: `postern PROGRAM ...`, or a link of the \
             program's name to it.\n\nExit status: 2 no such program; otherwise the program's own.",
        )
        .subcommand_required(true)
        .subcommands(programs)
}

/// All of them.
#[cfg(feature = "talk")]
pub(crate) fn all() -> impl Iterator<Item = &'static Applet> {
    APPLETS.iter()
}

pub(crate) fn find(name: &OsStr) -> Option<&'static Applet> {
    let name = Path::new(name).file_stem()?.to_str()?;
    APPLETS.iter().find(|applet| applet.name == name)
}

fn usage(mut out: impl std::io::Write, code: u8) -> ExitCode {
    let mut text = String::from(
        "Reach machines that have no open port.\n\nUsage: postern PROGRAM [ARGUMENTS]\n       PROGRAM [ARGUMENTS]    (a link of that name to this binary)\n\nPrograms:\n",
    );
    for applet in APPLETS {
        text.push_str(&format!("  {:<12} {}\n", applet.name, applet.what));
    }
    text.push_str("\n`postern PROGRAM --help` says more.\n");
    // A reader that went away counts as success.
    let _ = out.write_all(text.as_bytes());
    ExitCode::from(code)
}

#[cfg(all(test, feature = "talk"))]
mod tests {
    use super::*;

    /// Scripts rely on it.
    #[test]
    fn every_program_says_what_its_exit_status_means() {
        for applet in all() {
            let help = applet.command().render_long_help().to_string();
            assert!(help.contains("Exit status"), "{}: {help}", applet.name);
        }
        assert!(LINKS.iter().filter(|name| find(OsStr::new(name)).is_none()).count() == 0);
    }
}

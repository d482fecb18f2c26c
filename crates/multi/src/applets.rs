//! The table of programs in this binary, picked by `argv[0]` or the first argument.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

struct Applet {
    name: &'static str,
    what: &'static str,
    main: fn(Vec<OsString>) -> ExitCode,
    #[cfg_attr(not(feature = "talk"), expect(dead_code, reason = "completions are for people"))]
    command: fn() -> clap::Command,
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
];

/// Runs the applet that the arguments name.
///
/// Exit status 2: no such applet; otherwise the applet's own.
pub(crate) fn run(mut args: Vec<OsString>) -> ExitCode {
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
        #[cfg(feature = "talk")]
        Some("completions") => completions(&args),
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

/// `completions SHELL [PROGRAM]`: a script for the shell, on stdout.
#[cfg(feature = "talk")]
fn completions(args: &[OsString]) -> ExitCode {
    let word = |at: usize| args.get(at).and_then(|word| word.to_str());
    let Some(shell) = word(1).and_then(|name| name.parse::<clap_complete::Shell>().ok()) else {
        let _ = writeln!(std::io::stderr(), "Usage: postern completions bash|zsh|fish|elvish|powershell [PROGRAM]");
        return ExitCode::from(2);
    };
    let mut out = Vec::new();
    match args.get(2) {
        None => {
            let programs = APPLETS.iter().map(|applet| (applet.command)().name(applet.name).about(applet.what));
            let mut whole = clap::Command::new("postern").subcommands(programs);
            clap_complete::generate(shell, &mut whole, "postern", &mut out);
        }
        Some(name) => match find(name) {
            Some(applet) => clap_complete::generate(shell, &mut (applet.command)(), applet.name, &mut out),
            None => return usage(std::io::stderr(), 2),
        },
    }
    let _ = std::io::stdout().write_all(&out);
    ExitCode::SUCCESS
}

fn find(name: &OsString) -> Option<&'static Applet> {
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
    #[cfg(feature = "talk")]
    text.push_str("  completions  print completions for a shell\n");
    text.push_str("\n`postern PROGRAM --help` says more.\n");
    // A reader that went away counts as success.
    let _ = out.write_all(text.as_bytes());
    ExitCode::from(code)
}

//! The table of programs in this binary, picked by `argv[0]` or the first argument.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

struct Applet {
    name: &'static str,
    what: &'static str,
    main: fn(Vec<OsString>) -> ExitCode,
}

const APPLETS: &[Applet] = &[
    #[cfg(feature = "clients")]
    Applet { name: "sshnp", what: "ssh into a device", main: postern_tunnel::sshnp_main },
    #[cfg(feature = "clients")]
    Applet { name: "npt", what: "bring a port of a device here", main: postern_tunnel::npt_main },
    #[cfg(feature = "device")]
    Applet { name: "sshnpd", what: "the device daemon", main: postern_device::main },
    #[cfg(feature = "activate")]
    Applet { name: "at_activate", what: "make the keys of an atSign", main: postern_enroll::main },
    #[cfg(feature = "relay")]
    Applet { name: "srvd", what: "the relay", main: postern_relay::main },
    #[cfg(feature = "server")]
    Applet {
        name: "server",
        what: "the directory and the atServers",
        main: |args| postern_server::main(args.into_iter().skip(1).collect()),
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
    text.push_str("\n`postern PROGRAM --help` says more.\n");
    // A reader that went away counts as success.
    let _ = out.write_all(text.as_bytes());
    ExitCode::from(code)
}

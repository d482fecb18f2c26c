//! `doctor`: which program's doctor is called. Each knows its own configuration.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, Command};

/// The command line, for help and completions.
pub(crate) fn command() -> Command {
    let role = Arg::new("role").value_name("ROLE").help(
        "device (what sshnpd needs), client (what sshnp, npt and ssh need) or server [default: what is configured here]",
    );
    let words = Arg::new("words").value_name("OPTIONS").num_args(0..).allow_hyphen_values(true).trailing_var_arg(true);
    Command::new("doctor")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Looks for what is wrong: clock, names, proxy, certificates, keys, ssh server, relay, disk. Says what to do.")
        .long_about(
            "Looks for what is wrong, and says why and what to do: clock, link, proxy, names, certificates (is somebody \
             opening the connection on the way?), keys, directory, login, versions, relay, ssh server and its host keys, \
             disk. Changes nothing.\n\nThe options are those of the program of that role, which are read from its \
             configuration file as the program reads them; --json prints one object.",
        )
        .after_help(
            "Examples:\n  postern doctor device -a @device -m @alice      the same as sshnpd --doctor …\n  \
             postern doctor client --json\n  postern doctor server --dir /var/lib/postern\n\n\
             Exit status: 0 nothing fails, 1 something does, 2 wrong usage.",
        )
        .arg(role)
        .arg(words.help("Options of that program"))
}

/// Runs `doctor` with its arguments, the program name first.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let mut words = args.into_iter().skip(1).peekable();
    let is_role = |word: &OsString| word.to_str().is_some_and(|word| !word.starts_with('-'));
    let role = match words.next_if(is_role) {
        Some(word) => word.to_string_lossy().into_owned(),
        None => match words.peek().and_then(|word| word.to_str()) {
            Some("-h" | "--help") => return help(),
            _ => configured().to_owned(),
        },
    };
    let words: Vec<OsString> = words.collect();
    match role.as_str() {
        #[cfg(feature = "device")]
        "device" => {
            let first = ["sshnpd", "--doctor"].map(OsString::from);
            postern_device::main(first.into_iter().chain(words).collect())
        }
        #[cfg(feature = "clients")]
        "client" => postern_tunnel::doctor_main(std::iter::once("doctor client".into()).chain(words).collect()),
        #[cfg(feature = "server")]
        "server" => postern_server::doctor_main(std::iter::once("doctor server".into()).chain(words).collect()),
        other => {
            let error = clap::error::ErrorKind::InvalidValue;
            let text = format!("{other:?} is no role of this program: device, client or server");
            let _ = command().error(error, text).print();
            ExitCode::from(2)
        }
    }
}

fn help() -> ExitCode {
    let _ = command().print_long_help();
    ExitCode::SUCCESS
}

/// Without a role: a machine with a daemon's configuration is a device.
fn configured() -> &'static str {
    let named = std::env::var_os("SSHNPD_CONFIG").is_some_and(|path| !path.is_empty());
    let is_device = cfg!(feature = "device") && (named || Path::new("/etc/noports/sshnpd.yaml").exists());
    if is_device || !cfg!(feature = "clients") { "device" } else { "client" }
}

//! `config check | show | default`: the configuration files of all programs.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::applets::flags;

/// Looks at configuration files: are they right, what do they say, what could they say?
///
/// Exit status: 0 all is right, 1 a file is wrong or cannot be read, 2 wrong usage.
#[derive(Parser)]
#[command(name = "config", version, max_term_width = 100)]
struct Flags {
    #[command(subcommand)]
    word: Word,
}

#[derive(Subcommand)]
enum Word {
    /// Checks files. Without FILE: those that are in their usual places.
    ///
    /// What is wrong is told with line and column, and a name that is not known with the one that was meant.
    ///
    /// Exit status: 0 all are right, 1 one is wrong or cannot be read, 2 wrong usage.
    Check {
        /// Files; whose they are is told by their names (sshnpd.yaml, config.yaml, srvd.yaml, npp.yaml) or --of.
        files: Vec<PathBuf>,
        /// Whose the files are.
        #[arg(long, value_name = "PROGRAM")]
        of: Option<Kind>,
    },
    /// Shows where the files are looked for, and what is set in those that are there.
    ///
    /// Exit status: 0 shown, 1 a file cannot be read.
    Show {
        /// Of this program alone.
        of: Option<Kind>,
    },
    /// Prints a file with every option explained, all of them commented out.
    ///
    /// Exit status: 0 printed.
    Default {
        /// Whose.
        of: Kind,
    },
}

/// Whose a file is.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// sshnpd.yaml
    #[cfg(feature = "device")]
    #[value(alias = "sshnpd")]
    Device,
    /// config.yaml: connect and its agent, for ssh
    #[cfg(feature = "clients")]
    #[value(alias = "connect")]
    Client,
    /// srvd.yaml
    #[cfg(feature = "relay")]
    #[value(alias = "srvd")]
    Relay,
    /// npp.yaml
    #[cfg(feature = "policy")]
    #[value(alias = "npp")]
    Policy,
}

/// What a program tells of its file.
struct Room {
    file: &'static str,
    default: &'static str,
    path: fn() -> PathBuf,
    check: fn(&Path) -> Result<(), String>,
}

impl Kind {
    fn room(self) -> Room {
        match self {
            #[cfg(feature = "device")]
            Self::Device => Room {
                file: "sshnpd.yaml",
                default: postern_device::CONFIG_DEFAULT,
                path: postern_device::config_path,
                check: postern_device::config_check,
            },
            #[cfg(feature = "clients")]
            Self::Client => Room {
                file: "config.yaml",
                default: postern_tunnel::CONFIG_DEFAULT,
                path: postern_tunnel::config_path,
                check: postern_tunnel::config_check,
            },
            #[cfg(feature = "relay")]
            Self::Relay => Room {
                file: "srvd.yaml",
                default: postern_relay::CONFIG_DEFAULT,
                path: postern_relay::config_path,
                check: postern_relay::config_check,
            },
            #[cfg(feature = "policy")]
            Self::Policy => Room {
                file: "npp.yaml",
                default: postern_policy::CONFIG_DEFAULT,
                path: postern_policy::config_path,
                check: postern_policy::config_check,
            },
        }
    }

    /// By a file's name.
    fn named(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        Self::value_variants().iter().copied().find(|kind| kind.room().file == name)
    }
}

/// The command line, for completions.
pub(crate) fn command() -> clap::Command {
    <Flags as clap::CommandFactory>::command()
}

/// Runs `config` with its arguments, the program name first.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let flags: Flags = match flags(args) {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    match flags.word {
        Word::Check { files, of } => check(&files, of),
        Word::Show { of } => show(of),
        Word::Default { of } => {
            print(of.room().default);
            ExitCode::SUCCESS
        }
    }
}

fn check(files: &[PathBuf], of: Option<Kind>) -> ExitCode {
    let mut wanted = Vec::new();
    for file in files {
        let Some(kind) = of.or_else(|| Kind::named(file)) else {
            talk(&format!("{}: whose file is this? say --of device, client, relay or policy", file.display()));
            return ExitCode::from(2);
        };
        wanted.push((kind, file.clone()));
    }
    if files.is_empty() {
        let kinds = of.map_or_else(|| Kind::value_variants().to_vec(), |kind| vec![kind]);
        let usual = kinds.into_iter().map(|kind| (kind, (kind.room().path)()));
        wanted = usual.filter(|(_, path)| path.exists()).collect();
        if wanted.is_empty() {
            talk("there is no configuration file in its usual place; `postern config show` says where these are");
        }
    }
    let mut code = ExitCode::SUCCESS;
    for (kind, path) in wanted {
        match (kind.room().check)(&path) {
            Ok(()) => print(&format!("{}: right\n", path.display())),
            Err(why) => {
                talk(&why);
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn show(of: Option<Kind>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for kind in Kind::value_variants().iter().filter(|kind| of.is_none_or(|of| of == **kind)) {
        let path = (kind.room().path)();
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                print(&format!("# {}\n", path.display()));
                let is_set = |line: &&str| !line.trim_start().starts_with('#') && !line.trim().is_empty();
                text.lines().filter(is_set).for_each(|line| print(&format!("{line}\n")));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                print(&format!("# {}: not there\n", path.display()));
            }
            Err(error) => {
                talk(&format!("{}: {error}", path.display()));
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

/// A reader that went away counts as success.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

fn talk(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_right_as_it_is_printed() {
        let dir = tempfile::tempdir().expect("a directory");
        for kind in Kind::value_variants() {
            let path = dir.path().join(kind.room().file);
            std::fs::write(&path, kind.room().default).expect("written");
            assert_eq!((kind.room().check)(&path), Ok(()), "{}", kind.room().file);
            assert!(Kind::named(&path) == Some(*kind));
            std::fs::write(&path, "runtmie: {}\n").expect("written");
            let why = (kind.room().check)(&path).expect_err("a name that is not known");
            assert!(why.contains("runtmie") && why.contains("line 1"), "{why}");
        }
    }
}

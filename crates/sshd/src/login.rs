//! What the daemon starts for each channel: this binary again, which becomes the user and then what was asked for.
//!
//! A process of its own, for who gives up its rights must have nothing else going on: one thread, no sockets, no keys in
//! memory (all of the daemon's was left behind by exec).

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::talk::say;
use nix::unistd::{Gid, Uid, getegid, geteuid, getgid, getuid, initgroups, setresgid, setresuid};
use rustix::fs::{Mode, fchmod, fchown};
use rustix::process::{ioctl_tiocsctty, setsid, umask};

use crate::account::Account;
use crate::sftp;

/// What the user gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// The login shell.
    Shell,
    /// A command for the shell.
    Command(OsString),
    /// Files.
    Sftp,
}

/// Whether the program has a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Terminal,
    Pipes,
}

/// The arguments behind the word that starts [`main`].
pub(crate) fn arguments(user: &str, on: On, program: &Program) -> Vec<OsString> {
    let on = if on == On::Terminal { "terminal" } else { "pipes" };
    let (word, command) = match program {
        Program::Shell => ("shell", None),
        Program::Command(command) => ("exec", Some(command.clone())),
        Program::Sftp => ("sftp", None),
    };
    [user, on, word].into_iter().map(OsString::from).chain(command).collect()
}

fn read(args: Vec<OsString>) -> Option<(String, On, Program)> {
    let mut args = args.into_iter();
    let user = args.next()?.into_string().ok()?;
    let on = if args.next()? == "terminal" { On::Terminal } else { On::Pipes };
    let program = match args.next()?.to_str()? {
        "shell" => Program::Shell,
        "exec" => Program::Command(args.next()?),
        "sftp" => Program::Sftp,
        _ => return None,
    };
    args.next().is_none().then_some((user, on, program))
}

/// Becomes a user and runs a program. `args`: what the daemon gave, without the names of program and word.
///
/// Exit status: that of the program; 254: it was not started, and why was said.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    let Some((user, on, program)) = read(args) else {
        say("this is what the built-in ssh server starts for a login; it is not for people");
        return ExitCode::from(NOT_STARTED);
    };
    match log_in(&user, on, &program) {
        Ok(code) => code,
        Err(why) => {
            say(format_args!("cannot log in as {user}: {why}"));
            ExitCode::from(NOT_STARTED)
        }
    }
}

const NOT_STARTED: u8 = 254;

fn log_in(user: &str, on: On, program: &Program) -> Result<ExitCode, String> {
    let account = Account::find(user)?;
    let session = setsid().map_err(|error| format!("no session of its own: {error}"));
    session?;
    if on == On::Terminal {
        own_terminal(&account).map_err(|error| format!("no terminal: {error}"))?;
    }
    become_user(&account)?;
    umask(Mode::from_raw_mode(0o022));
    if let Err(error) = std::env::set_current_dir(&account.home) {
        say(format_args!("cannot go to the home {}: {error}", account.home.display()));
        std::env::set_current_dir("/").map_err(|error| format!("cannot go to /: {error}"))?;
    }
    let mut shell = Command::new(&account.shell);
    let name = account.shell.file_name().unwrap_or(OsStr::new("sh"));
    match program {
        Program::Sftp => return Ok(sftp::main()),
        Program::Shell => {
            // A dash in front: a login shell. Source: login(1).
            let mut login = OsString::from("-");
            login.push(name);
            shell.arg0(login);
        }
        Program::Command(command) => {
            shell.arg0(name).arg("-c").arg(command);
        }
    }
    shell.env("USER", &account.name).env("LOGNAME", &account.name);
    shell.env("HOME", &account.home).env("SHELL", &account.shell);
    shell.env("PATH", if account.uid.is_root() { ROOT_PATH } else { PATH });
    // As OpenSSH says it where there is no address; shells look whether it is set.
    shell.env("SSH_CONNECTION", "UNKNOWN 65535 UNKNOWN 65535").env("SSH_CLIENT", "UNKNOWN 65535 65535");
    if on == On::Terminal
        && let Ok(path) = rustix::termios::ttyname(io::stdin(), Vec::new())
    {
        shell.env("SSH_TTY", OsStr::new(path.to_str().unwrap_or_default()));
    }
    Err(format!("{}: {}", account.shell.display(), shell.exec()))
}

const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The terminal belongs to the user and rules this session, so that its signals come here.
fn own_terminal(account: &Account) -> io::Result<()> {
    let terminal = io::stdin();
    let terminal = terminal.as_fd();
    if geteuid().is_root() {
        let owner = rustix::fs::Uid::from_raw(account.uid.as_raw());
        fchown(terminal, Some(owner), None)?;
        fchmod(terminal, Mode::from_raw_mode(0o600))?;
    }
    Ok(ioctl_tiocsctty(terminal)?)
}

/// Groups first, then group, then user, for each needs the rights that the next gives up; and then looks whether there is a
/// way back. Somebody else's daemon forgot the groups once (CVE-2023-28436).
fn become_user(account: &Account) -> Result<(), String> {
    let (uid, gid) = (account.uid, account.gid);
    if geteuid() == uid && getuid() == uid {
        return Ok(());
    }
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: nix::Error| format!("cannot give up the rights of the daemon ({what}: {error})")
    };
    initgroups(&account.c_name(), gid).map_err(failed("initgroups"))?;
    setresgid(gid, gid, gid).map_err(failed("setresgid"))?;
    setresuid(uid, uid, uid).map_err(failed("setresuid"))?;
    let are: [(Uid, Gid); 2] = [(getuid(), getgid()), (geteuid(), getegid())];
    let root = Uid::from_raw(0);
    if are != [(uid, gid); 2] || (!uid.is_root() && setresuid(root, root, root).is_ok()) {
        return Err("the rights of the daemon were not given up".into());
    }
    Ok(())
}

/// The program that runs now, under whatever name, even if its file was replaced.
pub(crate) fn own_program() -> io::Result<OsString> {
    if Path::new("/proc/self/exe").exists() {
        return Ok("/proc/self/exe".into());
    }
    std::env::current_exe().map(OsString::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_daemon_asks_is_what_the_helper_reads() {
        for (on, program) in [
            (On::Terminal, Program::Shell),
            (On::Pipes, Program::Command("echo 'a b'; exit 3".into())),
            (On::Pipes, Program::Sftp),
        ] {
            assert_eq!(read(arguments("pi", on, &program)), Some(("pi".into(), on, program)));
        }
        for bad in [&["pi"][..], &["pi", "pipes", "fly"], &["pi", "pipes", "exec"], &["pi", "pipes", "shell", "x"]] {
            assert_eq!(read(bad.iter().map(OsString::from).collect()), None, "{bad:?}");
        }
    }
}

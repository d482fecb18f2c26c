//! `ssh-config`: the block that teaches ssh the names of devices.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use postern_client::home_dir;
use postern_observe::{print, say};

use crate::host_keys::{make_private_dir, write_whole};
use crate::hosts::{BadHosts, Hosts, SUFFIX};

/// Prints the lines of ssh's configuration that make `ssh gw-17.np` work, and scp, rsync, git and Ansible with it; or
/// installs them.
///
/// With --install they go to ~/.ssh/postern.conf, which ~/.ssh/config then includes by its first line; what it was
/// before is kept beside it once, as config.before-postern. Doing it again changes only what has changed.
///
/// Exit status: 0 done, 1 a file cannot be read or written, or is wrong.
#[derive(Parser)]
#[command(name = "ssh-config", version, max_term_width = 100)]
struct Flags {
    /// Write the lines where ssh reads them.
    #[arg(long)]
    install: bool,
    /// Configuration file of the clients [default: as for connect].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where ssh keeps its files, with --install [default: ~/.ssh].
    #[arg(long, value_name = "DIR")]
    ssh_dir: Option<PathBuf>,
}

/// Our file in ssh's directory.
const OURS: &str = "postern.conf";
/// The line that makes ssh read it. It stands first: below a Host line it would count for that host alone.
const INCLUDE: &str = "Include postern.conf";

/// The command line, for completions.
pub(crate) fn command() -> clap::Command {
    <Flags as clap::CommandFactory>::command()
}

/// The whole program.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let flags = match Flags::try_parse_from(args) {
        Ok(flags) => flags,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(format_args!("ssh-config: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<(), String> {
    let hosts = Hosts::read(flags.config.as_deref()).map_err(|error: BadHosts| error.to_string())?;
    let program = std::env::current_exe().map_err(|error| format!("cannot tell where this program lies: {error}"))?;
    let config = flags.config.as_ref().map(std::path::absolute).transpose();
    let config = config.map_err(|error| format!("--config: {error}"))?;
    let text = block(&program, config.as_deref(), &hosts)?;
    if !flags.install {
        print(text.trim_end());
        return Ok(());
    }
    let dir = match &flags.ssh_dir {
        Some(dir) => dir.clone(),
        None => home_dir().map_err(|error| error.to_string())?.join(".ssh"),
    };
    let told = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    make_private_dir(&dir).map_err(|error| told(&dir, error))?;
    let ours = dir.join(OURS);
    if fs::read_to_string(&ours).is_ok_and(|known| known == text) {
        say(format_args!("{} is as it should be", ours.display()));
    } else {
        write_whole(&ours, &text).map_err(|error| told(&ours, error))?;
        say(format_args!("wrote {}", ours.display()));
    }
    let main = dir.join("config");
    if include(&main).map_err(|error| told(&main, error))? {
        say(format_args!("{} includes it now, by its first line", main.display()));
    }
    Ok(())
}

/// The lines. `config`: named to our programs where it is not the usual one.
fn block(program: &Path, config: Option<&Path>, hosts: &Hosts) -> Result<String, String> {
    let program = quoted(program)?;
    let config =
        config.map(|path| quoted(path).map(|path| format!(" --config {path}"))).transpose()?.unwrap_or_default();
    let mut text =
        String::from("# Written by `postern ssh-config --install`; it is written anew whenever that runs again.\n");
    for (host, user) in hosts.entries() {
        if let Some(user) = user {
            let _ = write!(text, "Host {}{SUFFIX}\n    User {user}\n", host.as_str());
        }
    }
    let _ = write!(
        text,
        "Host *{SUFFIX}
    ProxyCommand        {program} connect --stdio{config} %h %p
    KnownHostsCommand   {program} hostkeys{config} %H
    UserKnownHostsFile  none
    GlobalKnownHostsFile none
    StrictHostKeyChecking yes
    CheckHostIP         no
    UpdateHostKeys      no
    ControlMaster       auto
    ControlPath         ~/.ssh/postern-%C
    ControlPersist      2m
    ServerAliveInterval 30
    ServerAliveCountMax 6
    ForwardAgent        no
"
    );
    Ok(text)
}

/// A path as both ssh's own words and a shell read it.
fn quoted(path: &Path) -> Result<String, String> {
    let text = path.to_str().filter(|text| !text.chars().any(|c| c.is_control() || "\"'\\$`".contains(c)));
    let text = text.ok_or_else(|| {
        format!("{} cannot stand in ssh's configuration: put it under a plainer name", path.display())
    })?;
    let text = text.replace('%', "%%");
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c));
    Ok(if plain { text } else { format!("\"{text}\"") })
}

/// Puts our line at the top of ssh's configuration. `false`: it stood there.
fn include(main: &Path) -> io::Result<bool> {
    // A link is followed: people keep these files elsewhere.
    let main = fs::canonicalize(main).unwrap_or_else(|_| main.to_owned());
    let known = match fs::read_to_string(&main) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let reaches = known.lines().map(str::trim).take_while(|line| {
        let word = line.split([' ', '\t', '=']).next().unwrap_or_default();
        !word.eq_ignore_ascii_case("host") && !word.eq_ignore_ascii_case("match")
    });
    if reaches.into_iter().any(|line| line == INCLUDE) {
        return Ok(false);
    }
    let backup = main.with_file_name("config.before-postern");
    if !known.is_empty() && !backup.exists() {
        fs::copy(&main, &backup)?;
    }
    let permissions = fs::metadata(&main).map(|file| file.permissions());
    write_whole(&main, &format!("{INCLUDE}\n{known}"))?;
    if let Ok(permissions) = permissions {
        fs::set_permissions(&main, permissions)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_names_our_programs_and_logins() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.yaml");
        fs::write(&config, "hosts:\n  gw-17: {user: rak}\n  gw-18: {}\n").unwrap();
        let hosts = Hosts::read(Some(&config)).unwrap();
        let text = block(Path::new("/opt/my tools/100%/postern"), Some(Path::new("/etc/np.yaml")), &hosts).unwrap();
        assert!(text.contains("Host gw-17.np\n    User rak\nHost *.np\n"), "{text}");
        let program = "\"/opt/my tools/100%%/postern\"";
        assert!(
            text.contains(&format!("ProxyCommand        {program} connect --stdio --config /etc/np.yaml %h %p\n")),
            "{text}"
        );
        assert!(text.contains(&format!("KnownHostsCommand   {program} hostkeys --config /etc/np.yaml %H\n")));
        assert!(block(Path::new("/a\"b"), None, &hosts).is_err());
    }

    #[test]
    fn one_line_in_ssh_s_file_and_only_one() {
        let dir = tempfile::tempdir().unwrap();
        let (real, main) = (dir.path().join("real"), dir.path().join("config"));
        let old = "Host x\n    Include postern.conf\n";
        fs::write(&real, old).unwrap();
        std::os::unix::fs::symlink(&real, &main).unwrap();
        assert!(include(&main).unwrap());
        assert!(!include(&main).unwrap(), "twice");
        assert_eq!(fs::read_to_string(&main).unwrap(), format!("{INCLUDE}\n{old}"));
        assert!(fs::symlink_metadata(&main).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(dir.path().join("config.before-postern")).unwrap(), old);
    }
}

//! Words of `postern invite`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use postern_client::parse_root;
use postern_identity::DeviceName;
use postern_observe::Verbosity;
use postern_proto::{AtSign, ServerAddress};
use postern_session::parse_span;

use crate::limits::{BATCH, LONGEST};
use crate::{invite, read};

/// Prints a line with which a machine joins as a device: `postern join LINE`, there.
///
/// It needs keys of the device's atSign that may approve: those of its first activation. On a terminal it waits for the
/// device and lets it in when it proves the line's secret; with the line on a pipe it does not, and `postern invite
/// approve` lets in who has come. The line is good once and says all that the device must know; give it to nobody else.
///
/// Exit status: 0 done (waited: the device has joined), 1 it could not be done (network, keys, disk), 2 wrong usage,
/// 3 waited, and the invitation came to nothing (expired, burned, cancelled), 4 there is a device or an invitation of that
/// name, 5 the certificate of the server is not accepted.
#[derive(Parser)]
#[command(name = "invite", version, max_term_width = 100, args_conflicts_with_subcommands = true)]
struct Flags {
    #[command(subcommand)]
    word: Option<Word>,
    #[command(flatten)]
    new: New,
}

#[derive(Subcommand)]
enum Word {
    /// List the invitations that were given out here.
    List {
        /// As JSON, one line each.
        #[arg(long)]
        json: bool,
    },
    /// Let in who has come as invited, refuse who has not, and pin the keys of those who are in.
    Approve {
        /// Go on until all invitations that are open are over.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        who: Who,
    },
    /// Take invitations back: who comes with one is refused.
    Cancel {
        /// The names of the devices.
        #[arg(value_name = "NAME", required = true, value_parser = name)]
        names: Vec<DeviceName>,
        #[command(flatten)]
        who: Who,
    },
}

#[derive(Args)]
struct New {
    /// The name that the device gets.
    #[arg(value_name = "NAME", required = true, value_parser = name)]
    name: Option<DeviceName>,
    #[command(flatten)]
    who: Who,
    /// A label, for lists; several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// How long it is good.
    #[arg(long, default_value = "2h", value_name = "SPAN", value_parser = life)]
    expires: Duration,
    /// So many lines, each for a device of its own: gw-17 counts on as gw-18, gw-19; a name without a number gets one.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(BATCH)))]
    count: u16,
    /// As JSON, one line each.
    #[arg(long)]
    json: bool,
    /// Show a QR code beside the line, on standard error; by default on a terminal, for one line.
    #[arg(long, overrides_with = "no_qr")]
    qr: bool,
    /// Show none.
    #[arg(long)]
    no_qr: bool,
    /// Wait until the devices have joined; by default on a terminal.
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Print and end.
    #[arg(long)]
    no_wait: bool,
    /// Replace an invitation of that name that is still open.
    #[arg(long)]
    again: bool,
}

/// Whose device, and who may reach it.
#[derive(Args, Clone)]
pub(crate) struct Who {
    /// Who may come in: our own atSign [default: `from` of the configuration].
    #[arg(short = 'f', long = "from", value_name = "@ME", value_parser = at_sign)]
    pub(crate) from: Option<AtSign>,
    /// The device's atSign [default: `to` of the configuration].
    #[arg(short = 't', long = "to", value_name = "@DEVICE", value_parser = at_sign)]
    pub(crate) to: Option<AtSign>,
    /// Key file of the device's atSign [default: ~/.atsign/keys/@DEVICE_key.atKeys].
    #[arg(long, value_name = "FILE")]
    pub(crate) device_keys: Option<PathBuf>,
    /// Our own key file, to know our own key by [default: ~/.atsign/keys/@ME_key.atKeys].
    #[arg(short = 'k', long = "keys", value_name = "FILE")]
    pub(crate) keys: Option<PathBuf>,
    /// The atDirectory, host or host:port [default: `root` of the configuration, or root.atsign.org].
    #[arg(short = 'r', long = "root-domain", aliases = ["rootServer", "root-server", "root"], value_name = "HOST", value_parser = root)]
    pub(crate) root: Option<ServerAddress>,
    /// Log what happens.
    #[arg(short = 'v', long)]
    pub(crate) verbose: bool,
    /// Log every decision.
    #[arg(long)]
    pub(crate) debug: bool,
}

/// What is wanted, checked.
pub(crate) struct Wanted {
    pub(crate) names: Vec<DeviceName>,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) expires: Duration,
    pub(crate) json: bool,
    pub(crate) qr: Option<bool>,
    pub(crate) wait: Option<bool>,
    pub(crate) again: bool,
}

fn name(text: &str) -> Result<DeviceName, String> {
    DeviceName::parse(text).map_err(|error| error.to_string())
}

fn at_sign(text: &str) -> Result<AtSign, String> {
    AtSign::parse(text).map_err(|error| error.to_string())
}

fn root(text: &str) -> Result<ServerAddress, String> {
    parse_root(text).map_err(|error| error.to_string())
}

fn label(text: &str) -> Result<(String, String), String> {
    let good = |word: &str| !word.is_empty() && word.len() <= 63 && !word.chars().any(|c| c.is_control() || c == ',');
    match text.split_once('=') {
        Some((key, value)) if good(key) && good(value) => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as site=milano".to_owned()),
    }
}

fn life(text: &str) -> Result<Duration, String> {
    let span = parse_span(text).map_err(|error| error.to_string())?;
    let fits = (Duration::from_secs(1)..=LONGEST).contains(&span);
    if fits { Ok(span) } else { Err("an invitation is good for 1 s to 90 d".to_owned()) }
}

/// The names of a batch.
fn names(first: &DeviceName, count: u16) -> Result<Vec<DeviceName>, String> {
    let text = first.as_str();
    if count == 1 {
        return Ok(vec![first.clone()]);
    }
    let stem = text.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &text[stem.len()..];
    let (stem, from, width) = match digits.parse::<u64>() {
        Ok(from) => (stem.to_owned(), from, digits.len()),
        Err(_) => (format!("{text}-"), 1, 1),
    };
    let name = |n: u64| DeviceName::parse(&format!("{stem}{:0width$}", from.saturating_add(n)));
    (0..u64::from(count)).map(name).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// Runs `postern invite` with its arguments, the program name first.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let flags: Flags = match read(args) {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    let log = |who: &Who| postern_observe::init(Verbosity::of(who.verbose, who.debug));
    match flags.word {
        Some(Word::List { json }) => crate::run("invite", async { invite::list(json) }),
        Some(Word::Approve { wait, who }) => {
            log(&who);
            crate::run("invite", invite::approve(&who, wait))
        }
        Some(Word::Cancel { names, who }) => {
            log(&who);
            crate::run("invite", invite::cancel(&who, &names))
        }
        None => {
            let new = flags.new;
            log(&new.who);
            let either = |yes: bool, no: bool| (yes || no).then_some(yes);
            let work = async {
                let first = new.name.as_ref().ok_or_else(|| crate::fail::Fail::usage("name the device"))?;
                let wanted = Wanted {
                    names: names(first, new.count).map_err(crate::fail::Fail::usage)?,
                    qr: either(new.qr, new.no_qr),
                    wait: either(new.wait, new.no_wait),
                    labels: new.label,
                    expires: new.expires,
                    json: new.json,
                    again: new.again,
                };
                invite::run(&new.who, wanted).await
            };
            crate::run("invite", work)
        }
    }
}

/// The command line, for completions.
pub fn command() -> clap::Command {
    <Flags as clap::CommandFactory>::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_count_on() {
        let of = |first: &str, count| {
            let names = names(&DeviceName::parse(first).unwrap(), count).unwrap();
            names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("gw-17", 1), "gw-17");
        assert_eq!(of("gw-08", 3), "gw-08 gw-09 gw-10");
        assert_eq!(of("gw-99", 2), "gw-99 gw-100");
        assert_eq!(of("attic", 2), "attic-1 attic-2");
        assert!(names(&DeviceName::parse(&"x".repeat(36)).unwrap(), 2).is_err());
    }

    #[test]
    fn words() {
        command().debug_assert();
        let parse = |words: &[&str]| Flags::try_parse_from(["invite"].iter().chain(words));
        assert!(parse(&["gw-17", "--label", "site=milano", "--expires", "30m", "--count", "3"]).is_ok());
        assert!(matches!(parse(&["list"]).unwrap().word, Some(Word::List { .. })));
        assert!(parse(&[]).is_err() && parse(&["gw-17", "--expires", "0s"]).is_err());
        assert!(parse(&["gw-17", "--label", "site"]).is_err() && parse(&["cancel"]).is_err());
    }
}

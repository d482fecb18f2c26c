//! `postern pin`: the keys that are known.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use postern_client::trust::{KnownKeys, Places};
use postern_identity::{Fingerprint, Pin, PinName};
use postern_observe::{print, say};
use serde_json::{Value as Json, json};

use crate::{fail, read};

/// Shows and decides whose keys are known.
///
/// A key that was seen first, or that a person gave, is remembered; another one in its place is refused. The file is
/// ~/.config/postern/known_atsigns, one line for each.
///
/// Exit status: 0 done, 1 it could not be done (`remove`: the name is not known), 2 wrong usage.
#[derive(Parser)]
#[command(name = "pin", version, max_term_width = 100)]
struct Flags {
    #[command(subcommand)]
    word: Word,
}

#[derive(Subcommand)]
enum Word {
    /// List the known keys.
    List {
        /// As JSON, one array.
        #[arg(long)]
        json: bool,
    },
    /// Know this key from now on, in the place of what was known.
    Accept {
        /// An atSign (@alice) or a device and its atSign (gw-17@device).
        #[arg(value_parser = name)]
        name: PinName,
        /// SHA256:… as `postern fingerprint` prints it where the key is.
        #[arg(value_parser = fingerprint)]
        fingerprint: Fingerprint,
    },
    /// Forget a name: the next key that it shows is a first contact.
    Remove {
        /// An atSign or a device and its atSign.
        #[arg(value_parser = name)]
        name: PinName,
    },
}

pub(crate) fn name(text: &str) -> Result<PinName, String> {
    PinName::parse(text).map_err(|error| error.to_string())
}

fn fingerprint(text: &str) -> Result<Fingerprint, String> {
    Fingerprint::parse(text).map_err(|error| error.to_string())
}

/// The command line, for completions.
pub fn command() -> clap::Command {
    <Flags as clap::CommandFactory>::command()
}

/// Runs `pin` with its arguments, the program name first.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let flags: Flags = match read(args) {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    let known = KnownKeys::new(Places::of_user(), false);
    let done = match flags.word {
        Word::List { json } => known.pins().map(|pins| {
            if json {
                print(Json::Array(pins.iter().map(in_json).collect()));
            } else {
                pins.iter().for_each(print);
            }
            for line in pins.unreadable() {
                let file = known.file().unwrap_or_default();
                say(format_args!("pin: line {line} of {} cannot be read; its name is refused", file.display()));
            }
            ExitCode::SUCCESS
        }),
        Word::Accept { name, fingerprint } => known.accept(name, fingerprint).map(|pin| {
            print(pin);
            ExitCode::SUCCESS
        }),
        Word::Remove { name } => known.forget(&name).map(|forgotten| {
            if forgotten { ExitCode::SUCCESS } else { fail("pin", format_args!("{name} is not known")) }
        }),
    };
    done.unwrap_or_else(|error| fail("pin", error))
}

pub(crate) fn in_json(pin: &Pin) -> Json {
    json!({
        "name": pin.name.to_string(),
        "algorithm": pin.algorithm.to_string(),
        "fingerprint": pin.fingerprint.to_string(),
        "origin": pin.origin.to_string(),
        "since": pin.since,
    })
}

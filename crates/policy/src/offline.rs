//! Looking at rules in a file, without a network.

use std::path::Path;
use std::process::ExitCode;

use postern_observe::{print, say};
use postern_rules::{Answer, Question};
use postern_session::HostPort;

use crate::book::Book;
use crate::keep::{KeepError, read_rule_file, read_table_file};

/// Exit status of a simulation that ended in no.
pub(crate) const DENIED: u8 = 3;

/// What is asked of a simulation.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) question: Question,
    /// A target the client wants to reach there.
    pub(crate) reach: Option<HostPort>,
    pub(crate) json: bool,
}

/// Reads a file and says whether its rules can be.
pub(crate) fn check(path: &Path) -> ExitCode {
    match read(path) {
        Ok(book) => {
            print(format_args!("{}: good, {}", path.display(), book.size()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(format_args!("npp: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Says what the rules of a file answer.
pub(crate) fn simulate(path: &Path, query: &Query) -> ExitCode {
    match read(path) {
        Ok(book) => show(&book.answer(&query.question), query),
        Err(error) => {
            say(format_args!("npp: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints an answer; the exit status says yes or no.
pub(crate) fn show(answer: &Answer, query: &Query) -> ExitCode {
    let may = match &query.reach {
        Some(target) => answer.permits().allows(target),
        None => answer.authorized,
    };
    if query.json {
        print(answer.to_json());
    } else {
        print(if may { "allowed" } else { "denied" });
        say(answer.reason());
        let list = answer.permit_open.as_deref().unwrap_or_default().join(",");
        if answer.authorized {
            say(format_args!("policy --permit-open {list}"));
        }
    }
    if may { ExitCode::SUCCESS } else { ExitCode::from(DENIED) }
}

fn read(path: &Path) -> Result<Book, KeepError> {
    if !path.exists() {
        return Err(KeepError::Missing(path.to_owned()));
    }
    // Tables are ours and JSON; user groups are people's and YAML.
    if path.extension().is_some_and(|ext| ext == "json") {
        return read_table_file(path).map(Book::Tables);
    }
    read_rule_file(path).map(Book::File)
}

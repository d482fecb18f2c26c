//! A table of what was tried between programs of different generations, and how it went.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::bail;
use postern_testkit::say;

/// How one cell of the table went.
enum Outcome {
    Passed(Duration),
    /// Cannot be, for this reason.
    NotApplicable(&'static str),
    Failed(String),
}

/// The cells of one daemon, filled row by row.
pub struct Matrix {
    daemon: String,
    clients: Vec<String>,
    rows: Vec<(&'static str, Vec<Outcome>)>,
}

impl Matrix {
    /// An empty table.
    pub fn new(daemon: &str, clients: &[&str]) -> Self {
        let clients = clients.iter().map(|&client| client.to_owned()).collect();
        Self { daemon: daemon.to_owned(), clients, rows: Vec::new() }
    }

    /// Tries one thing with every client. `applies`: a reason why not, if there is one.
    pub fn row(
        &mut self,
        name: &'static str,
        applies: impl Fn(&str) -> Option<&'static str>,
        mut test: impl FnMut(&str) -> anyhow::Result<()>,
    ) {
        let mut cells = Vec::new();
        for client in &self.clients {
            let start = Instant::now();
            cells.push(match applies(client) {
                Some(reason) => Outcome::NotApplicable(reason),
                None => match test(client) {
                    Ok(()) => Outcome::Passed(start.elapsed()),
                    Err(error) => Outcome::Failed(format!("{error:#}")),
                },
            });
        }
        self.rows.push((name, cells));
    }

    /// Prints the table.
    ///
    /// # Errors
    /// A cell failed, or none passed.
    pub fn finish(self) -> anyhow::Result<()> {
        let mut text = format!("daemon {:<28}", self.daemon);
        for client in &self.clients {
            let _ = write!(text, "{:<18}", format!("client {client}"));
        }
        let (mut reasons, mut failures, mut passed) = (Vec::new(), Vec::new(), 0);
        for (name, cells) in &self.rows {
            let _ = write!(text, "\n  {name:<33}");
            for (client, cell) in self.clients.iter().zip(cells) {
                let word = match cell {
                    Outcome::Passed(took) => {
                        passed += 1;
                        format!("passed {:.1} s", took.as_secs_f32())
                    }
                    Outcome::NotApplicable(reason) => {
                        if !reasons.contains(reason) {
                            reasons.push(reason);
                        }
                        let number = reasons.iter().position(|known| known == reason).unwrap_or(0) + 1;
                        format!("n/a ({number})")
                    }
                    Outcome::Failed(why) => {
                        failures.push(format!("{name}, client {client}, daemon {}: {why}", self.daemon));
                        "FAILED".to_owned()
                    }
                };
                let _ = write!(text, "{word:<18}");
            }
        }
        for (number, reason) in reasons.iter().enumerate() {
            let _ = write!(text, "\n  ({}) {reason}", number + 1);
        }
        say(format_args!("{text}"));
        match failures.is_empty() {
            true if passed > 0 => Ok(()),
            true => bail!("nothing was tried"),
            false => bail!("{}", failures.join("\n\n")),
        }
    }
}

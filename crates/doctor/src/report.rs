//! All findings, for people and for programs.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use postern_observe::print;
use serde_json::{Value as Json, json};

use crate::finding::{Finding, Level};

/// What was found in one role.
#[derive(Clone, Debug)]
pub struct Report {
    role: &'static str,
    findings: Vec<Finding>,
}

impl Report {
    /// `role`: `device`, `client` or `server`.
    #[must_use]
    pub fn new(role: &'static str, findings: Vec<Finding>) -> Self {
        Self { role, findings }
    }

    /// The worst of all.
    #[must_use]
    pub fn worst(&self) -> Level {
        self.findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }

    /// Prints it on stdout. Exit status 0: nothing fails (there may be warnings); 1: something does.
    #[must_use]
    pub fn show(&self, json: bool) -> ExitCode {
        if json {
            print(self.to_json());
        } else {
            let color =
                std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()) && std::io::stdout().is_terminal();
            print(self.to_text(color).trim_end());
        }
        if self.worst() == Level::Fail { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    /// `{"v":1,"role","version","worst","findings":[…]}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        json!({
            "v": 1,
            "role": self.role,
            "version": env!("CARGO_PKG_VERSION"),
            "worst": self.worst().as_str(),
            "findings": self.findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
        })
    }

    /// One line for each finding; what is wrong has its reason and what to do below it.
    #[must_use]
    pub fn to_text(&self, color: bool) -> String {
        let mut text = String::new();
        for Finding { id, level, what, why, todo } in &self.findings {
            let (sign, number) = match level {
                Level::Ok => ("[PASS]", 32),
                Level::Warn => ("[WARN]", 33),
                Level::Fail => ("[FAIL]", 31),
                Level::Skip => ("[SKIP]", 2),
            };
            // Writing to a String cannot fail.
            let _ = match color {
                true => write!(text, "\x1b[{number}m{sign}\x1b[0m"),
                false => write!(text, "{sign}"),
            };
            let _ = writeln!(text, " {id:<12} {what}");
            for (label, line) in [("why:  ", why), ("to do:", todo)] {
                if let Some(line) = line {
                    let _ = writeln!(text, "       {label} {line}");
                }
            }
        }
        let count = |level| self.findings.iter().filter(|finding| finding.level == level).count();
        let _ = match (count(Level::Fail), count(Level::Warn)) {
            (0, 0) => writeln!(text, "{}: nothing is wrong", self.role),
            (0, warnings) => writeln!(text, "{}: it works; {warnings} to look at", self.role),
            (failures, warnings) => writeln!(text, "{}: {failures} wrong, {warnings} to look at", self.role),
        };
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_and_programs_read_the_same() {
        let report = Report::new(
            "device",
            vec![
                Finding::ok("clock", "right"),
                Finding::fail("sshd", "nothing answers at localhost:22", "start it").because("refused"),
                Finding::skip("link", "no mobile link"),
            ],
        );
        assert_eq!(
            report.to_text(false),
            "[PASS] clock        right\n\
             [FAIL] sshd         nothing answers at localhost:22\n       why:   refused\n       to do: start it\n\
             [SKIP] link         no mobile link\n\
             device: 1 wrong, 0 to look at\n"
        );
        assert!(report.to_text(true).contains("\x1b[31m[FAIL]\x1b[0m"));
        let json = report.to_json();
        assert_eq!((&json["worst"], &json["findings"][1]["todo"]), (&json!("fail"), &json!("start it")));
        assert_eq!(Report::new("client", vec![Finding::warn("disk", "low", "clean up")]).worst(), Level::Warn);
    }
}

//! Cases, what is expected of them, and the table.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::house::House;

/// A published program of somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) enum Program {
    /// The Python SDK as it is now.
    #[serde(rename = "atsdk 0.2.81")]
    Atsdk0281,
    /// The Python SDK that the Python daemon brings.
    #[serde(rename = "atsdk 0.2.33")]
    Atsdk0233,
    /// The Python device daemon.
    #[serde(rename = "sshnpd 0.4.16")]
    Sshnpd0416,
}

/// Both versions of the SDK.
pub(crate) const SDKS: &[Program] = &[Program::Atsdk0281, Program::Atsdk0233];

/// One promise, tried with every program that it is made to.
pub(crate) struct Case {
    /// What works.
    pub(crate) name: &'static str,
    /// What the reference server or program does.
    pub(crate) reference: &'static str,
    /// Programs it is tried with.
    pub(crate) with: &'static [Program],
    /// Programs of which it is known that they fail. They are tried all the same: when one works, or fails in another
    /// way, that is an error, for the reason no longer holds.
    pub(crate) fails: &'static [Known],
    /// Only with a house of our own, and why.
    pub(crate) needs_ours: Option<&'static str>,
    pub(crate) run: fn(&mut House, Program) -> anyhow::Result<()>,
}

/// A failure that is not ours.
pub(crate) struct Known {
    pub(crate) program: Program,
    pub(crate) why: &'static str,
    /// What the failure says, so that another one is not taken for it.
    pub(crate) says: &'static str,
}

/// What came of a case with one program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "why", rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// It works.
    Works,
    /// It fails, as was known, for this reason.
    Skipped(String),
    /// It was not tried, for this reason.
    NotTried(String),
    /// It should work and does not.
    Fails(String),
    /// It was known to fail and works.
    WorksUnexpectedly(String),
}

/// One cell of the table.
#[derive(Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) case: &'static str,
    pub(crate) reference: &'static str,
    pub(crate) program: Program,
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
    pub(crate) seconds: f64,
}

impl Program {
    pub(crate) const ALL: [Self; 3] = [Self::Atsdk0281, Self::Atsdk0233, Self::Sshnpd0416];

    /// For names of atSigns and directories.
    pub(crate) fn short(self) -> &'static str {
        match self {
            Self::Atsdk0281 => "sdk0281",
            Self::Atsdk0233 => "sdk0233",
            Self::Sshnpd0416 => "sshnpd0416",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Atsdk0281 => "atsdk 0.2.81",
            Self::Atsdk0233 => "atsdk 0.2.33",
            Self::Sshnpd0416 => "sshnpd 0.4.16",
        }
    }

    /// The virtual environment that has it.
    pub(crate) fn environment(self) -> &'static str {
        match self {
            Self::Atsdk0281 => "atsdk-0.2.81",
            Self::Atsdk0233 | Self::Sshnpd0416 => "sshnpd-0.4.16",
        }
    }

    /// The other SDK.
    pub(crate) fn other_sdk(self) -> Self {
        match self {
            Self::Atsdk0281 => Self::Atsdk0233,
            Self::Atsdk0233 | Self::Sshnpd0416 => Self::Atsdk0281,
        }
    }
}

impl Case {
    /// Tries it with one program.
    pub(crate) fn try_with(&self, house: &mut House, program: Program) -> Cell {
        let start = Instant::now();
        let verdict = self.verdict(house, program);
        let seconds = round(start.elapsed());
        Cell { case: self.name, reference: self.reference, program, verdict, seconds }
    }

    fn verdict(&self, house: &mut House, program: Program) -> Verdict {
        if let Some(why) = self.needs_ours.filter(|_| !house.subject.is_ours()) {
            return Verdict::NotTried(why.to_owned());
        }
        let known = self.fails.iter().find(|known| known.program == program);
        match ((self.run)(house, program), known) {
            (Ok(()), None) => Verdict::Works,
            (Ok(()), Some(known)) => Verdict::WorksUnexpectedly(known.why.to_owned()),
            (Err(error), Some(known)) if format!("{error:#}").contains(known.says) => {
                Verdict::Skipped(known.why.to_owned())
            }
            (Err(error), _) => Verdict::Fails(format!("{error:#}")),
        }
    }
}

impl Verdict {
    pub(crate) fn is_red(&self) -> bool {
        matches!(self, Self::Fails(_) | Self::WorksUnexpectedly(_))
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Works => "ok",
            Self::Skipped(_) => "skip",
            Self::NotTried(_) => "-",
            Self::Fails(_) => "FAIL",
            Self::WorksUnexpectedly(_) => "WORKS?",
        }
    }

    fn why(&self) -> Option<&str> {
        match self {
            Self::Works => None,
            Self::Skipped(why) | Self::NotTried(why) | Self::Fails(why) | Self::WorksUnexpectedly(why) => Some(why),
        }
    }
}

/// The table case × program, and the reasons under it.
pub(crate) fn table(cells: &[Cell]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for cell in cells {
        if !names.contains(&cell.case) {
            names.push(cell.case);
        }
    }
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let mut text = format!("{:width$}", "");
    for program in Program::ALL {
        let _ = write!(text, "  {:13}", program.title());
    }
    text.push('\n');
    for name in names {
        let mut line = format!("{name:width$}");
        for program in Program::ALL {
            let cell = cells.iter().find(|cell| cell.case == name && cell.program == program);
            let _ = write!(line, "  {:13}", cell.map_or("", |cell| cell.verdict.word()));
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    for cell in cells {
        let Some(why) = cell.verdict.why() else { continue };
        let _ = write!(text, "\n{}: {} with {}\n  {why}\n", cell.verdict.word(), cell.case, cell.program.title());
        if cell.verdict.is_red() {
            let _ = writeln!(text, "  the reference: {}", cell.reference);
        }
    }
    text
}

fn round(took: Duration) -> f64 {
    (took.as_secs_f64() * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(case: &'static str, verdict: Verdict) -> Cell {
        Cell { case, reference: "does it", program: Program::Atsdk0281, verdict, seconds: 0.1 }
    }

    #[test]
    fn a_case_that_works_against_its_reason_is_red() {
        assert!(Verdict::WorksUnexpectedly("old".into()).is_red());
        assert!(Verdict::Fails("new".into()).is_red());
        for fine in [Verdict::Works, Verdict::Skipped("known".into()), Verdict::NotTried("no house".into())] {
            assert!(!fine.is_red(), "{fine:?}");
        }
    }

    #[test]
    fn every_skip_has_its_reason_in_the_table() {
        let cells = [cell("one", Verdict::Works), cell("two", Verdict::Skipped("it never could".into()))];
        let text = table(&cells);
        assert!(text.contains("one  ok"), "{text}");
        assert!(text.contains("skip: two with atsdk 0.2.81\n  it never could"), "{text}");
    }
}

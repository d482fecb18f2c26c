//! What a program says of itself: log lines on stderr, what it says to a person, and the journal of its sessions.
//!
//! stdout is for data. Whatever a stranger can cause is DEBUG, so that nobody
//! fills a disk from outside.

pub mod journal;
pub mod limits;
mod places;
pub mod presence;
mod waiting;

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use places::{runtime_dir, state_dir};
pub use waiting::Waiting;

/// How much to log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verbosity {
    /// What would justify waking somebody.
    #[default]
    Quiet,
    /// What an operator cares about (`-v`).
    Info,
    /// Every decision (`--debug`).
    Debug,
}

impl Verbosity {
    /// What `--verbose` and `--debug` ask for; the louder one counts.
    pub fn of(verbose: bool, debug: bool) -> Self {
        match (verbose, debug) {
            (_, true) => Self::Debug,
            (true, false) => Self::Info,
            (false, false) => Self::Quiet,
        }
    }
}

/// Sends log lines to stderr from now on. `POSTERN_LOG` overrides (`debug`,
/// `postern_relay=trace,warn`); `NO_COLOR` is respected. A second call does nothing.
pub fn init(verbosity: Verbosity) {
    let level = match verbosity {
        Verbosity::Quiet => LevelFilter::WARN,
        Verbosity::Info => LevelFilter::INFO,
        Verbosity::Debug => LevelFilter::DEBUG,
    };
    // Targets and levels alone: a filter for spans and fields would bring regular expressions to every gateway.
    let wanted = std::env::var("POSTERN_LOG").ok().and_then(|text| targets(&text));
    let filter = wanted.unwrap_or_else(|| Targets::new().with_default(level));
    let color = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(|| waiting::Log).with_ansi(color).with_target(false);
    let _ = tracing_subscriber::registry().with(lines).with(filter).try_init();
}

/// Levels by target as `POSTERN_LOG` has them; `None` when it says nothing, or nothing that we understand.
fn targets(text: &str) -> Option<Targets> {
    let text = text.trim();
    if text.is_empty() { None } else { text.parse().ok() }
}

/// A line for the person at the terminal. A closed stderr is no reason to stop.
pub fn say(line: impl Display) {
    waiting::between(&mut std::io::stderr().lock(), |out| writeln!(out, "{line}"));
}

/// A line of data on stdout. A reader that went away counts as success.
pub fn print(line: impl Display) {
    waiting::between(&mut std::io::stderr(), |_| Ok(()));
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    #[test]
    fn levels_by_target() {
        let targets = |text| super::targets(text).expect("understood");
        assert!(targets("debug").would_enable("postern_device::daemon", &Level::DEBUG));
        let mixed = targets("postern_relay=trace,warn");
        assert!(mixed.would_enable("postern_relay::run", &Level::TRACE));
        assert!(mixed.would_enable("postern_net", &Level::WARN) && !mixed.would_enable("postern_net", &Level::INFO));
        assert!(super::targets(" ").is_none() && super::targets("postern=loud").is_none());
    }
}

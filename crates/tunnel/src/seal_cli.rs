//! Flags about sealed sessions, which the clients have in common.

use std::time::Duration;

use clap::builder::FalseyValueParser;
use postern_session::limits::RESUME_SECONDS;

use crate::sealed::{Least, Sealing};

#[derive(clap::Args)]
pub(crate) struct SealFlags {
    /// The least that will do: sealed (verified end to end), or legacy where the other programs can do no better. A device that
    /// is known to serve sealed sessions is asked for nothing less.
    #[arg(long, value_name = "LEVEL", value_parser = ["legacy", "sealed"])]
    min_security: Option<String>,
    /// Believe only keys that were given in advance, with `postern pin accept`.
    #[arg(long, env = "POSTERN_STRICT_PINS", value_parser = FalseyValueParser::new(), hide_env_values = true)]
    strict_pins: bool,
    /// Seconds for which a sealed session that has lost its connection waits for another; 0: it ends.
    #[arg(long, value_name = "SECONDS", default_value_t = 120,
          value_parser = clap::value_parser!(u32).range(..=i64::from(RESUME_SECONDS)))]
    resume: u32,
    /// Ask for a session of 2024, for tests of one.
    #[arg(long, hide = true, conflicts_with_all = ["min_security", "strict_pins"])]
    no_sealed: bool,
}

impl SealFlags {
    /// `usual`: what the configuration file says of the least, if it says anything.
    pub(crate) fn sealing(&self, usual: Option<Least>) -> Sealing {
        let least = match self.min_security.as_deref() {
            _ if self.no_sealed => Least::NotSealed,
            Some("sealed") => Least::Sealed,
            Some(_) => Least::Legacy,
            None => usual.unwrap_or(Least::Legacy),
        };
        Sealing { least, strict_pins: self.strict_pins, resume: Duration::from_secs(self.resume.into()) }
    }
}

//! Measurements and reasons on standard error, where test runners keep them.

use std::fmt;
use std::io::Write as _;

/// Prints one line on standard error: `say(format_args!("20 sessions in {took:?}"))`.
pub fn say(line: fmt::Arguments<'_>) {
    // Nobody to tell if standard error is gone.
    let _ = writeln!(std::io::stderr(), "{line}");
}

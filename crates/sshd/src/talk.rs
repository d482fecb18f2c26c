//! Words of the helper to the person at the other end.

use std::fmt::Display;
use std::io::Write as _;

/// One line on standard error, where the client's ssh shows it.
pub(crate) fn say(text: impl Display) {
    // Nobody is there to be told that nobody listens.
    let _ = writeln!(std::io::stderr(), "postern: {text}");
}

//! `scan[:showhidden:(true|false)][:@⟨other⟩][:page:⟨n⟩][ ⟨regex⟩]`

use std::fmt;

use crate::params::Params;
use crate::{AtSign, ProtocolError};

/// Lists key names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Names that begin with `_` too.
    pub show_hidden: bool,
    /// Keys that this other atSign shares with us.
    pub other: Option<AtSign>,
    /// Searched in the full stored name.
    pub regex: Option<String>,
}

impl Scan {
    /// `after`: everything behind the word `scan`.
    pub(crate) fn parse(after: &str) -> Result<Self, ProtocolError> {
        let (head, regex) = after.split_once(' ').unwrap_or((after, ""));
        let mut scan = Self::default();
        if let Some(head) = head.strip_prefix(':') {
            let mut params = Params::new(head);
            while let Some(piece) = params.take() {
                if piece.eq_ignore_ascii_case("showHidden") {
                    scan.show_hidden = params.take().is_some_and(|v| v.eq_ignore_ascii_case("true"));
                } else if piece.eq_ignore_ascii_case("page") {
                    params.take();
                } else if piece.eq_ignore_ascii_case("cl") {
                    // Only what is synchronised: a newer client's wish, and what it gets is no less.
                } else if piece.starts_with('@') {
                    scan.other = Some(AtSign::parse(piece).map_err(|_| ProtocolError::invalid_command())?);
                } else {
                    return Err(ProtocolError::invalid_command());
                }
            }
        }
        scan.regex = Some(regex.trim()).filter(|r| !r.is_empty()).map(str::to_owned);
        Ok(scan)
    }
}

impl fmt::Display for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("scan")?;
        if self.show_hidden {
            f.write_str(":showHidden:true")?;
        }
        if let Some(other) = &self.other {
            write!(f, ":{other}")?;
        }
        match &self.regex {
            Some(regex) => write!(f, " {regex}"),
            None => Ok(()),
        }
    }
}

//! The words rules are made of, checked once when they are read.

use std::fmt;

use postern_proto::AtSign;
use postern_session::PermitOpen;

use crate::limits::{GROUP_NAME_CHARS, TEXT_CHARS};

/// A rule that cannot be, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRule {
    place: String,
    what: String,
}

impl BadRule {
    pub(crate) fn new(place: impl Into<String>, what: impl fmt::Display) -> Self {
        Self { place: place.into(), what: what.to_string() }
    }
}

/// Where something stands, for messages: `userGroups.admins.userAtSigns`.
pub(crate) type Place<'a> = &'a dyn Fn() -> String;

pub(crate) fn at_sign(text: &str, place: Place<'_>) -> Result<AtSign, BadRule> {
    AtSign::parse(text).map_err(|error| BadRule::new(place(), format!("{text:?}: {error}")))
}

/// One permit-open entry in its normal form.
pub(crate) fn permit(text: &str, place: Place<'_>) -> Result<String, BadRule> {
    let bad = |why: &dyn fmt::Display| BadRule::new(place(), why);
    if text.contains(',') {
        return Err(bad(&format!("{text:?}: write one host:port per entry")));
    }
    let parsed = PermitOpen::parse(text).map_err(|error| bad(&error))?;
    parsed.to_strings().pop().ok_or_else(|| bad(&"an empty permit"))
}

pub(crate) fn permits(texts: &[String], place: Place<'_>) -> Result<Vec<String>, BadRule> {
    texts.iter().map(|text| permit(text, place)).collect()
}

/// A device's name as daemons send it: lower case.
pub(crate) fn device(text: &str, place: Place<'_>) -> Result<String, BadRule> {
    group(&text.trim().to_lowercase(), place)
}

/// A device group's name: free text that fits on a line.
pub(crate) fn group(text: &str, place: Place<'_>) -> Result<String, BadRule> {
    if text.is_empty() || text.chars().count() > GROUP_NAME_CHARS || text.contains(char::is_control) {
        return Err(BadRule::new(place(), format!("{text:?} is no name of 1 to {GROUP_NAME_CHARS} characters")));
    }
    Ok(text.to_owned())
}

/// Text for people.
pub(crate) fn text(text: &str, place: Place<'_>) -> Result<String, BadRule> {
    if text.chars().count() > TEXT_CHARS {
        return Err(BadRule::new(place(), format!("a text of more than {TEXT_CHARS} characters")));
    }
    Ok(text.to_owned())
}

impl fmt::Display for BadRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

impl std::error::Error for BadRule {}

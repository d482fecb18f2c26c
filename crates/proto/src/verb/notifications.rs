//! `notify:status`, `notify:list`, `notify:fetch`, `notify:remove`: looking at notifications sent and received.

use std::fmt;

use crate::time::day_start;
use crate::{ErrorCode, Millis, NotificationId, ProtocolError, wire_date};

/// `notify:remove:⟨id⟩`: forgets one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifyRemove {
    /// Which.
    pub id: NotificationId,
}

/// `notify:status:⟨id⟩`: how far one got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifyStatus {
    /// Which.
    pub id: NotificationId,
}

/// `notify:fetch:⟨id⟩`: everything known of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifyFetch {
    /// Which.
    pub id: NotificationId,
}

/// `notify:list[:⟨yyyy-mm-dd⟩[:⟨yyyy-mm-dd⟩]][:⟨regex⟩]`: what was received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotifyList {
    /// From the beginning of this day on, UTC, milliseconds.
    pub from: Option<Millis>,
    /// To the end of this day, UTC; this is the first millisecond of it.
    pub to: Option<Millis>,
    /// Searched in the key and in the sender without `@`.
    pub regex: Option<String>,
}

impl NotifyRemove {
    pub(crate) fn parse(id: &str) -> Result<Self, ProtocolError> {
        read_id(id).map(|id| Self { id })
    }
}

impl NotifyStatus {
    pub(crate) fn parse(id: &str) -> Result<Self, ProtocolError> {
        read_id(id).map(|id| Self { id })
    }
}

impl NotifyFetch {
    pub(crate) fn parse(id: &str) -> Result<Self, ProtocolError> {
        read_id(id).map(|id| Self { id })
    }
}

fn read_id(id: &str) -> Result<NotificationId, ProtocolError> {
    NotificationId::parse(id.trim()).ok_or_else(ProtocolError::invalid_command)
}

impl NotifyList {
    /// `args`: behind `notify:list`, with its colon.
    pub(crate) fn parse(args: &str) -> Result<Self, ProtocolError> {
        let mut rest = args.strip_prefix(':').unwrap_or(args);
        let mut day = || {
            let (piece, after) = rest.split_once(':').unwrap_or((rest, ""));
            // White space makes no expression of a date: printed, it would be gone.
            let piece = piece.trim();
            if !looks_like_a_day(piece) {
                return Ok(None);
            }
            rest = after;
            let illegal = || ProtocolError::new(ErrorCode::IllegalArguments, "Invalid date format");
            day_start(piece).map(Some).ok_or_else(illegal)
        };
        let from = day()?;
        let to = if from.is_some() { day()? } else { None };
        if let (Some(from), Some(to)) = (from, to)
            && to < from
        {
            return Err(ProtocolError::new(ErrorCode::IllegalArguments, "ToDate cannot be less than FromDate"));
        }
        let regex = Some(rest).filter(|regex| !regex.is_empty()).map(str::to_owned);
        Ok(Self { from, to, regex })
    }
}

/// Digits with two dashes between them.
fn looks_like_a_day(piece: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    piece.split('-').count() == 3 && piece.split('-').all(digits)
}

impl fmt::Display for NotifyRemove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "notify:remove:{}", self.id)
    }
}

impl fmt::Display for NotifyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "notify:status:{}", self.id)
    }
}

impl fmt::Display for NotifyFetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "notify:fetch:{}", self.id)
    }
}

impl fmt::Display for NotifyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("notify:list")?;
        for day in [self.from, self.to].into_iter().flatten() {
            write!(f, ":{}", wire_date(day).split(' ').next().unwrap_or_default())?;
        }
        match &self.regex {
            Some(regex) => write!(f, ":{regex}"),
            None => Ok(()),
        }
    }
}

//! Durations as the command lines take them.

use std::fmt;
use std::time::Duration;

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadSpan(String);

/// Reads `30s`, `7d`, `1h,14m,30s`, `999ms`. A bare number counts seconds.
pub fn parse_span(text: &str) -> Result<Duration, BadSpan> {
    let bad = || BadSpan(text.to_owned());
    let mut sum = Duration::ZERO;
    for part in text.split(',') {
        let part = part.trim();
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = part.split_at(digits);
        let number: u64 = number.parse().map_err(|_| bad())?;
        let ms = match unit.trim() {
            "ms" => Some(number),
            "s" | "" => number.checked_mul(1000),
            "m" => number.checked_mul(60_000),
            "h" => number.checked_mul(3_600_000),
            "d" => number.checked_mul(86_400_000),
            _ => None,
        };
        sum = ms.and_then(|ms| sum.checked_add(Duration::from_millis(ms))).ok_or_else(bad)?;
    }
    Ok(sum)
}

impl fmt::Display for BadSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no duration: write 30s, 10m, 1h,14m,30s or 7d", self.0)
    }
}

impl std::error::Error for BadSpan {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (text, secs) in [("30s", 30), ("1h,14m,30s", 4470), ("7d", 604_800), ("0", 0), ("45", 45), (" 2m ", 120)] {
            assert_eq!(parse_span(text), Ok(Duration::from_secs(secs)), "{text}");
        }
        assert_eq!(parse_span("999ms"), Ok(Duration::from_millis(999)));
        for bad in ["", "s", "1x", "-3s", "1h 2m", "99999999999999999999d"] {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
    }
}

//! Spans of time as people write them for `-e`: `2d,1h,10m,20s,999ms`.

use std::time::Duration;

/// Longest span: a hundred years, so that no sum of times overflows.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Adds up the parts, which commas or spaces separate.
///
/// # Errors
/// A part is no number with a unit, or the sum is nothing or more than a hundred years.
pub(crate) fn parse_span(text: &str) -> Result<Duration, String> {
    let mut sum = Duration::ZERO;
    for part in text.split([',', ' ']).filter(|part| !part.is_empty()) {
        let unit_at = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let (number, unit) = part.split_at(unit_at);
        let ms = match unit {
            "d" => 24 * 3_600_000,
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return Err(format!("{part:?}: write a number with d, h, m, s or ms")),
        };
        let ms = number.parse::<u64>().ok().and_then(|n| n.checked_mul(ms));
        let span = Duration::from_millis(ms.ok_or_else(|| format!("{part:?}: not a number of that kind"))?);
        sum = sum.saturating_add(span);
    }
    if sum.is_zero() || sum > LONGEST {
        return Err("a span is longer than nothing and at most a hundred years".into());
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up() {
        assert_eq!(parse_span("2d,1h,10m,20s,999ms"), Ok(Duration::from_millis(177_020_999)));
        assert_eq!(parse_span("90s"), Ok(Duration::from_secs(90)));
        for bad in ["", "0s", "5", "h", "1w", "-1h", "1h,", "99999999999999999999d", "40000d"] {
            assert_eq!(parse_span(bad).is_ok(), bad == "1h,", "{bad}");
        }
    }
}

//! Wall-clock values as the wire carries them.

/// Milliseconds since 1970-01-01T00:00:00Z.
pub type Millis = i64;

/// Prints `yyyy-MM-dd HH:mm:ss.SSSZ`, UTC, exactly three millisecond digits.
/// Java clients parse nothing else.
pub fn wire_date(at: Millis) -> String {
    let (days, ms) = (at.div_euclid(86_400_000), at.rem_euclid(86_400_000));
    let (y, m, d) = civil(days);
    let (h, min, s, frac) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    format!("{y:04}-{m:02}-{d:02} {h:02}:{min:02}:{s:02}.{frac:03}Z")
}

/// Reads what [`wire_date`] prints; the fraction may have any number of digits, or be missing.
pub fn parse_wire_date(text: &str) -> Option<Millis> {
    let (day, time) = text.strip_suffix('Z')?.split_once(' ')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = time.split(':');
    let mut number = |below: i64| {
        let digits = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit()))?;
        digits.parse::<i64>().ok().filter(|number| *number < below)
    };
    let (h, min, s) = (number(24)?, number(60)?, number(60)?);
    let is_whole = parts.next().is_none() && !fraction.is_empty() && fraction.bytes().all(|b| b.is_ascii_digit());
    let ms = fraction.bytes().chain(*b"000").take(3).fold(0, |ms, digit| ms * 10 + i64::from(digit - b'0'));
    is_whole.then_some(day_start(day)? + ((h * 60 + min) * 60 + s) * 1000 + ms)
}

/// The first millisecond of the day `yyyy-m-d`, UTC; `None` when there is no such day.
pub fn day_start(text: &str) -> Option<Millis> {
    let mut parts = text.split('-');
    let mut number = |longest: usize| {
        let digits = parts.next().filter(|part| part.len() <= longest && part.bytes().all(|b| b.is_ascii_digit()))?;
        digits.parse::<i64>().ok()
    };
    let (y, m, d) = (number(4)?, number(2)?, number(2)?);
    let day = days(y, m, d);
    (parts.next().is_none() && civil(day) == (y, m, d)).then_some(day * 86_400_000)
}

/// The inverse of [`civil`]; what is no date becomes another one.
fn days(y: i64, m: i64, d: i64) -> i64 {
    let y = if m <= 2 { y - 1 } else { y };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * (m + if m > 2 { -3 } else { 9 }) + 2) / 5 + d - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

/// Days since the epoch to year, month, day in the proleptic Gregorian calendar,
/// counting in 400-year eras that begin on 1 March.
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_as_java_wants_them() {
        assert_eq!(wire_date(0), "1970-01-01 00:00:00.000Z");
        assert_eq!(wire_date(1_729_760_400_123), "2024-10-24 09:00:00.123Z");
        assert_eq!(wire_date(951_782_400_000), "2000-02-29 00:00:00.000Z");
        assert_eq!(wire_date(-1), "1969-12-31 23:59:59.999Z");
    }

    proptest::proptest! {
        #[test]
        fn what_is_printed_is_read(at in 0..253_402_300_799_999_i64) {
            proptest::prop_assert_eq!(parse_wire_date(&wire_date(at)), Some(at));
        }

        #[test]
        fn nothing_that_is_read_panics(text in "[0-9 .:Z-]{0,40}") {
            let _ = parse_wire_date(&text);
        }
    }

    #[test]
    fn dates_of_others() {
        assert_eq!(parse_wire_date("2024-10-24 09:00:00.123456Z"), Some(1_729_760_400_123));
        assert_eq!(parse_wire_date("2024-10-24 09:00:00.1Z"), Some(1_729_760_400_100));
        assert_eq!(parse_wire_date("2024-10-24 09:00:00Z"), Some(1_729_760_400_000));
        for bad in
            ["", "Z", "yesterday", "2024-10-24", "2024-10-24 24:00:00Z", "2024-10-24 09:00:00.Z", "2024-10-24 9:0:0Z"]
        {
            assert_eq!(parse_wire_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn days_of_the_calendar_and_others() {
        assert_eq!(day_start("2024-10-24"), Some(1_729_728_000_000));
        assert_eq!(day_start("2000-2-29"), Some(951_782_400_000));
        for day in [0, 59, 60, 11_016, 19_000, 20_454] {
            let text = wire_date(day * 86_400_000);
            assert_eq!(day_start(&text[..10]), Some(day * 86_400_000), "{text}");
        }
        for bad in
            ["", "2024", "2023-02-29", "2024-13-01", "2024-00-10", "2024-1-0", "2024-1-1-1", "+024-1-1", "12024-1-1"]
        {
            assert_eq!(day_start(bad), None, "{bad}");
        }
    }
}

//! When an event happened, by its own account.

use chrono::{Datelike, NaiveDate};
use serde::Deserialize;

use crate::event::Millis;
use crate::source::json::{self, Kind};

/// How an API writes times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeFormat {
    /// Such as `2026-01-02T03:04:05.678+01:00`.
    #[serde(rename = "rfc3339")]
    Rfc3339,
    /// Seconds since the Unix epoch, as a number or a numeric string; so are the next two.
    EpochSeconds,
    /// Milliseconds since the Unix epoch.
    EpochMillis,
    /// Nanoseconds since the Unix epoch.
    EpochNanos,
}

impl TimeFormat {
    /// The time a value tells, rounded down; none when it tells none from year 1 to 9999.
    pub(super) fn read(self, value: json::Value<'_>) -> Option<Millis> {
        if !matches!(value.kind(), Kind::String | Kind::Number) {
            return None;
        }
        let text = value.text()?;
        let millis = match self {
            Self::Rfc3339 => rfc3339(text.as_bytes()),
            Self::EpochSeconds => epoch(text.as_bytes(), 3),
            Self::EpochMillis => epoch(text.as_bytes(), 0),
            Self::EpochNanos => epoch(text.as_bytes(), -6),
        };
        millis.filter(|millis| (YEAR_1..YEAR_10000).contains(millis))
    }
}

const YEAR_1: Millis = -62_135_596_800_000;
const YEAR_10000: Millis = 253_402_300_800_000;

fn rfc3339(text: &[u8]) -> Option<Millis> {
    let (fixed, rest) = text.split_first_chunk::<19>()?;
    let [_, _, _, _, b'-', _, _, b'-', _, _, b'T' | b't' | b' ', _, _, b':', _, _, b':', _, _] =
        *fixed
    else {
        return None;
    };
    let date = NaiveDate::from_ymd_opt(
        i32::try_from(digits(&fixed[..4])?).ok()?,
        u32::try_from(digits(&fixed[5..7])?).ok()?,
        u32::try_from(digits(&fixed[8..10])?).ok()?,
    )?;
    let days = i64::from(date.num_days_from_ce()) - 719_163;
    let clock = [&fixed[11..13], &fixed[14..16], &fixed[17..]].map(digits);
    // Second 60 is a leap second.
    let [Some(hour @ 0..24), Some(minute @ 0..60), Some(second @ 0..=60)] = clock else {
        return None;
    };
    let (fraction, offset) = fraction(rest)?;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second - offset_seconds(offset)?;
    Some(seconds * 1000 + fraction)
}

/// Takes a fraction of a second off the front, as milliseconds.
fn fraction(rest: &[u8]) -> Option<(Millis, &[u8])> {
    let Some(fraction) = rest.strip_prefix(b".") else {
        return Some((0, rest));
    };
    let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (fraction, rest) = fraction.split_at(length);
    let thousandths = fraction.iter().chain(b"000").take(3);
    let millis = thousandths.fold(0, |millis, digit| millis * 10 + Millis::from(digit - b'0'));
    (length > 0).then_some((millis, rest))
}

fn offset_seconds(offset: &[u8]) -> Option<i64> {
    let (sign, hour, minute) = match offset {
        b"Z" | b"z" => return Some(0),
        [b'+', h1, h2, b':', m1, m2] => (1, [*h1, *h2], [*m1, *m2]),
        [b'-', h1, h2, b':', m1, m2] => (-1, [*h1, *h2], [*m1, *m2]),
        _ => return None,
    };
    match (digits(&hour)?, digits(&minute)?) {
        (hour @ 0..24, minute @ 0..60) => Some(sign * (hour * 60 + minute) * 60),
        _ => None,
    }
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0'))
    })
}

/// A decimal number, times ten to the power of `scale`, rounded down.
///
/// In whole numbers: a float has no milliseconds left in the nanoseconds of today.
fn epoch(text: &[u8], scale: i64) -> Option<Millis> {
    if json::number_end(text, 0) != Some(text.len()) {
        return None;
    }
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (mantissa, exponent) = cut(text, |byte| matches!(byte, b'e' | b'E'));
    let (whole, fraction) = cut(mantissa, |byte| byte == b'.');
    let point = i64::try_from(whole.len()).ok()?.saturating_add(power(exponent)) + scale;
    let mut number: i64 = 0;
    let mut inexact = false;
    let mut places = 0;
    for digit in whole.iter().chain(fraction).map(|byte| i64::from(byte - b'0')) {
        if places < point {
            number = number.checked_mul(10)?.checked_add(digit)?;
        } else {
            inexact |= digit != 0;
        }
        places += 1;
    }
    while number != 0 && places < point {
        number = number.checked_mul(10)?;
        places += 1;
    }
    Some(if negative { -number - i64::from(inexact) } else { number })
}

fn cut(text: &[u8], is_mark: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    match text.iter().position(|byte| is_mark(*byte)) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[]),
    }
}

/// An exponent; too large a one is as good as a very large one.
fn power(exponent: &[u8]) -> i64 {
    const LARGE: i64 = 1 << 40;
    let (sign, digits) = match exponent {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] | digits => (1, digits),
    };
    let grow = |power: i64, digit: &u8| (power * 10 + i64::from(digit - b'0')).min(LARGE);
    sign * digits.iter().fold(0, grow)
}

#[cfg(test)]
mod tests {
    use super::TimeFormat::{EpochMillis, EpochNanos, EpochSeconds, Rfc3339};
    use super::*;

    fn read(format: TimeFormat, text: &str) -> Option<Millis> {
        let (mut tape, mut bytes) = (json::Tape::default(), Vec::new());
        tape.read(text.as_bytes(), 0, &mut bytes).unwrap();
        format.read(tape.value(&bytes))
    }

    fn rfc3339(text: &str) -> Option<Millis> {
        read(Rfc3339, &format!("\"{text}\""))
    }

    #[test]
    fn formats_are_named_in_kebab_case() {
        let names = ["rfc3339", "epoch-seconds", "epoch-millis", "epoch-nanos"];

        let formats = names.map(|name| serde_json::from_value::<TimeFormat>(name.into()).unwrap());

        assert_eq!(formats, [Rfc3339, EpochSeconds, EpochMillis, EpochNanos]);
    }

    #[test]
    fn dates_are_read_with_any_offset_and_fraction() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2025-06-11T12:04:14.772Z", 1_749_643_454_772),
            ("2025-06-11t14:04:14.772999999999+02:00", 1_749_643_454_772),
            ("2025-06-11 06:34:14.7-05:30", 1_749_643_454_700),
            ("2025-02-18T10:30:45+00:00", 1_739_874_645_000),
            ("1969-12-31T23:59:59.9999z", -1),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
            ("2016-12-31T23:59:60.5Z", 1_483_228_800_500),
            ("2000-02-29T00:00:00Z", 951_782_400_000),
            ("0001-01-01T00:00:00Z", YEAR_1),
            ("9999-12-31T23:59:59.999Z", YEAR_10000 - 1),
            (r"2025\u002D02-18T10:30:45Z", 1_739_874_645_000),
        ] {
            assert_eq!(rfc3339(text), Some(millis), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_no_time() {
        for text in [
            "",
            "2025-06-11",
            "2025-06-11T12:04:14",
            "2025-06-11T12:04:14.Z",
            "2025-06-11T12:04:14,5Z",
            "2025-06-11T12:04:14+0200",
            "2025-06-11T12:04:14+24:00",
            "2025-06-11T12:04:14+00:60",
            "2025-06-11T12:04:14Zx",
            "2025-06-11T24:00:00Z",
            "2025-06-11T12:60:00Z",
            "2025-06-11T12:04:61Z",
            "2025-02-29T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-00-01T00:00:00Z",
            "+025-06-11T00:00:00Z",
            "0000-12-31T23:59:59Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:60Z",
            "9999-12-31T23:59:59-00:01",
            "\u{661}025-06-11T00:00:00Z",
            "1749643454",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn epochs_are_numbers_or_numeric_strings_rounded_down() {
        for (format, text, millis) in [
            (EpochSeconds, "1749643454", 1_749_643_454_000),
            (EpochSeconds, "\"1749643454\"", 1_749_643_454_000),
            (EpochSeconds, "1749643454.7729999", 1_749_643_454_772),
            (EpochSeconds, "1.749643454772E9", 1_749_643_454_772),
            (EpochSeconds, "-0.0001", -1),
            (EpochSeconds, "-0.001", -1),
            (EpochSeconds, "-0.0011", -2),
            (EpochSeconds, "-0", 0),
            (EpochSeconds, "0e400", 0),
            (EpochSeconds, "1e-400", 0),
            (EpochSeconds, "1e-99999999999999999999", 0),
            (EpochMillis, "1749643454772", 1_749_643_454_772),
            (EpochMillis, "1749643454772.9", 1_749_643_454_772),
            (EpochMillis, "\"-1\"", -1),
            (EpochMillis, "17496434547720e-1", 1_749_643_454_772),
            (EpochMillis, "253402300799999", YEAR_10000 - 1),
            (EpochNanos, "1749643454772999999", 1_749_643_454_772),
            (EpochNanos, "-1", -1),
            (EpochNanos, "\"999999\"", 0),
        ] {
            assert_eq!(read(format, text), Some(millis), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_or_no_time_of_ours_is_no_time() {
        for text in [
            "1e400",
            "1e99999999999999999999",
            "18446744073709551616",
            "253402300800000",
            "-62135596800001",
            "\"\"",
            "\" 1\"",
            "\"1 \"",
            "\"+1\"",
            "\"0x10\"",
            "\"1_000\"",
            "true",
            "null",
            "[1]",
            "{}",
        ] {
            assert_eq!(read(EpochMillis, text), None, "{text}");
        }
        assert_eq!(read(Rfc3339, "1749643454"), None);
    }
}

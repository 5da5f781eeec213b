//! Values with their unit in them: `"30s"`, `"64MiB"`, `"30d"` or a date.
//!
//! Each type refuses what it cannot hold while it is parsed, and shows what it expects.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, SecondsFormat, Utc};
use serde::de::{Deserializer, IntoDeserializer, Unexpected, Visitor};

/// A length of time in whole milliseconds, such as `30s`; at most ten years when parsed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Span(Duration);

impl Span {
    /// Thousandths of a second.
    pub const fn milliseconds(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }
    /// Whole seconds.
    pub const fn seconds(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }
    /// Minutes.
    pub const fn minutes(n: u64) -> Self {
        Self::seconds(n * 60)
    }
    /// Hours.
    pub const fn hours(n: u64) -> Self {
        Self::minutes(n * 60)
    }
    /// Days of 24 hours.
    pub const fn days(n: u64) -> Self {
        Self::hours(n * 24)
    }
    /// As the standard library has it.
    pub const fn duration(self) -> Duration {
        self.0
    }
    /// Whether it is no time at all.
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

/// A number of bytes, such as `64MiB`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Bytes(u64);

impl Bytes {
    /// As a number.
    pub const fn new(n: u64) -> Self {
        Self(n)
    }
    /// Units of 1,048,576 bytes.
    pub const fn mebibytes(n: u64) -> Self {
        Self(n * 1024 * 1024)
    }
    /// Units of 1,073,741,824 bytes.
    pub const fn gibibytes(n: u64) -> Self {
        Self::mebibytes(n * 1024)
    }
    /// As a number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Where a first run begins: so long ago (`30d`), or at a date (`2026-01-02`, `2026-01-02T03:04:05Z`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// So long before the first run.
    Ago(Span),
    /// At this second since the Unix epoch.
    At(i64),
}

impl Start {
    /// So long before the first run.
    pub const fn ago(span: Span) -> Self {
        Self::Ago(span)
    }

    /// The second it means when a first run is made at `now`.
    pub fn second(self, now: DateTime<Utc>) -> i64 {
        match self {
            Self::At(second) => second,
            Self::Ago(span) => {
                let ago = i64::try_from(span.duration().as_secs()).unwrap_or(i64::MAX);
                now.timestamp().saturating_sub(ago)
            }
        }
    }
}

/// The text is not of the form that the type expects.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected {expected}")]
pub struct Malformed {
    /// The form, with examples.
    pub expected: &'static str,
}

/// What a [`Span`] looks like.
const A_SPAN: &str = "a duration such as `30s`, `15m`, `24h` or `30d`";
/// What [`Bytes`] look like.
const A_SIZE: &str = "a size such as `64MiB` or `4GiB`";
/// What a [`Start`] looks like.
const A_START: &str = "a duration such as `30d`, or a date such as `2026-01-02`";

// Largest first, as `Display` takes the first that divides.
const SPANS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1000),
    ("B", 1),
];
const LONGEST: Span = Span::days(3650);

impl FromStr for Span {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        quantity(text, &SPANS)
            .map(Self::milliseconds)
            .filter(|span| *span <= LONGEST)
            .ok_or(Malformed { expected: A_SPAN })
    }
}

impl FromStr for Bytes {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        quantity(text, &SIZES).map(Self).ok_or(Malformed { expected: A_SIZE })
    }
}

impl FromStr for Start {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if let Ok(span) = text.parse() {
            return Ok(Self::Ago(span));
        }
        let at = match text.parse::<NaiveDate>() {
            Ok(date) => date.and_time(NaiveTime::MIN).and_utc().timestamp(),
            Err(_) => DateTime::parse_from_rfc3339(text)
                .map_err(|_| Malformed { expected: A_START })?
                .timestamp(),
        };
        Ok(Self::At(at))
    }
}

/// The number in `text`, times its unit.
fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, size) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*size)
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0s");
        }
        show(f, u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), &SPANS)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0B");
        }
        show(f, self.0, &SIZES)
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Ago(span) => write!(f, "{span}"),
            Self::At(second) => match DateTime::<Utc>::from_timestamp(second, 0) {
                Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::Secs, true)),
                None => write!(f, "second {second}"),
            },
        }
    }
}

/// `count` in the largest unit that holds it exactly.
fn show(f: &mut fmt::Formatter<'_>, count: u64, units: &[(&str, u64)]) -> fmt::Result {
    let (name, size) = units
        .iter()
        .find(|(_, size)| count.is_multiple_of(*size))
        .expect("the last unit divides everything");
    write!(f, "{}{name}", count / size)
}

/// Deserializes an enum from its name alone; for `deserialize_with`.
///
/// # Errors
/// Anything but the name of a variant, numbers among them.
pub fn word<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: serde::Deserialize<'de>,
{
    // The configuration reader takes a number for a variant's index.
    let name: String = serde::Deserialize::deserialize(deserializer)?;
    T::deserialize(name.into_deserializer())
}

struct Parsed<T> {
    expected: &'static str,
    of: std::marker::PhantomData<T>,
}

impl<T: FromStr> Visitor<'_> for Parsed<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

macro_rules! deserialize {
    ($($of:ty => $expected:expr),+) => {$(
        impl<'de> serde::Deserialize<'de> for $of {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let of = std::marker::PhantomData;
                deserializer.deserialize_str(Parsed { expected: $expected, of })
            }
        }
    )+};
}

deserialize!(Span => A_SPAN, Bytes => A_SIZE, Start => A_START);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal<T: serde::de::DeserializeOwned + fmt::Debug>(json: &str) -> String {
        let error = serde_json::from_str::<T>(json).unwrap_err().to_string();
        error.split(" at line").next().unwrap().to_owned()
    }

    #[test]
    fn a_span_is_read_in_every_unit() {
        for (text, span) in [
            ("0s", Span::seconds(0)),
            ("250ms", Span::milliseconds(250)),
            ("30s", Span::seconds(30)),
            ("4m", Span::minutes(4)),
            ("1h", Span::hours(1)),
            ("3650d", Span::days(3650)),
        ] {
            assert_eq!(text.parse(), Ok(span), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_span_is_refused() {
        for text in ["", "s", "30", "-1s", "1.5s", "1 s", " 1s", "1S", "1w", "1h30m", "3651d", "٣s"]
        {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        assert!("99999999999999999999s".parse::<Span>().is_err());
        assert!("18446744073709551615d".parse::<Span>().is_err());
    }

    #[test]
    fn a_size_is_read_in_every_unit() {
        for (text, size) in [
            ("0B", 0),
            ("512B", 512),
            ("900KiB", 900 * 1024),
            ("64MiB", 64 << 20),
            ("4GiB", 4 << 30),
            ("1TiB", 1 << 40),
            ("3KB", 3000),
            ("2MB", 2_000_000),
            ("1GB", 1_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(size)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in ["", "4096", "4 GiB", "4G", "4gib", "-1B", "99999999TiB"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_start_is_a_span_a_date_or_a_time() {
        assert_eq!("30d".parse(), Ok(Start::Ago(Span::days(30))));
        assert_eq!("2026-01-02".parse(), Ok(Start::At(1_767_312_000)));
        assert_eq!("2026-01-02T03:04:05Z".parse(), Ok(Start::At(1_767_323_045)));
        assert_eq!("2026-01-02T03:04:05+01:00".parse(), Ok(Start::At(1_767_319_445)));
        assert!("yesterday".parse::<Start>().is_err());
        assert!("2026-02-30".parse::<Start>().is_err());
        assert!("2026-01-02T03:04:05".parse::<Start>().is_err());
    }

    #[test]
    fn a_refusal_shows_the_expected_form() {
        assert_eq!(
            refusal::<Span>("\"30\""),
            "invalid value: string \"30\", \
             expected a duration such as `30s`, `15m`, `24h` or `30d`"
        );
        assert_eq!(
            refusal::<Bytes>("4096"),
            "invalid type: integer `4096`, expected a size such as `64MiB` or `4GiB`"
        );
        assert_eq!(
            refusal::<Start>("\"soon\""),
            "invalid value: string \"soon\", \
             expected a duration such as `30d`, or a date such as `2026-01-02`"
        );
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(ms in 0..=LONGEST.0.as_millis(), bytes: u64, at in -62_135_596_800i64..253_402_300_800) {
            let span = Span::milliseconds(u64::try_from(ms).unwrap());
            prop_assert_eq!(span.to_string().parse(), Ok(span));
            prop_assert_eq!(Bytes(bytes).to_string().parse(), Ok(Bytes(bytes)));
            prop_assert_eq!(Start::Ago(span).to_string().parse(), Ok(Start::Ago(span)));
            prop_assert_eq!(Start::At(at).to_string().parse(), Ok(Start::At(at)));
        }
    }
}

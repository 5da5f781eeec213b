//! Where events go: an index, an index per day, or a data stream.

use crate::encode::elastic::{DATE, Daily};
use crate::event::Millis;
use crate::log::escape;
use crate::problem::Problem;

/// What is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One index, or an alias of one.
    Index(String),
    /// An index for each day on which an event happened.
    Daily(Daily),
    /// A data stream.
    Stream(String),
}

impl Target {
    /// What `index` or `data_stream` names.
    ///
    /// # Errors
    /// Both or none of them, or what is no name.
    pub fn of(index: Option<&str>, data_stream: Option<&str>) -> Result<Self, Problem> {
        match (index, data_stream) {
            (Some(_), Some(_)) => Err(Problem::at("data_stream", "stands beside `index`")
                .hint("events go to one of them: keep one")),
            (None, None) => Err(Problem::at("index", "is missing")
                .hint("name the `index` or the `data_stream` that events go to")),
            (Some(index), None) => Self::of_index(index),
            (None, Some(stream)) => Self::of_stream(stream),
        }
    }

    fn of_index(index: &str) -> Result<Self, Problem> {
        let daily = Daily::new(index);
        let sample = daily.as_ref().map_or_else(|| index.to_owned(), |daily| daily.at(0));
        match unfit(&sample) {
            Some(why) => Err(refusal("index", index, why)),
            None => Ok(daily.map_or_else(|| Self::Index(index.to_owned()), Self::Daily)),
        }
    }

    fn of_stream(stream: &str) -> Result<Self, Problem> {
        if stream.contains(DATE) {
            let text = format!("holds `{DATE}`");
            return Err(Problem::at("data_stream", text)
                .hint("a data stream begins new indices by itself: name it without a date"));
        }
        match unfit(stream) {
            Some(why) => Err(refusal("data_stream", stream, why)),
            None => Ok(Self::Stream(stream.to_owned())),
        }
    }

    /// The name that belongs into the URL; none where each action names its own.
    pub fn in_url(&self) -> Option<&str> {
        match self {
            Self::Index(name) | Self::Stream(name) => Some(name),
            Self::Daily(_) => None,
        }
    }

    /// For the encoder, where each action names its own index.
    pub fn daily(&self) -> Option<&Daily> {
        match self {
            Self::Daily(daily) => Some(daily),
            Self::Index(_) | Self::Stream(_) => None,
        }
    }

    /// The name that an event of this time goes to.
    pub fn at(&self, time: Millis) -> String {
        match self {
            Self::Index(name) | Self::Stream(name) => name.clone(),
            Self::Daily(daily) => daily.at(time),
        }
    }
}

fn refusal(key: &str, name: &str, why: &str) -> Problem {
    Problem::at(key, format!("`{}` {why}", escape(name)))
        .hint("lower case, without spaces and signs, such as `keeper-audit` or `keeper-{date}`")
}

/// What keeps a text from being the name of an index, by the rules of the service.
fn unfit(name: &str) -> Option<&'static str> {
    let forbidden = |c: char| " \"*\\<|,>/?#:{}".contains(c) || c.is_control();
    if name.is_empty() {
        Some("is empty")
    } else if name.chars().any(char::is_uppercase) {
        Some("holds an upper-case letter")
    } else if name.contains(forbidden) {
        Some("holds a character that no name of an index may hold")
    } else if name.starts_with(['-', '_', '+']) {
        Some("begins with `-`, `_` or `+`")
    } else if name == "." || name == ".." {
        Some("is no name")
    } else {
        (name.len() > 255).then_some("is longer than 255 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(index: Option<&str>, data_stream: Option<&str>) -> String {
        Target::of(index, data_stream).unwrap_err().to_string()
    }

    #[test]
    fn a_target_is_an_index_a_day_or_a_stream() {
        let of = |index, stream| Target::of(index, stream).unwrap();

        assert_eq!(of(Some("keeper"), None), Target::Index("keeper".into()));
        assert_eq!(
            of(None, Some("logs-keeper.audit-default")).in_url(),
            Some("logs-keeper.audit-default")
        );
        let daily = of(Some("k-{date}"), None);
        assert_eq!((daily.in_url(), daily.at(0).as_str()), (None, "k-1970.01.01"));
        assert!(Target::of(Some(&"é".repeat(127)), None).is_ok());
    }

    #[test]
    fn a_name_that_the_service_would_refuse_is_refused() {
        let long = "a".repeat(256);
        for (name, why) in [
            ("", "is empty"),
            ("Keeper", "holds an upper-case letter"),
            ("É", "holds an upper-case letter"),
            ("-a", "begins with `-`, `_` or `+`"),
            ("_a", "begins with `-`, `_` or `+`"),
            ("+a", "begins with `-`, `_` or `+`"),
            ("..", "is no name"),
            (&long, "is longer than 255 bytes"),
            (&"é".repeat(128), "is longer than 255 bytes"),
        ] {
            assert_eq!(refused(Some(name), None), format!("`index`: `{name}` {why}"));
            assert_eq!(refused(None, Some(name)), format!("`data_stream`: `{name}` {why}"));
        }
        for sign in "\\/*?\"<>| ,#:{}".chars() {
            let name = format!("a{sign}b");
            let why = "holds a character that no name of an index may hold";
            assert_eq!(refused(Some(&name), None), format!("`index`: `{name}` {why}"));
        }
        // The day takes ten bytes.
        assert!(Target::of(Some(&format!("{}{{date}}", "a".repeat(245))), None).is_ok());
        assert!(
            refused(Some(&format!("{}{{date}}", "a".repeat(246))), None).ends_with("255 bytes")
        );
        assert!(refused(Some("{date}-{date}"), None).contains("may hold"));
    }
}

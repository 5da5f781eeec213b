//! How an API says things: names, places and formats, so that one simulator plays many APIs.

use chrono::{DateTime, NaiveDateTime, SecondsFormat};

use super::json::{self, Member};
use crate::event::Millis;

/// Everything about an API that has a name.
///
/// Places are JSON pointers of plain names, such as `/payload/entries`.
#[derive(Clone, Debug)]
pub struct Dialect {
    /// Where the events are asked for; every other path is a 404.
    pub path: String,
    /// The header that carries the API token.
    pub auth_header: String,
    /// What stands before the token in it.
    pub auth_prefix: String,
    /// The parameter that says where a window starts.
    pub start: String,
    /// The parameter that says where it ends.
    pub end: String,
    /// The parameter that asks for a next page.
    pub token: String,
    /// The parameter that says how many records a page may hold.
    pub limit: String,
    /// How the two bounds are written.
    pub bounds: TimeFormat,
    /// Where the records are in an answer.
    pub records: String,
    /// Where the token of the next page is.
    pub next: String,
    /// What the last page says instead of a token.
    pub last: LastToken,
    /// Where an answer says whether there is more; none when it does not.
    pub has_more: Option<String>,
    /// Where Keeper's members are in a record of this API.
    pub members: Vec<(String, String)>,
    /// What the members not listed are put into; empty for the record itself.
    pub rest: String,
    /// How a record writes its time.
    pub time: TimeFormat,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeFormat {
    /// `2026-01-02T03:04:05Z` as a bound, `2026-01-02T03:04:05.678Z` in a record.
    Rfc3339,
    /// Milliseconds since the Unix epoch.
    EpochMillis,
}

/// What the last page says instead of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastToken {
    /// `null`.
    Null,
    /// Nothing: the member is not there.
    Absent,
}

impl Dialect {
    /// The Admin REST API of Keeper Security. The name of the records' array is a guess.
    pub fn keeper() -> Self {
        Self {
            path: "/api/rest/public/events".into(),
            auth_header: "x-api-token".into(),
            auth_prefix: "Bearer ".into(),
            start: "start_date".into(),
            end: "end_date".into(),
            token: "continuation_token".into(),
            limit: "limit".into(),
            bounds: TimeFormat::Rfc3339,
            records: "/events".into(),
            next: "/continuation_token".into(),
            last: LastToken::Null,
            has_more: Some("/has_more".into()),
            members: Vec::new(),
            rest: String::new(),
            time: TimeFormat::Rfc3339,
        }
    }

    /// An API that shares nothing with Keeper's but the idea of a window and pages.
    pub fn other() -> Self {
        let members = [
            ("timestamp", "/meta/at"),
            ("audit_event", "/meta/what"),
            ("username", "/who/mail"),
            ("remote_address", "/who/ip"),
        ];
        Self {
            path: "/v7/journal".into(),
            auth_header: "authorization".into(),
            auth_prefix: "Token ".into(),
            start: "from_ms".into(),
            end: "until_ms".into(),
            token: "cursor".into(),
            limit: "page_size".into(),
            bounds: TimeFormat::EpochMillis,
            records: "/payload/entries".into(),
            next: "/payload/paging/cursor".into(),
            last: LastToken::Absent,
            has_more: None,
            members: members.map(|(name, place)| (name.into(), place.into())).to_vec(),
            rest: "/detail".into(),
            time: TimeFormat::EpochMillis,
        }
    }

    /// The event, written in Keeper's way, as a record of this API.
    pub fn record(&self, time: Millis, text: String) -> String {
        let members = json::members(&text).filter(|_| !self.members.is_empty());
        let Some(members) = members else {
            return text;
        };
        let time = self.time.record(time);
        let entries: Vec<(String, &str)> = members
            .into_iter()
            .map(|Member { name, value }| match name {
                "timestamp" => (self.place(name), time.as_str()),
                _ => (self.place(name), value),
            })
            .collect();
        let entries: Vec<(&str, &str)> = entries.iter().map(|(p, v)| (p.as_str(), *v)).collect();
        json::assemble(&entries)
    }

    /// An answer of this API: the records, and the token of the next page.
    pub fn envelope(&self, records: &str, next: Option<&str>) -> String {
        let token = match (next, self.last) {
            (Some(token), _) => Some(format!("\"{token}\"")),
            (None, LastToken::Null) => Some("null".to_owned()),
            (None, LastToken::Absent) => None,
        };
        let mut entries = vec![(self.records.as_str(), records)];
        entries.extend(token.iter().map(|token| (self.next.as_str(), token.as_str())));
        let more = if next.is_some() { "true" } else { "false" };
        entries.extend(self.has_more.iter().map(|place| (place.as_str(), more)));
        json::assemble(&entries)
    }

    fn place(&self, name: &str) -> String {
        let listed = self.members.iter().find(|(known, _)| known == name);
        listed.map_or_else(|| format!("{}/{name}", self.rest), |(_, place)| place.clone())
    }
}

impl TimeFormat {
    /// A bound of a window, as milliseconds; none when it is not written in this way.
    pub fn read_bound(self, text: &str) -> Option<Millis> {
        match self {
            Self::EpochMillis => text.parse().ok(),
            Self::Rfc3339 if text.len() == "2026-01-02T03:04:05Z".len() => {
                let time = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%SZ").ok()?;
                Some(time.and_utc().timestamp_millis())
            }
            Self::Rfc3339 => None,
        }
    }

    /// A bound of a window, written in this way.
    pub fn bound(self, time: Millis) -> String {
        match self {
            Self::EpochMillis => time.to_string(),
            Self::Rfc3339 => rfc3339(time, SecondsFormat::Secs),
        }
    }

    /// The time of a record, as JSON.
    pub fn record(self, time: Millis) -> String {
        match self {
            Self::EpochMillis => time.to_string(),
            Self::Rfc3339 => format!("\"{}\"", rfc3339(time, SecondsFormat::Millis)),
        }
    }
}

fn rfc3339(time: Millis, precision: SecondsFormat) -> String {
    let time = DateTime::from_timestamp_millis(time).expect("a simulated time is of our era");
    time.to_rfc3339_opts(precision, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_api_nests_what_keeper_says_flat() {
        let text =
            r#"{"audit_event":"login","timestamp":"","username":"a@b.example","enterprise_id":7}"#;

        let record = Dialect::other().record(1_760_000_000_000, text.into());

        let expected = r#"{"meta":{"what":"login","at":1760000000000},"who":{"mail":"a@b.example"},"detail":{"enterprise_id":7}}"#;
        assert_eq!(record, expected);
    }

    #[test]
    fn only_whole_seconds_with_a_z_are_dates() {
        let read = |text| TimeFormat::Rfc3339.read_bound(text);

        assert_eq!(read("2026-01-02T03:04:05Z"), Some(1_767_323_045_000));
        for bad in
            ["2026-01-02T03:04:05.0Z", "2026-01-02", "2026-13-02T03:04:05Z", "", "1767323045"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_last_page_says_so_in_each_dialects_way() {
        let keeper = Dialect::keeper().envelope("[]", None);
        let other = Dialect::other().envelope("[]", None);

        assert_eq!(keeper, r#"{"events":[],"continuation_token":null,"has_more":false}"#);
        assert_eq!(other, r#"{"payload":{"entries":[]}}"#);
    }
}

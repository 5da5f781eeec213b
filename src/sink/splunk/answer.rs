//! What the collector says, by its code and the status. Pure.
//!
//! Splunk documents the codes up to 23 or so; those above are known from others' records, with texts
//! that differ: nothing here depends on a text.

use serde::Deserialize;

use crate::http::Answer;

/// "ACK is disabled"
pub const WITHOUT: u32 = 14;

/// An answer of the collector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Told {
    /// What it says for people.
    pub text: String,
    /// What it says for programs; none where it is no collector that answers.
    pub code: Option<u32>,
    /// What to ask for the acknowledgement by.
    #[serde(rename = "ackId")]
    pub ack: Option<u64>,
    /// The first object that it did not take, from 0; it took those before.
    #[serde(rename = "invalid-event-number")]
    pub invalid: Option<usize>,
}

/// What an answer means for the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// It has all.
    Accepted,
    /// It has all, and has hardly room for more.
    AcceptedInNeed,
    /// It has none, and may have room later.
    Busy,
    /// An object is bad: the one of this number, where it says so.
    Bad(Option<usize>),
    /// It wants a channel, or another, for the token is one with acknowledgement.
    WantsChannel,
    /// It wants none, for the token is one without.
    WantsNone,
    /// Nothing helps but what somebody does.
    Blocked,
    /// It says nothing of its own: the status decides.
    Status,
}

impl Told {
    /// What the answer says; nothing where it is none of a collector.
    pub fn of(answer: &Answer) -> Self {
        serde_json::from_slice(&answer.body).unwrap_or_default()
    }

    /// The text of the answer, in place of its body.
    pub fn shown(&self, answer: &mut Answer) {
        if let Some(code) = self.code {
            answer.body = format!("{} (code {code})", self.text).into_bytes();
        }
    }

    /// What it means. A code under a status that it does not go with is not believed.
    pub fn meaning(&self, status: u16) -> Meaning {
        let Some(code) = self.code else {
            // A page of a proxy is no acceptance, whatever its status.
            return Meaning::Status;
        };
        match (status, code) {
            (200, 0) => Meaning::Accepted,
            (200, 24 | 25) => Meaning::AcceptedInNeed,
            (400, 10 | 11 | 28) => Meaning::WantsChannel,
            (400, 6 | 12 | 13 | 15) => Meaning::Bad(self.invalid),
            (503, 9 | 18..=20 | 23) | (429, 26 | 27) => Meaning::Busy,
            (400, WITHOUT) => Meaning::WantsNone,
            (400..=403, 1..=4 | 7 | 16 | 21 | 22) => Meaning::Blocked,
            _ => Meaning::Status,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self.code? {
            1 | 22 => {
                "the token is disabled: enable it in Settings > Data inputs > HTTP Event Collector"
            }
            2 | 3 => {
                "the collector does not see our token: check `token`, `flavor`, and any proxy in between"
            }
            4 | 21 => {
                "the collector does not know this token: check `token`, and that `url` is of the same stack"
            }
            7 => {
                "the token may not write to this index, or there is none: check `index`, and the token's allowed indexes"
            }
            10 | 11 | 28 => {
                r#"the token is one with indexer acknowledgement: `ack = "auto"` or `"on"`; behind a load balancer it must be sticky"#
            }
            WITHOUT => {
                r#"the token is one without indexer acknowledgement: `ack = "auto"` or `"off"`"#
            }
            16 => "the collector takes no token of a query: check any proxy in between",
            18..=20 => "its queues are full: look at the indexers",
            _ => return None,
        })
    }
}

/// The answer to a question about acknowledgements: which of them have come.
#[derive(Debug, Default, Deserialize)]
pub struct Acks {
    /// By their number.
    #[serde(default)]
    pub acks: std::collections::BTreeMap<String, bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(status: u16, body: &str) -> Meaning {
        let told: Told = serde_json::from_str(body).unwrap_or_default();
        told.meaning(status)
    }

    #[test]
    fn a_code_means_something_with_its_status() {
        for (status, codes, expected) in [
            (200, &[0][..], Meaning::Accepted),
            (200, &[24, 25], Meaning::AcceptedInNeed),
            (503, &[9, 18, 19, 20, 23], Meaning::Busy),
            (429, &[26, 27], Meaning::Busy),
            (403, &[1, 4], Meaning::Blocked),
            (401, &[2, 3], Meaning::Blocked),
            (400, &[7, 16, 21, 22], Meaning::Blocked),
            (400, &[14], Meaning::WantsNone),
            (400, &[10, 11, 28], Meaning::WantsChannel),
            (400, &[6, 12, 13, 15], Meaning::Bad(None)),
            (500, &[8], Meaning::Status),
            (200, &[9, 4, 6], Meaning::Status),
            (502, &[0, 24], Meaning::Status),
        ] {
            for code in codes {
                let body = format!(r#"{{"text":"any","code":{code}}}"#);
                assert_eq!(meaning(status, &body), expected, "{status} {code}");
            }
        }
    }

    #[test]
    fn without_a_code_the_status_decides() {
        assert_eq!(meaning(200, ""), Meaning::Status);
        assert_eq!(meaning(200, "<html>"), Meaning::Status);
        assert_eq!(meaning(404, "<html>"), Meaning::Status);
    }

    #[test]
    fn a_bad_object_is_named_by_its_number() {
        let body = r#"{"text":"Invalid data format","code":6,"invalid-event-number":3}"#;

        assert_eq!(meaning(400, body), Meaning::Bad(Some(3)));
    }
}

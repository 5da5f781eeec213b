//! What the answer to a bulk request says of each event. Pure.
//!
//! An item that fails for a reason that no event can be the cause of, such as a full disk or a
//! missing privilege, never counts against its event.

use serde::Deserialize;

use crate::log::escape;
use crate::secret::redact;
use crate::sink::{DeliveryError, Receipt, Verdict};

/// What a credential must be allowed to do.
pub const PRIVILEGES: &str = "give the credential the privileges `create_doc` and `auto_configure` on the index or data stream";

/// Of a reason so many characters are kept; it may quote a whole document.
const LONGEST_REASON: usize = 300;

/// An answer, as far as `filter_path` leaves it.
#[derive(Deserialize)]
struct Reply {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    create: Outcome,
}

#[derive(Deserialize)]
struct Outcome {
    status: u16,
    error: Option<Cause>,
}

/// Why an item or a whole request fails.
#[derive(Deserialize)]
struct Cause {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    caused_by: Option<Box<Cause>>,
}

/// What a cluster says of a request that it refuses as a whole; none when somebody else answers.
pub fn refusal(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Refusal {
        error: Cause,
    }
    let refusal: Refusal = serde_json::from_slice(body).ok()?;
    Some(refusal.error.told().trim_start().to_owned())
}

/// What became of the events of a request that was answered with 200.
///
/// # Errors
/// When the answer does not tell it for each of them, or when what it tells is nobody's fault.
pub fn judge(body: &[u8], sent: usize) -> Result<Receipt, DeliveryError> {
    if are_all_created(body, sent) {
        return Ok(Receipt::default());
    }
    let reply: Reply = serde_json::from_slice(body).map_err(|_| not_bulk("cannot be read"))?;
    if reply.items.len() != sent {
        return Err(not_bulk(&format!("tells of {} events, {sent} were sent", reply.items.len())));
    }
    let fates: Vec<Fate> = reply.items.iter().map(|item| item.create.fate()).collect();
    let blocked = fates.iter().all(|fate| matches!(fate, Fate::NoFault(_)));
    if let Some(item) = reply.items.first().filter(|_| blocked) {
        return Err(DeliveryError::blocked(item.create.told(), item.create.hint()));
    }
    let verdicts: Vec<Verdict> = fates.into_iter().map(Fate::verdict).collect();
    let all_accepted = verdicts.iter().all(|verdict| *verdict == Verdict::Accepted);
    Ok(Receipt { verdicts: (!all_accepted).then_some(verdicts), ..Receipt::default() })
}

/// The usual answer, known without reading each item.
fn are_all_created(body: &[u8], sent: usize) -> bool {
    const ITEM: &[u8] = br#"{"create":{"status":201}}"#;
    let items = body.strip_prefix(br#"{"errors":false,"items":["#);
    let Some(items) = items.and_then(|rest| rest.strip_suffix(b"]}")) else { return false };
    let follows =
        |chunk: &[u8]| chunk.strip_prefix(ITEM).map(|comma| comma == b"," || comma.is_empty());
    sent > 0
        && items.len() + 1 == sent * (ITEM.len() + 1)
        && items.chunks(ITEM.len() + 1).all(|chunk| follows(chunk) == Some(true))
}

fn not_bulk(what: &str) -> DeliveryError {
    let text = format!("the answer is not one of a bulk API: it {what}");
    DeliveryError::Retry { after: None, source: text.into(), is_ambiguous: true }
}

/// What became of one event.
enum Fate {
    Event(Verdict),
    /// It is not stored, and not at fault.
    NoFault(String),
}

impl Fate {
    fn verdict(self) -> Verdict {
        match self {
            Self::Event(verdict) => verdict,
            Self::NoFault(reason) => Verdict::Retry { reason },
        }
    }
}

impl Outcome {
    fn fate(&self) -> Fate {
        Fate::Event(match self.status {
            200..=299 => Verdict::Accepted,
            // An earlier request has stored it.
            409 if self.kind() == "version_conflict_engine_exception" => Verdict::Accepted,
            500.. => Verdict::Retry { reason: self.told() },
            _ if self.is_nobodys_fault() => return Fate::NoFault(self.told()),
            400 | 402 | 405..=407 | 410..=428 | 430..=499 => {
                Verdict::Refused { reason: self.told() }
            }
            _ => Verdict::Retry { reason: self.told() },
        })
    }

    fn kind(&self) -> &str {
        self.error.as_ref().map_or("", |error| &error.kind)
    }

    fn reason(&self) -> &str {
        self.error.as_ref().and_then(|error| error.reason.as_deref()).unwrap_or_default()
    }

    fn is_nobodys_fault(&self) -> bool {
        matches!(self.status, 401 | 403 | 404)
            || matches!(
                self.kind(),
                "cluster_block_exception"
                    | "index_closed_exception"
                    | "index_not_found_exception"
                    | "invalid_index_name_exception"
                    | "security_exception"
                    // A new index would be one shard too many.
                    | "validation_exception"
            )
            || self.lacks_pipeline()
            || self.reason().starts_with("no write index is defined for alias")
    }

    fn lacks_pipeline(&self) -> bool {
        self.reason().starts_with("pipeline with id [")
    }

    /// Status, type and reason.
    fn told(&self) -> String {
        let cause = self.error.as_ref().map(Cause::told).unwrap_or_default();
        format!("{}{cause}", self.status)
    }

    fn hint(&self) -> String {
        match (self.kind(), self.status) {
            ("cluster_block_exception", _) => {
                "the index takes no writes: free space, if a disk of the cluster is above its flood-stage watermark; or allow writes again in the index's settings"
            }
            ("index_closed_exception", _) => "open the index, or name another",
            ("index_not_found_exception", _) => {
                "make the index, or allow `action.auto_create_index` for its name; for a data stream install an index template such as config/elastic-template.json"
            }
            ("invalid_index_name_exception", _) => "name another `index` or `data_stream`",
            ("validation_exception", _) => "remove old indices, or raise the limit that is told: the cluster makes no further index",
            ("security_exception", _) | (_, 401 | 403) => {
                "give the credential the privileges `create_doc` and `auto_configure` on the index or data stream"
            }
            _ if self.lacks_pipeline() => "make the ingest pipeline, or take `pipeline` out",
            _ => "see what is told of the index or alias, and mend it there",
        }
        .to_owned()
    }
}

impl Cause {
    /// ` type: reason`, and what is behind it; short, and safe to show.
    fn told(&self) -> String {
        let mut text = format!(" {}", self.kind);
        let mut inner = Some(self);
        while let Some(cause) = inner {
            if let Some(reason) = cause.reason.as_deref().filter(|reason| !text.contains(*reason)) {
                text.push_str(": ");
                text.push_str(reason);
            }
            inner = cause.caused_by.as_deref();
        }
        shortened(&text)
    }
}

/// A secret is taken out before the text is cut, for a part of it would not be found.
fn shortened(text: &str) -> String {
    let text = escape(&redact(text));
    match text.char_indices().nth(LONGEST_REASON) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const CREATED: &str = r#"{"create":{"status":201}}"#;

    fn answer(items: &[Value]) -> Vec<u8> {
        let items: Vec<_> = items.iter().map(|item| json!({ "create": item })).collect();
        json!({ "errors": true, "items": items }).to_string().into_bytes()
    }

    fn failed(status: u16, kind: &str, reason: &str) -> Value {
        json!({ "status": status, "error": { "type": kind, "reason": reason } })
    }

    fn created() -> Value {
        json!({ "status": 201 })
    }

    fn verdicts(items: &[Value]) -> Vec<Verdict> {
        judge(&answer(items), items.len()).unwrap().verdicts.expect("not all are accepted")
    }

    fn retry(reason: &str) -> Verdict {
        Verdict::Retry { reason: reason.to_owned() }
    }

    fn refused(reason: &str) -> Verdict {
        Verdict::Refused { reason: reason.to_owned() }
    }

    #[test]
    fn when_all_are_created_nothing_more_is_said() {
        for count in [1, 2, 1000] {
            let items = vec![CREATED; count].join(",");
            let body = format!("{{\"errors\":false,\"items\":[{items}]}}");

            assert!(are_all_created(body.as_bytes(), count));
            assert_eq!(judge(body.as_bytes(), count).unwrap(), Receipt::default());
        }
        // The same with more around it, as from a proxy that takes the filter away.
        let body = json!({ "took": 3, "errors": false, "items": [
            { "create": { "_index": "a", "_id": "b", "status": 201, "result": "created" } },
            { "create": { "status": 200 } },
        ] });
        assert_eq!(judge(body.to_string().as_bytes(), 2).unwrap(), Receipt::default());
    }

    #[test]
    fn an_answer_that_does_not_tell_of_each_event_is_asked_for_again() {
        let cases = [
            ("", 1, "cannot be read"),
            ("<html>welcome</html>", 1, "cannot be read"),
            ("{}", 1, "cannot be read"),
            ("[]", 0, "cannot be read"),
            (r#"{"errors":false}"#, 0, "cannot be read"),
            (r#"{"errors":false,"items":[]}"#, 1, "tells of 0 events, 1 were sent"),
            (r#"{"errors":false,"items":[{"index":{"status":201}}]}"#, 1, "cannot be read"),
            (r#"{"errors":false,"items":[{"create":{}}]}"#, 1, "cannot be read"),
            (
                r#"{"errors":false,"items":[{"create":{"status":201}},{"create":{"status":201}}]}"#,
                1,
                "tells of 2 events, 1 were sent",
            ),
            (
                r#"{"errors":false,"items":[{"create":{"status":201}}]}"#,
                2,
                "tells of 1 events, 2 were sent",
            ),
            (
                r#"{"errors":false,"items":[{"create":{"status":201}},{"create":{"status":201}},]}"#,
                2,
                "cannot be read",
            ),
        ];
        for (body, sent, what) in cases {
            let err = judge(body.as_bytes(), sent).unwrap_err();

            let expected = format!("the answer is not one of a bulk API: it {what}");
            assert_eq!(err.to_string(), expected, "{body}");
            assert!(matches!(err, DeliveryError::Retry { is_ambiguous: true, .. }), "{err:?}");
        }
    }

    #[test]
    fn each_event_has_a_verdict_of_its_own() {
        let conflict = failed(409, "version_conflict_engine_exception", "[a]: version conflict");
        let items = [
            created(),
            conflict.clone(),
            failed(429, "es_rejected_execution_exception", "queue is full"),
            failed(503, "unavailable_shards_exception", "[a][0] primary shard is not active"),
            failed(400, "document_parsing_exception", "[1:9] failed to parse"),
            failed(409, "another_conflict", "why"),
            failed(413, "too_large", "why"),
            json!({ "status": 418 }),
            failed(408, "slow", "why"),
            failed(301, "elsewhere", "why"),
        ];

        assert_eq!(
            verdicts(&items),
            [
                Verdict::Accepted,
                Verdict::Accepted,
                retry("429 es_rejected_execution_exception: queue is full"),
                retry("503 unavailable_shards_exception: [a][0] primary shard is not active"),
                refused("400 document_parsing_exception: [1:9] failed to parse"),
                retry("409 another_conflict: why"),
                refused("413 too_large: why"),
                refused("418"),
                retry("408 slow: why"),
                retry("301 elsewhere: why"),
            ]
        );
        // An earlier request has stored all of them.
        let all = judge(&answer(&[conflict.clone(), conflict]), 2).unwrap();
        assert_eq!(all, Receipt::default());
        let all = verdicts(&[failed(400, "a", "b"), failed(400, "a", "b")]);
        assert_eq!(all, [refused("400 a: b"), refused("400 a: b")]);
    }

    /// What no event is the cause of, and what is to be done about it.
    fn of_nobody() -> Vec<(u16, &'static str, &'static str, &'static str)> {
        let privileges = "privileges `create_doc` and `auto_configure`";
        vec![
            (401, "security_exception", "no", privileges),
            (403, "security_exception", "action is unauthorized", privileges),
            (403, "anything", "", privileges),
            (403, "cluster_block_exception", "index read-only", "flood-stage watermark"),
            (429, "cluster_block_exception", "TOO_MANY_REQUESTS/12", "flood-stage watermark"),
            (400, "index_closed_exception", "closed", "open the index"),
            (404, "index_not_found_exception", "no such index [a]", "config/elastic-template.json"),
            (404, "anything", "", "mend it there"),
            (400, "invalid_index_name_exception", "Invalid index name", "name another `index`"),
            (400, "validation_exception", "this action would add [2] shards", "old indices"),
            (
                400,
                "illegal_argument_exception",
                "pipeline with id [p] does not exist",
                "take `pipeline` out",
            ),
            (
                400,
                "illegal_argument_exception",
                "no write index is defined for alias [a].",
                "mend it there",
            ),
        ]
    }

    #[test]
    fn what_no_event_is_the_cause_of_blocks() {
        for (status, kind, reason, remedy) in of_nobody() {
            let item = failed(status, kind, reason);

            let err = judge(&answer(&[item.clone(), item]), 2).unwrap_err();

            let DeliveryError::Blocked { source, hint, may_be_content: false } = &err else {
                panic!("{err:?}");
            };
            assert!(source.to_string().starts_with(&format!("{status} {kind}")), "{source}");
            assert!(hint.as_ref().unwrap().contains(remedy), "{kind}: {hint:?}");
        }
    }

    #[test]
    fn where_others_pass_it_is_tried_again() {
        for (status, kind, reason, _) in of_nobody() {
            let item = failed(status, kind, reason);
            for other in
                [created(), failed(400, "document_parsing_exception", "x"), failed(429, "a", "b")]
            {
                let verdicts = verdicts(&[other, item.clone()]);

                assert!(matches!(verdicts[1], Verdict::Retry { .. }), "{status} {kind}");
            }
        }
        // A cluster that is just starting is blocked too, and passes by itself.
        let item = failed(503, "cluster_block_exception", "state not recovered");
        assert!(matches!(verdicts(&[item]).as_slice(), [Verdict::Retry { .. }]));
    }

    #[test]
    fn a_reason_is_short_and_safe_to_show() {
        crate::secret::register("bulk-canary-0815");
        let long = "é".repeat(290);
        let error = json!({ "status": 400, "error": {
            "type": "document_parsing_exception", "reason": format!("a\u{1b}[31m bulk-canary-0815 {long}"),
        } });

        let Verdict::Refused { reason } = verdicts(&[error]).remove(0) else { panic!("refused") };

        assert!(
            reason.starts_with("400 document_parsing_exception: a\\u{1b}[31m *** éé"),
            "{reason}"
        );
        assert_eq!(reason.chars().count(), "400".len() + LONGEST_REASON + 1);
        assert!(reason.ends_with("é…"));
    }

    #[test]
    fn a_reason_tells_what_is_behind_it() {
        let error = json!({ "status": 400, "error": {
            "type": "document_parsing_exception", "reason": "failed to parse: x is bad",
            "caused_by": { "type": "a", "reason": "x is bad", "caused_by": { "type": "b", "reason": "number" } },
        } });

        let told = verdicts(&[error]);

        let told_once = "400 document_parsing_exception: failed to parse: x is bad: number";
        assert_eq!(told, [refused(told_once)]);
    }
}

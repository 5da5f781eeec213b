use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::event::Uid;

const TIME: Millis = 1_767_323_045_678;
const HOUR: Millis = 3600 * 1000;

fn event(raw: &str) -> Event<'_> {
    Event {
        seq: 42,
        uid: Uid([0xab; 16]),
        time: Some(TIME),
        event_type: Some("login"),
        raw: raw.as_bytes(),
        source: "acme",
        api: "keeper",
        received: TIME + 1000,
    }
}

fn row(profile: Profile, event: &Event<'_>) -> Map<String, Value> {
    let mut out = b"before".to_vec();
    profile.encode(event, &mut out);
    let text = std::str::from_utf8(&out).unwrap().strip_prefix("before,").unwrap();
    let time = time_of(&out[6..]).unwrap();
    assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
    let row: Map<String, Value> =
        serde_json::from_str(text).unwrap_or_else(|err| panic!("{err}: {text}"));
    let names: Vec<_> = members(text.as_bytes())
        .map(|(key, _)| String::from_utf8(unescaped(key).into_owned()).unwrap())
        .collect();
    let declared: Vec<_> = profile.columns().iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names, declared, "every column, in order, and nothing else");
    row
}

fn solution(raw: &str) -> Map<String, Value> {
    row(Profile::KeeperSolution, &event(raw))
}

fn full(raw: &str) -> Map<String, Value> {
    row(Profile::Full, &event(raw))
}

fn ours() -> Value {
    json!({
        "uid": "abababababababababababababababab", "source": "acme", "api": "keeper", "type": "login",
        "time": "2026-01-02T03:04:05.678Z", "received": "2026-01-02T03:04:06.678Z", "seq": 42
    })
}

#[test]
fn the_solutions_columns_are_those_that_its_rules_read() {
    let raw = r#"{"record_uid":"R","audit_event":"open_record","remote_address":"10.0.0.1","category":"usage","client_version":"CLI.5","enterprise_id":6557,"timestamp":"2026-01-02T03:04:05.678Z","username":"a@b.example","node":{"id":[1]}}"#;

    let row = solution(raw);

    assert_eq!(
        Value::Object(row),
        json!({
            "TimeGenerated": "2026-01-02T03:04:05.678Z", "audit_event": "open_record",
            "remote_address": "10.0.0.1", "category": "usage", "client_version": "CLI.5",
            "enterprise_id": 6557, "username": "a@b.example", "timestamp": "2026-01-02T03:04:05.678Z",
            "data": { "record_uid": "R", "node": { "id": [1] }, "siemferry": ours() }
        })
    );
}

#[test]
fn what_does_not_fit_its_column_is_kept_under_data() {
    let raw = r#"{"audit_event":7,"enterprise_id":"6557","timestamp":1767323045,"username":null,"category":"a","category":"b"}"#;

    let row = solution(raw);

    assert_eq!(row["audit_event"], "login");
    assert_eq!(row["enterprise_id"], Value::Null);
    assert_eq!(row["timestamp"], "2026-01-02T03:04:05.678Z");
    assert_eq!(row["category"], "a");
    let data = json!({ "audit_event": 7, "enterprise_id": "6557", "timestamp": 1_767_323_045, "username": null, "category": "b", "siemferry": ours() });
    assert_eq!(row["data"], data);
    assert_eq!(
        solution(r#"{"enterprise_id":2147483648}"#)["data"]["enterprise_id"],
        2_147_483_648_u64
    );
    assert_eq!(solution("{}")["data"], json!({ "siemferry": ours() }));
}

#[test]
fn a_full_row_has_the_record_as_it_was() {
    let raw = r#"{"audit_event":"login","username":"a@b.example","remote_address":"::1","category":"login","x":[1e400]}"#;
    let mut out = Vec::new();
    Profile::Full.encode(&event(raw), &mut out);

    let text = String::from_utf8(out).unwrap();

    assert_eq!(
        text,
        format!(
            r#",{{"TimeGenerated":"2026-01-02T03:04:05.678Z","EventUid":"abababababababababababababababab","EventTime":"2026-01-02T03:04:05.678Z","Type":"login","Category":"login","Actor":"a@b.example","SourceIp":"::1","Source":"acme","Api":"keeper","Raw":{raw}}}"#
        )
    );
    let bare = full("{}");
    assert_eq!((&bare["Raw"], &bare["Actor"]), (&json!({}), &Value::Null));
}

#[test]
fn an_event_without_a_time_of_ours_has_that_of_its_receipt() {
    for time in [None, Some(i64::MIN), Some(253_402_300_800_000)] {
        let event = Event { time, event_type: None, ..event("{}") };

        let row = row(Profile::Full, &event);

        assert_eq!(row["TimeGenerated"], "2026-01-02T03:04:06.678Z");
        assert_eq!((&row["EventTime"], &row["Type"]), (&Value::Null, &Value::Null));
    }
}

#[test]
fn an_event_that_azure_will_give_another_time_is_marked() {
    for (age, is_marked) in [(47 * HOUR, false), (48 * HOUR, false), (48 * HOUR + 1, true)] {
        let event = Event { received: TIME + age, ..event(r#"{"a":1}"#) };

        let solution = row(Profile::KeeperSolution, &event);
        let full = row(Profile::Full, &event);

        let expected = if is_marked { json!(true) } else { Value::Null };
        assert_eq!(solution["data"]["siemferry"]["backfilled"], expected);
        assert_eq!(full["Raw"]["siemferry"]["backfilled"], expected);
        assert_eq!(solution["timestamp"], "2026-01-02T03:04:05.678Z");
        assert_eq!(full["TimeGenerated"], "2026-01-02T03:04:05.678Z");
    }
}

#[test]
fn an_event_that_is_too_large_has_its_longest_strings_cut_and_is_marked() {
    let long = "é".repeat(600_000);
    let raw = format!(r#"{{"audit_event":"x","a":"{long}","username":"{long}","b":"whole"}}"#);

    let solution = solution(&raw);
    let full = full(&raw);

    for (record, name) in [(&solution["data"], "data"), (&full["Raw"], "Raw")] {
        assert_eq!(record["siemferry"]["truncated"], true, "{name}");
        assert_eq!(record["b"], "whole");
        let cut = record["a"].as_str().unwrap();
        assert!(long.starts_with(cut) && cut.len() > 30_000, "{name}: {}", cut.len());
        let length = record.to_string().len();
        assert!((MOST_VALUE - 60..=MOST_VALUE).contains(&length), "{name}: {length}");
    }
    for (row, column) in [(&solution, "username"), (&full, "Actor")] {
        let value = row[column].as_str().unwrap();
        assert!(long.starts_with(value) && value.len() > MOST_VALUE - 10);
    }
}

#[test]
fn a_long_type_is_cut_and_marked() {
    let long = "t".repeat(100_000);
    let event = Event { event_type: Some(&long), ..event("{}") };

    for (profile, column, record) in
        [(Profile::KeeperSolution, "audit_event", "data"), (Profile::Full, "Type", "Raw")]
    {
        let row = row(profile, &event);

        assert_eq!(row[column].as_str().unwrap().len(), MOST_VALUE - 2);
        assert_eq!(row[record]["siemferry"]["truncated"], true);
    }
}

#[test]
fn a_long_type_leaves_room_for_its_neighbours() {
    let long = "\u{e9}\"".repeat(300_000);
    let raw = format!(r#"{{"audit_event":{},"x":"small"}}"#, serde_json::to_string(&long).unwrap());
    let event = Event { event_type: Some(&long), ..event(&raw) };

    let row = row(Profile::KeeperSolution, &event);

    assert!(row["data"].to_string().len() <= MOST_VALUE);
    assert_eq!(row["data"]["x"], "small");
    assert_eq!(row["data"]["siemferry"]["truncated"], true);
    assert!(long.starts_with(row["audit_event"].as_str().unwrap()));
}

#[test]
fn a_time_that_azure_does_not_know_stays_in_data_too() {
    for time in [
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-14:00",
        "2026-01-02T03:04:60Z",
        "2026-01-02T06:00:00\u{2212}01:00",
    ] {
        let row = solution(&format!(r#"{{"timestamp":"{time}"}}"#));

        assert_eq!(row["data"]["timestamp"], time);
        assert_eq!(row["timestamp"], "2026-01-02T03:04:05.678Z");
    }
}

/// Mostly short, some long, in every script; the alphabet takes up to twelve bytes a character.
fn text() -> impl Strategy<Value = String> {
    let alphabet = "[a-z\"\\\\\u{e9}\u{4e2d}\u{1f511}\u{7}\u{2028}]";
    prop_oneof![
        8 => proptest::string::string_regex(&format!("{alphabet}{{0,20}}")).unwrap(),
        1 => (proptest::string::string_regex(&format!("{alphabet}{{1,30}}")).unwrap(), 1000..50_000_usize)
            .prop_map(|(text, times)| text.repeat(times / text.len().max(1))),
    ]
}

proptest! {
    #[test]
    fn whatever_the_record_no_value_is_too_long_and_nothing_is_lost_unmarked(
        members in prop::collection::btree_map("audit_event|username|timestamp|enterprise_id|siemferry|[a-c\u{e9}]{1,4}", text(), 0..8),
    ) {
        let raw = serde_json::to_string(&members).unwrap();
        for profile in [Profile::KeeperSolution, Profile::Full] {
            let row = row(profile, &event(&raw));

            for (name, value) in &row {
                prop_assert!(value.to_string().len() <= MOST_VALUE, "{name}");
            }
            let record = if profile == Profile::Full { &row["Raw"] } else { &row["data"] };
            let is_cut = record["siemferry"]["truncated"] == true;
            for (name, value) in &members {
                let column = row.get(name).filter(|column| *column == value);
                let is_whole = column.is_some() || record.get(name) == Some(&json!(value));
                prop_assert!(is_whole || is_cut || name == "siemferry", "{name}");
            }
        }
    }
}

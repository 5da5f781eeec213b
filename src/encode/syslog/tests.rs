use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::*;
use crate::event::{Millis, Uid};

fn layout() -> Layout {
    Layout {
        format: Format::Raw,
        header: Header::Rfc5424,
        facility: Facility::Local4,
        hostname: "host".to_owned(),
        enterprise_number: 32473,
        max_message: 8192,
        oversize: Oversize::Truncate,
        framing: Framing::OctetCounted,
    }
}

fn event(raw: &str) -> Event<'_> {
    Event {
        seq: 42,
        uid: Uid([0xab; 16]),
        time: Some(1_767_323_045_678),
        event_type: Some("login"),
        raw: raw.as_bytes(),
        source: "acme",
        api: "keeper",
        received: 1_767_323_046_000,
    }
}

/// With its framing.
fn framed(event: &Event<'_>, layout: &Layout) -> Result<String, TooLong> {
    let mut out = b"before".to_vec();
    let result = encode(event, layout, &mut out);
    let text = String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_owned();
    result.map(|()| text.clone()).inspect_err(|_| assert_eq!(text, "", "nothing is appended"))
}

fn texts(event: &Event<'_>, layout: &Layout) -> Vec<String> {
    let encoded = framed(event, layout).unwrap();
    let found = messages(encoded.as_bytes(), layout.framing);
    found.map(|message| std::str::from_utf8(message).unwrap().to_owned()).collect()
}

/// The only message.
fn text(event: &Event<'_>, layout: &Layout) -> String {
    let [text] = texts(event, layout).try_into().unwrap();
    text
}

/// What is before the text of the message of [`event`].
const BEFORE: &str = r#"<165>1 2026-01-02T03:04:05.678Z host siemferry - login [siemferry@32473 uid="abababababababababababababababab" source="acme"] "#;

#[test]
fn a_message_has_the_header_of_rfc_5424_and_its_length_before_it() {
    assert_eq!(
        framed(&event(r#"{"a":1}"#), &layout()).unwrap(),
        concat!(
            r#"133 <165>1 2026-01-02T03:04:05.678Z host siemferry - login "#,
            r#"[siemferry@32473 uid="abababababababababababababababab" source="acme"] {"a":1}"#
        )
    );
}

#[test]
fn the_length_counts_bytes() {
    let encoded = framed(&event("{\"a\":\"é\u{2028}\"}"), &layout()).unwrap();

    assert_eq!(encoded, format!("139 {BEFORE}{{\"a\":\"é\u{2028}\"}}"));
}

#[test]
fn the_text_is_what_the_format_makes() {
    let event = event(r#"{"a":1}"#);
    let mut json = Vec::new();
    Format::Json.encode(&event, &mut json);

    let text = text(&event, &Layout { format: Format::Json, ..layout() });

    assert_eq!(text, format!("{BEFORE}{}", String::from_utf8(json).unwrap()));
}

#[test]
fn the_older_header_has_its_day_padded_and_no_year() {
    let layout = Layout { header: Header::Rfc3164, ..layout() };
    let of = |time| text(&Event { time, ..event("{}") }, &layout);

    assert_eq!(of(Some(1_767_323_045_678)), "<165>Jan  2 03:04:05 host siemferry: {}");
    assert_eq!(of(Some(1_798_758_245_000)), "<165>Dec 31 23:04:05 host siemferry: {}");
    assert_eq!(of(Some(Millis::MAX)), "<165>Jan  2 03:04:06 host siemferry: {}");
}

#[test]
fn without_a_header_there_is_the_text_alone() {
    let layout = Layout { header: Header::None, ..layout() };

    assert_eq!(framed(&event(r#"{"a":1}"#), &layout).unwrap(), r#"7 {"a":1}"#);
    let layout = Layout { framing: Framing::Newline, ..layout };
    assert_eq!(framed(&event(r#"{"a":1}"#), &layout).unwrap(), "{\"a\":1}\n");
}

#[test]
fn as_a_line_a_message_holds_neither_control_character_nor_separator() {
    let layout = Layout { header: Header::None, framing: Framing::Newline, ..layout() };
    let raw =
        "{\"a\":\"x\n\u{0}\u{7f}\u{80}\u{85}\u{9f}\u{a0}©\u{2027}\u{2028}\u{2029}\u{202a}\\n\"}";

    assert_eq!(
        framed(&event(raw), &layout).unwrap(),
        format!(
            "{}\u{a0}©\u{2027}{}\u{202a}{}\n",
            r#"{"a":"x\u000a\u0000\u007f\u0080\u0085\u009f"#, r"\u2028\u2029", r#"\n"}"#
        )
    );
}

#[test]
fn the_type_is_the_message_id_as_far_as_one_can_be() {
    let long = "x".repeat(33);
    let of = |event_type| {
        let text = text(&Event { event_type, ..event("{}") }, &layout());
        text.split(' ').nth(5).unwrap().to_owned()
    };

    assert_eq!(of(Some("login")), "login");
    assert_eq!(of(Some("a b\n]é\u{7f}")), "a_b_]___");
    assert_eq!(of(Some(&long)), "x".repeat(32));
    assert_eq!(of(Some("")), "-");
    assert_eq!(of(None), "-");
}

#[test]
fn without_a_time_of_its_own_an_event_has_that_of_its_receipt() {
    let of = |time, received| {
        let text = text(&Event { time, received, ..event("{}") }, &layout());
        text.split(' ').nth(1).unwrap().to_owned()
    };

    assert_eq!(of(None, 1_767_323_046_000), "2026-01-02T03:04:06.000Z");
    assert_eq!(of(Some(Millis::MIN), 1_767_323_046_000), "2026-01-02T03:04:06.000Z");
    assert_eq!(of(Some(-1), 1_767_323_046_000), "1969-12-31T23:59:59.999Z");
    assert_eq!(of(Some(Millis::MAX), Millis::MAX), "-");
}

#[test]
fn severity_and_facility_make_the_priority() {
    let of = |facility, api, event_type| {
        let event = Event { event_type, api, ..event("{}") };
        let text = text(&event, &Layout { facility, ..layout() });
        text.split('>').next().unwrap().to_owned()
    };

    assert_eq!(of(Facility::Local4, "keeper", None), "<165");
    assert_eq!(of(Facility::Local4, "keeper", Some("login_failure")), "<164");
    assert_eq!(of(Facility::Local4, "other", Some("login_failure")), "<165");
    assert_eq!(of(Facility::Kern, "keeper", Some("login")), "<5");
    assert_eq!(of(Facility::Audit, "keeper", Some("bw_record_high_risk")), "<107");
    assert_eq!(of(Facility::Local7, "keeper", Some("login")), "<189");
}

#[test]
fn exactly_three_characters_are_escaped_in_a_value() {
    let text = text(&Event { source: r#"a"b\c]d[e=f'g"#, ..event("{}") }, &layout());

    assert!(text.contains(r#" source="a\"b\\c\]d[e=f'g"] {}"#), "{text}");
}

#[test]
fn a_hostname_is_made_sound() {
    assert_eq!(sound_hostname("siem-1.example.com"), "siem-1.example.com");
    assert_eq!(sound_hostname("a b\u{7f}é"), "a_b___");
    assert_eq!(sound_hostname(&"x".repeat(300)), "x".repeat(255));
    assert_eq!(sound_hostname(""), "-");
}

#[test]
fn what_is_too_long_is_cut_and_says_so() {
    let raw = format!(r#"{{"a":"{}","b":2}}"#, "x".repeat(100));
    let marked = BEFORE.replace(r#""acme""#, r#""acme" truncated="true""#);
    let head = marked.len();

    let message = text(&event(&raw), &Layout { max_message: head + 60, ..layout() });

    let rest = r#"","b":2,"siemferry":{"truncated":true}}"#;
    assert_eq!(message, format!(r#"{marked}{{"a":"{}{rest}"#, "x".repeat(60 - 6 - rest.len())));

    let json = Layout { format: Format::Json, ..layout() };
    let whole = text(&event(&raw), &json);
    assert_eq!(text(&event(&raw), &Layout { max_message: whole.len(), ..json.clone() }), whole);
    let message = text(&event(&raw), &Layout { max_message: whole.len() - 1, ..json });
    assert_eq!(message.len(), whole.len() - 1);
    assert!(message.starts_with(&format!("{marked}{{\"a\":\"xxx")), "{message}");
    assert!(message.contains(r#"xxx","b":2,"siemferry":{"uid":"#), "{message}");
    assert!(message.ends_with(r#","seq":42,"truncated":true}}"#), "{message}");
}

#[test]
fn a_type_that_takes_too_much_room_is_cut_too() {
    for (event_type, most) in
        [("t".repeat(10_000), 8192), ("🚢".repeat(40), 480), ("é".repeat(100), 480)]
    {
        let raw = format!(r#"{{"audit_event":"{event_type}","n":1}}"#);
        let event = Event { event_type: Some(&event_type), ..event(&raw) };
        let layout = Layout { format: Format::Json, max_message: most, ..layout() };

        let message = framed(&event, &layout).unwrap();

        let text = &message[message.find('{').unwrap()..];
        let object: Value = serde_json::from_str(text).unwrap();
        assert_eq!(object["siemferry"]["truncated"], true);
        assert_eq!(object["n"], 1, "{text}");
        let kept = object["siemferry"]["type"].as_str().unwrap();
        assert!(!kept.is_empty() && event_type.starts_with(kept), "{text}");
    }
}

#[test]
fn what_cannot_be_cut_short_enough_is_refused() {
    let raw = format!(r#"{{"a":"{}"}}"#, "x".repeat(100));
    let length = BEFORE.len() + raw.len();

    for most in [0, 1, 100, BEFORE.len() + 50] {
        let refused = framed(&event(&raw), &Layout { max_message: most, ..layout() });
        assert_eq!(refused, Err(TooLong { length, most }));
    }
    let error = TooLong { length, most: 480 }.to_string();
    assert_eq!(error, "it makes a message of 234 bytes, more than the 480 of `max_message`");
}

#[test]
fn what_is_not_to_be_changed_is_refused() {
    let layout = Layout { oversize: Oversize::DeadLetter, ..layout() };
    let length = BEFORE.len() + 7;

    let whole = framed(&event(r#"{"a":1}"#), &Layout { max_message: length, ..layout.clone() });
    assert!(whole.is_ok());
    let refused = framed(&event(r#"{"a":1}"#), &Layout { max_message: length - 1, ..layout });
    assert_eq!(refused, Err(TooLong { length, most: length - 1 }));
}

#[test]
fn what_is_split_comes_in_numbered_parts() {
    let split = Layout { oversize: Oversize::Split, ..layout() };
    let head = |part: &str| BEFORE.replace(r#""acme""#, &format!(r#""acme" part="{part}""#));
    let room = |most| Layout { max_message: head("1/1").len() + most, ..split.clone() };

    assert_eq!(
        texts(&event(&format!(r#"{{"a":"{}é0123456789abcdef"}}"#, "x".repeat(15))), &room(22)),
        [
            format!(r#"{}{{"a":"xxxxxxxxxxxxxxx"#, head("1/2")),
            format!(r#"{}é0123456789abcdef"}}"#, head("2/2"))
        ]
    );
    let parts = texts(&event(&format!(r#"{{"a":"{}"}}"#, "x".repeat(60))), &room(6));
    assert_eq!(parts.len(), 17);
    assert_eq!(parts[16], format!(r#"{}xx"}}"#, head("17/17")));
    assert!(parts[0].starts_with(&head("1/17")));

    let older = Layout { header: Header::Rfc3164, max_message: 60, ..split.clone() };
    for layout in [room(0), older] {
        assert!(framed(&event(r#"{"a":"bcdefghijklmnopqrstuvwxyz"}"#), &layout).is_err());
    }
}

fn read<T: DeserializeOwned>(word: &str) -> Result<T, String> {
    crate::units::word(Value::from(word)).map_err(|err: serde_json::Error| err.to_string())
}

#[test]
fn the_words_of_the_configuration_are_these() {
    assert_eq!(read("rfc5424"), Ok(Header::Rfc5424));
    assert_eq!(read("rfc3164"), Ok(Header::Rfc3164));
    assert_eq!(read("none"), Ok(Header::None));
    assert_eq!(read("octet-counted"), Ok(Framing::OctetCounted));
    assert_eq!(read("newline"), Ok(Framing::Newline));
    assert_eq!(read("truncate"), Ok(Oversize::Truncate));
    assert_eq!(read("split"), Ok(Oversize::Split));
    assert_eq!(read("dead-letter"), Ok(Oversize::DeadLetter));
    assert_eq!(
        read::<Header>("rfc3339"),
        Err("unknown variant `rfc3339`, expected one of `rfc5424`, `rfc3164`, `none`".to_owned())
    );
}

#[test]
fn the_facilities_have_the_numbers_of_the_standard() {
    const NAMES: &str = "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp ntp audit alert \
                         clock local0 local1 local2 local3 local4 local5 local6 local7";
    let found = NAMES.split_whitespace().map(|name| read::<Facility>(name).unwrap() as usize);
    assert!(found.eq(0..24));
    assert_eq!(Facility::default(), Facility::Local4);
}

proptest! {
    #[test]
    fn a_value_is_read_as_it_was_meant(source in r#"[a-c"\\\]\[= é]{0,20}"#) {
        let text = text(&Event { source: &source, ..event("{}") }, &layout());

        let value = text.split_once(r#"source=""#).unwrap().1;
        let mut chars = value.chars();
        let mut found = String::new();
        loop {
            match chars.next().unwrap() {
                '"' => break,
                ']' => panic!("a bare bracket in {value}"),
                '\\' => {
                    let escaped = chars.next().unwrap();
                    prop_assert!("\"\\]".contains(escaped));
                    found.push(escaped);
                }
                other => found.push(other),
            }
        }
        prop_assert_eq!(found, source);
        prop_assert_eq!(chars.as_str(), "] {}");
    }

    #[test]
    fn a_line_means_the_same(value in r#"[a\u{0}-\u{1f}\u{7f}-\u{a0}\u{2020}-\u{2030}"\\é]{0,30}"#) {
        let layout = Layout { header: Header::None, framing: Framing::Newline, ..layout() };
        let raw = serde_json::json!({ "a": value }).to_string();

        let line = text(&event(&raw), &layout);

        let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        prop_assert!(!line.contains(breaks), "{:?}", line);
        prop_assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), serde_json::from_str::<Value>(&raw).unwrap());
    }

    #[test]
    fn whatever_is_cut_is_sound_and_fits(
        values in prop::collection::vec("[a-c\"\\\\\u{85}\u{2028}é\u{1f511}\n]{0,60}", 0..6),
        most in 150_usize..500,
        is_json: bool,
        is_line: bool,
    ) {
        let layout = Layout {
            format: if is_json { Format::Json } else { Format::Raw },
            framing: if is_line { Framing::Newline } else { Framing::OctetCounted },
            max_message: most,
            ..layout()
        };
        let members = values.iter().enumerate().map(|(at, value)| (at.to_string(), value.clone().into()));
        let raw = Value::Object(members.collect()).to_string();

        if let Err(refused) = framed(&event(&raw), &layout) {
            prop_assert!(refused.length > most);
            prop_assert!(most < if is_json { 380 } else { 230 }, "{most} bytes suffice");
            return Ok(());
        }
        let message = text(&event(&raw), &layout);
        prop_assert!(message.len() <= most);
        let (head, json) = message.split_once("] ").unwrap();
        let object: Value = serde_json::from_str(json).unwrap();
        let is_cut = head.ends_with(r#" truncated="true""#);
        prop_assert_eq!(object["siemferry"]["truncated"] == true, is_cut);
        for (at, value) in values.iter().enumerate() {
            let found = &object[at.to_string()];
            let is_of_it = found.as_str().is_some_and(|found| value.starts_with(found));
            let is_known = is_of_it || object["text"].is_string();
            prop_assert!(found == value || is_cut && is_known, "{}", message);
        }
    }

    #[test]
    fn the_parts_are_the_whole(
        value in "[a-c\"\\\\\u{85}\u{2028}é\u{1f511}\n]{0,300}",
        room in 12_usize..100,
        is_line: bool,
    ) {
        let framing = if is_line { Framing::Newline } else { Framing::OctetCounted };
        let whole = Layout { framing, ..layout() };
        let most = BEFORE.len() + r#" part="999/999""#.len() + room;
        let raw = serde_json::json!({ "a": value }).to_string();

        let parts = texts(&event(&raw), &Layout { oversize: Oversize::Split, max_message: most, ..whole.clone() });

        prop_assert!(parts.iter().all(|part| part.len() <= most));
        let joined: String = parts.iter().map(|part| part.split_once("] ").unwrap().1).collect();
        let message = text(&event(&raw), &whole);
        prop_assert_eq!(joined, message.split_once("] ").unwrap().1);
        if is_line {
            for part in &parts {
                let escape = part.rfind('\\').map_or("", |at| &part[at..]);
                prop_assert!(!escape.starts_with(r"\u") || escape.len() >= 6, "{}", part);
            }
        }
    }
}

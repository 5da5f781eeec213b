//! The strict receiver takes what the standards show, and nothing that they forbid.

use crate::strict_syslog::{Deframer, Framing, Message, OldMessage};

#[test]
fn the_examples_of_rfc_5424_are_read() {
    let text =
        "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed";
    let message = Message::parse(text.as_bytes()).unwrap();
    assert_eq!(message.pri, 34);
    assert_eq!(message.time.as_deref(), Some("2003-10-11T22:14:15.003Z"));
    assert_eq!(message.hostname.as_deref(), Some("mymachine.example.com"));
    assert_eq!((message.app_name.as_deref(), message.procid), (Some("su"), None));
    assert_eq!(message.msgid.as_deref(), Some("ID47"));
    assert_eq!(message.msg.unwrap(), "\u{feff}'su root' failed".as_bytes());

    let text = concat!(
        r#"<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - "#,
        r#"[exampleSDID@32473 iut="3" eventSource="a\"\\\]b"][examplePriority@32473 class="high"]"#
    );
    let message = Message::parse(text.as_bytes()).unwrap();
    assert_eq!(message.data.len(), 2);
    assert_eq!(message.parameter("exampleSDID@32473", "eventSource"), Some(r#"a"\]b"#));
    assert_eq!(message.parameter("examplePriority@32473", "class"), Some("high"));
    assert_eq!(message.msg, None);
}

#[test]
fn what_rfc_5424_forbids_is_refused() {
    const SOUND: &str = "<34>1 2003-10-11T22:14:15.003Z host app - ID47 [a@1 b=\"c\"] text";
    Message::parse(SOUND.as_bytes()).unwrap();
    let long = "x".repeat(33);
    for (part, other) in [
        ("<34>", "34"),
        ("<34>", "<034>"),
        ("<34>", "<192>"),
        ("<34>", "<>"),
        (">1 ", ">2 "),
        (">1 ", ">1"),
        ("2003-10-11", "2003-02-29"),
        ("2003-10-11", "2003-13-11"),
        ("T22", " 22"),
        ("T22", "T24"),
        (":15.003Z", ":60.003Z"),
        (".003Z", ".1234567Z"),
        (".003Z", ".Z"),
        (".003Z", ".003"),
        (".003Z", ".003z"),
        ("host", ""),
        ("host", "h\u{f6}st"),
        ("host app", "host  app"),
        ("ID47", &long),
        ("[a@1", "[a"),
        ("[a@1", "[a@x"),
        ("[a@1", "[@1"),
        ("[a@1", "[ a@1"),
        ("b=\"c\"", "b=c"),
        ("b=\"c\"", "b=\"]\""),
        ("b=\"c\"", "b=\"\"\""),
        ("b=\"c\"", "b=\"\\n\""),
        ("b=\"c\"", "b=\"c"),
        ("b=\"c\"]", "b=\"c\"][a@1]"),
        ("] text", "]text"),
        ("[a@1 b=\"c\"] text", ""),
    ] {
        let text = SOUND.replace(part, other);
        assert_ne!(text, SOUND);
        assert!(Message::parse(text.as_bytes()).is_err(), "{text}");
    }
    assert!(Message::parse(&[SOUND.as_bytes(), b"\xff"].concat()).is_err());
}

#[test]
fn what_is_no_rfc_3164_is_refused() {
    let message = OldMessage::parse(b"<34>Oct  1 22:14:15 host tag: text").unwrap();
    assert_eq!((&*message.time, &*message.tag), ("Oct  1 22:14:15", "tag"));
    assert_eq!(message.msg, b"text");
    for text in [
        "Oct 11 22:14:15 host tag: text",
        "<34>Okt 11 22:14:15 host tag: text",
        "<34>Oct 01 22:14:15 host tag: text",
        "<34>Oct 1 22:14:15 host tag: text",
        "<34>Oct 32 22:14:15 host tag: text",
        "<34>Oct 11 22:14:15 tag: text",
        "<34>Oct 11 22:14:15 host tag text",
        "<34>Oct",
    ] {
        assert!(OldMessage::parse(text.as_bytes()).is_err(), "{text}");
    }
}

/// All that comes of a stream that arrives byte by byte.
fn deframed(framing: Framing, stream: &[u8]) -> (Vec<Result<Vec<u8>, String>>, bool) {
    let mut deframer = Deframer::new(framing);
    let mut found = Vec::new();
    for byte in stream {
        deframer.push(&[*byte]);
        found.extend(std::iter::from_fn(|| deframer.next()));
    }
    (found, deframer.is_at_boundary())
}

#[test]
fn messages_are_taken_out_of_a_stream() {
    let (found, at_boundary) = deframed(Framing::OctetCounted, b"3 abc2 \n 11 12345678901");
    assert_eq!(found, [Ok(b"abc".to_vec()), Ok(b"\n ".to_vec()), Ok(b"12345678901".to_vec())]);
    assert!(at_boundary);
    let (found, at_boundary) = deframed(Framing::Newline, b"abc\n3 d\nrest");
    assert_eq!(found, [Ok(b"abc".to_vec()), Ok(b"3 d".to_vec())]);
    assert!(!at_boundary);
}

#[test]
fn nothing_is_taken_behind_what_is_no_frame() {
    for stream in ["03 abc", "3\nabc", "<34>1", "99999999999 a", "99999999 a", "3 abc\n3 abc"] {
        let (found, at_boundary) = deframed(Framing::OctetCounted, stream.as_bytes());
        assert!(found.last().unwrap().is_err() && !at_boundary, "{stream}");
        assert!(found.len() <= 2, "{stream}");
    }
    let (found, _) = deframed(Framing::Newline, b"\nabc\n");
    assert!(matches!(&found[..], [Err(_)]));
}

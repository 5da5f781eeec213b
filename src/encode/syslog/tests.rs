use super::*;
use crate::event::Uid;

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

fn event() -> Event<'static> {
    Event {
        seq: 42,
        uid: Uid([0xab; 16]),
        time: Some(1_767_323_045_678),
        event_type: Some("login"),
        raw: br#"{"a":1}"#,
        source: "acme",
        api: "keeper",
        received: 1_767_323_046_000,
    }
}

fn encoded(event: &Event<'_>, layout: &Layout) -> String {
    let mut out = Vec::new();
    encode(event, layout, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_message_has_the_header_of_rfc_5424_and_its_length_before_it() {
    assert_eq!(
        encoded(&event(), &layout()),
        concat!(
            r#"133 <165>1 2026-01-02T03:04:05.678Z host siemferry - login "#,
            r#"[siemferry@32473 uid="abababababababababababababababab" source="acme"] {"a":1}"#
        )
    );
}

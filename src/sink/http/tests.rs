use std::borrow::Cow;
use std::time::Duration;

use reqwest::Method;

use super::*;
use crate::http::Answer;

fn answer(status: u16, body: &str) -> Answer {
    Answer {
        status,
        body: body.into(),
        memory: None,
        date: None,
        retry_after: None,
        content_type: None,
        location: None,
        www_authenticate: None,
        elapsed: Duration::ZERO,
    }
}

fn judged(answer: &Answer) -> Result<(), DeliveryError> {
    let url = Url::parse("https://hook.example.com/in?key=hidden").unwrap();
    let (method, compress) = (Method::POST, Compress::Gzip);
    judge(&Asked { method, url: &url, compress, hint: |_| None }, answer)
}

/// What the courier does about a status, in a word.
fn reaction(status: u16) -> &'static str {
    match judged(&answer(status, "")) {
        Ok(()) => "accepted",
        Err(DeliveryError::Retry { is_ambiguous: true, .. }) => "unknown",
        Err(DeliveryError::Retry { is_ambiguous: false, .. }) => "again",
        Err(DeliveryError::Refused { is_size: true, .. }) => "too much",
        Err(DeliveryError::Refused { is_size: false, .. }) => "refused",
        Err(DeliveryError::Blocked { may_be_content: true, .. }) => "perhaps blocked",
        Err(DeliveryError::Blocked { may_be_content: false, .. }) => "blocked",
    }
}

#[test]
fn every_status_has_one_meaning() {
    for status in 100..=600 {
        let expected = match status {
            200..=299 => "accepted",
            409 | 425 | 429 | 503 => "again",
            408 | 500..=502 | 504..=599 => "unknown",
            413 => "too much",
            403 | 404 => "perhaps blocked",
            401 | 402 | 405 | 406 | 407 | 410 | 411 | 414 | 415 | 417 | 421 | 426 | 431 => {
                "blocked"
            }
            400..=499 => "refused",
            _ => "blocked",
        };
        assert_eq!(reaction(status), expected, "{status}");
    }
}

#[test]
fn what_the_receiver_asks_us_to_wait_is_passed_on() {
    let asked = Answer { retry_after: Some(Duration::from_secs(17)), ..answer(429, "") };

    let Err(DeliveryError::Retry { after, .. }) = judged(&asked) else { panic!("not a retry") };

    assert_eq!(after, Some(Duration::from_secs(17)));
}

#[test]
fn a_reason_is_one_line_of_at_most_300_characters() {
    let body = format!("wrong\n\u{1b}[31m{}", "é".repeat(1000));

    let text = judged(&answer(400, &body)).unwrap_err().to_string();

    let start = "POST https://hook.example.com: 400 Bad Request: wrong\\n\\u{1b}[31mé";
    assert!(text.starts_with(start), "{text}");
    assert!(text.chars().count() <= 300, "{text}");
}

fn hint(answer: &Answer) -> String {
    match judged(answer) {
        Err(DeliveryError::Blocked { hint, .. }) => hint.unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_redirect_is_told_without_its_query() {
    let to = |location: &str| Answer { location: Some(location.into()), ..answer(302, "") };

    assert_eq!(
        hint(&to("/in/?key=hidden")),
        "redirects are not followed, for they would carry events and secrets to another place; \
         check `url`: it names `https://hook.example.com/in/`"
    );
    assert!(hint(&to("https://login.example.com/?s=x")).ends_with("`https://login.example.com/`"));
    assert!(hint(&answer(302, "")).ends_with("check `url`"));
}

#[test]
fn a_receiver_that_does_not_decompress_is_told_of() {
    assert_eq!(
        hint(&answer(415, "")),
        r#"the receiver may not understand compressed bodies: try `compress = "none"`"#
    );
}

#[test]
fn an_address_shows_scheme_host_and_port() {
    let address =
        Address::from("https://hook.example.com:8443/path-canary?key=query-canary".to_owned());

    assert_eq!(format!("{address:?}"), "https://hook.example.com:8443");
    assert_eq!(secret::redact("<query-canary>"), "<***>");
}

#[tokio::test]
async fn what_blocked_is_read_again_and_what_did_not_is_kept() {
    let settings = Settings {
        ca_file: None,
        client_certificate: None,
        proxy: None,
        timeout: Duration::from_secs(1),
    };
    let reads = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = Arc::clone(&reads);
    let connection = Connection::new(settings, move || {
        Ok(counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst))
    });
    let read = async |outcome: Result<(), DeliveryError>| {
        let mut seen = 0;
        let _ = connection
            .with(|opened| {
                seen = opened.secrets;
                async { outcome }
            })
            .await;
        seen
    };

    assert_eq!(read(Ok(())).await, 0);
    assert_eq!(read(Err(DeliveryError::passing("later"))).await, 0);
    assert_eq!(read(Err(DeliveryError::blocked("no", None))).await, 0);
    assert_eq!(read(Ok(())).await, 1);
}

#[test]
fn each_compression_can_be_undone() {
    let body = b"line\n".repeat(1000);

    let gzip = Compress::Gzip.apply(Cow::Borrowed(&body)).unwrap();
    let zstd = Compress::Zstd.apply(Cow::Borrowed(&body)).unwrap();

    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&gzip[..]), &mut plain).unwrap();
    assert!(plain == body && gzip.len() < body.len());
    assert_eq!(zstd::decode_all(&zstd[..]).unwrap(), body);
    assert_eq!(Compress::None.apply(Cow::Borrowed(&body)).unwrap(), body);
}

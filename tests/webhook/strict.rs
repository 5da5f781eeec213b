//! The receiver of these tests refuses what a real one refuses.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::collector::{Collector, Options, hmac_sha256};

const KEY: [u8; 32] = [9; 32];

/// A good request, to be spoilt.
struct Post {
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Post {
    fn good() -> Self {
        let now = chrono::Utc::now().timestamp();
        let headers = vec![
            ("content-type", "application/x-ndjson".to_owned()),
            ("webhook-id", "a".to_owned()),
            ("idempotency-key", "a".to_owned()),
            ("webhook-timestamp", now.to_string()),
        ];
        Self { headers, body: b"{}\n".to_vec() }
    }

    fn body(body: &[u8]) -> Self {
        Self { body: body.to_vec(), ..Self::good() }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.to_owned()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self
    }

    /// Signed as one whose body is `{}` in a line.
    fn signed(mut self) -> Self {
        let value = |name: &str| {
            let found = self.headers.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let signed = [value("webhook-id"), value("webhook-timestamp"), String::new()].join(".");
        let signed = hmac_sha256(&KEY, &[signed.as_bytes(), b"{}\n"].concat());
        self.headers.push(("webhook-signature", format!("v1,{}", STANDARD.encode(signed))));
        self
    }

    /// The status that it is answered with.
    fn to(self, collector: &Collector) -> u16 {
        let mut request = "POST /in HTTP/1.1\r\nconnection: close\r\n".to_owned();
        for (name, value) in &self.headers {
            request.extend([*name, ": ", value, "\r\n"]);
        }
        request.extend(["content-length: ", &self.body.len().to_string(), "\r\n\r\n"]);
        let mut stream = TcpStream::connect(("127.0.0.1", collector.port())).unwrap();
        stream.write_all(&[request.as_bytes(), &self.body].concat()).unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        std::str::from_utf8(&status[9..]).unwrap().parse().unwrap()
    }
}

#[test]
fn what_a_real_receiver_refuses_is_refused() {
    let keys = vec![KEY.to_vec()];
    let signed = Collector::start(Options { keys, ..Options::default() });
    assert_eq!(Post::good().signed().to(&signed), 200);
    assert_eq!(Post::good().with("webhook-id", "b").signed().to(&signed), 400);
    assert_eq!(Post::good().without("webhook-id").signed().to(&signed), 400);
    assert_eq!(Post::good().without("idempotency-key").signed().to(&signed), 400);
    assert_eq!(Post::good().without("webhook-timestamp").signed().to(&signed), 400);
    assert_eq!(Post::good().with("webhook-timestamp", "1600000000").signed().to(&signed), 400);
    assert_eq!(Post::good().with("content-type", "application/json").signed().to(&signed), 415);
    assert_eq!(Post::good().with("content-encoding", "br").signed().to(&signed), 415);
    assert_eq!(Post::good().with("content-encoding", "gzip").signed().to(&signed), 400);
    assert_eq!(Post::body(b"{ }\n").signed().to(&signed), 401, "another body was signed");
    assert_eq!(signed.accepted().len(), 1);

    let unsigned = Collector::start(Options { most_bytes: Some(20), ..Options::default() });
    let status = |body: &[u8]| Post::body(body).to(&unsigned);
    for body in [&b"{}"[..], b"{\n", b"{}\n\n{}\n", b"\n", b"\"\xff\"\n"] {
        assert_eq!(status(body), 400, "{body:?}");
    }
    assert_eq!(status(&b"1234567\n".repeat(3)), 413);
    assert_eq!(status(b"{}\n"), 200);
    assert_eq!(status(b"{ }\n"), 422, "the id is known for another body");
    assert_eq!(unsigned.accepted().len(), 1);
}

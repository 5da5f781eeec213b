//! What a test can make go wrong.

use super::http::Reply;

/// How one request fails. All but [`Fault::Hold`] answer something else than the truth.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Another answer, whole.
    Status {
        /// Its status.
        code: u16,
        /// Its headers.
        headers: Vec<(String, String)>,
        /// Its body.
        body: String,
    },
    /// 200 and a page for people, as a captive portal sends it.
    Html,
    /// The whole answer is promised; in the middle of the body the connection closes.
    Truncated,
    /// Half of the body, with the length of that half: whole for HTTP, broken JSON.
    ShortButConsistent,
    /// 200 and a body that is neither JSON nor text.
    Garbage,
    /// 200 and valid JSON without any records in it.
    WrongEnvelope,
    /// 200 with these headers and this body, such as a compressed bomb.
    Raw {
        /// The headers.
        headers: Vec<(String, String)>,
        /// The body's bytes.
        body: Vec<u8>,
    },
    /// 302 to another address.
    Redirect {
        /// Where to.
        to: String,
    },
    /// Never an answer; the connection stays open.
    Stall,
    /// The connection closes without an answer.
    Reset,
    /// This status, and a body that tells the token received.
    EchoToken {
        /// The status.
        code: u16,
    },
    /// The true answer, but only after [`super::Api::release`].
    Hold,
    /// A page that breaks the rules of paging, or a wrong one.
    Lie(Lie),
}

/// What is wrong with a page that looks well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// There is more, it says, and gives no token for it.
    NoToken,
    /// It gives the token that it was asked with.
    SameToken,
    /// The first page of the reading again, and a new token.
    FirstPage,
    /// It ends here, it says, though there is more.
    CutShort,
}

impl Fault {
    /// An answer with this status and body, and no headers of its own.
    pub fn status(code: u16, body: &str) -> Self {
        Self::Status { code, headers: Vec::new(), body: body.to_owned() }
    }

    /// The answer with another header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        if let Self::Status { headers, .. } | Self::Raw { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }
}

/// The answer that this fault makes of the true one.
pub(super) fn spoil(fault: Fault, truth: Reply, credential: &str) -> Reply {
    match fault {
        Fault::Status { code, headers, body } => other(code, headers, body),
        Fault::Html => other(200, typed("text/html"), "<html><body>Please log in.</body></html>"),
        Fault::ShortButConsistent => {
            let half = truth.body[..truth.body.len() / 2].to_vec();
            Reply { body: half, ..truth }
        }
        Fault::Garbage => {
            other(200, typed("application/json"), *b"\x00\xff\x1f\x8b\xc3\x28 not JSON \x80")
        }
        Fault::WrongEnvelope => {
            other(200, typed("application/json"), r#"{"status":"ok","result":null,"total":0}"#)
        }
        Fault::Raw { headers, body } => other(200, headers, body),
        Fault::Redirect { to } => other(302, vec![("location".to_owned(), to)], ""),
        Fault::EchoToken { code } => {
            let body = format!(r#"{{"error":"rejected","message":"you sent {credential}"}}"#);
            other(code, typed("application/json"), body)
        }
        Fault::Truncated | Fault::Stall | Fault::Reset | Fault::Hold | Fault::Lie(_) => truth,
    }
}

fn other(status: u16, headers: Vec<(String, String)>, body: impl Into<Vec<u8>>) -> Reply {
    Reply { status, headers, body: body.into(), page: None, records: 0 }
}

fn typed(mime: &str) -> Vec<(String, String)> {
    vec![("content-type".to_owned(), mime.to_owned())]
}

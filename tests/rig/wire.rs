//! A server that answers with prepared bytes and keeps what it was asked.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A server on loopback, as long as the test runs.
pub struct Wire {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Wire {
    /// Gives every request this answer.
    pub fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::answering_each(move |_, _| answer.clone())
    }

    /// Has the answer made for each request, from its number (from 0) and its head.
    pub fn answering_each(answer: impl FnMut(usize, &str) -> Vec<u8> + Send + 'static) -> Self {
        Self::start(answer, Ok)
    }

    /// The same behind TLS.
    pub fn over_tls(answer: impl Into<Vec<u8>>, tls: ServerConfig) -> Self {
        let (answer, tls) = (answer.into(), Arc::new(tls));
        let handshake = move |stream| {
            let connection = ServerConnection::new(Arc::clone(&tls)).map_err(io::Error::other)?;
            Ok(StreamOwned::new(connection, stream))
        };
        Self::start(move |_, _| answer.clone(), handshake)
    }

    fn start<S: Read + Write>(
        mut answer: impl FnMut(usize, &str) -> Vec<u8> + Send + 'static,
        open: impl Fn(TcpStream) -> io::Result<S> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heads);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A client that goes away is the client's business.
                let Ok(mut stream) = open(stream) else { continue };
                let Ok(head) = head(&mut stream) else { continue };
                let number = {
                    let mut kept = kept.lock().unwrap();
                    kept.push(head.clone());
                    kept.len() - 1
                };
                let answer = answer(number, &head);
                let _ = stream.write_all(&answer).and_then(|()| stream.flush());
            }
        });
        Self { port, heads }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// A whole answer, after which the connection closes.
pub fn answer(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut head = format!("HTTP/1.1 {status} As Prepared\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    let length = body.len().to_string();
    head.extend(["content-length: ", &length, "\r\nconnection: close\r\n\r\n"]);
    [head.as_bytes(), body].concat()
}

fn head(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

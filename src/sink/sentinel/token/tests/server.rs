//! A token service on loopback that answers as it was told to, in order.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Request line and headers, in lower case but for their values.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Asked {
    /// A value of the form that was sent.
    pub fn form(&self, name: &str) -> Option<String> {
        let url = reqwest::Url::parse(&format!("form:?{}", self.body)).unwrap();
        url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// Method and path.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap().strip_suffix(" HTTP/1.1").unwrap()
    }
}

/// It runs as long as the test does; its last answer is given again and again.
pub struct Server {
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// A whole answer.
pub fn answer(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} As Told\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}"
    )
}

/// An answer with a token that lasts for an hour.
pub fn token(value: &str) -> String {
    let body = format!(r#"{{"token_type":"Bearer","expires_in":3600,"access_token":"{value}"}}"#);
    answer(200, "content-type: application/json\r\n", &body)
}

impl Server {
    pub fn answering(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let answer = answers.get(number).or(answers.last()).unwrap();
                kept.lock().unwrap().push(read(&stream));
                (&stream).write_all(answer.as_bytes()).unwrap();
            }
        });
        Self { url, asked }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn read(stream: &TcpStream) -> Asked {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line.replace("\r\n", "\n"));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    Asked { head, body: String::from_utf8(body).unwrap() }
}

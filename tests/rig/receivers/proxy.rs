//! A proxy whose connections can be ended, and which hears what the receiver answers.

use std::io::{self, Read, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Passes every connection on, as long as the test runs.
pub struct Proxy {
    port: u16,
    all: Arc<Mutex<All>>,
}

#[derive(Default)]
struct All {
    /// Those to the receiver.
    open: Vec<TcpStream>,
    /// Of each connection, what was passed to its client.
    answers: Vec<Answers>,
}

type Answers = Arc<Mutex<Vec<u8>>>;

impl Proxy {
    /// To this port of the loopback.
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let all = Arc::new(Mutex::new(All::default()));
        let kept = Arc::clone(&all);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Without a receiver the client finds its connection closed.
                let _ = pass_on(client, target, &kept);
            }
        });
        Self { port, all }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends all connections of now. What was answered before is still read by the client.
    pub fn cut(&self) {
        for stream in self.all.lock().unwrap().open.drain(..) {
            // It may have ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// What the clients have been told, connection after connection.
    pub fn answers(&self) -> Vec<Vec<u8>> {
        let all = self.all.lock().unwrap();
        all.answers.iter().map(|answers| answers.lock().unwrap().clone()).collect()
    }
}

fn pass_on(client: TcpStream, target: u16, all: &Mutex<All>) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", target))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let answers = Answers::default();
    {
        let mut all = all.lock().unwrap();
        all.open.push(server.try_clone()?);
        all.answers.push(Arc::clone(&answers));
    }
    let (mut from, to) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        copy(&mut from, to, |_| {});
        // Unread, it would take with it what the client has not read.
        let _ = io::copy(&mut from, &mut io::sink());
    });
    std::thread::spawn(move || {
        let passes = |passed: &[u8]| answers.lock().unwrap().extend(passed);
        copy(&mut &server, client, passes);
    });
    Ok(())
}

/// Copies until one side ends, and then ends the other.
fn copy(from: &mut impl Read, mut to: TcpStream, passes: impl Fn(&[u8])) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..length]).is_err() {
            break;
        }
        passes(&bytes[..length]);
    }
    // It may have ended already.
    let _ = to.shutdown(Shutdown::Write);
}

//! How fast syslog messages reach a real rsyslog, from the syslog sink and from rsyslog itself.
//!
//! `cargo bench --bench syslog [-- EVENTS [REPEATS]]` fills a spool once, from the simulated API in
//! another process, and makes a file of the messages that the sink makes of it: one a line, RFC 5424,
//! some 755 bytes each. Then, over TCP, TLS and RELP, in turn:
//!
//! - The real binary runs once, with one new syslog sink that begins with the oldest event kept and
//!   a source that has nothing new. It reads the spool, makes the messages, sends them, and settles
//!   durably what is confirmed. Measured from its start until it has ended and the receiver has all.
//! - rsyslogd reads the file of messages (imfile) and forwards each line as it is (omfwd, octet-counted,
//!   with the OpenSSL driver for TLS; omrelp), from memory, as it comes configured. It makes nothing,
//!   and nothing is durable but its place in the file at its end. Measured from its start until the
//!   receiver has all; its end is not counted. Over RELP, with the window of 128 that both have unless told
//!   otherwise, it waits for delayed acknowledgements of TCP, so it gets no more than [`SLOW`] messages
//!   there; a second row gives it a window that hides this.
//!
//! The receiver is a third rsyslogd, configured alike for both: it parses each message and writes one byte
//! for it, which is how they are counted. It shares the machine with the sender, so the events a second are
//! of both together. CPU and memory are those of the sender alone. Before anything is measured, one run of
//! the binary proves that what comes is, byte for byte, what is in the file.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

#[path = "rig/lines.rs"]
mod lines;
mod rig;
#[path = "rig/spool.rs"]
mod spool;
#[allow(dead_code, clippy::unwrap_used, reason = "the tests' own")]
#[path = "../tests/rig/tls.rs"]
mod tls;

use rig::{Measured, Other};

const RSYSLOGD: &str = "/usr/sbin/rsyslogd";

/// As many messages as rsyslog sends over RELP with a window of 128.
const SLOW: u64 = 100_000;

/// Without a further message for so long, none comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What has come is one byte a message.
const COUNT: &str = ".";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Transport {
    Tcp,
    Tls,
    Relp,
}

/// What all runs share.
struct Bench {
    dir: tempfile::TempDir,
    api: Other,
    authority: tls::Authority,
    /// Certificate and key of the receiver.
    certificate: PathBuf,
    events: u64,
    runs: std::cell::Cell<u32>,
}

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |word: &str| word.parse().expect("a number");
    match words[..] {
        ["serve", events] => spool::serve(events.parse().expect("a number of events")),
        [] => compare(1_000_000, 3),
        [events] => compare(number(events), 3),
        [events, repeats] => compare(number(events), number(repeats)),
        _ => panic!("usage: cargo bench --bench syslog [-- EVENTS [REPEATS]]"),
    }
}

fn compare(events: u64, repeats: u64) {
    assert!(
        Path::new(RSYSLOGD).exists(),
        "install rsyslog rsyslog-gnutls rsyslog-openssl rsyslog-relp"
    );
    let bench = Bench::new(events);
    bench.prove();
    spool::header();
    for (name, transport) in
        [("TCP", Transport::Tcp), ("TLS", Transport::Tls), ("RELP", Transport::Relp)]
    {
        let row = |label: &str, events, run: &dyn Fn() -> Measured| {
            let runs: Vec<Measured> = (0..repeats).map(|_| run()).collect();
            let sent = lines::size_of_lines(&bench.messages(), events);
            spool::row(&format!("{name}: {label}"), events, &runs, sent)
        };
        let ours = row("siemferry", events, &|| bench.siemferry(transport));
        let slow = if transport == Transport::Relp { SLOW.min(events) } else { events };
        let theirs = row("rsyslog", slow, &|| bench.rsyslog(transport, "", slow));
        ratio("rsyslog", ours, theirs);
        if transport == Transport::Relp {
            let window = "windowSize=\"10000\"";
            let run = || bench.rsyslog(transport, window, events);
            ratio("that", ours, row("rsyslog, window 10000", events, &run));
        }
    }
    bench.api.end();
}

fn ratio(whose: &str, ours: spool::Medians, theirs: spool::Medians) {
    let (events, cpu) = (ours.events_a_second / theirs.events_a_second, ours.cpu / theirs.cpu);
    println!("    siemferry has {events:.2} of {whose}'s events/s, for {cpu:.2} of its CPU");
}

impl Bench {
    fn new(events: u64) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let api = Other::start(&["serve", &events.to_string()]);
        spool::fill(dir.path(), &api.told, events);
        api.end();
        let authority = tls::Authority::new();
        let certificate = authority.client("localhost");
        let api = Other::start(&["serve", "0"]);
        let bench = Self { dir, api, authority, certificate, events, runs: 0.into() };
        bench.write_messages();
        bench
    }

    fn messages(&self) -> PathBuf {
        self.dir.path().join("messages")
    }

    /// As the sink makes them of what was read, which is in a file beside the spool.
    fn write_messages(&self) {
        let events = self.dir.path().join("fill.ndjson");
        let events = BufReader::new(File::open(events).expect("it was written"));
        let mut messages = BufWriter::new(File::create(self.messages()).expect("a new file"));
        for event in events.lines() {
            let event = event.expect("a line");
            let (_, ours) = event.rsplit_once(r#""siemferry":{"#).expect("our member");
            let member = |name: &str| {
                let (_, rest) = ours.split_once(&format!(r#""{name}":""#)).expect("it is there");
                rest.split_once('"').expect("a string").0
            };
            let (time, uid) = (member("time"), member("uid"));
            // local4.notice
            let header = format!(
                r#"<165>1 {time} loghost siemferry - open_record [siemferry@32473 uid="{uid}" source="bench"]"#
            );
            writeln!(messages, "{header} {event}").expect("room on the disk");
        }
        messages.into_inner().expect("room on the disk");
    }

    /// What comes is what is in the file.
    fn prove(&self) {
        let receiver = Receiver::start(self, Transport::Tcp, "%rawmsg%\\n");
        self.once(&receiver);
        let expected = lines::sum_of_lines(&self.messages());
        let begun = Instant::now();
        while lines::sum_of_lines(&receiver.received()) != expected {
            assert!(begun.elapsed() < PATIENCE, "the messages of the sink are others");
        }
        receiver.end();
    }

    fn siemferry(&self, transport: Transport) -> Measured {
        let receiver = Receiver::start(self, transport, COUNT);
        let begun = Instant::now();
        let measured = self.once(&receiver);
        if !receiver.has_all(self.events) {
            let (home, came) = (self.dir.path(), receiver.count());
            panic!("{came} of {} came; what is known of it:\n{}", self.events, told(home));
        }
        let wall = begun.elapsed();
        assert_eq!(receiver.end(), self.events, "every message came, and once");
        Measured { wall, ..measured }
    }

    fn once(&self, receiver: &Receiver) -> Measured {
        let (scheme, trust) = match receiver.transport {
            Transport::Tcp => ("tcp", String::new()),
            Transport::Tls => {
                let authority = self.authority.file();
                ("tls", format!("ca_file = \"{}\"\n", authority.display()))
            }
            Transport::Relp => ("relp", String::new()),
        };
        let sink = format!(
            "syslog]\naddress = \"{scheme}://localhost:{}\"\nhostname = \"loghost\"\n{trust}",
            receiver.port
        );
        let name = self.next("s");
        spool::once(self.dir.path(), &self.api.told, &name, &sink)
    }

    /// Has rsyslog send the first so many of the messages.
    fn rsyslog(&self, transport: Transport, more: &str, messages: u64) -> Measured {
        let receiver = Receiver::start(self, transport, COUNT);
        let dir = self.dir.path().join(self.next("sender"));
        std::fs::create_dir(&dir).expect("a new directory");
        let lines = lines::first_lines(&self.messages(), messages, &dir);
        let (global, action) = match transport {
            Transport::Tcp => (String::new(), String::new()),
            Transport::Tls => (
                self.trust(),
                "StreamDriver=\"ossl\" StreamDriverMode=\"1\" StreamDriverAuthMode=\"x509/name\" \
                 StreamDriverPermittedPeers=\"localhost\""
                    .to_owned(),
            ),
            Transport::Relp => (String::new(), more.to_owned()),
        };
        let kind = match transport {
            Transport::Relp => "type=\"omrelp\"",
            _ => "type=\"omfwd\" protocol=\"tcp\" TCP_Framing=\"octet-counted\"",
        };
        let module = if transport == Transport::Relp { "module(load=\"omrelp\")" } else { "" };
        let config = format!(
            "global(workDirectory=\"{dir}\" maxMessageSize=\"64k\" {global})\n\
             module(load=\"imfile\")\n{module}\n\
             template(name=\"line\" type=\"string\" string=\"%msg%\")\n\
             input(type=\"imfile\" file=\"{lines}\" tag=\"bench\" ruleset=\"forward\")\n\
             ruleset(name=\"forward\") {{\n  \
             action({kind} target=\"localhost\" port=\"{port}\" template=\"line\" {action})\n}}\n",
            dir = dir.display(),
            lines = lines.display(),
            port = receiver.port,
        );
        let (begun, mut wall) = (Instant::now(), None);
        let (measured, _) = rig::measure(&mut rsyslogd(&dir, &config), |child| {
            if receiver.count() < messages {
                assert!(begun.elapsed() < PATIENCE * 10, "rsyslog sends no more");
                return None;
            }
            wall = Some(begun.elapsed());
            Some(end(child))
        });
        assert_eq!(receiver.end(), messages, "every message came, and once");
        Measured { wall: wall.expect("it was measured"), ..measured }
    }

    /// Whom an rsyslog trusts, and who it is.
    fn trust(&self) -> String {
        let (authority, own) = (self.authority.file(), &self.certificate);
        format!(
            "DefaultNetstreamDriverCAFile=\"{}\" DefaultNetstreamDriverCertFile=\"{own}\" \
             DefaultNetstreamDriverKeyFile=\"{own}\"",
            authority.display(),
            own = own.display()
        )
    }

    /// A name that is not taken.
    fn next(&self, what: &str) -> String {
        self.runs.set(self.runs.get() + 1);
        format!("{what}{}", self.runs.get())
    }
}

/// An rsyslog that counts.
struct Receiver {
    child: Child,
    dir: PathBuf,
    transport: Transport,
    port: u16,
}

impl Receiver {
    /// One that writes what this template makes of each message.
    fn start(bench: &Bench, transport: Transport, template: &str) -> Self {
        let dir = bench.dir.path().join(bench.next("receiver"));
        std::fs::create_dir(&dir).expect("a new directory");
        let port = free_port();
        let (kind, module, global) = match transport {
            Transport::Tcp => ("imtcp", "", String::new()),
            Transport::Tls => (
                "imtcp",
                "StreamDriver.Name=\"ossl\" StreamDriver.Mode=\"1\" StreamDriver.AuthMode=\"anon\"",
                bench.trust(),
            ),
            Transport::Relp => ("imrelp", "", String::new()),
        };
        let mut config = format!(
            "global(workDirectory=\"{dir}\" maxMessageSize=\"64k\" {global})\n\
             module(load=\"{kind}\" {module})\n\
             template(name=\"told\" type=\"string\" string=\"{template}\")\n",
            dir = dir.display()
        );
        write!(
            config,
            "input(type=\"{kind}\" address=\"127.0.0.1\" port=\"{port}\" ruleset=\"count\")\n\
             ruleset(name=\"count\") {{ action(type=\"omfile\" file=\"{}/received\" template=\"told\") }}\n",
            dir.display()
        )
        .expect("a string takes all");
        let child = rsyslogd(&dir, &config).spawn().expect("rsyslogd starts");
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < PATIENCE, "rsyslogd does not listen");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Self { child, dir, transport, port }
    }

    fn received(&self) -> PathBuf {
        self.dir.join("received")
    }

    /// How many messages have come.
    fn count(&self) -> u64 {
        std::fs::metadata(self.received()).map_or(0, |file| file.len())
    }

    /// Whether so many have come before none came for long.
    fn has_all(&self, messages: u64) -> bool {
        let (mut known, mut since) = (self.count(), Instant::now());
        while known < messages && since.elapsed() < PATIENCE {
            std::thread::park_timeout(Duration::from_millis(5));
            if self.count() > known {
                (known, since) = (self.count(), Instant::now());
            }
        }
        known >= messages
    }

    /// Ends it; how many messages have come.
    fn end(mut self) -> u64 {
        end(&mut self.child);
        let count = self.count();
        std::fs::remove_dir_all(&self.dir).expect("it is ours");
        count
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // It has ended already, unless something has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One that the kernel gives to no client: asking whether somebody listens yet would connect such a
/// port with itself.
fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (20_000..30_000).find(is_free).expect("a free port")
}

/// What the last run of the binary says of itself.
fn told(home: &Path) -> String {
    let mut status = Command::new(env!("CARGO_BIN_EXE_siemferry"));
    let status = status.args(["status", "--json", "--config"]).arg(home.join("c.toml")).output();
    let log = std::fs::read_to_string(home.join("log")).unwrap_or_default();
    format!("{log}{}", String::from_utf8_lossy(&status.expect("the binary starts").stdout))
}

/// One with this configuration, which is no daemon.
fn rsyslogd(dir: &Path, config: &str) -> Command {
    let path = dir.join("rsyslog.conf");
    std::fs::write(&path, config).expect("room on the disk");
    let mut command = Command::new(RSYSLOGD);
    command.args(["-n", "-C", "-iNONE", "-f"]).arg(path).stdout(Stdio::null());
    command.stderr(File::create(dir.join("log")).expect("a new file"));
    command
}

fn end(child: &mut Child) -> ExitStatus {
    let id = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(id.expect("a process"), rustix::process::Signal::TERM)
        .expect("it is our child");
    child.wait().expect("it is our child")
}

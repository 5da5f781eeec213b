//! Real receivers of syslog, each a process of its own with a directory of its own.
//!
//! A receiver writes every MSG as it came, one a line, into a file. What rsyslog has acknowledged
//! over RELP is in that file already: nothing between the socket and the file has a queue.

mod proxy;
mod rsyslog;
mod syslog_ng;

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::rig::{eventually, read};
use crate::tls::Authority;

pub use rsyslog::accepts as rsyslog_accepts;
pub use syslog_ng::accepts as syslog_ng_accepts;

/// The name in a client's certificate, where a receiver asks for one.
pub const CLIENT: &str = "client.example";

/// Longer than every message of the tests.
const MAX_MESSAGE: usize = 65536;

/// A daemon, and how messages reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    RsyslogUdp,
    /// Octet-counted; rsyslog tells the framing by the first byte of each message.
    RsyslogTcp,
    RsyslogNewline,
    /// TLS by `GnuTLS`; whoever connects is welcome.
    RsyslogGtls,
    /// TLS by OpenSSL; the client must be `CLIENT`.
    RsyslogOssl,
    RsyslogRelp,
    /// RELP over TLS; the client must be `CLIENT`.
    RsyslogRelps,
    SyslogNgUdp,
    /// Its driver `syslog()`: octet-counted.
    SyslogNgTcp,
    /// Its driver `network()`.
    SyslogNgNewline,
    /// `syslog()` over TLS; whoever connects is welcome.
    SyslogNgTls,
    /// `network()` over TLS; the client must have a certificate.
    SyslogNgTlsNewline,
}

impl Kind {
    pub const ALL: [Self; 12] = [
        Self::RsyslogUdp,
        Self::RsyslogTcp,
        Self::RsyslogNewline,
        Self::RsyslogGtls,
        Self::RsyslogOssl,
        Self::RsyslogRelp,
        Self::RsyslogRelps,
        Self::SyslogNgUdp,
        Self::SyslogNgTcp,
        Self::SyslogNgNewline,
        Self::SyslogNgTls,
        Self::SyslogNgTlsNewline,
    ];

    fn scheme(self) -> &'static str {
        match self {
            Self::RsyslogUdp | Self::SyslogNgUdp => "udp",
            Self::RsyslogGtls
            | Self::RsyslogOssl
            | Self::SyslogNgTls
            | Self::SyslogNgTlsNewline => "tls",
            Self::RsyslogRelp => "relp",
            Self::RsyslogRelps => "relps",
            _ => "tcp",
        }
    }

    pub fn is_udp(self) -> bool {
        self.scheme() == "udp"
    }

    pub fn is_relp(self) -> bool {
        self.scheme().starts_with("relp")
    }

    pub fn is_tls(self) -> bool {
        matches!(self.scheme(), "tls" | "relps")
    }

    /// True when a message ends with its line.
    pub fn is_newline(self) -> bool {
        matches!(self, Self::RsyslogNewline | Self::SyslogNgNewline | Self::SyslogNgTlsNewline)
    }

    pub fn wants_certificate(self) -> bool {
        matches!(self, Self::RsyslogOssl | Self::RsyslogRelps | Self::SyslogNgTlsNewline)
    }

    pub fn is_rsyslog(self) -> bool {
        !matches!(
            self,
            Self::SyslogNgUdp
                | Self::SyslogNgTcp
                | Self::SyslogNgNewline
                | Self::SyslogNgTls
                | Self::SyslogNgTlsNewline
        )
    }
}

/// A receiver that is killed when it is dropped.
pub struct Receiver {
    kind: Kind,
    dir: PathBuf,
    port: u16,
    daemon: Option<Child>,
    authority: Authority,
    /// Its certificate and key, in one file.
    certificate: PathBuf,
    proxy: Option<proxy::Proxy>,
}

impl Receiver {
    /// One that listens; all that it writes is in `dir`, which is made.
    pub fn start(dir: &Path, kind: Kind) -> Self {
        std::fs::create_dir(dir).unwrap();
        let authority = Authority::new();
        let certificate = authority.client("localhost");
        let (dir, port, daemon, proxy) = (dir.to_owned(), 0, None, None);
        let mut receiver = Self { kind, dir, port, daemon, authority, certificate, proxy };
        eventually("a port is free", || {
            receiver.port = free_port(kind);
            receiver.comes_up()
        });
        receiver
    }

    /// The same, behind a proxy whose connections `disconnect` ends.
    pub fn behind_a_proxy(mut self) -> Self {
        self.proxy = Some(proxy::Proxy::to(self.port));
        self
    }

    /// Where the client connects to.
    pub fn port(&self) -> u16 {
        self.proxy.as_ref().map_or(self.port, proxy::Proxy::port)
    }

    /// As the sink's key `address` has it.
    pub fn address(&self) -> String {
        // A datagram to a name's first address may reach nobody, and nobody would tell.
        let host = if self.kind.is_udp() { "127.0.0.1" } else { "localhost" };
        format!("{}://{host}:{}", self.kind.scheme(), self.port())
    }

    /// The lines of the sink's table that this receiver needs, `address` included.
    pub fn sink_keys(&self) -> String {
        let mut keys = vec![format!("address = \"{}\"", self.address())];
        if self.kind.is_newline() {
            keys.push("framing = \"newline\"".to_owned());
        }
        if self.kind.is_udp() {
            keys.push("lossy = true".to_owned());
        }
        if self.kind.is_tls() {
            keys.push(format!("ca_file = \"{}\"", self.authority.file().display()));
        }
        if self.kind.wants_certificate() {
            let client = self.authority.client(CLIENT);
            keys.push(format!("client_certificate = \"{}\"", client.display()));
        }
        keys.join("\n") + "\n"
    }

    /// Who vouches for the receiver, and for its clients.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The MSG of each message, in their order.
    pub fn lines(&self) -> Vec<Vec<u8>> {
        self.whole_lines("msg")
    }

    /// How many messages there are.
    pub fn count(&self) -> usize {
        let bytes = std::fs::read(self.dir.join("msg")).unwrap_or_default();
        memchr::memchr_iter(b'\n', &bytes).count()
    }

    /// Each message from its first byte to its last.
    pub fn messages(&self) -> Vec<Vec<u8>> {
        assert!(self.kind.is_rsyslog(), "syslog-ng keeps no whole message");
        self.whole_lines("whole")
    }

    /// What the receiver read in each header: time, host, application, process, type, priority,
    /// structured data; with one space between.
    pub fn headers(&self) -> Vec<String> {
        let lines = self.whole_lines("header");
        lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
    }

    /// What the daemon told of itself.
    pub fn said(&self) -> String {
        read(&self.dir.join("said"))
    }

    /// The last line is left out as long as it is not whole.
    fn whole_lines(&self, file: &str) -> Vec<Vec<u8>> {
        let bytes = std::fs::read(self.dir.join(file)).unwrap_or_default();
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        lines.filter_map(|line| line.strip_suffix(b"\n")).map(<[u8]>::to_vec).collect()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// SIGTERM, and waits for its end.
    pub fn terminate(&mut self) {
        self.end(Signal::TERM);
    }

    fn end(&mut self, signal: Signal) {
        self.signal(signal);
        self.daemon.take().unwrap().wait().unwrap();
    }

    /// Starts what has ended, on the same port and with the same file.
    pub fn start_again(&mut self) {
        assert!(self.daemon.is_none(), "it runs");
        // Somebody else may have the port for a moment.
        eventually("it listens again", || self.comes_up());
    }

    /// SIGSTOP: its kernel goes on taking what is sent, until the buffers are full.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let daemon = self.daemon.as_ref().expect("it runs");
        kill_process(Pid::from_child(daemon), signal).unwrap();
    }

    /// Ends every connection.
    pub fn disconnect(&self) {
        self.proxy().cut();
    }

    /// What the clients have been told, connection after connection.
    pub fn answers(&self) -> Vec<Vec<u8>> {
        self.proxy().answers()
    }

    fn proxy(&self) -> &proxy::Proxy {
        self.proxy.as_ref().expect("there is a proxy")
    }

    /// False when the port is taken.
    fn comes_up(&mut self) -> bool {
        let mut daemon = self.spawn();
        let mut listens = false;
        eventually("it listens, or says why not", || {
            listens = owns_listener(&daemon, self.port, self.kind.is_udp());
            listens || self.is_taken() || daemon.try_wait().unwrap().is_some()
        });
        if listens {
            self.daemon = Some(daemon);
        } else {
            let _ = daemon.kill();
            daemon.wait().unwrap();
            assert!(self.is_taken(), "{:?} ends: {}", self.kind, self.said());
        }
        listens
    }

    fn is_taken(&self) -> bool {
        let said = self.said();
        ["in use", "could not activate relp listener", "ignoring port"]
            .iter()
            .any(|sentence| said.contains(sentence))
    }

    fn spawn(&self) -> Child {
        let (config, command) = if self.kind.is_rsyslog() {
            (rsyslog::config(self), rsyslog::command(&self.dir))
        } else {
            (syslog_ng::config(self), syslog_ng::command(&self.dir))
        };
        std::fs::write(self.dir.join("config"), config).unwrap();
        let said = File::create(self.dir.join("said")).unwrap();
        // It must not outlive a test that is killed itself.
        let mut command = crate::told::wrapped("setpriv", &["--pdeathsig", "KILL", "--"], &command);
        command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
        command.spawn().unwrap()
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn free_port(kind: Kind) -> u16 {
    let any = ("127.0.0.1", 0);
    let address = if kind.is_udp() {
        UdpSocket::bind(any).and_then(|socket| socket.local_addr())
    } else {
        TcpListener::bind(any).and_then(|listener| listener.local_addr())
    };
    address.unwrap().port()
}

/// Whether this process listens there. A connection would tell too, but leaves its traces.
fn owns_listener(process: &Child, port: u16, is_udp: bool) -> bool {
    let process = PathBuf::from(format!("/proc/{}", process.id()));
    let (table, state) = if is_udp { ("net/udp", "07") } else { ("net/tcp", "0A") };
    let port = format!(":{port:04X}");
    let table = read(&process.join(table));
    let sockets: Vec<String> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|row| row.len() > 9 && row[1].ends_with(&port) && row[3] == state)
        .map(|row| format!("socket:[{}]", row[9]))
        .collect();
    let Ok(open) = process.join("fd").read_dir() else { return false };
    let mut targets = open.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    targets.any(|target| sockets.iter().any(|socket| target == Path::new(socket)))
}

/// What a daemon says of a configuration that it refuses.
fn verdict(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

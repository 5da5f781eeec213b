//! syslog-ng, from where `tests/run` has unpacked it: it cannot be installed beside rsyslog.

use std::env::consts::ARCH;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Kind, MAX_MESSAGE, Receiver, verdict};

/// The version whose behaviour a configuration asks for.
const VERSION: &str = "3.38";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/syslog-ng")
}

/// With all that it keeps in `dir`.
fn syslog_ng(dir: &Path, config: &Path) -> Command {
    let root = root();
    assert!(root.join("ready").exists(), "tests/run has unpacked syslog-ng-core");
    let own = root.join("usr/lib/syslog-ng");
    let libraries = [own.clone()]
        .into_iter()
        .chain(["usr/lib", "lib"].map(|lib| root.join(lib).join(format!("{ARCH}-linux-gnu"))));
    let mut command = Command::new(root.join("usr/sbin/syslog-ng"));
    command
        .env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap())
        .arg("--no-caps")
        .arg(option("module-path", &own.join(VERSION)))
        .arg(option("cfgfile", config))
        .arg(option("persist-file", &dir.join("persist")))
        .arg(option("pidfile", &dir.join("pid")))
        .arg(option("control", &dir.join("control")));
    command
}

fn option(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

pub fn command(dir: &Path) -> Command {
    let mut command = syslog_ng(dir, &dir.join("config"));
    command.args(["--foreground", "--stderr"]);
    command
}

/// Whether syslog-ng takes this for a configuration; if not, what it says.
pub fn accepts(config: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("syslog-ng.conf");
    std::fs::write(&path, config).unwrap();
    verdict(syslog_ng(dir.path(), &path).arg("--syntax-only"))
}

/// A message goes into the files as it came; nothing of the daemon's own does.
pub fn config(receiver: &Receiver) -> String {
    let (source, [msg, header]) =
        (source(receiver), ["msg", "header"].map(|name| receiver.file(name)));
    format!(
        r#"@version: {VERSION}
@module afsocket
@module affile
@module syslogformat
options {{
  log-msg-size({MAX_MESSAGE}); use-dns(no); dns-cache(no); stats-freq(0);
  keep-hostname(yes); keep-timestamp(yes); frac-digits(3); time-zone("UTC"); flush-lines(1);
}};
source network {{ {source} }};
destination msg {{ file("{msg}" template("$MSG\n")); }};
destination header {{
  file("{header}" template("$ISODATE $HOST $PROGRAM ${{PID:--}} $MSGID $PRI $SDATA\n"));
}};
log {{ source(network); destination(header); destination(msg); flags(flow-control); }};
"#
    )
}

fn source(receiver: &Receiver) -> String {
    let driver = |name: &str, transport: &str, more: &str| {
        let port = receiver.port;
        format!("{name}(ip(\"127.0.0.1\") port({port}) transport({transport}) {more});")
    };
    let tls = |peers: &str| {
        let (ca, own) = (receiver.authority.file(), receiver.certificate.display());
        let ca = ca.display();
        format!(
            "tls(cert-file(\"{own}\") key-file(\"{own}\") ca-file(\"{ca}\") peer-verify({peers}))"
        )
    };
    // `network()` would expect the header of RFC 3164.
    let rfc5424 = "flags(syslog-protocol)";
    match receiver.kind {
        Kind::SyslogNgUdp => driver("syslog", "udp", ""),
        Kind::SyslogNgTcp => driver("syslog", "tcp", ""),
        Kind::SyslogNgNewline => driver("network", "tcp", rfc5424),
        Kind::SyslogNgTls => driver("syslog", "tls", &tls("optional-untrusted")),
        Kind::SyslogNgTlsNewline => {
            driver("network", "tls", &format!("{rfc5424} {}", tls("required-trusted")))
        }
        other => panic!("{other:?} is not syslog-ng"),
    }
}

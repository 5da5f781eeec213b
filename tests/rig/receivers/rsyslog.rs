//! rsyslog, as Debian packages it.

use std::path::Path;
use std::process::Command;

use super::{CLIENT, Kind, MAX_MESSAGE, Receiver, verdict};

const DAEMON: &str = "/usr/sbin/rsyslogd";

pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(DAEMON);
    // In the foreground, without a file of its process id, wherever it was started.
    command.args(["-n", "-iNONE", "-C", "-f"]).arg(dir.join("config"));
    command
}

/// Whether rsyslog takes this for a configuration; if not, what it says.
pub fn accepts(config: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rsyslog.conf");
    std::fs::write(&path, config).unwrap();
    verdict(Command::new(DAEMON).args(["-N1", "-C", "-f"]).arg(path))
}

/// A message goes from the socket into the files without waiting anywhere, byte for byte.
pub fn config(receiver: &Receiver) -> String {
    let (dir, port) = (receiver.file(""), receiver.port);
    let (tls, module, input) = input(receiver);
    let [msg, whole, header] = ["msg", "whole", "header"].map(|name| receiver.file(name));
    format!(
        r#"global(
  workDirectory="{dir}"
  maxMessageSize="{MAX_MESSAGE}"
  parser.escapeControlCharactersOnReceive="off"
  parser.escape8BitCharactersOnReceive="off"
  processInternalMessages="off"
  net.enableDNS="off"
  {tls}
)
{module}
main_queue(queue.type="Direct")
template(name="msg" type="list") {{ property(name="msg") constant(value="\n") }}
template(name="whole" type="list") {{ property(name="rawmsg") constant(value="\n") }}
template(name="header" type="string" string="%timestamp:::date-rfc3339% %hostname% %app-name% %procid% %msgid% %pri% %structured-data%\n")
ruleset(name="files" queue.type="Direct") {{
  action(type="omfile" template="whole" file="{whole}" asyncWriting="off" flushOnTXEnd="on")
  action(type="omfile" template="header" file="{header}" asyncWriting="off" flushOnTXEnd="on")
  action(type="omfile" template="msg" file="{msg}" asyncWriting="off" flushOnTXEnd="on")
}}
input({input} address="127.0.0.1" port="{port}")
"#
    )
}

/// What the kind needs: keys of `global`, the module, and the beginning of the input.
fn input(receiver: &Receiver) -> (String, String, String) {
    let with_rules = |name: &str| format!("type=\"{name}\" ruleset=\"files\"");
    let plain = |name: &str| (String::new(), format!("module(load=\"{name}\")"), with_rules(name));
    let tls = |driver: &str, clients: &str| {
        let (ca, own) = (receiver.authority.file(), receiver.certificate.display());
        let files = format!(
            "defaultNetstreamDriverCAFile=\"{}\"\n  defaultNetstreamDriverCertFile=\"{own}\"\n  \
             defaultNetstreamDriverKeyFile=\"{own}\"",
            ca.display()
        );
        let module = format!(
            "module(load=\"imtcp\" streamDriver.name=\"{driver}\" streamDriver.mode=\"1\" {clients})"
        );
        (files, module, with_rules("imtcp"))
    };
    let relp = || "module(load=\"imrelp\" ruleset=\"files\")".to_owned();
    match receiver.kind {
        Kind::RsyslogUdp => plain("imudp"),
        Kind::RsyslogGtls => tls("gtls", "streamDriver.authMode=\"anon\""),
        Kind::RsyslogOssl => {
            let clients = "streamDriver.authMode=\"x509/name\"";
            tls("ossl", &format!("{clients} permittedPeer=[\"{CLIENT}\"]"))
        }
        Kind::RsyslogRelp => (String::new(), relp(), "type=\"imrelp\"".to_owned()),
        Kind::RsyslogRelps => {
            let (ca, own) = (receiver.authority.file(), receiver.certificate.display());
            let input = format!(
                "type=\"imrelp\" tls=\"on\" tls.caCert=\"{}\" tls.myCert=\"{own}\" \
                 tls.myPrivKey=\"{own}\" tls.authMode=\"name\" tls.permittedPeer=[\"{CLIENT}\"]",
                ca.display()
            );
            (String::new(), relp(), input)
        }
        _ => plain("imtcp"),
    }
}

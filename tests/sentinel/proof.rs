//! The simulator is what Microsoft's own clients expect a service to be.

use std::path::Path;
use std::process::Command;

use crate::azure::{AppState, Azure, Kind, Options};
use crate::tls::Authority;

#[test]
fn microsofts_clients_find_a_service_of_its_kind() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/python/bin/python");
    assert!(python.exists(), "`tests/run` installs what this test needs: {}", python.display());
    let dir = tempfile::tempdir().unwrap();
    let made = Command::new(&python)
        .arg(root.join("tests/proof/certificates.py"))
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let authority = Authority::new();
    let start = || {
        let tls = Some(authority.server("localhost", 2100).config);
        Azure::start(Options { tls, ..Options::default() })
    };
    let (azure, no_role) = (start(), start());
    no_role.grant(false);
    azure.refuse_text("p0is0n");
    azure.app(|app| {
        app.add_certificate(&std::fs::read_to_string(dir.path().join("known.pem")).unwrap());
        app.secret("expired~secret", AppState::Expired);
        app.subject_token("subject.of.issuer", AppState::Good);
    });
    let Options { tenant, client, secrets, rule, .. } = Options::default();

    let output = Command::new(python)
        .arg(root.join("tests/proof/sentinel.py"))
        .args([&azure.tls_url(), &no_role.tls_url(), &tenant, &client, &secrets[0], &rule])
        .arg(dir.path())
        .env("REQUESTS_CA_BUNDLE", authority.file())
        .env("SSL_CERT_FILE", authority.file())
        .output()
        .unwrap();

    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.ends_with("checks hold\n"), "{said}");
    // The same as the clients saw, seen from inside.
    assert!(azure.asked_of(Kind::Token) > 0);
    let rows = azure.rows();
    assert_eq!(rows.iter().filter(|row| row["audit_event"] == "by_secret").count(), 3);
    assert_eq!(rows.iter().filter(|row| row["audit_event"] == "by_certificate").count(), 1);
    assert_eq!(rows.iter().filter(|row| row["audit_event"] == "by_federation").count(), 1);
    assert!(rows.iter().all(|row| row["audit_event"] != "never"), "{rows:?}");
    assert!(azure.tally().discarded.is_empty());
}

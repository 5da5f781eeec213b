use std::path::PathBuf;

use ring::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::Value;

use super::*;

/// In 2026.
const NOW: i64 = 1_795_168_800;

const PASSWORD: &str = "fixture-password";

/// A copy that others cannot read, for a checkout has its own modes.
fn copy(name: &str) -> tempfile::NamedTempFile {
    let fixtures = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/azure"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, std::fs::read(fixtures.join(name)).unwrap()).unwrap();
    file
}

fn config(file: &Path, password: Option<&str>) -> auth::Certificate {
    auth::Certificate {
        tenant: "tenant-1".into(),
        client: "client-1".into(),
        file: file.to_owned(),
        password: password.map(secret::Config::plain),
    }
}

fn read_at(name: &str, password: Option<&str>, now: i64) -> Result<Credential, DeliveryError> {
    read(&config(copy(name).path(), password), now)
}

/// Text and hint of what is wrong.
fn wrong(read: Result<Credential, DeliveryError>) -> (String, String) {
    match read {
        Err(DeliveryError::Blocked { source, hint: Some(hint), may_be_content: false }) => {
            let text = source.to_string();
            (text.split_once("`: ").unwrap().1.to_owned(), hint)
        }
        Err(other) => panic!("not blocked with a hint: {other:?}"),
        Ok(_) => panic!("nothing is wrong"),
    }
}

fn decoded(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn a_certificate_with_its_key_is_read_in_every_form() {
    for (name, password) in [
        ("pkcs8.pem", None),
        ("pkcs1.pem", None),
        ("pkcs8.pem", Some(PASSWORD)),
        ("modern.pfx", Some(PASSWORD)),
        ("legacy.pfx", Some(PASSWORD)),
        ("no-password.pfx", None),
        ("open.pfx", None),
    ] {
        let credential = read_at(name, password, NOW).unwrap_or_else(|err| panic!("{name}: {err}"));

        assert_eq!(credential.chain.len(), 1, "{name}");
        assert_eq!(credential.until(), "2100-01-01", "{name}");
    }
}

#[test]
fn the_chain_begins_with_the_certificate_of_the_key() {
    let pem = read_at("chain.pem", None, NOW).unwrap();
    let pfx = read_at("chain.pfx", Some(PASSWORD), NOW).unwrap();

    let subject =
        |der: &[u8]| x509_parser::parse_x509_certificate(der).unwrap().1.subject().to_string();
    let subjects: Vec<_> = pem.chain.iter().map(|der| subject(der)).collect();
    assert_eq!(subjects, ["CN=siemferry test leaf", "CN=siemferry test CA"]);
    assert_eq!(pem.chain, pfx.chain);
}

#[test]
fn what_is_signed_can_be_checked_with_the_certificate() {
    let credential = read_at("chain.pem", None, NOW).unwrap();
    let url = Url::parse("https://login.example.com/tenant-1/oauth2/v2.0/token").unwrap();

    let assertion = credential.assertion("client-1", &url, NOW).unwrap();

    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let key = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, credential.key.public().as_ref());
    key.verify(signed.as_bytes(), &signature).unwrap();
    let (head, claims) = signed.split_once('.').unwrap();
    let (head, claims) = (decoded(head), decoded(claims));
    assert_eq!(head["alg"], "PS256");
    assert_eq!(head["typ"], "JWT");
    let own = STANDARD.decode(head["x5c"][0].as_str().unwrap()).unwrap();
    assert_eq!(head["x5t#S256"], URL_SAFE_NO_PAD.encode(Sha256::digest(own)));
    assert_eq!(head["x5c"].as_array().unwrap().len(), 2);
    assert_eq!(claims["aud"], url.as_str());
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!("client-1"), &json!("client-1")));
    assert_eq!(
        (&claims["nbf"], &claims["iat"], &claims["exp"]),
        (&json!(NOW), &json!(NOW), &json!(NOW + 600))
    );
    let again = credential.assertion("client-1", &url, NOW).unwrap();
    assert_ne!(decoded(again.split('.').nth(1).unwrap())["jti"], claims["jti"]);
}

#[test]
fn a_file_that_cannot_be_used_is_told_with_what_to_do() {
    for (name, password, text, hint) in [
        ("encrypted.pem", None, "its key is encrypted", "`openssl pkey`"),
        ("stranger.pem", None, "the key does not belong to the certificate", "beside the key"),
        ("ec.pem", None, "the key is no RSA key", "with an RSA key"),
        ("no-key.pem", None, "it holds no key", "the certificate and its key"),
        ("modern.pfx", None, "it is encrypted", "name its password"),
        ("modern.pfx", Some("wrong-password"), "the password is wrong", "made with"),
        ("legacy.pfx", Some("wrong-password"), "the password is wrong", "made with"),
        ("README.md", None, "it is neither PEM nor PKCS#12", "as PEM or PKCS#12"),
    ] {
        let (found, advice) = wrong(read_at(name, password, NOW));

        assert_eq!(found, text, "{name}");
        assert!(advice.contains(hint), "{name}: {advice}");
    }
}

#[test]
fn a_certificate_out_of_its_time_is_not_used() {
    let (text, hint) = wrong(read_at("pkcs8.pem", None, 4_102_444_801));
    assert_eq!(text, "the certificate has ended on 2100-01-01");
    assert!(hint.contains("upload"), "{hint}");

    let (text, hint) = wrong(read_at("pkcs8.pem", None, 1_577_836_799));
    assert_eq!(text, "the certificate begins on 2020-01-01");
    assert!(hint.contains("clock"), "{hint}");
}

#[test]
fn a_missing_file_is_told_by_name() {
    let read = read(&config(Path::new("/nowhere/app.pfx"), None), NOW);

    let Err(DeliveryError::Blocked { source, hint, .. }) = read else { panic!("not blocked") };
    assert!(source.to_string().starts_with("read the certificate from `/nowhere/app.pfx`: "));
    assert!(hint.unwrap().contains("daemon's user"));
}

#[cfg(unix)]
#[test]
fn a_key_that_others_can_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt as _;
    let file = copy("pkcs8.pem");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();

    let (text, hint) = wrong(read(&config(file.path(), None), NOW));

    assert_eq!(text, "readable by others (mode 0644)");
    assert!(hint.contains("chmod 600"), "{hint}");
}

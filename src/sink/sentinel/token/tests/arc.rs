use super::*;

/// A machine whose agent answers there, and where it leaves its proofs.
fn machine(server: &Server) -> (tempfile::TempDir, Machine) {
    let proofs = tempfile::tempdir().unwrap();
    let variables = [("IDENTITY_ENDPOINT", server.url.as_str()), ("IMDS_ENDPOINT", "http://any")];
    let machine = Machine::with(&variables, proofs.path().to_owned());
    (proofs, machine)
}

fn challenge(file: &Path) -> String {
    answer(401, &format!("WWW-Authenticate: Basic realm={}\r\n", file.display()), "")
}

/// A server that wants this file of a directory read, then gives a token.
fn asking_for(proofs: &Path, name: &str) -> Server {
    Server::answering(vec![challenge(&proofs.join(name)), token("token-j")])
}

#[tokio::test]
async fn a_proof_is_read_and_sent() {
    let proofs = tempfile::tempdir().unwrap();
    let server = asking_for(proofs.path(), "one.key");
    std::fs::write(proofs.path().join("one.key"), "arc-proof-canary").unwrap();
    let variables = [("IDENTITY_ENDPOINT", server.url.as_str()), ("IMDS_ENDPOINT", "http://any")];
    let machine = Machine::with(&variables, proofs.path().to_owned());

    let token = tokens("arc = {}", None, machine).get().await.unwrap();

    assert_eq!(header(&token), "Bearer token-j");
    let [first, second] = server.asked().try_into().unwrap();
    let line = "GET /?api-version=2020-06-01&resource=https%3A%2F%2Fmonitor.azure.com";
    assert_eq!((first.line(), second.line()), (line, line));
    assert!(first.head.contains("metadata: true") && !first.head.contains("authorization"));
    assert!(second.head.contains("authorization: Basic arc-proof-canary"), "{}", second.head);
}

#[tokio::test]
async fn no_file_but_a_proof_is_read() {
    let proofs = tempfile::tempdir().unwrap();
    std::fs::create_dir(proofs.path().join("below")).unwrap();
    for name in
        ["one.pem", "below/one.key", "../one.key", "below/../one.key", "long.key", "dir.key"]
    {
        let server = asking_for(proofs.path(), name);
        std::fs::write(proofs.path().join("long.key"), "x".repeat(4097)).unwrap();
        let _ = std::fs::create_dir(proofs.path().join("dir.key"));
        let variables = [("IDENTITY_ENDPOINT", server.url.as_str()), ("IMDS_ENDPOINT", "any")];
        let machine = Machine::with(&variables, proofs.path().to_owned());

        let (_, hint) = blocked(tokens("arc = {}", None, machine).get().await);

        assert!(hint.starts_with("this is not the agent"), "{name}: {hint}");
        assert_eq!(server.asked().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_proof_that_cannot_be_read_asks_for_the_group() {
    let proofs = tempfile::tempdir().unwrap();
    let server = asking_for(proofs.path(), "missing.key");
    let variables = [("IDENTITY_ENDPOINT", server.url.as_str()), ("IMDS_ENDPOINT", "any")];
    let machine = Machine::with(&variables, proofs.path().to_owned());

    let (text, hint) = blocked(tokens("arc = {}", None, machine).get().await);

    assert!(text.contains("missing.key"), "{text}");
    assert!(hint.contains("group `himds`"), "{hint}");
}

#[tokio::test]
async fn a_refusal_of_the_agent_has_its_own_hint() {
    let body = r#"{"error":"invalid_request","error_description":"not connected"}"#;
    let proofs = tempfile::tempdir().unwrap();
    std::fs::write(proofs.path().join("one.key"), "arc-proof").unwrap();
    let challenge = challenge(&proofs.path().join("one.key"));
    let server = Server::answering(vec![challenge, answer(400, "", body)]);
    let variables = [("IDENTITY_ENDPOINT", server.url.as_str()), ("IMDS_ENDPOINT", "any")];
    let machine = Machine::with(&variables, proofs.path().to_owned());

    let (text, hint) = blocked(tokens("arc = {}", None, machine).get().await);

    assert!(text.ends_with("not connected"), "{text}");
    assert!(hint.contains("azcmagent show"), "{hint}");
}

#[tokio::test]
async fn a_service_that_wants_no_proof_is_none_of_arc() {
    let server = Server::answering(vec![token("token-k")]);
    let (_proofs, machine) = machine(&server);

    let (_, hint) = blocked(tokens("arc = {}", None, machine).get().await);

    assert!(hint.starts_with("this is not the agent"), "{hint}");
}

#[test]
fn a_machine_without_an_agent_is_told() {
    let (text, hint) = blocked(tokens("arc = {}", None, bare()).examine());

    assert!(text.contains("find the agent of Azure Arc"), "{text}");
    assert!(hint.contains("azcmagent connect"), "{hint}");
}

#[test]
fn the_agent_is_on_this_machine() {
    let variables = [("IDENTITY_ENDPOINT", "http://10.0.0.1:40342"), ("IMDS_ENDPOINT", "any")];
    let machine = Machine::with(&variables, Path::new("/nowhere").to_owned());

    let (text, _) = blocked(tokens("arc = {}", None, machine).examine());

    assert!(text.contains("IDENTITY_ENDPOINT"), "{text}");
}

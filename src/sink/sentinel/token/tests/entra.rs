use super::*;

const SECRET: &str =
    "client_secret = { tenant = 'tenant-1', client = 'client-1', secret = 'wire canary &1' }";

#[tokio::test]
async fn a_client_secret_is_sent_as_a_form_to_the_tenant() {
    let server = Server::answering(vec![token("token-a")]);
    let tokens = tokens(SECRET, Some(&server.url), bare());

    let token = tokens.get().await.unwrap();
    tokens.get().await.unwrap();

    assert_eq!(header(&token), "Bearer token-a");
    assert!(token.header().is_sensitive());
    let [asked] = server.asked().try_into().unwrap();
    assert_eq!(asked.line(), "POST /tenant-1/oauth2/v2.0/token");
    assert!(asked.head.contains("content-type: application/x-www-form-urlencoded"));
    assert_eq!(asked.form("grant_type").unwrap(), "client_credentials");
    assert_eq!(asked.form("client_id").unwrap(), "client-1");
    assert_eq!(asked.form("scope").unwrap(), "https://monitor.azure.com/.default");
    assert_eq!(asked.form("client_secret").unwrap(), "wire canary &1");
}

#[tokio::test]
async fn a_secret_that_was_replaced_is_used_for_the_next_token() {
    let server = Server::answering(vec![token("token-b"), token("token-c")]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "secret-of-old").unwrap();
    let path = file.path().display();
    let auth =
        format!("client_secret = {{ tenant = 't', client = 'c', secret = {{ file = '{path}' }} }}");
    let tokens = tokens(&auth, Some(&server.url), bare());
    let first = tokens.get().await.unwrap();

    std::fs::write(&file, "secret-of-new").unwrap();
    tokens.refused(&first).await;
    let second = tokens.get().await.unwrap();

    assert_eq!(header(&second), "Bearer token-c");
    let sent: Vec<_> = server.asked().iter().map(|asked| asked.form("client_secret")).collect();
    assert_eq!(sent, [Some("secret-of-old".into()), Some("secret-of-new".into())]);
}

#[tokio::test]
async fn a_certificate_signs_what_is_sent() {
    let server = Server::answering(vec![token("token-d")]);
    let pem = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/azure/pkcs8.pem");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, std::fs::read(pem).unwrap()).unwrap();
    let path = file.path().display();
    let auth = format!("certificate = {{ tenant = 't', client = 'client-1', file = '{path}' }}");
    let tokens = tokens(&auth, Some(&server.url), bare());

    tokens.get().await.unwrap();

    let [asked] = server.asked().try_into().unwrap();
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    assert_eq!(asked.form("client_assertion_type").unwrap(), kind);
    assert_eq!(asked.form("client_assertion").unwrap().split('.').count(), 3);
    assert_eq!(asked.form("client_secret"), None);
    let says = "certificate of application `client-1`, which ends on 2100-01-01";
    assert_eq!(tokens.examine().unwrap(), says);
}

/// A file with the token of another issuer, and a machine whose variables name it.
fn federated(server: &Server) -> (tempfile::NamedTempFile, Machine) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "federated-token-1\n").unwrap();
    let machine = Machine::with(
        &[
            ("AZURE_TENANT_ID", "tenant-of-pod"),
            ("AZURE_CLIENT_ID", "client-of-pod"),
            ("AZURE_FEDERATED_TOKEN_FILE", file.path().to_str().unwrap()),
            ("AZURE_AUTHORITY_HOST", &server.url),
        ],
        Path::new("/nowhere").to_owned(),
    );
    (file, machine)
}

#[tokio::test]
async fn a_workload_identity_is_what_the_environment_says() {
    let server = Server::answering(vec![token("token-e")]);
    let (file, machine) = federated(&server);
    let tokens = tokens("workload_identity = {}", None, machine);

    let first = tokens.get().await.unwrap();
    std::fs::write(&file, "federated-token-2").unwrap();
    tokens.refused(&first).await;
    tokens.get().await.unwrap();

    let asked = server.asked();
    assert_eq!(asked[0].line(), "POST /tenant-of-pod/oauth2/v2.0/token");
    assert_eq!(asked[0].form("client_id").unwrap(), "client-of-pod");
    assert_eq!(asked[0].form("client_assertion").unwrap(), "federated-token-1");
    assert_eq!(asked[1].form("client_assertion").unwrap(), "federated-token-2");
}

#[tokio::test]
async fn what_is_named_counts_more_than_the_environment() {
    let (server, other) =
        (Server::answering(vec![token("token-f")]), Server::answering(vec![token("token-g")]));
    let (_file, machine) = federated(&other);
    let auth = "workload_identity = { tenant = 'tenant-1', client = 'client-1' }";
    let tokens = tokens(auth, Some(&server.url), machine);

    tokens.get().await.unwrap();

    let [asked] = server.asked().try_into().unwrap();
    assert_eq!(asked.line(), "POST /tenant-1/oauth2/v2.0/token");
    assert_eq!(asked.form("client_id").unwrap(), "client-1");
    assert!(other.asked().is_empty());
}

#[test]
fn a_workload_identity_that_nothing_names_is_told() {
    let (text, hint) = blocked(tokens("workload_identity = {}", None, bare()).examine());
    assert!(text.contains("`AZURE_TENANT_ID`"), "{text}");
    assert!(hint.contains("`tenant`"), "{hint}");

    let auth = "workload_identity = { tenant = 't', client = 'c', file = '/nowhere/token' }";
    let (text, hint) = blocked(tokens(auth, None, bare()).examine());
    assert!(text.contains("`/nowhere/token`"), "{text}");
    assert!(hint.contains("Kubernetes"), "{hint}");
}

#[test]
fn the_environment_cannot_send_a_credential_to_just_anybody() {
    let machine =
        |host| Machine::with(&[("AZURE_AUTHORITY_HOST", host)], Path::new("/nowhere").to_owned());
    let auth = "workload_identity = { tenant = 't', client = 'c', file = '/nowhere/token' }";

    let (text, _) = blocked(tokens(auth, None, machine("http://login.example.com")).examine());
    assert!(text.contains("AZURE_AUTHORITY_HOST"), "{text}");
    let (text, _) = blocked(tokens(auth, None, machine("login.example.com")).examine());
    assert!(text.contains("/nowhere/token"), "a host alone is good: {text}");
}

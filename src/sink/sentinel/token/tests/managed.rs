use super::*;

const NOT_FOUND: &str = r#"{"error":"invalid_request","error_description":"Identity not found"}"#;

fn machine(server: &Server) -> Machine {
    let variables = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", server.url.as_str())];
    Machine::with(&variables, Path::new("/nowhere").to_owned())
}

#[tokio::test]
async fn the_service_of_a_virtual_machine_is_asked_as_it_wants() {
    let body = r#"{"access_token":"token-h","expires_in":"3599","expires_on":"4102444800"}"#;
    let server = Server::answering(vec![answer(200, "", body)]);
    let tokens = tokens("managed_identity = { client = 'client-1' }", None, machine(&server));

    let token = tokens.get().await.unwrap();
    tokens.get().await.unwrap();

    assert_eq!(header(&token), "Bearer token-h");
    let [asked] = server.asked().try_into().unwrap();
    assert_eq!(
        asked.line(),
        "GET /metadata/identity/oauth2/token?api-version=2018-02-01\
         &resource=https%3A%2F%2Fmonitor.azure.com&client_id=client-1"
    );
    assert!(asked.head.contains("metadata: true"), "{}", asked.head);
}

#[tokio::test]
async fn a_service_that_has_no_token_yet_is_asked_again() {
    let not_yet = [404, 410, 429, 500].map(|status| answer(status, "", ""));
    let server = Server::answering([not_yet.to_vec(), vec![token("token-i")]].concat());
    let tokens = tokens("managed_identity = {}", None, machine(&server));

    let token = tokens.get().await.unwrap();

    assert_eq!(header(&token), "Bearer token-i");
    assert_eq!(server.asked().len(), 5);
}

#[tokio::test]
async fn a_machine_without_an_identity_is_told() {
    let server = Server::answering(vec![answer(400, "", NOT_FOUND)]);

    let (text, hint) = blocked(tokens("managed_identity = {}", None, machine(&server)).get().await);
    assert!(text.ends_with("400 Bad Request: Identity not found"), "{text}");
    assert!(hint.starts_with("assign an identity"), "{hint}");

    let auth = "managed_identity = { client = 'client-1' }";
    let (_, hint) = blocked(tokens(auth, None, machine(&server)).get().await);
    assert!(hint.contains("`client`"), "{hint}");
}

#[tokio::test]
async fn where_no_service_answers_the_text_says_what_that_may_mean() {
    let gone = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let variables = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", url.as_str())];
    let machine = Machine::with(&variables, Path::new("/nowhere").to_owned());

    let err = tokens("managed_identity = {}", None, machine).get().await.unwrap_err();

    let DeliveryError::Retry { source, is_ambiguous: false, .. } = err else { panic!("{err:?}") };
    assert!(source.to_string().contains("no Azure virtual machine"), "{source}");
}

#[test]
fn plain_http_goes_no_further_than_the_link() {
    for (host, is_good) in [
        ("http://169.254.169.254", true),
        ("http://127.0.0.1:8080", true),
        ("http://[fe80::1]", true),
        ("http://10.0.0.1", false),
        ("http://imds.example.com", false),
        ("nonsense", false),
    ] {
        let variables = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", host)];
        let machine = Machine::with(&variables, Path::new("/nowhere").to_owned());

        let examined = tokens("managed_identity = {}", None, machine).examine();

        assert_eq!(examined.is_ok(), is_good, "{host}");
    }
}

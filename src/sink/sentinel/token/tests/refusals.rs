use super::*;

const KINDS: [&str; 5] = [
    "client_secret = { tenant = 't', client = 'c', secret = 'refused-canary' }",
    "certificate = { tenant = 't', client = 'c', file = '/nowhere' }",
    "workload_identity = {}",
    "managed_identity = {}",
    "arc = {}",
];

fn answer(status: u16, body: &str) -> Answer {
    Answer {
        status,
        body: body.into(),
        memory: None,
        date: None,
        retry_after: Some(Duration::from_secs(17)),
        content_type: None,
        location: None,
        www_authenticate: None,
        elapsed: Duration::ZERO,
    }
}

fn judged(kind: &str, answer: &Answer) -> Result<Given, DeliveryError> {
    let url = Url::parse("https://login.example.com/t/oauth2/v2.0/token").unwrap();
    answer::token((Method::POST, &url), answer, &auth(kind), 1_795_168_800)
}

fn hint(kind: &str, code: u32) -> String {
    let body = format!(
        r#"{{"error":"e","error_description":"AADSTS{code}: why.","error_codes":[{code}]}}"#
    );
    let (text, hint) = blocked(judged(kind, &answer(401, &body)));
    assert_eq!(
        text,
        format!("POST https://login.example.com: 401 Unauthorized: AADSTS{code}: why.")
    );
    hint
}

#[test]
fn each_cause_that_entra_names_has_its_remedy() {
    for (codes, remedy) in [
        (&[7_000_215][..], "not the secret's id"),
        (&[7_000_222], "has expired"),
        (&[700_016], "no such application"),
        (&[90_002, 900_023], "no such tenant"),
        (&[7_000_112], "disabled"),
        (&[700_027], "upload this certificate"),
        (&[700_024], "clock"),
        (&[70_021, 700_211, 700_212, 700_213], "federated credential"),
        (&[70_011, 1_002_012, 500_011, 650_057], "`cloud` and `scope`"),
        (&[53_003], "conditional access"),
    ] {
        for code in codes {
            let found = hint(KINDS[0], *code);
            assert!(found.contains(remedy), "{code}: {found}");
        }
    }
    assert!(hint(KINDS[2], 700_024).contains("federated token"));
}

#[test]
fn any_other_refusal_has_the_remedy_of_its_kind() {
    let hints: Vec<_> = KINDS.iter().map(|kind| hint(kind, 999)).collect();

    for (hint, word) in
        hints.iter().zip(["secret", "certificate", "federated", "this machine", "azcmagent"])
    {
        assert!(hint.contains(word), "{hint}");
    }
}

#[test]
fn a_code_is_found_in_the_text_alone() {
    let body = r#"{"error":"invalid_client","error_description":"AADSTS7000222: expired"}"#;

    let (_, hint) = blocked(judged(KINDS[0], &answer(400, body)));

    assert!(hint.contains("has expired"), "{hint}");
}

#[test]
fn what_passes_by_itself_is_asked_again_when_the_service_says() {
    let busy = answer(400, r#"{"error":"temporarily_unavailable"}"#);
    let passing = [408, 429, 500, 503, 504].map(|status| answer(status, "")).into_iter();
    for answer in passing.chain([busy]) {
        let err = judged(KINDS[0], &answer).unwrap_err();

        let DeliveryError::Retry { after, is_ambiguous: false, .. } = err else {
            panic!("{err:?}")
        };
        assert_eq!(after, Some(Duration::from_secs(17)));
    }
}

#[test]
fn an_answer_that_is_none_of_a_token_service_blocks_and_is_not_shown() {
    let odd = r#"{"token":"odd-canary"}"#;
    for (status, body) in [(200, odd), (200, "<html>"), (302, ""), (404, "")] {
        let (text, hint) = blocked(judged(KINDS[0], &answer(status, body)));

        assert!(!text.contains("canary"), "{text}");
        assert!(hint.contains("`authority` and `proxy`"), "{status}: {hint}");
    }
}

#[test]
fn a_credential_that_is_written_back_is_not_shown() {
    secret::register("refused-canary");

    let (text, _) = blocked(judged(KINDS[0], &answer(401, r#"{"error":"no: refused-canary"}"#)));

    assert!(text.ends_with("no: ***"), "{text}");
}

#[test]
fn a_token_lasts_as_long_as_the_shorter_of_its_two_numbers() {
    let lasts = |numbers: &str| {
        let body = format!(r#"{{"access_token":"t-canary"{numbers}}}"#);
        judged(KINDS[3], &answer(200, &body)).unwrap().lasts.as_secs()
    };

    assert_eq!(lasts(r#","expires_in":3599"#), 3599);
    assert_eq!(lasts(r#","expires_in":"3599""#), 3599);
    assert_eq!(lasts(r#","expires_in":"86400","expires_on":"1795169800""#), 1000);
    assert_eq!(
        lasts(r#","expires_in":"3600","expires_on":"1700000000""#),
        3600,
        "a clock that is wrong"
    );
    assert_eq!(lasts(""), 300);
}

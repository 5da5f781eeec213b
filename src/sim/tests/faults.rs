//! What a test can make go wrong, seen from the other end of the socket.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

async fn fails(api: &Api) -> bool {
    let path = format!("{}?{HOUR}", api.options().dialect.path);
    ask(api, &path, ("x-api-token", "Bearer simulated-token")).await.is_err()
}

#[tokio::test]
async fn each_fault_answers_as_it_says() {
    let api = start_with(50, standing_still()).await;
    let honest = get(&api, HOUR).await;
    let play = async |fault: Fault| {
        api.fault_when(move |_| Some(fault.clone()));
        get(&api, HOUR).await
    };

    let throttled = play(Fault::status(429, "slow down").with_header("retry-after", "7")).await;
    assert_eq!((throttled.status, throttled.body.as_str()), (429, "slow down"));
    assert_eq!(throttled.headers["retry-after"], "7");
    let dated = play(Fault::status(200, "").with_header("Date", "then")).await;
    assert_eq!(dated.headers.get_all("date").iter().collect::<Vec<_>>(), ["then"]);
    assert_eq!(play(Fault::Html).await.headers["content-type"], "text/html");
    let short = play(Fault::ShortButConsistent).await;
    assert_eq!((short.status, short.body.len()), (200, honest.body.len() / 2));
    assert!(serde_json::from_str::<Value>(&short.body).is_err());
    assert!(serde_json::from_str::<Value>(&play(Fault::Garbage).await.body).is_err());
    assert!(play(Fault::WrongEnvelope).await.json()["result"].is_null());
    let raw = play(Fault::Raw { headers: Vec::new(), body: b"{}".to_vec() }).await;
    assert_eq!(raw.body, "{}");
    let moved = play(Fault::Redirect { to: "http://127.0.0.2/".into() }).await;
    assert_eq!(
        (moved.status, &moved.headers["location"]),
        (302, &"http://127.0.0.2/".parse().unwrap())
    );
    let echo = play(Fault::EchoToken { code: 401 }).await;
    assert!(echo.status == 401 && echo.body.contains("Bearer simulated-token"));

    api.mend();
    assert_eq!(get(&api, HOUR).await.types(), honest.types());
}

#[tokio::test]
async fn a_cut_connection_is_an_error_and_the_next_one_is_whole() {
    let api = start_with(50, standing_still()).await;
    for fault in [Fault::Reset, Fault::Truncated] {
        api.fault_when(move |request| (request.number % 2 == 1).then(|| fault.clone()));

        assert!(fails(&api).await);
        assert_eq!(get(&api, HOUR).await.types().len(), 50);
    }
}

async fn exchange(api: &Api) -> String {
    let address = api.url().replace("http://", "");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("GET {}?{HOUR} HTTP/1.1\r\nHost: sim\r\n", api.options().dialect.path);
    let head = format!("{head}X-API-Token: Bearer simulated-token\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_truncated_answer_promises_its_length_and_ends_in_the_middle() {
    let api = start_with(50, standing_still()).await;
    let whole = exchange(&api).await;
    api.fault_when(|_| Some(Fault::Truncated));

    let cut = exchange(&api).await;

    let (head, body) = whole.split_once("\r\n\r\n").unwrap();
    let (cut_head, cut_body) = cut.split_once("\r\n\r\n").unwrap();
    assert_eq!(head, cut_head);
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    assert_eq!(cut_body.len(), body.len() / 2);
    api.fault_when(|_| Some(Fault::Reset));
    assert_eq!(exchange(&api).await, "");
}

#[tokio::test]
async fn answers_come_without_a_date_if_so_wanted() {
    let api = start_with(50, Options { sends_date: false, ..standing_still() }).await;

    let answer = exchange(&api).await;

    assert!(!answer.contains("date: "), "{answer}");
    assert!(answer.ends_with('}') && answer.contains("\r\n\r\n{"));
}

#[tokio::test]
async fn a_held_request_waits_for_its_release_and_a_stalled_one_for_ever() {
    let api = start_with(50, standing_still()).await;
    api.fault_when(|r| Some(if r.number == 1 { Fault::Hold } else { Fault::Stall }));
    let (one, other) = (api.clone(), api.clone());

    let held = tokio::spawn(async move { get(&one, HOUR).await.types().len() });
    api.wait_for_requests(1).await;
    let stalled = tokio::spawn(async move { get(&other, HOUR).await.status });
    api.wait_for_requests(2).await;
    assert_eq!((api.log()[0].status, api.log()[1].status), (None, None));
    api.release();

    assert_eq!(held.await.unwrap(), 50);
    assert!(!stalled.is_finished());
    stalled.abort();
    let log = api.log();
    assert_eq!((log[0].status, log[0].page, log[0].records), (Some(200), Some(1), 50));
    assert!(log[1].status.is_none() && log[1].is_faulted);
    assert_eq!(log[0].request.window, Some((THREE - 3_600_000, THREE)));
}

#[tokio::test]
async fn the_fault_plan_sees_the_request_and_may_use_the_api() {
    let api = start_with(150, standing_still()).await;
    let inner = api.clone();
    api.fault_when(move |request| {
        inner.add(SimEvent::new(THREE, "meanwhile"));
        request.has_token.then(|| Fault::status(503, ""))
    });

    let first = get(&api, HOUR).await;
    let second = next(&api, HOUR, &first.next().unwrap()).await;

    assert_eq!((first.types()[0].as_str(), second.status), ("meanwhile", 503));
    assert_eq!((api.requests(), api.truth().len()), (2, 152));
}

//! The simulated API over a real socket.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;

use super::*;

mod faults;

const NOW: Millis = 1_767_323_045_678; // 2026-01-02T03:04:05.678Z
const HOUR: &str = "start_date=2026-01-02T02:00:00Z&end_date=2026-01-02T03:00:00Z";
const DATES: (&str, &str) = ("2026-01-02T02:00:00Z", "2026-01-02T03:00:00Z");
const THREE: Millis = 1_767_322_800_000; // 2026-01-02T03:00:00Z

fn standing_still() -> Options {
    Options { clock: Clock::Manual(NOW), ..Options::default() }
}

async fn start(options: Options) -> Api {
    let (api, serve) = Api::bind(options).await.unwrap();
    tokio::spawn(serve);
    api
}

/// An API at which `count` events happened, one a second, before three o'clock.
async fn start_with(count: i64, options: Options) -> Api {
    let api = start(options).await;
    api.add_all((0..count).map(|n| SimEvent::new(THREE - 1000 * n - 1, &format!("e{n}"))));
    api
}

struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn next(&self) -> Option<String> {
        self.json()["continuation_token"].as_str().map(str::to_owned)
    }

    fn types(&self) -> Vec<String> {
        let json = self.json();
        let records = json["events"].as_array().unwrap();
        records.iter().map(|r| r["audit_event"].as_str().unwrap().to_owned()).collect()
    }

    fn message(&self) -> String {
        assert_eq!(self.json()["error"].as_str().is_some(), self.status >= 400);
        format!("{} {}", self.status, self.json()["message"].as_str().unwrap())
    }
}

async fn ask(api: &Api, path: &str, header: (&str, &str)) -> reqwest::Result<Answer> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    let request = client.get(format!("{}{path}", api.url())).header(header.0, header.1);
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer { status, headers, body: response.text().await? })
}

async fn get(api: &Api, query: &str) -> Answer {
    let path = format!("{}?{query}", api.options().dialect.path);
    ask(api, &path, ("x-api-token", "Bearer simulated-token")).await.unwrap()
}

async fn next(api: &Api, query: &str, token: &str) -> Answer {
    let url = reqwest::Url::parse_with_params("http://x/", [("continuation_token", token)]);
    get(api, &format!("{query}&{}", url.unwrap().query().unwrap())).await
}

async fn read_all(api: &Api, query: &str) -> Vec<Answer> {
    let mut pages = vec![get(api, query).await];
    while let Some(token) = pages.last().unwrap().next() {
        pages.push(next(api, query, &token).await);
    }
    pages
}

#[tokio::test]
async fn a_window_is_read_newest_first_a_hundred_at_a_time_whatever_is_asked() {
    let api = start_with(250, standing_still()).await;

    let pages = read_all(&api, &format!("{HOUR}&limit=1000")).await;

    let sizes: Vec<usize> = pages.iter().map(|page| page.types().len()).collect();
    assert_eq!(sizes, [100, 100, 50]);
    let types: Vec<String> = pages.iter().flat_map(Answer::types).collect();
    assert_eq!(types, (0..250).map(|n| format!("e{n}")).collect::<Vec<_>>());
    assert_eq!(pages[0].json()["has_more"], true);
    assert_eq!(pages[2].json()["has_more"], false);
    assert!(pages[2].json()["continuation_token"].is_null());
    assert_eq!(pages[0].headers["date"], "Fri, 02 Jan 2026 03:04:05 GMT");
    assert_eq!(api.truth().len(), 250);
}

#[tokio::test]
async fn a_week_read_page_by_page_is_the_truth() {
    for order in [Order::Newest, Order::Oldest] {
        let api = start(Options { order, ..standing_still() }).await;
        api.add_all(week(1, NOW, 2000));

        let query = "start_date=2025-12-26T03:04:05Z&end_date=2026-01-02T03:04:06Z";
        let pages = read_all(&api, query).await;

        let records: Vec<Value> = pages
            .iter()
            .flat_map(|page| page.json()["events"].as_array().unwrap().clone())
            .collect();
        let lines = records.iter().map(|record| {
            let text = record.to_string();
            format!("{},\"siemferry\":{{}}}}", text.strip_suffix('}').unwrap())
        });
        let report = oracle::compare(&api.truth(), lines);
        assert!(report.is_exact(), "{report}: {:?}", report.altered_examples);
        assert!(report.held > 1950);
    }
}

#[tokio::test]
async fn both_bounds_belong_to_a_window_unless_the_options_say_otherwise() {
    let times = [("start", THREE - 3_600_000), ("end", THREE), ("behind", THREE + 1)];
    for (start_inclusive, end_inclusive, expected) in [
        (true, true, vec!["end", "start"]),
        (true, false, vec!["start"]),
        (false, true, vec!["end"]),
        (false, false, vec![]),
    ] {
        let api = start(Options { start_inclusive, end_inclusive, ..standing_still() }).await;
        api.add_all(times.map(|(name, time)| SimEvent::new(time, name)));

        assert_eq!(get(&api, HOUR).await.types(), expected);
    }
}

#[tokio::test]
async fn every_request_the_real_service_would_refuse_is_refused() {
    let api = start(standing_still()).await;
    let (start, end) = DATES;
    let refused = [
        (format!("end_date={end}"), "400 start_date query parameter is missing"),
        (format!("start_date={start}"), "400 end_date query parameter is missing"),
        (format!("start_date={start}&end_date=now"), "400 end_date is not a date: now"),
        (format!("start_date={end}&end_date={start}"), "400 start_date must not be after end_date"),
        (format!("{HOUR}&limit=0"), "400 limit must be from 1 to 4294967295"),
        (format!("{HOUR}&limit=ten"), "400 limit must be from 1 to 4294967295"),
        (format!("{HOUR}&continuation_token=abc"), "400 continuation_token is unknown"),
    ];
    for (query, expected) in refused {
        assert_eq!(get(&api, &query).await.message(), expected);
    }

    let path = format!("{}?{HOUR}", api.options().dialect.path);
    for bad in ["Bearer wrong", "simulated-token", "", "bearer simulated-token"] {
        let answer = ask(&api, &path, ("x-api-token", bad)).await.unwrap();
        assert_eq!(answer.message(), "401 Invalid or missing API token", "{bad}");
        assert_eq!(answer.json()["error"], "unauthorized");
    }
    let answer = ask(&api, "/api/rest", ("x-api-token", "Bearer simulated-token")).await.unwrap();
    assert_eq!(answer.status, 404);
    let posted = reqwest::Client::new().post(format!("{}{path}", api.url())).send().await.unwrap();
    assert_eq!(
        (posted.status().as_u16(), &posted.headers()["allow"]),
        (405, &"GET".parse().unwrap())
    );
}

#[tokio::test]
async fn a_token_serves_only_the_request_it_was_made_for() {
    let api = start_with(250, standing_still()).await;
    let token = get(&api, HOUR).await.next().unwrap();
    let wrong = "400 continuation_token was made for another request";

    let other_end = HOUR.replace("03:00:00Z", "03:00:01Z");
    assert_eq!(next(&api, &other_end, &token).await.message(), wrong);
    assert_eq!(next(&api, &format!("{HOUR}&limit=100"), &token).await.message(), wrong);
    assert_eq!(next(&api, HOUR, &token).await.types().len(), 100);
}

#[tokio::test]
async fn a_token_expires_by_age_by_pages_and_on_demand() {
    let expired = "400 continuation_token has expired";
    let api = start_with(500, Options { token_pages: Some(3), ..standing_still() }).await;

    let mut page = get(&api, HOUR).await;
    let first = page.next().unwrap();
    for _ in 0..2 {
        page = next(&api, HOUR, &page.next().unwrap()).await;
    }
    assert_eq!(next(&api, HOUR, &page.next().unwrap()).await.message(), expired);

    api.advance(15 * 60 * 1000);
    assert_eq!(next(&api, HOUR, &first).await.status, 200);
    api.advance(1);
    assert_eq!(next(&api, HOUR, &first).await.message(), expired);

    let fresh = get(&api, HOUR).await.next().unwrap();
    api.expire_tokens();
    assert_eq!(next(&api, HOUR, &fresh).await.message(), expired);
}

#[tokio::test]
async fn what_is_late_or_still_to_come_is_seen_when_the_clock_gets_there() {
    let api = start(standing_still()).await;
    api.add(SimEvent::new(THREE - 5, "late").visible_at(NOW + 60_000));
    api.add(SimEvent::new(THREE - 6, "punctual"));

    assert_eq!(get(&api, HOUR).await.types(), ["punctual"]);
    assert_eq!(api.truth().len(), 1);
    api.set_now(NOW + 60_000);
    assert_eq!(get(&api, HOUR).await.types(), ["late", "punctual"]);
    assert_eq!(api.truth_between(THREE - 5, THREE).len(), 1);
}

#[tokio::test]
async fn the_same_event_is_served_with_its_keys_in_many_orders_or_always_in_one() {
    for (shuffle_keys, expected) in [(true, 2..=10), (false, 1..=1)] {
        let api = start(Options { shuffle_keys, ..standing_still() }).await;
        api.add(SimEvent::new(THREE, "login").with("a", "1").with("b", "{\"c\":2,\"d\":3}"));

        let mut bodies = HashSet::new();
        for _ in 0..10 {
            bodies.insert(get(&api, HOUR).await.body);
        }

        assert!(expected.contains(&bodies.len()), "{shuffle_keys}: {}", bodies.len());
    }
}

#[tokio::test]
async fn an_entirely_different_api_is_played_by_name() {
    let api = start_with(
        150,
        Options { dialect: Dialect::other(), shuffle_keys: false, ..standing_still() },
    )
    .await;
    let window = format!("from_ms={}&until_ms={THREE}&page_size=100", THREE - 3_600_000);
    let login = ("authorization", "Token simulated-token");
    let first = ask(&api, &format!("/v7/journal?{window}"), login).await.unwrap().json();
    let token = first["payload"]["paging"]["cursor"].as_str().unwrap().replace('+', "%2B");

    let path = format!("/v7/journal?{window}&cursor={token}");
    let last = ask(&api, &path, login).await.unwrap().json();

    let expected = format!(r#"{{"meta":{{"at":{},"what":"e0"}}}}"#, THREE - 1);
    assert_eq!(first["payload"]["entries"][0].to_string(), expected);
    assert_eq!(last["payload"]["entries"].as_array().unwrap().len(), 50);
    assert_eq!(last["payload"].as_object().unwrap().len(), 1);
    assert!(api.truth()[0].starts_with(r#"{"meta":{"at":"#));
}

#[tokio::test]
async fn an_api_may_refuse_a_limit_and_promise_a_page_it_does_not_have() {
    let options = Options { limit_max: Some(100), trailing_empty_page: true, ..standing_still() };
    let api = start_with(100, options).await;

    let refused = get(&api, &format!("{HOUR}&limit=101")).await;
    let pages = read_all(&api, HOUR).await;

    assert_eq!(refused.message(), "400 limit must be from 1 to 100");
    assert_eq!(pages.iter().map(|p| p.types().len()).collect::<Vec<_>>(), [100, 0]);
}

#[test]
fn a_real_clock_goes_on_from_where_it_is_set() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (api, _serve) = runtime.block_on(Api::bind(Options::default())).unwrap();

    api.set_now(NOW);
    api.advance(-1000);

    let ahead = api.now() - (NOW - 1000);
    assert!((0..Duration::from_secs(60).as_millis().try_into().unwrap()).contains(&ahead));
}

//! What is sent, to the byte.

use std::io::Read as _;

use serde_json::json;
use siemferry::event::Event;
use siemferry::sink::{DeliveryError, Receipt};

use super::{TIME, batch, batch_of, deliver, event, id, sink, sink_of_index};
use crate::bulk::{Access, Bulk, Fault, Options, Product, Tries};

/// With a template that makes a data stream of every `logs-…`.
fn with_streams() -> Bulk {
    let search = Bulk::start(Options::default());
    let template = include_str!("../../config/elastic-template.json");
    let mut template: serde_json::Value = serde_json::from_str(template).unwrap();
    template["index_patterns"] = json!(["logs-*"]);
    template["data_stream"] = json!({});
    search.install("siemferry", &template);
    search
}

#[tokio::test]
async fn an_event_goes_into_its_index_byte_for_byte() {
    let search = Bulk::start(Options::default());
    let sink = sink_of_index(&search);
    let batch = batch_of(&*sink, &[event(1, r#"{"b":1,"a":"x"}"#), event(2, "{}")]);

    let receipt = sink.deliver(&batch).await.unwrap();

    assert_eq!(receipt, Receipt::default());
    let document = concat!(
        r#"{"b":1,"a":"x","@timestamp":"2026-01-02T03:04:05.678Z","siemferry":{"uid":""#,
        "01010101010101010101010101010101",
        r#"","source":"acme","api":"keeper","type":"login","time":"2026-01-02T03:04:05.678Z","#,
        r#""received":"2026-01-02T03:04:06.678Z","seq":1}}"#
    );
    assert_eq!(search.document(&id(1)).unwrap(), ("keeper".to_owned(), document.to_owned()));
    let [seen] = search.bulks().try_into().unwrap();
    assert_eq!((seen.method.as_str(), seen.path.join("/").as_str()), ("POST", "keeper/_bulk"));
    assert_eq!(
        seen.query,
        [("filter_path".to_owned(), "errors,items.*.status,items.*.error".to_owned())]
    );
    assert_eq!(seen.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(seen.header("accept"), Some("application/json"));
    assert_eq!(seen.header("x-opaque-id"), Some("00000000-0000-0000-0000-000000000007"));
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(seen.body, batch.bytes);
    let action = format!("{{\"create\":{{\"_id\":\"{}\"}}}}\n", id(1));
    assert_eq!(batch.messages().next().unwrap(), format!("{action}{document}\n").as_bytes());
}

#[tokio::test]
async fn a_data_stream_takes_what_is_sent() {
    let search = with_streams();
    let sink = sink(&search, "data_stream = \"logs-keeper.audit-default\"\nformat = \"raw\"");

    deliver(&*sink, 3).await.unwrap();

    let [seen] = search.bulks().try_into().unwrap();
    assert_eq!(seen.path, ["logs-keeper.audit-default", "_bulk"]);
    let (index, document) = search.document(&id(3)).unwrap();
    assert_eq!(index, ".ds-logs-keeper.audit-default-2026.11.25-000001");
    assert_eq!(document, r#"{"a":"b","@timestamp":"2026-01-02T03:04:05.678Z"}"#);
}

#[tokio::test]
async fn each_event_goes_into_the_index_of_its_day() {
    let search = Bulk::start(Options::default());
    let sink = sink(&search, "index = \"keeper-{date}\"");
    let of_day = |number: u8, days: i64| Event {
        time: Some(TIME + days * 86_400_000),
        ..event(number, "{}")
    };

    sink.deliver(&batch_of(&*sink, &[of_day(1, 0), of_day(2, 1), of_day(3, 0)])).await.unwrap();
    let late = Event { time: None, received: TIME + 2 * 86_400_000, ..event(4, "{}") };
    sink.deliver(&batch_of(&*sink, &[late])).await.unwrap();

    assert_eq!(search.bulks()[0].path, ["_bulk"]);
    let indices = search.indices();
    let found: Vec<_> = indices.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(
        found,
        [("keeper-2026.01.02", 2), ("keeper-2026.01.03", 1), ("keeper-2026.01.04", 1)]
    );
}

#[tokio::test]
async fn what_is_sent_again_is_there_once() {
    let search = Bulk::start(Options::default());
    let sink = sink_of_index(&search);

    deliver(&*sink, 2).await.unwrap();
    let receipt = deliver(&*sink, 3).await.unwrap();

    assert_eq!(receipt, Receipt::default(), "what is there already is accepted");
    assert_eq!(search.tries(&id(1)), Tries { tried: 2, created: 1 });
    assert_eq!(search.tries(&id(3)), Tries { tried: 1, created: 1 });
}

#[tokio::test]
async fn a_data_stream_that_has_rolled_over_holds_a_repeat_twice() {
    let search = with_streams();
    let sink = sink(&search, "data_stream = \"logs-a\"");

    deliver(&*sink, 1).await.unwrap();
    deliver(&*sink, 1).await.unwrap();
    assert_eq!(search.tries(&id(1)), Tries { tried: 2, created: 1 });
    search.roll_over("logs-a");
    deliver(&*sink, 1).await.unwrap();

    assert_eq!(search.tries(&id(1)), Tries { tried: 3, created: 2 }, "as the README says");
}

#[tokio::test]
async fn records_that_have_keys_of_ours_are_taken() {
    let search = Bulk::start(Options::default());
    let sink = sink_of_index(&search);
    let theirs = r#"{"@timestamp":"2020-01-01T00:00:00Z","siemferry":{"a":1}}"#;
    let events = [event(1, theirs), event(2, r#"{"a":{"siemferry":1,"@timestamp":2}}"#)];

    let receipt = sink.deliver(&batch_of(&*sink, &events)).await.unwrap();

    assert_eq!(receipt, Receipt::default());
    assert_eq!(search.document(&id(1)).unwrap().1, theirs);
}

#[tokio::test]
async fn a_path_before_the_api_is_kept_and_names_are_encoded() {
    let search = Bulk::start(Options::default());
    let config = format!("[elastic]\nurl = \"{}/search/a%20b/\"\nindex = \"é%a\"", search.url());
    let config: sink::Config = toml::from_str(&config).unwrap();

    let delivered = deliver(&*config.build(), 1).await;

    assert!(delivered.is_err(), "the simulator has no such path");
    assert_eq!(search.bulks()[0].path, ["search", "a b", "é%a", "_bulk"]);
}

#[tokio::test]
async fn a_pipeline_is_asked_for() {
    let search = Bulk::start(Options { pipelines: vec!["geo ip".into()], ..Options::default() });
    let with = |pipeline: &str| sink(&search, &format!("index = \"a\"\npipeline = \"{pipeline}\""));

    deliver(&*with("geo ip"), 1).await.unwrap();
    let err = deliver(&*with("nobody"), 1).await.unwrap_err();

    assert_eq!(search.bulks()[0].query("pipeline"), Some("geo ip"));
    let DeliveryError::Blocked { source, hint, .. } = err else { panic!("{err:?}") };
    let told = "400 illegal_argument_exception: pipeline with id [nobody] does not exist";
    assert_eq!(source.to_string(), told);
    assert_eq!(hint.unwrap(), "make the ingest pipeline, or take `pipeline` out");
}

#[tokio::test]
async fn each_kind_of_credential_is_shown_as_expected() {
    let basic = Access::Basic { user: "elastic".into(), password: "pass-word:1".into() };
    let key = Access::ApiKey("aWQ6c2VjcmV0LWtleQ==".into());
    for (access, auth) in [
        (&key, "{ api_key = \"aWQ6c2VjcmV0LWtleQ==\" }"),
        (&key, "{ api_key = \"id:secret-key\" }"),
        (&basic, "{ basic = { user = \"elastic\", password = \"pass-word:1\" } }"),
        (&Access::Bearer("bearer-token".into()), "{ bearer = \"bearer-token\" }"),
    ] {
        for product in [Product::Elasticsearch, Product::OpenSearch] {
            let access = Some(access.clone());
            let search = Bulk::start(Options { access, product, ..Options::default() });

            deliver(&*sink(&search, &format!("index = \"a\"\nauth = {auth}")), 1).await.unwrap();
            let wrong = sink(&search, "index = \"a\"\nauth = { bearer = \"wrong-token\" }");
            let err = deliver(&*wrong, 1).await.unwrap_err();

            assert!(
                matches!(&err, DeliveryError::Blocked { may_be_content: false, .. }),
                "{auth}: {err:?}"
            );
            assert_eq!(search.tries(&id(1)).created, 1);
        }
    }
}

#[tokio::test]
async fn a_compressed_request_holds_the_same() {
    let search = Bulk::start(Options::default());
    let sink = sink(&search, "index = \"a\"\ncompress = \"gzip\"");
    let batch = batch(&*sink, 200);

    sink.deliver(&batch).await.unwrap();

    let [seen] = search.bulks().try_into().unwrap();
    assert_eq!(seen.header("content-encoding"), Some("gzip"));
    assert!(seen.body.len() * 5 < batch.bytes.len());
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&*seen.body).read_to_end(&mut plain).unwrap();
    assert_eq!(plain, batch.bytes);
    assert_eq!(search.indices()["a"], 200);
}

#[tokio::test]
async fn another_attempt_sends_the_same_bytes_under_the_same_id() {
    let search = Bulk::start(Options::default());
    search.fault_when(|seen| (seen.number <= 2).then(|| Fault::status(503, "a", "b")));
    let sink = sink(&search, "index = \"a\"\ncompress = \"gzip\"");
    let batch = batch(&*sink, 20);

    while sink.deliver(&batch).await.is_err() {}

    let [first, _, last] = search.bulks().try_into().unwrap();
    assert_eq!(first.body, last.body);
    assert_eq!(first.header("x-opaque-id"), last.header("x-opaque-id"));
}

//! What is made of each answer: as a whole, and item by item.

use std::sync::Arc;
use std::time::Duration;

use siemferry::sink::{DeliveryError, Receipt, Verdict};

use super::{batch_of, deliver, event, id, sink_of_index};
use crate::bulk::{Bulk, Fault, ItemError, Options, Product, Tries};

fn retry(reason: &str) -> Verdict {
    Verdict::Retry { reason: reason.to_owned() }
}

fn refused(reason: &str) -> Verdict {
    Verdict::Refused { reason: reason.to_owned() }
}

/// What a delivery of three events comes to when this happens to its request.
async fn with(fault: Fault) -> Result<Receipt, DeliveryError> {
    let search = Bulk::start(Options::default());
    search.fault_when(move |_| Some(fault.clone()));
    deliver(&*sink_of_index(&search), 3).await
}

async fn with_status(code: u16) -> DeliveryError {
    with(Fault::status(code, "some_exception", "some reason")).await.unwrap_err()
}

#[tokio::test]
async fn each_item_has_a_verdict_of_its_own() {
    let search = Bulk::start(Options::default());
    let errors = [
        None,
        Some(ItemError::new(429, "es_rejected_execution_exception", "queue is full")),
        Some(ItemError::new(503, "unavailable_shards_exception", "not active")),
        Some(ItemError::new(404, "index_not_found_exception", "no such index [keeper]")),
        Some(
            ItemError::new(400, "document_parsing_exception", "failed to parse")
                .caused_by("a", "the cause"),
        ),
    ];
    search.fault_when(move |_| {
        let errors = errors.clone();
        Some(Fault::Items(Arc::new(move |item| errors[item].clone())))
    });
    let sink = sink_of_index(&search);

    let receipt = deliver(&*sink, 5).await.unwrap();

    let expected = [
        Verdict::Accepted,
        retry("429 es_rejected_execution_exception: queue is full"),
        retry("503 unavailable_shards_exception: not active"),
        retry("404 index_not_found_exception: no such index [keeper]"),
        refused("400 document_parsing_exception: failed to parse: the cause"),
    ];
    assert_eq!(receipt.verdicts.unwrap(), expected);
    assert_eq!(search.indices()["keeper"], 1);
    search.mend();
    assert_eq!(deliver(&*sink, 5).await.unwrap(), Receipt::default());
    assert_eq!(search.indices()["keeper"], 5);
    assert_eq!(search.tries(&id(1)), Tries { tried: 2, created: 1 });
}

#[tokio::test]
async fn what_the_mapping_refuses_is_refused_alone() {
    for (product, kind) in [
        (Product::Elasticsearch, "document_parsing_exception"),
        (Product::OpenSearch, "mapper_parsing_exception"),
    ] {
        let search = Bulk::start(Options { product, ..Options::default() });
        search.refuse_text("p0is0n");
        let sink = sink_of_index(&search);
        let events = [
            event(1, "{}"),
            event(2, r#"{"a":"p0is0n"}"#),
            event(3, r#"{"a":1,"a":2}"#),
            event(4, "{}"),
        ];

        let receipt = sink.deliver(&batch_of(&*sink, &events)).await.unwrap();

        let verdicts = receipt.verdicts.unwrap();
        assert_eq!([&verdicts[0], &verdicts[3]], [&Verdict::Accepted; 2]);
        let Verdict::Refused { reason } = &verdicts[1] else { panic!("{verdicts:?}") };
        assert!(reason.starts_with(&format!("400 {kind}: ")), "{reason}");
        assert!(reason.ends_with("For input string: \"p0is0n\""), "{reason}");
        let Verdict::Refused { reason } = &verdicts[2] else { panic!("{verdicts:?}") };
        assert!(reason.contains("Duplicate field 'a'"), "{reason}");
        // Alone with others of its kind it is refused as well: what that means is not for the sink
        // to say.
        let receipt = sink.deliver(&batch_of(&*sink, &events[1..3])).await.unwrap();
        let verdicts = receipt.verdicts.unwrap();
        assert!(verdicts.iter().all(|it| matches!(it, Verdict::Refused { .. })), "{verdicts:?}");
    }
}

#[tokio::test]
async fn what_no_event_is_the_cause_of_blocks_with_its_remedy() {
    for (status, kind, remedy) in [
        (403, "cluster_block_exception", "flood-stage watermark"),
        (429, "cluster_block_exception", "flood-stage watermark"),
        (403, "security_exception", "privileges `create_doc` and `auto_configure`"),
        (404, "index_not_found_exception", "config/elastic-template.json"),
        (400, "index_closed_exception", "open the index"),
    ] {
        let err = with(Fault::all_items(status, kind, "the reason")).await.unwrap_err();

        let DeliveryError::Blocked { source, hint, may_be_content: false } = err else {
            panic!("{err:?}")
        };
        assert_eq!(source.to_string(), format!("{status} {kind}: the reason"));
        assert!(hint.as_ref().unwrap().contains(remedy), "{hint:?}");
    }
}

#[tokio::test]
async fn an_index_that_is_not_made_by_itself_blocks_until_it_is_there() {
    let search = Bulk::start(Options { auto_create: false, ..Options::default() });

    let err = deliver(&*sink_of_index(&search), 3).await.unwrap_err();

    assert!(matches!(err, DeliveryError::Blocked { .. }), "{err:?}");
    assert!(err.to_string().contains("no such index [keeper]"), "{err}");
}

#[tokio::test]
async fn whole_requests_are_judged_by_their_status() {
    assert!(matches!(with_status(400).await, DeliveryError::Refused { is_size: false, .. }));
    assert!(matches!(with_status(413).await, DeliveryError::Refused { is_size: true, .. }));
    for code in [401, 403, 404] {
        assert!(matches!(with_status(code).await, DeliveryError::Blocked { .. }), "{code}");
    }
    for code in [429, 500, 502, 503, 504] {
        assert!(matches!(with_status(code).await, DeliveryError::Retry { .. }), "{code}");
    }
    let headers = vec![("retry-after".to_owned(), "17".to_owned())];
    let err = with(Fault::Status { code: 429, headers, body: "{}".into() }).await.unwrap_err();
    let seventeen = Some(Duration::from_secs(17));
    assert!(matches!(err, DeliveryError::Retry { after, .. } if after == seventeen), "{err:?}");
}

#[tokio::test]
async fn a_request_that_is_too_long_is_divided_and_not_suspected() {
    let search = Bulk::start(Options { max_content_length: 500, ..Options::default() });

    let err = deliver(&*sink_of_index(&search), 3).await.unwrap_err();

    assert!(matches!(err, DeliveryError::Refused { is_size: true, .. }), "{err:?}");
    assert_eq!(deliver(&*sink_of_index(&search), 1).await.unwrap(), Receipt::default());
}

#[tokio::test]
async fn an_answer_of_somebody_else_accepts_nothing() {
    for body in [
        "",
        "<html>please sign in</html>",
        "{}",
        r#"{"errors":false,"items":[]}"#,
        r#"{"errors":false,"items":[{"create":{"status":201}},{"create":{"status":201}}]}"#,
    ] {
        let fault = Fault::Status { code: 200, headers: Vec::new(), body: body.into() };

        let err = with(fault).await.unwrap_err();

        assert!(matches!(err, DeliveryError::Retry { is_ambiguous: true, .. }), "{body}: {err:?}");
        assert!(err.to_string().contains("the answer is not one of a bulk API"), "{err}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_doubles_nothing() {
    for fault in [Fault::LoseAnswer, Fault::CutAnswer] {
        let search = Bulk::start(Options::default());
        search.fault_when(move |seen| (seen.number == 1).then(|| fault.clone()));
        let sink = sink_of_index(&search);

        let err = deliver(&*sink, 3).await.unwrap_err();

        assert!(matches!(err, DeliveryError::Retry { is_ambiguous: true, .. }), "{err:?}");
        assert_eq!(search.indices()["keeper"], 3, "the server has them");
        assert_eq!(deliver(&*sink, 3).await.unwrap(), Receipt::default());
        assert_eq!(search.tries(&id(2)), Tries { tried: 2, created: 1 });
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_tried_again() {
    for fault in [Fault::ResetBeforeBody, Fault::ResetInBody] {
        let search = Bulk::start(Options::default());
        search.fault_when(move |seen| (seen.number == 1).then(|| fault.clone()));
        let sink = sink_of_index(&search);

        let err = deliver(&*sink, 200).await.unwrap_err();

        assert!(matches!(err, DeliveryError::Retry { .. }), "{err:?}");
        assert_eq!(deliver(&*sink, 200).await.unwrap(), Receipt::default());
        assert_eq!(search.indices()["keeper"], 200);
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_left_at_last() {
    let search = Bulk::start(Options::default());
    search.fault_when(|_| Some(Fault::Stall));
    let sink = super::sink(&search, "index = \"keeper\"\ntimeout = \"2s\"");

    let err = deliver(&*sink, 1).await.unwrap_err();

    assert!(matches!(err, DeliveryError::Retry { is_ambiguous: true, .. }), "{err:?}");
    search.release();
}

#[tokio::test]
async fn several_requests_may_be_on_their_way_at_once() {
    let search = Bulk::start(Options::default());
    search.fault_when(|_| Some(Fault::Hold));
    let sink = sink_of_index(&search);
    let (first, second) =
        (batch_of(&*sink, &[event(1, "{}")]), batch_of(&*sink, &[event(2, "{}")]));
    let both = async { tokio::join!(sink.deliver(&first), sink.deliver(&second)) };
    let arrive = async {
        search.wait_for(2).await;
        search.mend();
        search.release();
        search.wait_for_created(2).await;
    };

    let ((one, two), ()) = tokio::join!(both, arrive);

    assert_eq!((one.unwrap(), two.unwrap()), (Receipt::default(), Receipt::default()));
}

//! The Elasticsearch and OpenSearch sink, and the simulator it is tested against.

use std::sync::Arc;

use siemferry::event::{Event, Uid};
use siemferry::sink::{self, Batch, DeliveryError, Receipt, Sink};
use uuid::Uuid;

use crate::bulk::Bulk;

/// What is made of each answer.
mod answers;

/// The whole of it, with the real binary.
mod once;

/// What the official client makes of the simulator.
mod proof;

/// What is sent.
mod sending;

/// The index template that is shipped.
mod template;

/// 2026-01-02T03:04:05.678Z
const TIME: i64 = 1_767_323_045_678;

/// A sink that delivers to the simulator; `keys` are more lines of its configuration.
fn sink(search: &Bulk, keys: &str) -> Box<dyn Sink> {
    let config = format!("[elastic]\nurl = \"{}\"\n{keys}", search.url());
    let config: sink::Config = toml::from_str(&config).unwrap();
    assert_eq!(config.check(), []);
    config.build()
}

/// One that delivers to the index `keeper`, uncompressed.
fn sink_of_index(search: &Bulk) -> Box<dyn Sink> {
    sink(search, "index = \"keeper\"\ncompress = \"none\"")
}

fn event(number: u8, raw: &str) -> Event<'_> {
    Event {
        seq: number.into(),
        uid: Uid([number; 16]),
        time: Some(TIME),
        event_type: Some("login"),
        raw: raw.as_bytes(),
        source: "acme",
        api: "keeper",
        received: TIME + 1000,
    }
}

/// The `_id` of the event of this number.
fn id(number: u8) -> String {
    Uid([number; 16]).to_string()
}

fn batch_of(sink: &dyn Sink, events: &[Event<'_>]) -> Arc<Batch> {
    let mut batch = Batch { id: Uuid::from_u128(7), ..Batch::default() };
    for event in events {
        sink.encode(event, &mut batch.bytes).unwrap();
        batch.ends.push(batch.bytes.len());
    }
    Arc::new(batch)
}

/// A batch of events numbered from 1.
fn batch(sink: &dyn Sink, count: u8) -> Arc<Batch> {
    let events: Vec<_> = (1..=count).map(|number| event(number, r#"{"a":"b"}"#)).collect();
    batch_of(sink, &events)
}

async fn deliver(sink: &dyn Sink, count: u8) -> Result<Receipt, DeliveryError> {
    sink.deliver(&batch(sink, count)).await
}

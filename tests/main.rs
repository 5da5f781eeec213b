//! One test binary: a module per subject, black-box wherever a process can be started.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

/// What the tests stand on: the simulated API, the real binary, a directory.
mod rig;

/// What the binary told when it ended.
#[path = "rig/told.rs"]
mod told;

/// A daemon inside the test's own process.
#[path = "rig/inside.rs"]
mod inside;

/// What happens at a tenant.
#[path = "rig/tenant.rs"]
mod tenant;

/// A certificate authority of the test's own.
#[path = "rig/tls.rs"]
mod tls;

/// A server that answers with prepared bytes.
#[path = "rig/wire.rs"]
mod wire;

/// A strict receiver of what the webhook sink sends.
#[path = "rig/collector.rs"]
mod collector;

/// What the simulators know of HTTP.
#[path = "rig/plain_http.rs"]
mod plain_http;

/// A simulated Elasticsearch.
#[path = "rig/bulk/mod.rs"]
mod bulk;

/// A simulated Azure: tokens and the Logs Ingestion API.
#[path = "rig/azure/mod.rs"]
mod azure;

/// A simulated HTTP Event Collector.
#[path = "rig/hec/mod.rs"]
mod hec;

/// A simulated syslog receiver of any kind.
#[path = "rig/receiver/mod.rs"]
mod receiver;

/// A receiver of syslog that takes only what the standards allow.
#[path = "rig/strict_syslog.rs"]
mod strict_syslog;

/// Real receivers of syslog.
#[path = "rig/receivers/mod.rs"]
mod receivers;

/// What a sink delivers to, of whatever kind.
#[path = "rig/peer.rs"]
mod peer;

/// `kill -9` at random instants loses and doubles nothing.
mod kills;

/// What the sources may and may not say.
mod architecture;

/// The courier: order, batches, retries, stops.
mod courier;

/// Batches in flight, unknown outcomes, refusals, and kills in the middle of all that.
mod fates;

/// The file sink, whatever happens to its file.
mod file_sink;

/// The webhook sink: what it sends, and what it makes of each answer.
mod webhook;

/// The Elasticsearch and OpenSearch sink.
mod elastic;

/// What is deployed in Azure for the Sentinel sink.
mod sentinel_packaging;

/// The app for Splunk, and the page that tells of it.
mod splunk_packaging;

/// What the Sentinel sink is tested against.
mod sentinel;

/// What the Splunk sink is tested against.
mod splunk;

/// The syslog sink, and what it is tested against.
mod syslog;

/// What syslog receivers read, whatever the events hold.
mod syslog_messages;

/// A full disk stops the polling and nothing else, and all of it goes on when there is room.
mod full_disk;
/// Rotation by the daemon itself and by `logrotate`, while it runs and while it is killed.
mod rotation;

/// The store, against a model of what is true.
mod store;

/// Whatever is wrong is refused with what to do about it, and once mended everything arrives.
mod bad_input;

/// A token that a server writes back is in no file, no log and no error.
mod secrets;

/// What `siemferry status` shows.
mod status;

/// What `siemferry check` finds, and that it changes nothing.
mod check;

/// What `siemferry dead-letters` shows, sends again and throws away.
mod dead_letters;

/// SIGTERM and SIGINT.
mod stop;

/// Every event once, for each habit an API may have.
mod cases;

/// The same engine for two APIs that share nothing.
mod presets;

/// What the engine asks of an API, and what it makes of each answer.
mod engine;

/// All weather at the API.
mod weather;

/// A span that somebody asks to be read again.
mod backfill;

/// What siemferry tells of itself.
mod own_events;

/// What is still kept, for one sink again.
mod replay;

/// What is gone from the configuration.
mod forget;

/// One marked event to one sink.
mod send_test;

/// What every sink promises, whatever its kind.
mod sink_contract;

/// What the whole promises, with several sinks at once.
mod acceptance;

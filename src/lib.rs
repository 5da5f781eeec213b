//! siemferry carries every audit event from SaaS APIs to the SIEM.
//!
//! # The line
//!
//! ```text
//!      one poller per source                              one courier per sink
//!  ┌──────────────────────────────────┐          ┌─────────────────────────────────────┐
//!  │ plan → fetch → split → identify ─┼── page ──┼→ spool → batch → encode → deliver ──┤
//!  │  ▲                       commit  │    +     │             ▲                   │   │
//!  │  └─ due? room in the spool?      │ position │             └───── settle ◄─────┘   │
//!  └──────────────────────────────────┘          └─────────────────────────────────────┘
//!      source/   poll/                   store/      deliver/   encode/   sink/
//! ```
//!
//! No event ever sits in a channel: the [`store`] is the only queue, and `watch` values are its
//! doorbells. A position is committed in the same transaction as the events it accounts for: at the
//! source end the page token and the watermark, at the sink end the bookmark. Every promise follows
//! from that.
//!
//! # The map
//!
//! - [`cli`]: one file per verb. [`config`] composes each module's own configuration.
//! - [`daemon`] starts pollers and couriers and stops them in order. Nothing else spawns tasks.
//! - [`poll`] reads one source: [`poll::plan`] says which window is next, and is pure.
//! - [`source`], a plug point: [`source::preset`] describes an API, [`source::rest`] does what it
//!   says, [`source::records`] splits bodies, [`source::identity`] tells copies from other records.
//! - [`store`]: one SQLite file; the only SQL. [`store::seen`] knows which records are new;
//!   [`store::dead_letters`] are those that could not be forwarded, for the command line as well.
//! - [`deliver`] serves one sink: several batches on their way, settled in the order of the events. What
//!   is not simply accepted meets its fate in `deliver/fate.rs`, which is pure.
//! - [`encode`] makes an event's bytes. [`sink`], a plug point, takes them: [`sink::file`],
//!   [`sink::webhook`]; those over HTTP share [`sink::http`]. [`sink::syslog`] is no HTTP at all.
//! - [`event`] is what flows, [`position`] how far it has flowed. [`own`]: what we tell of ourselves.
//! - [`http`], [`backoff`], [`health`], [`secret`], [`units`], [`log`], [`problem`], [`sys`], [`tls`]:
//!   leaves.
//! - [`sim`]: the simulated API behind `siemferry demo` and the tests.
//!
//! # Invariants
//!
//! - An event that an API returned is on stable storage before the checkpoint moves.
//! - A record's bytes are never parsed into a map and made again.
//! - Watermarks only rise, and never beyond what the server could have shown.
//! - `source` and `sink` never see the store or each other; neither knows its own position.
//! - A delivery is never cancelled half-way; a fetch may be, for asking again is harmless.
//! - Secrets are read in [`secret`] alone, and every text from outside is rid of them.
//! - Nothing listens on any port, but for the simulated API on loopback.
//!
//! A test enforces which module may import which.

pub mod backoff;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod deliver;
pub mod encode;
pub mod event;
pub mod health;
pub mod http;
pub mod log;
pub mod own;
pub mod poll;
pub mod position;
pub mod problem;
pub mod secret;
pub mod sim;
pub mod sink;
pub mod source;
pub mod store;
pub mod sys;
pub mod tls;
pub mod units;

//! One test binary: a module per subject, black-box wherever a process can be started.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

/// What the tests stand on: the simulated API, the real binary, a directory.
mod rig;

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

/// `kill -9` at random instants loses and doubles nothing.
mod kills;

/// Every event once, for each habit an API may have.
mod cases;

/// The same engine for two APIs that share nothing.
mod presets;

/// What the engine asks of an API, and what it makes of each answer.
mod engine;

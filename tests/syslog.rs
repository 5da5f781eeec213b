//! What a syslog sink is tested against.

/// What the simulator takes and refuses, and what its faults do.
mod simulator;

/// What the sink makes of whatever a receiver does.
mod once;

/// Whom it trusts over TLS, and what it tells of a mistake.
mod secured;

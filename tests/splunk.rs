//! What a Splunk sink is tested against.

/// The whole of it, with the real binary.
mod once;

/// What the simulator takes, refuses and acknowledges.
mod simulator;

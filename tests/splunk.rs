//! What a Splunk sink is tested against.

/// What the simulator takes, refuses and acknowledges.
mod simulator;

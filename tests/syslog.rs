//! What a syslog sink is tested against.

/// What the simulator takes and refuses, and what its faults do.
mod simulator;

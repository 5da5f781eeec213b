//! What a Sentinel sink is tested against.

/// The whole of it, with the real binary.
mod once;

/// What the daemon proves itself with, by the real binary.
mod credentials;

/// What Microsoft's clients make of the simulator.
mod proof;

/// What the simulator does that those clients never see.
mod simulator;

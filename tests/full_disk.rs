//! A full disk: below the state, below the file, below both, at the start and in the middle.
//!
//! Each disk is a real one, a small tmpfs, and so these tests need root; some do without.

#[path = "full_disk/disk.rs"]
mod disk;
#[path = "full_disk/flow.rs"]
mod flow;

#[path = "full_disk/failing.rs"]
mod failing;
#[path = "full_disk/filled.rs"]
mod filled;
#[path = "full_disk/started.rs"]
mod started;
#[path = "full_disk/tight.rs"]
mod tight;

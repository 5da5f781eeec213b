//! The store: no event without its position, none twice, none gone before it is settled.

/// What the tests commit, and how they look at it.
pub mod shelf;

/// What another process commits is noticed.
mod beside;
/// Records are forgotten only when nothing can meet them again.
mod expiry;
/// Whatever is read in whatever order, each true event is stored once.
mod model;
/// What is refused, and what a store is made of.
mod open;
/// Positions only rise.
mod positions;
/// Room is made from settled pages alone.
mod prune;
/// Copies, by how the API pages.
mod repeats;

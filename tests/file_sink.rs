//! The file sink: every event is one line, once, whatever happens to the file.

/// What the tests write with.
mod pen;

/// What a crash leaves, cut at every byte.
mod cuts;
/// Files that are moved, removed, replaced, truncated or rewritten.
mod moves;
/// What is refused, and what a new file is like.
mod refusals;
/// Writes that fail half-way.
mod retries;
/// Files that the sink rotates itself, and what becomes of them.
mod rotation;
/// The same, killed between any two steps.
mod steps;

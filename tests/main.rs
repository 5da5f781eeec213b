//! One test binary: a module per subject, black-box wherever a process can be started.

/// What the tests stand on: the simulated API, the real binary, a directory.
mod rig;

/// `kill -9` at random instants loses and doubles nothing.
mod kills;

/// The file sink, whatever happens to its file.
mod file_sink;

/// The store, against a model of what is true.
mod store;

//! Input that is wrong: told in whole sentences with a hint, and nothing is lost meanwhile.

/// Configurations, and the secrets they name.
mod configured;

/// State directories.
mod state;

/// What an API, or something in its place, may answer.
mod answers;

/// What may stand where the file of a sink should be.
mod outputs;

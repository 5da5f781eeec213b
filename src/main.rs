//! Parses arguments, runs the verb, turns an error into an exit code.

fn main() {}

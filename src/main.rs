//! Parses arguments, runs the verb, turns an error into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    siemferry::cli::main()
}

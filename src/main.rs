//! The binary: hands the words of the command line to `cli` and turns what comes back into an exit code. Nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    event_router::cli::main()
}

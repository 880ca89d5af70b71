//! The keeper alone, for this crate's tests; a node runs `gantry keeper` instead.

use std::process::ExitCode;

fn main() -> ExitCode {
    gantry_isolation::keeper::main(std::env::args_os().skip(1))
}

//! The command line alone, for development: `cargo run -p ctl --example ctl -- get pods`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ctl::main(std::env::args_os().collect())
}

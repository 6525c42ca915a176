//! The command line alone, for development and its tests: `cargo run -p ctl -- get pods`.

use std::process::ExitCode;

fn main() -> ExitCode {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("ctl: another TLS provider was installed first");
    }
    ctl::main(std::env::args_os().collect())
}

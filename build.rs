//! Folds functions whose code is the same, in the release binary: generic code repeats itself a lot.

use std::env::var;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // There Rust brings its own linker, which knows how.
    let folds = var("TARGET").is_ok_and(|target| target == "x86_64-unknown-linux-gnu");
    if folds && var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    }
}

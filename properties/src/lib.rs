//! What holds of any input, however it came about: bodies, selectors, quantities, patches, server-side apply,
//! expressions. `fuzz/` looks for inputs for which it does not; `tests/corpus.rs` puts the inputs of `corpus/` through the functions of [`TARGETS`].
//!
//! A function takes any bytes and panics where a property does not hold.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is test"
)]

mod apply;
mod bodies;
mod expressions;
mod patches;
// The decoder is private to the API server, whose other dependencies nobody needs here.
#[path = "../../apiserver/src/protobuf/mod.rs"]
#[allow(dead_code, reason = "it is used in part")]
mod protobuf;
mod quantities;
mod selectors;
mod trees;

/// What is done with an input.
pub type Target = fn(&[u8]);

/// Every target with its name, which is also that of its corpus.
pub const TARGETS: [(&str, Target); 9] = [
    ("json", bodies::json),
    ("yaml", bodies::yaml),
    ("protobuf", bodies::protobuf),
    ("label_selectors", selectors::labels),
    ("field_selectors", selectors::fields),
    ("quantities", quantities::all),
    ("patches", patches::all),
    ("apply", apply::all),
    ("cel", expressions::all),
];

/// Calls a target by its name.
pub fn check(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a known target");
    target(data);
}

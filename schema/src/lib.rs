//! The engine that works on objects as JSON trees under a schema. It knows no kind: built-in kinds and custom
//! resources go through the same code, with a [`Schema`] that says what their fields are.
//!
//! The steps of a write, in the order in which the API server's pipeline takes them:
//!
//! | step | call |
//! | --- | --- |
//! | bytes to tree | [`decode::json`], [`decode::yaml`] → [`decode::Decoded`] (the tree, and the paths of duplicate keys) |
//! | patch | [`patch::json::JsonPatch`], [`patch::merge::apply`], [`patch::strategic::apply`] |
//! | shape | [`conform::conform`]: drops nulls, prunes unknown fields (and returns their paths), type errors of built-ins |
//! | defaults | [`defaults::fill`] |
//! | structure | [`validate::validate`] → [`FieldError`]s |
//! | ownership | [`apply::apply`] for server-side apply, [`apply::track_update`] for every other write |
//!
//! Guarantees: pure (no clock, no IO, no global state); no function panics on any input; recursion is bounded by the
//! depth limit of [`decode`]. Assumes that trees come from `decode`, so that their depth is bounded.
//! Deliberately absent: evaluation of CEL rules (`x-kubernetes-validations` is kept as data in [`Schema`]) and
//! descriptions (OpenAPI documents are made from the source of the schema, not from the engine's tree).

pub mod apply;
pub mod conform;
pub mod decode;
pub mod defaults;
mod error;
mod formats;
mod node;
mod parse;
pub mod patch;
mod path;
pub mod quantity;
mod scalar;
pub mod validate;

pub use error::{FieldError, SchemaError};
pub use node::{
    Additional, Checks, Link, ListType, MapType, Patch, Pattern, Property, Rule, ScalarFormat, Schema, Type,
};
pub use parse::Definitions;
pub use path::{Path, Step};

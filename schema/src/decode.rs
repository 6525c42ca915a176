//! Bytes to JSON trees, within limits.
//!
//! Guarantees: what comes out is no deeper than [`Limits::depth_max`] and came from no more than
//! [`Limits::bytes_max`]; of duplicate keys the last wins, as upstream, and their paths are reported.

use serde_json::Value;

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest body.
    pub bytes_max: usize,
    /// The deepest nesting, at most 127.
    pub depth_max: usize,
}

impl Default for Limits {
    /// Upstream's limit for request bodies, and a depth that leaves room on small stacks.
    fn default() -> Self {
        Self { bytes_max: 3 * 1024 * 1024, depth_max: 100 }
    }
}

/// A decoded body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The tree.
    pub value: Value,
    /// The paths of keys that appeared more than once in one object: `spec.replicas`. The message of strict decoding is
    /// `duplicate field "spec.replicas"`.
    pub duplicates: Vec<String>,
}

/// Why a body is not a tree. A retry does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The body is longer than allowed: 413.
    #[error("limit is {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// The nesting is deeper than allowed: 400.
    #[error("nested deeper than {depth_max} levels")]
    TooDeep {
        /// The limit.
        depth_max: usize,
    },
    /// Not UTF-8: 400.
    #[error("not valid UTF-8 at byte {at}")]
    NotUtf8 {
        /// The offset of the first wrong byte.
        at: usize,
    },
    /// Not JSON or YAML: 400.
    #[error("{message} at line {line} column {column}")]
    Syntax {
        /// What the parser says.
        message: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
}

/// Decodes JSON. Nothing but white space may follow the value.
pub fn json(bytes: &[u8], limits: &Limits) -> Result<Decoded, DecodeError> {
    todo!()
}

/// Decodes one YAML document, of which JSON is a part.
pub fn yaml(bytes: &[u8], limits: &Limits) -> Result<Decoded, DecodeError> {
    todo!()
}

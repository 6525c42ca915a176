//! Sets of field paths.

/// A set of field paths, as `fieldsV1` has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {}

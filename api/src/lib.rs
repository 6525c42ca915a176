//! What the objects are: the resource table, the object envelope, selectors, quantities, defaulting, validation and
//! table columns. Pure: no tokio, no IO, no clock.

pub mod error;
pub mod object;
pub mod row;
pub mod schemas;
pub mod strategy;

pub use error::{ApiError, FieldError, Reason};
pub use row::{Row, Scope, ServedVersion, Subresource, Verb};
pub use strategy::{Strategy, WriteContext};

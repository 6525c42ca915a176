//! What the objects are: the resource table, the object envelope, selectors, quantities, defaulting, validation and
//! table columns. Pure: no tokio, no IO, no clock.

pub mod at;
pub mod columns;
pub mod convert;
pub mod cron;
pub mod error;
pub mod field;
pub mod humanize;
pub mod intstr;
pub mod meta;
pub mod names;
pub mod net;
pub mod object;
pub mod openapi;
pub mod quota;
pub mod row;
pub mod schemas;
pub mod selector;
pub mod strategies;
pub mod strategy;
pub mod table;

pub use schema::quantity;

pub use error::{ApiError, FieldError, Reason};
pub use row::{
    CustomResource, CustomVersion, PrinterColumn, Row, ScalePaths, Scope, Selectable, ServedVersion,
    Subresource, Verb,
};
pub use strategy::{Strategy, WriteContext};
pub use table::ResourceTable;

//! Columns and conversions, from `api`.

pub(crate) use api::columns::for_row;
pub(crate) use api::convert::convert;

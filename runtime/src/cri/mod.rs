//! The runtime interface (CRI v1) over the engine.

mod images;
mod service;
mod stats;

pub(crate) use images::ImageApi;
pub(crate) use service::RuntimeApi;

//! Images: pulled from registries or loaded from archives, unpacked once, shared by layer.
//!
//! On disk (`<root>/`): `images/<id>.json` one record per image with its configuration, `layers/<chain>` unpacked layers
//! named by the beginning of their chain identifier, `ingest/` what is on its way and is thrown away at start.
//! Everything appears by rename after its digests have been checked. Packed layers are not kept.

mod archive;
mod config;
mod layer;
mod pull;
mod reader;
mod store;

pub(crate) use config::ImageConfig;
pub use pull::{Credentials, Registries, Registry};
pub(crate) use store::{ImageRecord, ImageStore};

use std::io;

/// Why an image operation failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The reference does not parse. No retry helps.
    #[error("invalid image reference {0:?}: {1}")]
    Reference(String, String),
    /// No such image here.
    #[error("image {0:?} not found")]
    NotFound(String),
    /// The registry does not have it, or not for these credentials.
    #[error("pulling {0}: {1}")]
    Registry(String, String),
    /// The archive or the image is malformed. No retry helps.
    #[error("malformed image: {0}")]
    Malformed(String),
    /// What was received is not what was announced.
    #[error("digest mismatch: expected {expected}, got {actual}")]
    Digest {
        /// What the manifest says.
        expected: String,
        /// What was received.
        actual: String,
    },
    /// The disk failed or is full.
    #[error("{0}: {1}")]
    Io(String, io::Error),
}

impl ImageError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io(what, error)
    }
}

/// The normal form of a reference: registry, repository and tag spelled out.
pub(crate) fn normalize(reference: &str) -> Result<oci_client::Reference, ImageError> {
    reference
        .parse::<oci_client::Reference>()
        .map_err(|error| ImageError::Reference(reference.to_owned(), error.to_string()))
}

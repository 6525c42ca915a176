//! Images: pulling by policy, and taking archives.

mod archive;
mod collect;
mod containerd;
mod credentials;
mod pull;

pub use collect::ImageCollector;
pub use containerd::ContainerdLoader;
pub use pull::{Present, Wanted, ensure};

use std::pin::Pin;

use tokio::io::AsyncRead;

/// A stream of a tar archive.
pub type Archive = Pin<Box<dyn AsyncRead + Send>>;

/// Why an archive was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The archive is broken or of a kind that is not known; sending it again does not help.
    #[error("the archive is not an image: {0}")]
    Malformed(String),
    /// The runtime failed; sending it again may help.
    #[error("the image cannot be stored: {0}")]
    Store(String),
}

/// Takes image archives into a runtime. Listing and removing go over CRI for every runtime alike.
#[async_trait::async_trait]
pub trait ImageLoader: Send + Sync {
    /// Reads a `docker save` or OCI layout archive, plain or gzipped, to its end, and stores its images. Gives their names.
    async fn load(&self, archive: Archive) -> Result<Vec<String>, LoadError>;
}

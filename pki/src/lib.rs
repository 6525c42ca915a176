//! Who is who: the cluster's certificate authority, the certificates of its parts, kubeconfigs, and join tokens that
//! name the authority they lead to.
//!
//! Guarantees:
//! - all keys made here are P-256, so that a first start costs milliseconds;
//! - files with private keys have mode 0600 and appear whole or not at all;
//! - a certificate is renewed when two thirds of its life have passed, or when it no longer says what it should;
//! - a joining node never trusts an authority whose hash its token does not carry.
//!
//! Deliberately absent: revocation lists.

mod authority;
mod der;
mod directory;
mod error;
mod files;
mod kubeconfig;
mod pinned;
mod renewal;
mod request;
mod token;

pub use authority::{Authority, CertificateAndKey, Leaf, Usage, certificate_request, public_key_pem};
pub use directory::{ClusterPki, NodePki, ServerNames};
pub use error::PkiError;
pub use files::write_private;
pub use kubeconfig::{Kubeconfig, User};
pub use pinned::{PinnedAuthority, certificate_to_pem, fingerprint_of_pem};
pub use renewal::renewal_due;
pub use request::{CertificateRequest, common_name, organizations};
pub use token::{BootstrapToken, JoinToken};

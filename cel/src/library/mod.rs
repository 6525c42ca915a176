//! What Kubernetes adds to the language.

pub mod authorizer;
pub(crate) mod named_format;
pub(crate) mod net;
pub(crate) mod quantity;
pub(crate) mod regex;
pub(crate) mod semver;
pub mod structural;
pub(crate) mod url;

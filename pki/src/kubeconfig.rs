//! Kubeconfig files, as kubectl reads them. JSON is YAML, so no YAML writer is needed.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::{PkiError, files};

/// How the holder of a kubeconfig proves who it is.
pub enum User<'a> {
    /// By a certificate, embedded.
    Certificate(&'a crate::CertificateAndKey),
    /// By certificate and key files that may be renewed under it.
    Files {
        /// The certificate's path.
        certificate: &'a Path,
        /// The key's path.
        key: &'a Path,
    },
    /// By a bearer token.
    Token(&'a str),
}

/// A kubeconfig with one cluster, one user and one context, all of them current.
pub struct Kubeconfig<'a> {
    /// `https://host:port`
    pub server: &'a str,
    /// Whom to trust.
    pub authority_pem: &'a str,
    /// The user's name in the file.
    pub user_name: &'a str,
    /// How the user proves who it is.
    pub user: User<'a>,
}

impl Kubeconfig<'_> {
    /// The file's contents.
    pub fn to_text(&self) -> String {
        let user = match &self.user {
            User::Certificate(pair) => json!({
                "client-certificate-data": STANDARD.encode(&pair.certificate_pem),
                "client-key-data": STANDARD.encode(&pair.key_pem),
            }),
            User::Files { certificate, key } => {
                json!({"client-certificate": certificate, "client-key": key})
            }
            User::Token(token) => json!({"token": token}),
        };
        let value: Value = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "gantry", "preferences": {},
            "clusters": [{"name": "gantry", "cluster": {
                "server": self.server, "certificate-authority-data": STANDARD.encode(self.authority_pem)}}],
            "users": [{"name": self.user_name, "user": user}],
            "contexts": [{"name": "gantry", "context": {"cluster": "gantry", "user": self.user_name}}],
        });
        format!("{value:#}\n")
    }

    /// Writes it for its owner's eyes only.
    pub fn write(&self, path: &Path) -> Result<(), PkiError> {
        files::write_private(path, &self.to_text())
    }
}

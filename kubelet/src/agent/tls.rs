//! What the agent API shows to its callers, and whom it believes.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

use crate::Error;

/// A serving certificate that can be replaced while the listener runs.
#[derive(Debug)]
pub struct ServingCertificate {
    current: RwLock<Arc<CertifiedKey>>,
}

impl ServingCertificate {
    /// From a PEM chain, leaf first, and its PEM key.
    pub fn new(certificate_pem: &str, key_pem: &str) -> Result<Self, Error> {
        Ok(Self { current: RwLock::new(Arc::new(parse(certificate_pem, key_pem)?)) })
    }

    /// New connections are shown this one.
    pub fn replace(&self, certificate_pem: &str, key_pem: &str) -> Result<(), Error> {
        let parsed = parse(certificate_pem, key_pem)?;
        *self.current.write() = Arc::new(parsed);
        Ok(())
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().clone())
    }
}

fn parse(certificate_pem: &str, key_pem: &str) -> Result<CertifiedKey, Error> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate_pem.as_bytes()).collect();
    let chain = chain.map_err(|error| Error::Tls(format!("the serving certificate: {error}")))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|error| Error::Tls(format!("the serving key: {error}")))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key)
        .map_err(|error| Error::Tls(format!("the serving key: {error}")))?;
    Ok(CertifiedKey::new(chain, key))
}

/// TLS where a client may show a certificate of `client_ca_pem`; one of anyone else ends the handshake. Who shows none
/// needs a token.
pub fn server_config(
    certificate: Arc<ServingCertificate>,
    client_ca_pem: &str,
) -> Result<ServerConfig, Error> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(client_ca_pem.as_bytes()) {
        let authority = authority.map_err(|error| Error::Tls(format!("the client authority: {error}")))?;
        roots.add(authority).map_err(|error| Error::Tls(format!("the client authority: {error}")))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| Error::Tls(format!("the client authority: {error}")))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Tls(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    // Upgrades need HTTP/1.1, and nothing here gains by HTTP/2.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

//! The first contact of a joining node: trust exactly the authority whose hash the token carries.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};

use crate::PkiError;

/// SHA-256 of the first certificate in a PEM file, hex.
pub fn fingerprint_of_pem(certificate_pem: &str) -> Result<String, PkiError> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes())
        .map_err(|e| PkiError::malformed("the authority's certificate", e))?;
    Ok(fingerprint(&pem.contents))
}

/// A certificate's DER bytes as PEM.
pub fn certificate_to_pem(der: &[u8]) -> String {
    crate::der::pem("CERTIFICATE", der)
}

fn fingerprint(der: &[u8]) -> String {
    hex::encode(Sha256::digest(der))
}

/// Accepts a server only when its chain holds the authority with the expected hash and that authority signed it.
/// Remembers the authority, for every later connection.
#[derive(Debug)]
pub struct PinnedAuthority {
    expected_hash: String,
    provider: Arc<CryptoProvider>,
    seen: Mutex<Option<CertificateDer<'static>>>,
}

impl PinnedAuthority {
    /// Expects the authority with this hash.
    pub fn new(expected_hash: &str) -> Arc<Self> {
        Arc::new(Self {
            expected_hash: expected_hash.to_ascii_lowercase(),
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            seen: Mutex::new(None),
        })
    }

    /// The authority's certificate as PEM, once a handshake has succeeded.
    pub fn authority_pem(&self) -> Option<String> {
        self.seen.lock().as_ref().map(|certificate| certificate_to_pem(certificate))
    }

    /// A TLS client configuration that verifies by this.
    pub fn client_config(self: &Arc<Self>) -> Result<rustls::ClientConfig, PkiError> {
        let config = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| PkiError::malformed("the TLS configuration", e))?;
        Ok(config.dangerous().with_custom_certificate_verifier(self.clone()).with_no_client_auth())
    }
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| fingerprint(certificate) == self.expected_hash)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|e| Error::General(e.to_string()))?;
        let verified =
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        *self.seen.lock() = Some(authority.clone().into_owned());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, Leaf, Usage};
    use jiff::Timestamp;

    fn chain(authority: &Authority) -> Vec<CertificateDer<'static>> {
        let mut leaf = Leaf::client("server", None);
        leaf.usage = Usage::Server;
        leaf.dns_names.push("localhost".into());
        let pair = authority.issue(&leaf, Timestamp::now()).unwrap();
        x509_parser::pem::Pem::iter_from_buffer(pair.certificate_pem.as_bytes())
            .map(|pem| CertificateDer::from(pem.unwrap().contents))
            .collect()
    }

    fn verify(pinned: &PinnedAuthority, chain: &[CertificateDer<'static>]) -> bool {
        let name = ServerName::try_from("localhost").unwrap();
        pinned.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now()).is_ok()
    }

    #[test]
    fn only_the_authority_with_the_expected_hash_is_trusted() {
        let authority = Authority::create("ours", Timestamp::now()).unwrap();
        let other = Authority::create("theirs", Timestamp::now()).unwrap();
        let pinned = PinnedAuthority::new(&fingerprint_of_pem(authority.certificate_pem()).unwrap());
        assert!(!verify(&pinned, &chain(&other)));
        assert!(pinned.authority_pem().is_none());
        assert!(verify(&pinned, &chain(&authority)));
        assert_eq!(pinned.authority_pem().unwrap().trim(), authority.certificate_pem().trim());
    }

    #[test]
    fn a_leaf_that_the_pinned_authority_did_not_sign_is_refused() {
        let authority = Authority::create("ours", Timestamp::now()).unwrap();
        let other = Authority::create("theirs", Timestamp::now()).unwrap();
        let pinned = PinnedAuthority::new(&fingerprint_of_pem(authority.certificate_pem()).unwrap());
        let forged = vec![chain(&other)[0].clone(), chain(&authority)[1].clone()];
        assert!(!verify(&pinned, &forged));
    }
}

//! TLS: the serving certificate, which can be replaced while the server runs, and optional client certificates.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};

use crate::config::Identity;

/// Certificates or keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The PEM text holds no certificate or no key, or is broken.
    #[error("{what} cannot be read: {why}")]
    Pem {
        /// Which.
        what: &'static str,
        /// The parser's words.
        why: String,
    },
    /// The key does not belong to the certificate, or its type is not supported.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

/// The serving certificate of the moment.
#[derive(Debug)]
pub(crate) struct ServingCertificate(RwLock<Arc<CertifiedKey>>);

impl ServingCertificate {
    /// The first one.
    pub fn new(identity: &Identity) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self(RwLock::new(Arc::new(certified(identity)?)))))
    }

    /// New connections get this one.
    pub fn replace(&self, identity: &Identity) -> Result<(), TlsError> {
        *self.0.write() = Arc::new(certified(identity)?);
        Ok(())
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certified(identity: &Identity) -> Result<CertifiedKey, TlsError> {
    let (chain, key) = parse(identity)?;
    let key = provider().key_provider.load_private_key(key)?;
    Ok(CertifiedKey::new(chain, key))
}

fn parse(identity: &Identity) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = certificates(&identity.certificate_pem, "the certificate")?;
    let key = <PrivateKeyDer as rustls::pki_types::pem::PemObject>::from_pem_slice(&identity.key_pem)
        .map_err(|error| TlsError::Pem { what: "the private key", why: error.to_string() })?;
    Ok((chain, key))
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> =
        <CertificateDer as rustls::pki_types::pem::PemObject>::pem_slice_iter(pem).collect();
    match found {
        Ok(list) if list.is_empty() => Err(TlsError::Pem { what, why: "no certificate in it".to_string() }),
        Ok(list) => Ok(list),
        Err(error) => Err(TlsError::Pem { what, why: error.to_string() }),
    }
}

pub(crate) fn roots(pem: &[u8], what: &'static str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, what)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// The listener's side: client certificates are optional, and taken as they come. Who they are is not decided here but by
/// [`crate::auth::ClientCertificate`], which answers requests with certificates of others with 401.
pub(crate) fn server_config(
    serving: Arc<ServingCertificate>,
    client_ca_pem: &[u8],
) -> Result<ServerConfig, TlsError> {
    let hints = roots(client_ca_pem, "the client CA")?.subjects();
    let verifier = Arc::new(AnyCertificate { hints, provider: provider() });
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(serving);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Makes sure that the client holds the key of the certificate that it shows, and of nothing else.
#[derive(Debug)]
struct AnyCertificate {
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The side that calls others, who have to be vouched for: by the given authorities, or else by those that the machine
/// trusts.
pub(crate) fn outgoing_config(authorities_pem: &[u8]) -> Result<ClientConfig, TlsError> {
    let roots = match authorities_pem {
        [] => {
            let mut roots = RootCertStore::empty();
            // What the machine has and nobody can read vouches for nobody.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        }
        pem => roots(pem, "the authority")?,
    };
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The side that calls the nodes' agents: HTTP/1.1, which upgrades need.
pub(crate) fn agent_config(identity: &Identity, agent_ca_pem: &[u8]) -> Result<ClientConfig, TlsError> {
    let (chain, key) = parse(identity)?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(agent_ca_pem, "the agents' CA")?)
        .with_client_auth_cert(chain, key)?;
    Ok(config)
}

/// The side that calls workloads through the proxies, of which nobody says who vouches for them: HTTP/1.1, and no proof of
/// anything.
pub(crate) fn credulous_config() -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer)).with_no_client_auth())
}

/// Takes whoever answers for whom was meant.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

//! Client certificates: the common name is the user, the organizations are the groups.
//!
//! The handshake proves only that the client holds the certificate's key; who signed it, what for and until when is
//! judged here. So a certificate that is not ours is answered with 401, as upstream, not with a broken connection, and
//! one that expires while its connection lives stops counting at that moment. The certificate that this server shows to
//! agents counts for nothing: who brings the server to call itself in the place of an agent must not act as it.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{API_SERVER, Authenticator, Credentials, Refused, UserInfo};

/// The certificates that a client has shown on its connection; the leaf first. A request extension.
#[derive(Clone, Debug)]
pub struct PeerCertificates {
    chain: Arc<[CertificateDer<'static>]>,
    /// What was found the first time; a connection's certificates do not change.
    verdict: Arc<OnceLock<Result<Verdict, String>>>,
}

impl PeerCertificates {
    /// Not judged yet.
    pub fn new(chain: Vec<CertificateDer<'static>>) -> Self {
        Self { chain: chain.into(), verdict: Arc::default() }
    }
}

#[derive(Clone, Debug)]
struct Verdict {
    user: UserInfo,
    /// In seconds; both still count.
    not_before: i64,
    not_after: i64,
}

/// Knows users by their certificates.
pub struct ClientCertificate {
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientCertificate {
    /// Trusts these authorities, PEM. Fails when they cannot be read.
    pub fn new(client_ca_pem: &[u8]) -> Result<Self, String> {
        let roots = crate::tls::roots(client_ca_pem, "the client CA").map_err(|error| error.to_string())?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crate::tls::provider())
            .build()
            .map_err(|error| format!("the client CA cannot be used: {error}"))?;
        Ok(Self { verifier })
    }

    fn judge(&self, chain: &[CertificateDer<'static>]) -> Result<Verdict, String> {
        let (leaf, intermediates) = chain.split_first().ok_or("there is no certificate")?;
        self.verifier
            .verify_client_cert(leaf, intermediates, UnixTime::now())
            .map_err(|error| format!("the client certificate does not verify: {error}"))?;
        let (_, parsed) = X509Certificate::from_der(leaf)
            .map_err(|error| format!("the client certificate cannot be read: {error}"))?;
        let subject = parsed.subject();
        let name = pki::common_name(subject).map_err(|why| format!("the client certificate: {why}"))?;
        if name.is_empty() {
            return Err("the client certificate has no common name".to_string());
        }
        if name == API_SERVER {
            return Err("the certificate is for calls to agents only".to_string());
        }
        let groups = pki::organizations(subject).map_err(|why| format!("the client certificate: {why}"))?;
        Ok(Verdict {
            user: UserInfo { name, groups, ..UserInfo::default() },
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }
}

#[async_trait]
impl Authenticator for ClientCertificate {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<UserInfo>, Refused> {
        let Some(peer) = credentials.certificates else { return Ok(None) };
        let verdict = peer.verdict.get_or_init(|| self.judge(&peer.chain));
        let verdict = verdict.as_ref().map_err(|why| Refused(why.clone()))?;
        let now = Timestamp::now().as_second();
        if now < verdict.not_before || now > verdict.not_after {
            return Err(Refused("the client certificate has expired".to_string()));
        }
        Ok(Some(verdict.user.clone()))
    }
}

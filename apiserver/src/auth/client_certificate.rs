//! Client certificates: the common name is the user, the organizations are the groups.

use async_trait::async_trait;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authenticator, Credentials, Refused, UserInfo};

/// The certificates that the TLS layer has verified; the leaf first. A request extension.
#[derive(Clone, Debug)]
pub struct PeerCertificates(pub Vec<CertificateDer<'static>>);

/// Knows users by their certificates. The TLS layer has checked signature, validity and usage.
#[derive(Debug, Default)]
pub struct ClientCertificate;

#[async_trait]
impl Authenticator for ClientCertificate {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<UserInfo>, Refused> {
        let Some(leaf) = credentials.certificates.and_then(|peer| peer.0.first()) else { return Ok(None) };
        subject(leaf).map(Some)
    }
}

fn subject(certificate: &CertificateDer<'_>) -> Result<UserInfo, Refused> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|e| Refused(format!("the client certificate cannot be read: {e}")))?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next().and_then(|cn| cn.as_str().ok()).unwrap_or_default();
    if name.is_empty() {
        return Err(Refused("the client certificate has no common name".to_string()));
    }
    let groups: Vec<&str> = subject.iter_organization().filter_map(|o| o.as_str().ok()).collect();
    Ok(UserInfo::new(name, &groups))
}

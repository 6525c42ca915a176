//! A certificate authority and what it signs.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

use crate::PkiError;

/// Clocks of joining machines may be behind by so much.
const CLOCK_SKEW: Duration = Duration::from_secs(300);
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A certificate with its private key, both PEM.
#[derive(Clone)]
pub struct CertificateAndKey {
    /// The certificate, or a chain with the leaf first.
    pub certificate_pem: String,
    /// PKCS#8.
    pub key_pem: String,
}

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// To prove an identity to servers.
    Client,
    /// To be a server.
    Server,
}

/// What a certificate should say.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The user, for clients.
    pub common_name: String,
    /// The group, for clients.
    pub organization: Option<String>,
    /// The names a server answers by.
    pub dns_names: Vec<String>,
    /// The addresses a server answers at.
    pub addresses: Vec<IpAddr>,
    /// What it is for.
    pub usage: Usage,
    /// How long it is valid.
    pub lifetime: Duration,
}

impl Leaf {
    /// A client's certificate for a year.
    pub fn client(user: &str, group: Option<&str>) -> Self {
        Self {
            common_name: user.to_string(),
            organization: group.map(str::to_string),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            usage: Usage::Client,
            lifetime: Duration::from_secs(365 * 24 * 3600),
        }
    }

    fn parameters(&self, now: Timestamp) -> Result<CertificateParams, PkiError> {
        let mut parameters = CertificateParams::new(self.dns_names.clone())
            .map_err(|e| PkiError::malformed(format!("a name for {}", self.common_name), e))?;
        parameters.subject_alt_names.extend(self.addresses.iter().copied().map(SanType::IpAddress));
        parameters.distinguished_name = DistinguishedName::new();
        if let Some(organization) = &self.organization {
            parameters.distinguished_name.push(DnType::OrganizationName, organization.as_str());
        }
        parameters.distinguished_name.push(DnType::CommonName, self.common_name.as_str());
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![extended(self.usage)];
        parameters.use_authority_key_identifier_extension = true;
        set_validity(&mut parameters, now, self.lifetime);
        Ok(parameters)
    }
}

/// A certificate authority that can sign.
pub struct Authority {
    certificate_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one, valid for ten years.
    pub fn create(common_name: &str, now: Timestamp) -> Result<Self, PkiError> {
        let key = KeyPair::generate().map_err(|e| PkiError::malformed("a new key", e))?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, common_name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        set_validity(&mut parameters, now, AUTHORITY_LIFETIME);
        let certificate =
            parameters.self_signed(&key).map_err(|e| PkiError::malformed("a new authority", e))?;
        Self::load(&certificate.pem(), &key.serialize_pem())
    }

    /// One that was stored.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(key_pem).map_err(|e| PkiError::malformed("the authority's key", e))?;
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key)
            .map_err(|e| PkiError::malformed("the authority's certificate", e))?;
        Ok(Self { certificate_pem: certificate_pem.to_string(), key_pem: key_pem.to_string(), issuer })
    }

    /// The authority's own certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's private key.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Makes a key and signs a certificate for it. Servers get the authority appended to the chain, so that a joining
    /// node can compare its hash.
    pub fn issue(&self, leaf: &Leaf, now: Timestamp) -> Result<CertificateAndKey, PkiError> {
        let what = || format!("a certificate for {}", leaf.common_name);
        let key = KeyPair::generate().map_err(|e| PkiError::malformed(what(), e))?;
        let certificate = leaf
            .parameters(now)?
            .signed_by(&key, &self.issuer)
            .map_err(|e| PkiError::malformed(what(), e))?;
        let mut certificate_pem = certificate.pem();
        if leaf.usage == Usage::Server {
            certificate_pem.push_str(&self.certificate_pem);
        }
        Ok(CertificateAndKey { certificate_pem, key_pem: key.serialize_pem() })
    }

    /// Signs a request as it stands, with our usages and lifetime in place of those it asks for. Whether its subject
    /// may have them is for the caller to decide.
    pub fn sign_request(
        &self,
        request_pem: &str,
        usages: &[Usage],
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<String, PkiError> {
        let mut request = CertificateSigningRequestParams::from_pem(request_pem)
            .map_err(|e| PkiError::malformed("the certificate request", e))?;
        request.params.is_ca = IsCa::ExplicitNoCa;
        request.params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        request.params.extended_key_usages = usages.iter().copied().map(extended).collect();
        set_validity(&mut request.params, now, lifetime);
        let certificate =
            request.signed_by(&self.issuer).map_err(|e| PkiError::malformed("the certificate request", e))?;
        Ok(certificate.pem())
    }
}

/// A new key and a request for a certificate that says what `leaf` says.
pub fn certificate_request(leaf: &Leaf, now: Timestamp) -> Result<CertificateAndKey, PkiError> {
    let what = || format!("a certificate request for {}", leaf.common_name);
    let key = KeyPair::generate().map_err(|e| PkiError::malformed(what(), e))?;
    let mut parameters = leaf.parameters(now)?;
    parameters.use_authority_key_identifier_extension = false;
    let request = parameters.serialize_request(&key).map_err(|e| PkiError::malformed(what(), e))?;
    let certificate_pem = request.pem().map_err(|e| PkiError::malformed(what(), e))?;
    Ok(CertificateAndKey { certificate_pem, key_pem: key.serialize_pem() })
}

/// The common name and organization that a request asks for, with its alternative names.
pub fn subject_of_request(request_pem: &str) -> Result<Leaf, PkiError> {
    let request = CertificateSigningRequestParams::from_pem(request_pem)
        .map_err(|e| PkiError::malformed("the certificate request", e))?;
    let name = &request.params.distinguished_name;
    let mut leaf = Leaf::client(
        &name.get(&DnType::CommonName).map(text).unwrap_or_default(),
        name.get(&DnType::OrganizationName).map(text).as_deref(),
    );
    for alternative in &request.params.subject_alt_names {
        match alternative {
            SanType::DnsName(name) => leaf.dns_names.push(name.as_str().to_string()),
            SanType::IpAddress(address) => leaf.addresses.push(*address),
            other => {
                let why = format!("alternative name {other:?} is not supported");
                return Err(PkiError::malformed("the certificate request", why));
            }
        }
    }
    Ok(leaf)
}

/// The public half of a private key, PEM.
pub fn public_key_pem(private_key_pem: &str) -> Result<String, PkiError> {
    let key = KeyPair::from_pem(private_key_pem).map_err(|e| PkiError::malformed("the private key", e))?;
    Ok(key.public_key_pem())
}

fn text(value: &DnValue) -> String {
    match value {
        DnValue::Utf8String(text) => text.clone(),
        DnValue::PrintableString(text) => text.as_str().to_string(),
        DnValue::Ia5String(text) => text.as_str().to_string(),
        DnValue::TeletexString(text) => text.as_str().to_string(),
        other => format!("{other:?}"),
    }
}

fn extended(usage: Usage) -> ExtendedKeyUsagePurpose {
    match usage {
        Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
    }
}

fn set_validity(parameters: &mut CertificateParams, now: Timestamp, lifetime: Duration) {
    let now = OffsetDateTime::from_unix_timestamp(now.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    parameters.not_before = now - CLOCK_SKEW;
    parameters.not_after = now + lifetime;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::now()
    }

    #[test]
    fn an_authority_survives_being_stored() {
        let made = Authority::create("test", now()).unwrap();
        let loaded = Authority::load(made.certificate_pem(), made.key_pem()).unwrap();
        let leaf = loaded.issue(&Leaf::client("ada", Some("devs")), now()).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(leaf.certificate_pem.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let (_, ca) = x509_parser::pem::parse_x509_pem(made.certificate_pem().as_bytes()).unwrap();
        let ca = ca.parse_x509().unwrap();
        certificate.verify_signature(Some(ca.public_key())).unwrap();
        assert_eq!(certificate.subject().to_string(), "O=devs, CN=ada");
    }

    #[test]
    fn a_request_is_signed_with_our_usages_and_its_own_subject() {
        let authority = Authority::create("test", now()).unwrap();
        let mut asked = Leaf::client("system:node:n1", Some("system:nodes"));
        asked.dns_names.push("n1".into());
        asked.addresses.push("10.0.0.1".parse().unwrap());
        let request = certificate_request(&asked, now()).unwrap();
        let seen = subject_of_request(&request.certificate_pem).unwrap();
        assert_eq!((seen.common_name, seen.organization), (asked.common_name, asked.organization));
        assert_eq!((seen.dns_names, seen.addresses), (asked.dns_names, asked.addresses));
        let signed = authority
            .sign_request(&request.certificate_pem, &[Usage::Client], Duration::from_secs(3600), now())
            .unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(signed.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        assert!(!certificate.is_ca());
        assert!(certificate.extended_key_usage().unwrap().unwrap().value.client_auth);
    }

    #[test]
    fn a_request_that_is_none_is_refused() {
        assert!(
            subject_of_request(
                "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----"
            )
            .is_err()
        );
    }
}

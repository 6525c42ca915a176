//! A certificate authority and what it signs.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SigningKey,
};
use time::OffsetDateTime;
use x509_parser::extensions::ParsedExtension;

use crate::der::{self, Tag};
use crate::request::Terms;
use crate::{CertificateRequest, PkiError};

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
    key: KeyPair,
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
        let key = || KeyPair::from_pem(key_pem).map_err(|e| PkiError::malformed("the authority's key", e));
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key()?)
            .map_err(|e| PkiError::malformed("the authority's certificate", e))?;
        let (certificate_pem, key_pem) = (certificate_pem.to_string(), key_pem.to_string());
        Ok(Self { certificate_pem, key_pem, key: key()?, issuer })
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
    /// may have them is for the caller to decide. No certificate outlives the authority.
    pub fn sign_request(
        &self,
        request: &CertificateRequest,
        usages: &[Usage],
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<String, PkiError> {
        let fail = |why: &dyn std::fmt::Display| PkiError::malformed("the authority's certificate", why);
        let (_, pem) =
            x509_parser::pem::parse_x509_pem(self.certificate_pem.as_bytes()).map_err(|e| fail(&e))?;
        let own = pem.parse_x509().map_err(|e| fail(&e))?;
        let key_id = own.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        });
        let algorithm = algorithm_of(&self.key)?;
        let terms = Terms {
            usages,
            lifetime,
            now,
            algorithm: &algorithm,
            issuer: own.subject().as_raw(),
            issuer_key_id: key_id,
            issuer_ends: Timestamp::from_second(own.validity().not_after.timestamp())
                .unwrap_or(Timestamp::MAX),
        };
        let signed = request.to_be_signed(&terms);
        let signature = self.key.sign(&signed).map_err(|e| PkiError::malformed("a signature", e))?;
        let mut bits = vec![0];
        bits.extend(signature);
        let parts = [signed, algorithm.clone(), der::wrap(Tag::BitString, &bits)];
        Ok(der::pem("CERTIFICATE", &der::wrap(Tag::Sequence, &parts.concat())))
    }
}

/// The identifier of the algorithm that a key signs with, DER.
fn algorithm_of(key: &KeyPair) -> Result<Vec<u8>, PkiError> {
    let (oid, parameters): (&[u8], &[u8]) = match key.algorithm() {
        a if *a == rcgen::PKCS_ECDSA_P256_SHA256 => (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2], &[]),
        a if *a == rcgen::PKCS_ECDSA_P384_SHA384 => (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3], &[]),
        a if *a == rcgen::PKCS_ED25519 => (&[0x2b, 0x65, 0x70], &[]),
        a if *a == rcgen::PKCS_RSA_SHA256 => (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11], &[5, 0]),
        other => {
            let why = format!("keys of type {other:?} cannot sign");
            return Err(PkiError::malformed("the authority's key", why));
        }
    };
    Ok(der::wrap(Tag::Sequence, &[&der::wrap(Tag::Oid, oid), parameters].concat()))
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

/// The public half of a private key, PEM.
pub fn public_key_pem(private_key_pem: &str) -> Result<String, PkiError> {
    let key = KeyPair::from_pem(private_key_pem).map_err(|e| PkiError::malformed("the private key", e))?;
    Ok(key.public_key_pem())
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
        let seen = CertificateRequest::parse(&request.certificate_pem).unwrap();
        assert_eq!(
            (seen.common_name.as_str(), seen.organizations.as_slice()),
            ("system:node:n1", ["system:nodes".to_string()].as_slice())
        );
        assert_eq!((&seen.dns_names, &seen.addresses), (&asked.dns_names, &asked.addresses));
        let signed =
            authority.sign_request(&seen, &[Usage::Client], Duration::from_secs(3600), now()).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(signed.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        assert!(!certificate.is_ca());
        assert!(certificate.extended_key_usage().unwrap().unwrap().value.client_auth);
    }

    #[test]
    fn a_signed_request_is_a_certificate_that_verifies() {
        let authority = Authority::create("test", now()).unwrap();
        let mut asked = Leaf::client("ada", Some("devs"));
        asked.dns_names.push("ada.example".into());
        let request = certificate_request(&asked, now()).unwrap();
        let request = CertificateRequest::parse(&request.certificate_pem).unwrap();
        let long = Duration::from_secs(100 * 365 * 24 * 3600);
        let signed = authority.sign_request(&request, &[Usage::Client], long, now()).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(signed.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let (_, ca) = x509_parser::pem::parse_x509_pem(authority.certificate_pem().as_bytes()).unwrap();
        let ca = ca.parse_x509().unwrap();
        certificate.verify_signature(Some(ca.public_key())).unwrap();
        assert_eq!(certificate.subject().to_string(), "O=devs, CN=ada");
        assert_eq!(
            certificate.validity().not_after,
            ca.validity().not_after,
            "not longer than the authority"
        );
        let usage = certificate.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
        assert_eq!(certificate.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);
    }

    #[test]
    fn a_request_with_another_key_than_it_was_signed_with_is_refused() {
        let request = |user| certificate_request(&Leaf::client(user, None), now()).unwrap().certificate_pem;
        let der = |pem: &str| x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents;
        let mut forged = der(&request("ada"));
        let at = forged.windows(3).position(|bytes| bytes == b"ada").unwrap();
        forged[at] = b'i';
        let error = CertificateRequest::parse(&der::pem("CERTIFICATE REQUEST", &forged)).unwrap_err();
        assert!(error.to_string().contains("signature"), "{error}");
    }

    #[test]
    fn a_request_that_is_none_is_refused() {
        assert!(
            CertificateRequest::parse(
                "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----"
            )
            .is_err()
        );
    }
}

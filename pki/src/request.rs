//! Certificate requests of others: read, and turned into certificates.
//!
//! A subject is taken over byte for byte, so that a certificate says exactly what was asked for and approved, also with
//! several organizations. The requester's signature is checked: nobody gets a certificate for a key they do not hold.
//! Of the extensions only the alternative names are taken over; usages and lifetime are the signer's.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use crate::der::{self, Tag};
use crate::{PkiError, Usage};

/// Clocks of those who check may be behind by so much.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// A request whose signature has been checked.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    /// The user that is asked for.
    pub common_name: String,
    /// The groups that are asked for.
    pub organizations: Vec<String>,
    /// Alternative names: host names.
    pub dns_names: Vec<String>,
    /// Alternative names: addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether there are alternative names of other kinds.
    pub has_other_names: bool,
    subject: Vec<u8>,
    public_key: Vec<u8>,
    alternative_names: Option<Vec<u8>>,
}

impl CertificateRequest {
    /// Reads a request in PEM.
    pub fn parse(pem: &str) -> Result<Self, PkiError> {
        let fail = |why: &dyn std::fmt::Display| PkiError::malformed("the certificate request", why);
        let (_, pem) =
            x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| fail(&"it is not PEM"))?;
        if pem.label != "CERTIFICATE REQUEST" && pem.label != "NEW CERTIFICATE REQUEST" {
            return Err(fail(&format_args!("it is a {}, not a CERTIFICATE REQUEST", pem.label)));
        }
        let (rest, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|e| fail(&e))?;
        if !rest.is_empty() {
            return Err(fail(&"something follows the request"));
        }
        request.verify_signature().map_err(|_| fail(&"its signature does not fit its key"))?;
        let info = &request.certification_request_info;
        let mut read = Self {
            common_name: common_name(&info.subject).map_err(|why| fail(&why))?,
            organizations: organizations(&info.subject).map_err(|why| fail(&why))?,
            dns_names: Vec::new(),
            addresses: Vec::new(),
            has_other_names: false,
            subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
            alternative_names: None,
        };
        for attribute in info.iter_attributes() {
            let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() else {
                continue;
            };
            for extension in requested.extensions.iter().filter(|e| e.oid == OID_X509_EXT_SUBJECT_ALT_NAME) {
                if read.alternative_names.replace(extension.value.to_vec()).is_some() {
                    return Err(fail(&"it has two lists of alternative names"));
                }
                let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
                    return Err(fail(&"its alternative names cannot be read"));
                };
                names.general_names.iter().for_each(|name| read.take_name(name));
            }
        }
        Ok(read)
    }

    fn take_name(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_string()),
            GeneralName::IPAddress(bytes) => match address(bytes) {
                Some(address) => self.addresses.push(address),
                None => self.has_other_names = true,
            },
            _ => self.has_other_names = true,
        }
    }

    /// The part of a certificate that is signed.
    pub(crate) fn to_be_signed(&self, terms: &Terms<'_>) -> Vec<u8> {
        let mut serial: [u8; 16] = rand::random();
        // A positive number, without leading zeros.
        serial[0] = serial[0] & 0x7f | 0x40;
        let begin = terms.now - CLOCK_SKEW;
        let end = (terms.now + terms.lifetime).min(terms.issuer_ends);
        let validity = [der::time(begin), der::time(end)].concat();
        let parts = [
            der::wrap(Tag::Context(0), &der::wrap(Tag::Integer, &[2])),
            der::wrap(Tag::Integer, &serial),
            terms.algorithm.to_vec(),
            terms.issuer.to_vec(),
            der::wrap(Tag::Sequence, &validity),
            self.subject.clone(),
            self.public_key.clone(),
            der::wrap(Tag::Context(3), &der::wrap(Tag::Sequence, &self.extensions(terms))),
        ];
        der::wrap(Tag::Sequence, &parts.concat())
    }

    fn extensions(&self, terms: &Terms<'_>) -> Vec<u8> {
        const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
        const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
        const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
        const AUTHORITY_KEY: &[u8] = &[0x55, 0x1d, 0x23];
        const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
        let usages: Vec<u8> = terms
            .usages
            .iter()
            .flat_map(|usage| {
                let last = match usage {
                    Usage::Server => 1,
                    Usage::Client => 2,
                };
                der::wrap(Tag::Oid, &[0x2b, 6, 1, 5, 5, 7, 3, last])
            })
            .collect();
        // Digital signature and key encipherment: the first and the third bit.
        let mut all = der::extension(KEY_USAGE, true, &der::wrap(Tag::BitString, &[5, 0b1010_0000]));
        all.extend(der::extension(EXTENDED_KEY_USAGE, false, &der::wrap(Tag::Sequence, &usages)));
        all.extend(der::extension(BASIC_CONSTRAINTS, true, &der::wrap(Tag::Sequence, &[])));
        if let Some(id) = terms.issuer_key_id {
            let id = der::wrap(Tag::Sequence, &der::wrap(Tag::ContextPlain(0), id));
            all.extend(der::extension(AUTHORITY_KEY, false, &id));
        }
        if let Some(names) = &self.alternative_names {
            all.extend(der::extension(ALTERNATIVE_NAMES, false, names));
        }
        all
    }
}

/// What the signer adds.
pub(crate) struct Terms<'a> {
    pub usages: &'a [Usage],
    pub lifetime: Duration,
    pub now: Timestamp,
    /// The identifier of the signature's algorithm, DER.
    pub algorithm: &'a [u8],
    /// The issuer's name, DER.
    pub issuer: &'a [u8],
    pub issuer_key_id: Option<&'a [u8]>,
    /// No certificate outlives its issuer.
    pub issuer_ends: Timestamp,
}

/// The user that a certificate names. Two names would be read differently by different readers: refused.
pub fn common_name(subject: &X509Name<'_>) -> Result<String, &'static str> {
    let mut names = subject.iter_common_name();
    let name =
        names.next().map(|name| name.as_str()).transpose().map_err(|_| "its common name is not text")?;
    match names.next() {
        Some(_) => Err("it has more than one common name"),
        None => Ok(name.unwrap_or_default().to_string()),
    }
}

/// The groups that a certificate names.
pub fn organizations(subject: &X509Name<'_>) -> Result<Vec<String>, &'static str> {
    let names = subject.iter_organization().map(|name| name.as_str().map(str::to_string));
    names.collect::<Result<_, _>>().map_err(|_| "an organization is not text")
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

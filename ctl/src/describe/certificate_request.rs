//! Certificate signing requests: who asks for which certificate.

use anyhow::{Context, anyhow};
use base64::Engine;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::der_parser::oid::Oid;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::{oid_registry as names, x509::X509Name};

use super::page::{Page, time};
use crate::tree::{items, labels, number, text};

/// Writes a request; what it asks for stands encoded in it.
pub fn write(object: &Value, page: &mut Page) {
    page.field("Name", text(object, "/metadata/name"));
    page.field("Labels", labels(object, "/metadata/labels"));
    page.field("Annotations", labels(object, "/metadata/annotations"));
    page.field("CreationTimestamp", time(text(object, "/metadata/creationTimestamp")));
    page.field("Requesting User", text(object, "/spec/username"));
    page.field_if("Signer", text(object, "/spec/signerName"));
    if object["spec"]["expirationSeconds"].is_number() {
        let seconds = number(object, "/spec/expirationSeconds");
        page.field("Requested Duration", api::humanize::duration(seconds));
    }
    page.field("Status", status(object));
    if let Err(error) = contents(text(object, "/spec/request"), page) {
        page.field("Request", format!("<error: {error:#}>"));
    }
}

fn status(object: &Value) -> String {
    let has = |kind: &str| items(object, "/status/conditions").any(|condition| condition["type"] == kind);
    let mut status = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_string();
    if has("Failed") {
        status.push_str(",Failed");
    }
    if !text(object, "/status/certificate").is_empty() {
        status.push_str(",Issued");
    }
    status
}

fn contents(encoded: &str, page: &mut Page) -> anyhow::Result<()> {
    let pem = base64::engine::general_purpose::STANDARD.decode(encoded).context("not base64")?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).map_err(|_| anyhow!("not PEM"))?;
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).context("not a request")?;
    let subject = &request.certification_request_info.subject;
    page.line(0, "Subject:");
    for (title, attribute) in
        [("Common Name", names::OID_X509_COMMON_NAME), ("Serial Number", names::OID_X509_SERIALNUMBER)]
    {
        page.line(0, format!("\t{title}:\t{}", values(subject, &attribute).concat()));
    }
    for (title, attribute) in [
        ("Organization", names::OID_X509_ORGANIZATION_NAME),
        ("Organizational Unit", names::OID_X509_ORGANIZATIONAL_UNIT),
        ("Country", names::OID_X509_COUNTRY_NAME),
        ("Locality", names::OID_X509_LOCALITY_NAME),
        ("Province", names::OID_X509_STATE_OR_PROVINCE_NAME),
        ("StreetAddress", names::OID_X509_STREET_ADDRESS),
        ("PostalCode", names::OID_X509_POSTAL_CODE),
    ] {
        list(title, &values(subject, &attribute), page);
    }
    let mut alternatives: [Vec<String>; 4] = Default::default();
    let [hosts, mails, uris, addresses] = &mut alternatives;
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(all) = extension else { continue };
        for name in &all.general_names {
            match name {
                GeneralName::DNSName(name) => hosts.push(name.to_string()),
                GeneralName::RFC822Name(name) => mails.push(name.to_string()),
                GeneralName::URI(name) => uris.push(name.to_string()),
                GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
                _ => {}
            }
        }
    }
    if alternatives.iter().any(|names| !names.is_empty()) {
        page.line(0, "Subject Alternative Names:");
    }
    for (title, names) in ["DNS Names", "Email Addresses", "URIs", "IP Addresses"].iter().zip(&alternatives) {
        list(title, names, page);
    }
    Ok(())
}

fn values(subject: &X509Name<'_>, attribute: &Oid<'_>) -> Vec<String> {
    subject.iter_by_oid(attribute).filter_map(|value| value.as_str().ok()).map(Into::into).collect()
}

fn address(bytes: &[u8]) -> Option<String> {
    let four = <[u8; 4]>::try_from(bytes).map(|bytes| std::net::IpAddr::from(bytes).to_string());
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| std::net::IpAddr::from(bytes).to_string())).ok()
}

fn list(title: &str, values: &[String], page: &mut Page) {
    if !values.is_empty() {
        page.line(0, format!("\t{title}:\t{}", values.join("\n\t\t")));
    }
}

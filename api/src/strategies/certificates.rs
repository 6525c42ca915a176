//! Certificate signing requests: who asks is written by the server, and what was asked for never changes.
//!
//! Assumes that the request itself (PEM) is checked by whoever signs it; here its presence and envelope are.

use std::{cmp::Ordering, collections::BTreeSet};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::{
    Strategy, WriteContext,
    at::At,
    field::{Look, Touch},
    names,
};

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const SECONDS_MIN: i64 = 600;
/// The types of conditions that say what became of a request.
const DECISIONS: [&str; 3] = ["Approved", "Denied", "Failed"];

/// What is special about certificate signing requests.
pub struct CertificateSigningRequest;

impl Strategy for CertificateSigningRequest {
    fn prepare_for_create(&self, object: &mut Value, context: &WriteContext) {
        let Some(spec) = object.object_mut("spec") else { return };
        for name in ["username", "uid", "groups", "extra"] {
            spec.drop_field(name);
        }
        spec.put("username", context.user);
        if !context.uid.is_empty() {
            spec.put("uid", context.uid);
        }
        if !context.groups.is_empty() {
            spec.put("groups", context.groups.to_vec());
        }
        if let Some(extra) = context.extra.filter(|extra| !extra.is_empty()) {
            let extra: Map<String, Value> =
                extra.iter().map(|(key, values)| (key.clone(), values.clone().into())).collect();
            spec.put("extra", extra);
        }
    }

    fn prepare_for_update(&self, new: &mut Value, old: &Value, context: &WriteContext) {
        if let Some(spec) = old.get("spec") {
            new.put("spec", spec.clone());
        }
        let old_status = old.get("status").cloned().unwrap_or(json!({}));
        match context.subresource {
            None => new.put("status", old_status),
            Some("approval") => {
                let conditions = new.dig(&["status", "conditions"]).cloned();
                new.put("status", old_status);
                if let (Some(conditions), Some(status)) = (conditions, new.get_mut("status")) {
                    status.put("conditions", conditions);
                }
                stamp_conditions(new, old, context.now);
            }
            Some(_) => stamp_conditions(new, old, context.now),
        }
    }

    fn check(&self, object: &At) {
        let spec = object.field("spec");
        let request = spec.field("request");
        let decoded = STANDARD.decode(request.str()).unwrap_or_default();
        if !decoded.starts_with(b"-----BEGIN CERTIFICATE REQUEST-----") {
            request.invalid_text("PEM block type must be CERTIFICATE REQUEST");
        }
        spec.field("usages").filled("");
        let mut seen = BTreeSet::new();
        spec.each("usages", |usage| {
            usage.among(USAGES);
            usage.unique(&mut seen);
        });
        signer(&spec.field("signerName"));
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        spec.field("expirationSeconds").within(SECONDS_MIN.., detail);
        check_conditions(object);
    }

    fn check_update(&self, new: &At, old: &Value, context: &WriteContext) {
        let list = new.field("status.conditions");
        for kind in DECISIONS {
            let of_type = |object| conditions(object).iter().filter(|c| c.text("type") == kind).collect();
            let (before, after): (Vec<&Value>, Vec<&Value>) = (of_type(old), of_type(new.value()));
            let may_decide = context.subresource == Some("approval") || kind == "Failed";
            let what = match after.len().cmp(&before.len()) {
                Ordering::Less => "remove",
                Ordering::Greater if !may_decide => "add",
                _ if !may_decide && after != before => "modify",
                _ => continue,
            };
            list.forbidden(&format!("updates may not {what} a condition of type {kind:?}"));
        }
        let (certificate, before) = (new.field("status.certificate"), old.dig(&["status", "certificate"]));
        if certificate.value() != before.unwrap_or(&Value::Null) {
            if context.subresource != Some("status") {
                certificate.forbidden("updates may not set certificate content");
            } else if before.is_some() {
                certificate.forbidden("updates may not modify existing certificate content");
            }
        }
        if context.subresource == Some("status") {
            check_conditions(new);
        }
    }
}

fn signer(name: &At) {
    if name.is_empty() {
        return name.required("");
    }
    if name.str() == "kubernetes.io/legacy-unknown" {
        return name.invalid("the legacy signerName is not allowed via this API version");
    }
    let parts: Vec<&str> = name.str().split('/').collect();
    let [domain, rest] = parts.as_slice() else {
        return name
            .invalid("must be a fully qualified domain and path of the form 'example.com/signer-name'");
    };
    name.invalid_each(domain, names::dns1123_subdomain(domain));
    name.invalid_each(rest, names::dns1123_subdomain(rest));
    if domain.split('.').count() < 2 {
        name.invalid_value(*domain, "should be a domain with at least two segments separated by dots");
    }
}

fn conditions(object: &Value) -> &[Value] {
    object.get("status").map(|status| status.items("conditions")).unwrap_or_default()
}

fn check_conditions(object: &At) {
    let list = object.field("status.conditions");
    for (index, condition) in list.elements().enumerate() {
        let (kind, state) = (condition.field("type"), condition.field("status"));
        let has_before = |wanted: &str| list.list().iter().take(index).any(|c| c.text("type") == wanted);
        kind.filled("");
        if !kind.is_empty() && has_before(kind.str()) {
            kind.duplicate();
        }
        state.filled("");
        if !state.is_empty() && DECISIONS.contains(&kind.str()) {
            state.among(&["True"]);
        }
        if kind.str() == "Approved" && has_before("Denied")
            || kind.str() == "Denied" && has_before("Approved")
        {
            kind.invalid("Approved and Denied conditions are mutually exclusive");
        }
    }
}

fn stamp_conditions(new: &mut Value, old: &Value, now: &str) {
    let before = conditions(old);
    let Some(status) = new.get_mut("status") else { return };
    for condition in status.items_mut("conditions") {
        condition.default_text("lastUpdateTime", now);
        if condition.text("lastTransitionTime").is_empty() {
            let same = before.iter().find(|c| {
                c.text("type") == condition.text("type") && c.text("status") == condition.text("status")
            });
            let since = same.map(|c| c.text("lastTransitionTime")).filter(|t| !t.is_empty()).unwrap_or(now);
            condition.put("lastTransitionTime", since);
        }
    }
}

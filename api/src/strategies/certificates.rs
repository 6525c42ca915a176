//! Certificate signing requests: who asks is written by the server, and what was asked for never changes.
//!
//! Assumes that the request itself (PEM) is checked by whoever signs it; here its presence and envelope are.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::common::spec;
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt, Touch},
    names::{self, NameRule},
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

/// What is special about certificate signing requests.
pub struct CertificateSigningRequest;

impl Strategy for CertificateSigningRequest {
    fn name_rule(&self) -> NameRule {
        NameRule::Any
    }

    fn prepare_for_create(&self, object: &mut Value, context: &WriteContext) {
        object.put("status", json!({}));
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

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        let request = STANDARD.decode(spec.text("request")).unwrap_or_default();
        if !request.starts_with(b"-----BEGIN CERTIFICATE REQUEST-----") {
            let detail = "PEM block type must be CERTIFICATE REQUEST";
            errors.invalid(&path.field("request"), spec.text("request"), detail);
        }
        let usages = spec.items("usages");
        let usages_path = path.field("usages");
        if usages.is_empty() {
            errors.required(&usages_path, "");
        }
        for (index, usage) in usages.iter().filter_map(Value::as_str).enumerate() {
            if !USAGES.contains(&usage) {
                errors.not_supported(&usages_path.index(index), usage, USAGES);
            }
            if usages.iter().take(index).any(|before| before == usage) {
                errors.duplicate(&usages_path.index(index), usage);
            }
        }
        signer(&mut errors, &path.field("signerName"), spec.text("signerName"));
        if let Some(seconds) = spec.int("expirationSeconds").filter(|s| *s < SECONDS_MIN) {
            let detail = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.invalid(&path.field("expirationSeconds"), seconds, detail);
        }
        conditions(&mut errors, object);
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("status");
        let list = path.field("conditions");
        let of_type = |object: &Value, kind: &str| -> Vec<Value> {
            let status = object.get("status").cloned().unwrap_or_default();
            status.items("conditions").iter().filter(|c| c.text("type") == kind).cloned().collect()
        };
        for kind in ["Approved", "Denied", "Failed"] {
            let (before, after) = (of_type(old, kind), of_type(new, kind));
            let may_decide = context.subresource == Some("approval") || kind == "Failed";
            if after.len() < before.len() {
                errors.forbidden(&list, &format!("updates may not remove a condition of type {kind:?}"));
            } else if !may_decide && after.len() > before.len() {
                errors.forbidden(&list, &format!("updates may not add a condition of type {kind:?}"));
            } else if !may_decide && after != before {
                errors.forbidden(&list, &format!("updates may not modify a condition of type {kind:?}"));
            }
        }
        let certificate =
            |object: &Value| object.dig(&["status", "certificate"]).cloned().unwrap_or_default();
        if certificate(new) != certificate(old) {
            let path = path.field("certificate");
            if context.subresource != Some("status") {
                errors.forbidden(&path, "updates may not set certificate content");
            } else if !certificate(old).is_null() {
                errors.forbidden(&path, "updates may not modify existing certificate content");
            }
        }
        if context.subresource == Some("status") {
            conditions(&mut errors, new);
        }
        errors.into_vec()
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(Cow<'static, str>, String)> {
        vec![("spec.signerName".into(), spec(object).text("signerName").to_string())]
    }
}

fn signer(errors: &mut Errors, path: &Path, name: &str) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name == "kubernetes.io/legacy-unknown" {
        let detail = "the legacy signerName is not allowed via this API version";
        return errors.invalid(path, name, detail);
    }
    let parts: Vec<&str> = name.split('/').collect();
    let [domain, rest] = parts.as_slice() else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.invalid(path, name, detail);
    };
    errors.invalid_each(path, domain, names::dns1123_subdomain(domain));
    errors.invalid_each(path, rest, names::dns1123_subdomain(rest));
    if domain.split('.').count() < 2 {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.invalid(path, *domain, detail);
    }
}

fn conditions(errors: &mut Errors, object: &Value) {
    let path = Path::ROOT.field("status.conditions");
    let status = object.get("status").unwrap_or(&Value::Null);
    let list = status.items("conditions");
    for (index, condition) in list.iter().enumerate() {
        let path = path.index(index);
        let kind = condition.text("type");
        let state = condition.text("status");
        if kind.is_empty() {
            errors.required(&path.field("type"), "");
        } else if list.iter().take(index).any(|before| before.text("type") == kind) {
            errors.duplicate(&path.field("type"), kind);
        }
        if state.is_empty() {
            errors.required(&path.field("status"), "");
        } else if ["Approved", "Denied", "Failed"].contains(&kind) && state != "True" {
            errors.not_supported(&path.field("status"), state, &["True"]);
        }
        let opposite = if kind == "Approved" { "Denied" } else { "Approved" };
        if ["Approved", "Denied"].contains(&kind)
            && list.iter().take(index).any(|c| c.text("type") == opposite)
        {
            let detail = "Approved and Denied conditions are mutually exclusive";
            errors.invalid(&path.field("type"), kind, detail);
        }
    }
}

fn stamp_conditions(new: &mut Value, old: &Value, now: &str) {
    let before = old.get("status").map(|s| s.items("conditions").to_vec()).unwrap_or_default();
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

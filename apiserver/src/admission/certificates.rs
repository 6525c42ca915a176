//! Who may approve and sign certificate requests, and what nobody can ask for.
//!
//! Writing to `approval` needs the right to `approve` the request's signer, writing a certificate or a condition to
//! `status` the right to `sign` for it: rights on `signers` by the signer's name or by `<its domain>/*`. Nobody asks
//! for a client certificate in `system:masters`, whoever would approve it.

use api::ApiError;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Admission, AdmissionRequest, Operation};
use crate::auth::{MASTERS, UserInfo};
use crate::authz::node::node_of;
use crate::authz::{Attributes, AuthorizerChain, Decision};
use crate::http::request_info::RequestInfo;

const GROUP: &str = "certificates.k8s.io";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const OF_NODES: [&str; 2] = ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"];

/// The plugin.
pub struct Certificates {
    authorizers: AuthorizerChain,
}

impl Certificates {
    /// Asks for the rights on signers.
    pub fn new(authorizers: AuthorizerChain) -> Self {
        Self { authorizers }
    }

    async fn may(&self, user: &UserInfo, verb: &str, signer: &str) -> bool {
        let domain = signer.split('/').next().unwrap_or_default();
        for name in [signer.to_string(), format!("{domain}/*")] {
            let info = RequestInfo {
                is_resource: true,
                special_verb: verb.to_string(),
                group: GROUP.to_string(),
                version: "*".to_string(),
                resource: "signers".to_string(),
                name,
                ..RequestInfo::default()
            };
            if let Decision::Allow(_) = self.authorizers.decide(&Attributes { user, info: &info }).await {
                return true;
            }
        }
        false
    }
}

#[async_trait]
impl Admission for Certificates {
    async fn validate(&self, request: &AdmissionRequest<'_>, object: Option<&Value>) -> Result<(), ApiError> {
        let concerns =
            request.row.storage.group == GROUP && request.row.plural == "certificatesigningrequests";
        let Some(object) = object.filter(|_| concerns) else { return Ok(()) };
        // The signer that counts is the one that is stored, not one that the write would like to see there.
        let signer = signer_of(request.old.unwrap_or(object));
        match (request.operation, request.subresource) {
            (Operation::Create, "") => check_subject(request, object, signer),
            (Operation::Update, "approval") if !self.may(request.user, "approve", signer).await => {
                Err(request
                    .forbidden(&format!("user not permitted to approve requests with signerName {signer:?}")))
            }
            (Operation::Update, "status")
                if signs(request.old, object) && !self.may(request.user, "sign", signer).await =>
            {
                Err(request
                    .forbidden(&format!("user not permitted to sign requests with signerName {signer:?}")))
            }
            _ => Ok(()),
        }
    }
}

fn signer_of(request: &Value) -> &str {
    request.pointer("/spec/signerName").and_then(Value::as_str).unwrap_or_default()
}

fn signs(old: Option<&Value>, new: &Value) -> bool {
    let part = |object: Option<&Value>, field: &str| {
        object.and_then(|o| o.pointer(&format!("/status/{field}"))).filter(|v| !v.is_null()).cloned()
    };
    ["certificate", "conditions"].iter().any(|field| part(old, field) != part(Some(new), field))
}

fn check_subject(request: &AdmissionRequest<'_>, object: &Value, signer: &str) -> Result<(), ApiError> {
    let node = node_of(request.user).filter(|_| OF_NODES.contains(&signer));
    if signer != CLIENT && node.is_none() {
        return Ok(());
    }
    let encoded = object.pointer("/spec/request").and_then(Value::as_str).unwrap_or_default();
    let pem = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let subject = pki::CertificateRequest::parse(&pem.unwrap_or_default())
        .map_err(|why| request.forbidden(&format!("failed to parse CSR: {why}")))?;
    if signer == CLIENT && subject.organizations.iter().any(|group| group == MASTERS) {
        return Err(request.forbidden(&format!("use of {CLIENT} signer with {MASTERS} group is not allowed")));
    }
    if let Some(node) = node
        && subject.common_name.strip_prefix("system:node:") != Some(node)
    {
        return Err(request.forbidden(&format!("can only create a node CSR with CN=system:node:{node}")));
    }
    Ok(())
}

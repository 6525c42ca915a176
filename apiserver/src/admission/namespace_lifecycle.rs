//! Nothing new in a namespace that is not there or going away; some namespaces cannot be deleted.

use api::{ApiError, Scope};
use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Admission, AdmissionRequest, Operation};
use crate::objects::Objects;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// The rules of a namespace's life.
pub struct NamespaceLifecycle {
    objects: Objects,
}

impl NamespaceLifecycle {
    /// Looks namespaces up in the cache.
    pub fn new(objects: Objects) -> Self {
        Self { objects }
    }
}

#[async_trait]
impl Admission for NamespaceLifecycle {
    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        _object: Option<&Value>,
    ) -> Result<(), ApiError> {
        if request.is("", "namespaces") {
            if request.operation == Operation::Delete && IMMORTAL.contains(&request.name) {
                return Err(request.forbidden("this namespace may not be deleted"));
            }
            return Ok(());
        }
        // Reviews are questions, not objects: they may be asked about any namespace.
        let asks = request.row.storage.group == "authorization.k8s.io";
        if request.row.scope == Scope::Cluster || request.operation != Operation::Create || asks {
            return Ok(());
        }
        let mut namespace = self.objects.look_up("core/namespaces", "", request.namespace);
        if namespace.is_none() && self.objects.catch_up().await {
            namespace = self.objects.look_up("core/namespaces", "", request.namespace);
        }
        let Some(namespace) = namespace else {
            return Err(ApiError::not_found("", "namespaces", request.namespace));
        };
        if namespace.pointer("/metadata/deletionTimestamp").is_some() && request.subresource.is_empty() {
            let why = format!(
                "unable to create new content in namespace {} because it is being terminated",
                request.namespace
            );
            let mut error = request.forbidden(&why);
            if let Some(details) = &mut error.details {
                details["causes"] = json!([{
                    "reason": "NamespaceTerminating", "field": "metadata.namespace",
                    "message": format!("namespace {} is being terminated", request.namespace),
                }]);
            }
            return Err(error);
        }
        Ok(())
    }
}

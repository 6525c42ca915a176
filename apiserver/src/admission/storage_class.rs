//! A claim that names no storage class gets the default one; of several the youngest, and of those the first by name.

use api::ApiError;
use async_trait::async_trait;
use serde_json::Value;

use super::{Admission, AdmissionRequest, Operation};
use crate::objects::Objects;

const CLASSES: &str = "storage.k8s.io/storageclasses";
const MARKS: [&str; 2] = [
    "/metadata/annotations/storageclass.kubernetes.io~1is-default-class",
    "/metadata/annotations/storageclass.beta.kubernetes.io~1is-default-class",
];

/// The plugin.
pub struct DefaultStorageClass {
    objects: Objects,
}

impl DefaultStorageClass {
    /// Looks classes up in the cache.
    pub fn new(objects: Objects) -> Self {
        Self { objects }
    }
}

#[async_trait]
impl Admission for DefaultStorageClass {
    async fn mutate(&self, request: &AdmissionRequest<'_>, claim: &mut Value) -> Result<(), ApiError> {
        if !request.is("", "persistentvolumeclaims") || request.operation != Operation::Create {
            return Ok(());
        }
        // The empty name is a choice: no class. So is the annotation of old.
        let is_chosen = claim.pointer("/spec/storageClassName").is_some_and(Value::is_string)
            || claim.pointer("/metadata/annotations/volume.beta.kubernetes.io~1storage-class").is_some();
        if is_chosen {
            return Ok(());
        }
        if let Some(name) = default_of(self.objects.list(CLASSES, "")) {
            crate::tree::set(claim, &["spec", "storageClassName"], name);
        }
        Ok(())
    }
}

fn default_of(classes: Vec<Value>) -> Option<String> {
    let is_default =
        |class: &Value| MARKS.iter().any(|mark| class.pointer(mark).is_some_and(|m| m == "true"));
    let made =
        |class: &Value| api::object::metadata(class, "creationTimestamp").unwrap_or_default().to_string();
    let mut defaults: Vec<Value> = classes.into_iter().filter(is_default).collect();
    defaults.sort_by(|one, other| {
        made(other).cmp(&made(one)).then_with(|| api::object::name(one).cmp(api::object::name(other)))
    });
    defaults.first().map(|class| api::object::name(class).to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_youngest_default_is_taken() {
        let class = |name: &str, day: u32, default: &str| {
            json!({"metadata": {"name": name, "creationTimestamp": format!("2026-01-{day:02}T00:00:00Z"),
                "annotations": {"storageclass.kubernetes.io/is-default-class": default}}})
        };
        let classes =
            vec![class("a", 1, "true"), class("c", 2, "true"), class("b", 2, "true"), class("d", 3, "false")];
        assert_eq!(default_of(classes).as_deref(), Some("b"));
        assert_eq!(default_of(vec![class("d", 3, "false")]), None);
    }
}

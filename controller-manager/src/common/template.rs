//! Pod templates: equality and hash. Pure.

use k8s_openapi::api::core::v1::PodTemplateSpec;

pub(crate) const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// Characters that form no words; upstream's safe alphabet for generated names.
const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A short name part for a template, the same for equal templates. A collision count gives another one.
pub(crate) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut hash = Fnv1a::default();
    // A template that came from the server always encodes; an empty text would only cost a collision.
    hash.write(&serde_json::to_vec(template).unwrap_or_default());
    if let Some(collisions) = collisions {
        hash.write(&collisions.to_le_bytes());
    }
    safe_encode(&hash.0.to_string())
}

/// Maps every byte to a character that is safe in names.
pub(crate) fn safe_encode(text: &str) -> String {
    text.bytes()
        .filter_map(|byte| SAFE.get(usize::from(byte) % SAFE.len()).map(|safe| char::from(*safe)))
        .collect()
}

/// Whether two templates are equal but for the hash label.
pub(crate) fn templates_equal(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    without_hash(a) == without_hash(b)
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut copy = template.clone();
    if let Some(meta) = &mut copy.metadata {
        if let Some(labels) = &mut meta.labels {
            labels.remove(POD_TEMPLATE_HASH);
        }
        meta.labels = meta.labels.take().filter(|labels| !labels.is_empty());
        meta.annotations = meta.annotations.take().filter(|annotations| !annotations.is_empty());
        meta.creation_timestamp = None;
    }
    copy
}

/// 32-bit FNV-1a.
pub(crate) struct Fnv1a(pub u32);

impl Default for Fnv1a {
    fn default() -> Self {
        Self(0x811c_9dc5)
    }
}

impl Fnv1a {
    pub fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        serde_json::from_value(serde_json::json!({
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": image}]}
        }))
        .unwrap()
    }

    #[test]
    fn the_hash_is_stable_and_follows_template_and_collisions() {
        let hash = template_hash(&template("a"), None);
        assert_eq!(hash, template_hash(&template("a"), None));
        assert_ne!(hash, template_hash(&template("b"), None));
        assert_ne!(hash, template_hash(&template("a"), Some(1)));
        assert!(hash.bytes().all(|byte| SAFE.contains(&byte)));
    }

    #[test]
    fn the_hash_label_does_not_make_templates_differ() {
        let mut labelled = template("a");
        labelled
            .metadata
            .as_mut()
            .unwrap()
            .labels
            .as_mut()
            .unwrap()
            .insert(POD_TEMPLATE_HASH.into(), "x".into());
        assert!(templates_equal(&labelled, &template("a")));
        assert!(!templates_equal(&labelled, &template("b")));
    }
}

//! `matchLabelKeys` and `mismatchLabelKeys`: selectors that follow the pod's own labels. They are resolved once, when
//! the pod is made, so that whoever places pods needs to know selectors only.

use serde_json::{Value, json};

use crate::field::{Look, Touch};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Adds the pod's values of the named labels to the selectors of its spreading constraints and affinity terms.
pub(super) fn resolve(pod: &mut Value) {
    let labels = pod.dig(&["metadata", "labels"]).cloned().unwrap_or_default();
    pod.inside("spec", |spec| {
        spec.each_inside("topologySpreadConstraints", |constraint| {
            extend(constraint, &labels, "matchLabelKeys", "In");
        });
        for kind in ["affinity.podAffinity", "affinity.podAntiAffinity"] {
            spec.inside(kind, |terms| {
                terms.each_inside(REQUIRED, |term| extend_both(term, &labels));
                terms.each_inside(PREFERRED, |term| {
                    term.inside("podAffinityTerm", |term| extend_both(term, &labels));
                });
            });
        }
    });
}

fn extend_both(term: &mut Value, labels: &Value) {
    extend(term, labels, "matchLabelKeys", "In");
    extend(term, labels, "mismatchLabelKeys", "NotIn");
}

fn extend(term: &mut Value, labels: &Value, keys: &str, operator: &str) {
    let requirements: Vec<Value> = term
        .items(keys)
        .iter()
        .filter_map(|key| {
            let value = labels.get(key.as_str()?)?;
            Some(json!({"key": key, "operator": operator, "values": [value]}))
        })
        .collect();
    if requirements.is_empty() {
        return;
    }
    // Without a selector the term selects nothing, whatever is added.
    let Some(selector) = term.get_mut("labelSelector").filter(|s| s.is_object()) else { return };
    let mut expressions = selector.items("matchExpressions").to_vec();
    expressions.extend(requirements.into_iter().filter(|r| !selector.items("matchExpressions").contains(r)));
    selector.put("matchExpressions", expressions);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_should_follow_the_pods_own_labels() {
        let mut pod = json!({
            "metadata": {"labels": {"app": "web", "hash": "1"}},
            "spec": {
                "topologySpreadConstraints": [
                    {"labelSelector": {"matchLabels": {"app": "web"}}, "matchLabelKeys": ["hash", "missing"]}],
                "affinity": {"podAntiAffinity": {REQUIRED: [
                    {"labelSelector": {}, "mismatchLabelKeys": ["hash"]}]}},
            },
        });
        resolve(&mut pod);
        assert_eq!(
            pod["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchExpressions"],
            json!([{"key": "hash", "operator": "In", "values": ["1"]}])
        );
        assert_eq!(
            pod["spec"]["affinity"]["podAntiAffinity"][REQUIRED][0]["labelSelector"]["matchExpressions"],
            json!([{"key": "hash", "operator": "NotIn", "values": ["1"]}])
        );
    }
}

//! Stateful sets.

use serde_json::{Value, json};

use super::super::{
    common::{default_template, endless_template, selector_of_template, spec, spec_mut},
    core::persistent_volume_claim,
    pod,
};
use crate::{
    Strategy, WriteContext,
    at::At,
    field::{Look, Touch, same_meaning},
    intstr, names,
};

/// What is special about stateful sets.
pub struct StatefulSet;

const CHANGEABLE: [&str; 7] = [
    "replicas",
    "template",
    "updateStrategy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
];

impl Strategy for StatefulSet {
    fn set_defaults(&self, object: &mut Value) {
        let Some(spec) = spec_mut(object) else { return };
        spec.default_to("replicas", 1);
        spec.default_to("revisionHistoryLimit", 10);
        spec.default_text("podManagementPolicy", "OrderedReady");
        if let Some(policy) = spec.object_mut("persistentVolumeClaimRetentionPolicy") {
            policy.default_text("whenDeleted", "Retain");
            policy.default_text("whenScaled", "Retain");
        }
        if let Some(strategy) = spec.object_mut("updateStrategy") {
            if strategy.text("type").is_empty() {
                strategy.put("type", "RollingUpdate");
                strategy.default_to("rollingUpdate", json!({}));
            }
            strategy.inside("rollingUpdate", |rolling| rolling.default_to("partition", 0));
        }
        spec.each_inside("volumeClaimTemplates", |claim| {
            claim.default_text("apiVersion", "v1");
            claim.default_text("kind", "PersistentVolumeClaim");
            persistent_volume_claim::set_defaults(claim);
        });
        default_template(spec);
    }

    fn check(&self, object: &At) {
        let spec = object.field("spec");
        check_policies(&spec);
        spec.non_negative(&["replicas", "minReadySeconds", "ordinals.start"]);
        selector_of_template(&spec, "statefulset");
        endless_template(&spec.with(&with_claims_as_volumes(&spec)), "StatefulSet");
    }

    fn check_create(&self, object: &At) {
        object.field("spec.serviceName").name_or_none(names::dns1123_label);
        object.each("spec.volumeClaimTemplates", |claim| {
            persistent_volume_claim::check_spec(&claim.field("spec"));
        });
    }

    fn check_update(&self, new: &At, old: &Value, context: &WriteContext) {
        if context.subresource == Some("status") {
            return new.field("status").non_negative(&[
                "replicas",
                "readyReplicas",
                "currentReplicas",
                "updatedReplicas",
                "availableReplicas",
            ]);
        }
        let rest = |object: &Value| {
            let mut spec = spec(object).clone();
            CHANGEABLE.iter().for_each(|name| spec.drop_field(name));
            spec
        };
        if !same_meaning(Some(&rest(new)), Some(&rest(old))) {
            new.field("spec").forbidden(
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                 'minReadySeconds' are forbidden",
            );
        }
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        pod::warnings_of_template(new, old)
    }
}

fn check_policies(spec: &At) {
    let policy = spec.field("podManagementPolicy");
    if !["OrderedReady", "Parallel"].contains(&policy.str()) {
        policy.invalid_text("must be 'OrderedReady' or 'Parallel'");
    }
    let strategy = spec.field("updateStrategy");
    match (strategy.text("type"), strategy.given("rollingUpdate")) {
        ("", _) => strategy.required(""),
        ("OnDelete", Some(rolling)) => rolling.invalid("only allowed for updateStrategy 'RollingUpdate'"),
        ("RollingUpdate", Some(rolling)) => {
            rolling.non_negative(&["partition"]);
            rolling.optional("maxUnavailable", |unavailable| {
                intstr::check_amount(unavailable);
                if intstr::is_zero(unavailable) {
                    unavailable.invalid("cannot be 0");
                }
                intstr::check_not_above_all(unavailable);
            });
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        _ => strategy.invalid("must be 'RollingUpdate' or 'OnDelete'"),
    }
    spec.optional("persistentVolumeClaimRetentionPolicy", |policy| {
        policy.field("whenDeleted").one_of(&["Delete", "Retain"]);
        policy.field("whenScaled").one_of(&["Delete", "Retain"]);
    });
}

/// The claims of the set are volumes of its pods, which containers mount by name.
fn with_claims_as_volumes(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let claims: Vec<Value> = spec
        .items("volumeClaimTemplates")
        .iter()
        .filter_map(|claim| claim.dig(&["metadata", "name"]).cloned())
        .map(|name| json!({"persistentVolumeClaim": {"claimName": name.clone()}, "name": name}))
        .collect();
    if let Some(pod) = spec.get_mut("template").and_then(|t| t.get_mut("spec")) {
        let own =
            pod.items("volumes").iter().filter(|v| claims.iter().all(|c| c.get("name") != v.get("name")));
        let volumes: Vec<Value> = claims.iter().chain(own).cloned().collect();
        pod.put("volumes", volumes);
    }
    spec
}

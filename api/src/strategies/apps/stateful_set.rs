//! Stateful sets.

use serde_json::{Value, json};

use super::super::{
    common::{default_template, endless_template, non_negative, one_of, selector_of_template, spec},
    core::persistent_volume_claim,
    pod,
};
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt, Touch, same_meaning},
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
        let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
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
            if let Some(rolling) = strategy.get_mut("rollingUpdate").filter(|r| r.is_object()) {
                rolling.default_to("partition", 0);
            }
        }
        for claim in spec.items_mut("volumeClaimTemplates") {
            claim.default_text("apiVersion", "v1");
            claim.default_text("kind", "PersistentVolumeClaim");
            persistent_volume_claim::set_defaults(claim);
        }
        default_template(spec);
    }

    fn tracks_generation(&self) -> bool {
        true
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        object.put("status", json!({"replicas": 0, "availableReplicas": 0}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        policies(&mut errors, &path, spec);
        non_negative(&mut errors, &path, spec, &["replicas", "minReadySeconds"]);
        if let Some(start) = spec.dig(&["ordinals", "start"]).and_then(Value::as_i64).filter(|s| *s < 0) {
            errors.invalid(&path.field("ordinals.start"), start, "must be greater than or equal to 0");
        }
        selector_of_template(&mut errors, &path, spec, "statefulset");
        endless_template(&mut errors, &path, &with_claims_as_volumes(spec), "StatefulSet");
        errors.into_vec()
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let service = spec(object).text("serviceName");
        if !service.is_empty() {
            errors.invalid_each(&path.field("serviceName"), service, names::dns1123_label(service));
        }
        let claims = path.field("volumeClaimTemplates");
        for (index, claim) in spec(object).items("volumeClaimTemplates").iter().enumerate() {
            let path = claims.index(index);
            persistent_volume_claim::validate_spec(&mut errors, &path.field("spec"), spec(claim));
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        if context.subresource == Some("status") {
            let path = Path::ROOT.field("status");
            let counts =
                ["replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
            non_negative(&mut errors, &path, new.get("status").unwrap_or(&Value::Null), &counts);
            return errors.into_vec();
        }
        let rest = |object: &Value| {
            let mut spec = spec(object).clone();
            CHANGEABLE.iter().for_each(|name| spec.drop_field(name));
            spec
        };
        if !same_meaning(Some(&rest(new)), Some(&rest(old))) {
            errors.forbidden(
                &path,
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                 'minReadySeconds' are forbidden",
            );
        }
        errors.into_vec()
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        pod::warnings_of_template(new, old)
    }
}

fn policies(errors: &mut Errors, path: &Path, spec: &Value) {
    let policy = spec.text("podManagementPolicy");
    if !["OrderedReady", "Parallel"].contains(&policy) {
        let detail = "must be 'OrderedReady' or 'Parallel'";
        errors.invalid(&path.field("podManagementPolicy"), policy, detail);
    }
    let strategy = spec.get("updateStrategy").unwrap_or(&Value::Null);
    let strategy_path = path.field("updateStrategy");
    match (strategy.text("type"), strategy.at("rollingUpdate")) {
        ("", _) => errors.required(&strategy_path, ""),
        ("OnDelete", Some(rolling)) => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            errors.invalid(&strategy_path.field("rollingUpdate"), rolling.clone(), detail);
        }
        ("RollingUpdate", Some(rolling)) => {
            let path = strategy_path.field("rollingUpdate");
            non_negative(errors, &path, rolling, &["partition"]);
            if let Some(unavailable) = rolling.at("maxUnavailable") {
                let path = path.field("maxUnavailable");
                intstr::validate_amount(errors, &path, unavailable);
                if intstr::is_zero(unavailable) {
                    errors.invalid(&path, unavailable.clone(), "cannot be 0");
                }
                intstr::validate_not_above_all(errors, &path, unavailable);
            }
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        _ => errors.invalid(&strategy_path, strategy.clone(), "must be 'RollingUpdate' or 'OnDelete'"),
    }
    if let Some(policy) = spec.at("persistentVolumeClaimRetentionPolicy") {
        let path = path.field("persistentVolumeClaimRetentionPolicy");
        for name in ["whenDeleted", "whenScaled"] {
            one_of(errors, &path.field(name), policy, &["Delete", "Retain"]);
        }
    }
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

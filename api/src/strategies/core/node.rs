//! Nodes. Agents register with a status, so a new node keeps it.

use std::{borrow::Cow, collections::BTreeSet};

use serde_json::{Value, json};

use super::super::{
    common::one_of,
    pod_spec::{defaults::canonicalize_list, resources},
};
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt, Touch},
    names,
};

const ONCE: &str = "node updates may not change podCIDR except from \"\" to valid";

/// What is special about nodes.
pub struct Node;

impl Strategy for Node {
    fn set_defaults(&self, object: &mut Value) {
        if let Some(status) = object.get_mut("status").filter(|s| s.is_object()) {
            if let Some(capacity) = status.at("capacity").cloned() {
                status.default_to("allocatable", capacity);
            }
            canonicalize_list(status, "capacity");
            canonicalize_list(status, "allocatable");
        }
        // One range and the list of ranges say the same.
        let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
        let first = spec.items("podCIDRs").first().and_then(Value::as_str).map(str::to_string);
        match (spec.text("podCIDR").to_string(), first) {
            (single, None) if !single.is_empty() => spec.put("podCIDRs", json!([single])),
            (single, Some(first)) if single.is_empty() => spec.put("podCIDR", first),
            _ => {}
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        object.default_to("spec", json!({}));
        object.default_to("status", json!({}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let spec = object.get("spec").unwrap_or(&Value::Null);
        // Upstream says metadata here.
        taints(&mut errors, &Path::ROOT.field("metadata.taints"), spec);
        let ranges = Path::ROOT.field("spec.podCIDRs");
        for (index, range) in spec.items("podCIDRs").iter().filter_map(Value::as_str).enumerate() {
            errors.invalid_each(&ranges.index(index), range, names::cidr(range));
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, _context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let null = Value::Null;
        let status = new.get("status").unwrap_or(&null);
        let mut addresses = BTreeSet::new();
        let addresses_path = Path::ROOT.field("status.addresses");
        for (index, address) in status.items("addresses").iter().enumerate() {
            if !addresses.insert((address.text("type"), address.text("address"))) {
                errors.duplicate(&addresses_path.index(index), address.clone());
            }
        }
        let status_path = Path::ROOT.field("status");
        for list in ["capacity", "allocatable"] {
            let path = status_path.field(list);
            for (name, amount) in status.entries(list) {
                resources::validate_amount(&mut errors, &path.key(name), name, amount);
            }
        }
        let (new, old) = (new.get("spec").unwrap_or(&null), old.get("spec").unwrap_or(&null));
        if !old.items("podCIDRs").is_empty() && old.items("podCIDRs") != new.items("podCIDRs") {
            errors.forbidden(&path.field("podCIDRs"), ONCE);
        }
        let provider = old.text("providerID");
        if !provider.is_empty() && provider != new.text("providerID") {
            let detail = "node updates may not change providerID except from \"\" to valid";
            errors.forbidden(&path.field("providerID"), detail);
        }
        errors.into_vec()
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(Cow<'static, str>, String)> {
        let unschedulable = object.get("spec").is_some_and(|s| s.flag("unschedulable"));
        vec![("spec.unschedulable".into(), unschedulable.to_string())]
    }
}

fn taints(errors: &mut Errors, path: &Path, spec: &Value) {
    let mut seen = BTreeSet::new();
    for (index, taint) in spec.items("taints").iter().enumerate() {
        let path = path.index(index);
        let (key, value) = (taint.text("key"), taint.text("value"));
        errors.invalid_each(&path.field("key"), key, names::qualified_name(key));
        let faults = names::label_value(value);
        if !faults.is_empty() {
            errors.invalid(&path.field("value"), value, faults.join(";"));
        }
        one_of(errors, &path.field("effect"), taint, &["NoExecute", "NoSchedule", "PreferNoSchedule"]);
        if !seen.insert((key, taint.text("effect"))) {
            errors.duplicate_because(&path, taint.clone(), "taints must be unique by key and effect pair");
        }
    }
}

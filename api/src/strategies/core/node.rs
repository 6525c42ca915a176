//! Nodes. Agents register with a status, so a new node keeps it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::{
    common::{spec, spec_mut},
    pod_spec::{defaults::canonicalize_list, resources},
};
use crate::{
    Strategy, WriteContext,
    at::At,
    field::{Look, Touch},
    names,
};

const ONCE: &str = "node updates may not change podCIDR except from \"\" to valid";

/// What is special about nodes.
pub struct Node;

impl Strategy for Node {
    fn set_defaults(&self, object: &mut Value) {
        object.inside("status", |status| {
            if let Some(capacity) = status.at("capacity").cloned() {
                status.default_to("allocatable", capacity);
            }
            canonicalize_list(status, "capacity");
            canonicalize_list(status, "allocatable");
        });
        // One range and the list of ranges say the same.
        let Some(spec) = spec_mut(object) else { return };
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

    fn check(&self, object: &At) {
        // Upstream says metadata here.
        let taints = object.field("spec.taints");
        check_taints(&object.field("metadata.taints").with(taints.value()));
        object.each("spec.podCIDRs", |range| range.form(names::cidr));
    }

    fn check_update(&self, new: &At, old: &Value, _context: &WriteContext) {
        let mut addresses = BTreeSet::new();
        new.each("status.addresses", |address| {
            if !addresses.insert((address.field("type").str(), address.field("address").str())) {
                address.duplicate();
            }
        });
        for list in ["status.capacity", "status.allocatable"] {
            for (name, amount) in new.field(list).members() {
                resources::check_amount(&amount, name);
            }
        }
        let (new, old) = (new.field("spec"), spec(old));
        if !old.items("podCIDRs").is_empty() && old.items("podCIDRs") != new.items("podCIDRs") {
            new.field("podCIDRs").forbidden(ONCE);
        }
        let provider = old.text("providerID");
        if !provider.is_empty() && provider != new.text("providerID") {
            let detail = "node updates may not change providerID except from \"\" to valid";
            new.field("providerID").forbidden(detail);
        }
    }
}

fn check_taints(taints: &At) {
    let mut seen = BTreeSet::new();
    for taint in taints.elements() {
        let (key, value, effect) = (taint.field("key"), taint.field("value"), taint.field("effect"));
        key.form(names::qualified_name);
        let faults = names::label_value(value.str());
        if !faults.is_empty() {
            value.invalid(faults.join(";"));
        }
        effect.one_of(&["NoExecute", "NoSchedule", "PreferNoSchedule"]);
        if !seen.insert((key.str(), effect.str())) {
            taint.duplicate_because("taints must be unique by key and effect pair");
        }
    }
}

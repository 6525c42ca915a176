//! Dynamic resources: claims, their templates, classes of devices, and what drivers offer.
//!
//! Deliberately absent: compilation of the CEL expressions of selectors, and the rules of attributes, counters and
//! taints of single devices; nothing acts on these kinds yet.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{common::spec, pod_spec::check_node_selector, storage::driver_name};
use crate::{
    Strategy, WriteContext,
    at::At,
    field::{Look, Touch, same_meaning},
    meta, names,
};

const REQUESTS_MAX: usize = 32;
const CONFIG_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
const USERS_MAX: usize = 256;
const DEVICES_MAX: usize = 128;
const POOL_NAME_MAX: usize = 253;
const NOT_A_REQUEST: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// What is special about claims.
pub struct ResourceClaim;

impl Strategy for ResourceClaim {
    fn set_defaults(&self, object: &mut Value) {
        object.inside("spec", default_claim);
    }

    fn check(&self, object: &At) {
        check_claim(&object.field("spec"));
    }

    fn check_update(&self, new: &At, old: &Value, context: &WriteContext) {
        if context.subresource.is_none() {
            return new.fixed(old, &["spec"]);
        }
        let new = new.field("status");
        let users = new.field("reservedFor");
        users.at_most(USERS_MAX);
        users.elements().for_each(|user| user.all_filled(&["resource", "name", "uid"]));
        match (new.given("allocation"), old.dig(&["status", "allocation"])) {
            (None, _) if !users.is_empty() => {
                users.forbidden("may not be specified when `allocated` is not set");
            }
            (Some(allocation), Some(before)) if !same_meaning(Some(allocation.value()), Some(before)) => {
                allocation.immutable();
            }
            _ => {}
        }
    }
}

/// What is special about templates of claims.
pub struct ResourceClaimTemplate;

impl Strategy for ResourceClaimTemplate {
    fn set_defaults(&self, object: &mut Value) {
        object.inside("spec.spec", default_claim);
    }

    fn check(&self, object: &At) {
        let template = object.field("spec");
        meta::check_annotations(&template.field("metadata.annotations"));
        template.field("metadata.labels").labels();
        check_claim(&template.field("spec"));
    }

    fn check_update(&self, new: &At, old: &Value, _context: &WriteContext) {
        new.fixed(old, &["spec"]);
    }
}

/// What is special about classes of devices.
pub struct DeviceClass;

impl Strategy for DeviceClass {
    fn check(&self, object: &At) {
        let spec = object.field("spec");
        check_selectors(&spec.field("selectors"));
        check_configurations(&spec.field("config"));
        spec.optional("extendedResourceName", |name| {
            let text = name.str();
            let is_extended = text.contains('/') && !text.contains("kubernetes.io/");
            if !is_extended || !names::qualified_name(text).is_empty() {
                name.invalid("must be a valid extended resource name");
            }
        });
    }
}

/// What is special about what drivers offer.
pub struct ResourceSlice;

impl Strategy for ResourceSlice {
    fn check(&self, object: &At) {
        let spec = object.field("spec");
        driver_name(&spec.field("driver"));
        check_pool(&spec.field("pool"));
        check_node_selection(&spec);
        check_named(&spec.field("devices"), DEVICES_MAX, |_| ());
    }

    fn check_update(&self, new: &At, old: &Value, _context: &WriteContext) {
        let (new, old) = (new.field("spec"), spec(old));
        if new.dig(&["pool", "name"]) != old.dig(&["pool", "name"]) {
            new.field("pool.name").immutable();
        }
        new.fixed(old, &["driver", "nodeName"]);
    }
}

fn default_claim(spec: &mut Value) {
    spec.inside("devices", |devices| {
        devices.each_inside("requests", |request| {
            request.inside("exactly", default_amount);
            request.each_inside("firstAvailable", default_amount);
        });
    });
}

fn default_amount(request: &mut Value) {
    request.default_text("allocationMode", "ExactCount");
    if request.text("allocationMode") == "ExactCount" && request.int("count").unwrap_or_default() == 0 {
        request.put("count", 1);
    }
}

/// The names of a claim's requests, each with those of its alternatives.
type Requests<'a> = BTreeMap<&'a str, Vec<&'a str>>;

fn check_claim(spec: &At) {
    let devices = spec.field("devices");
    let requests = devices.field("requests");
    let known: Requests<'_> = requests
        .list()
        .iter()
        .map(|r| (r.text("name"), r.items("firstAvailable").iter().map(|a| a.text("name")).collect()))
        .collect();
    check_named(&requests, REQUESTS_MAX, check_request);
    devices.each("constraints", |constraint| {
        check_references(constraint, &known);
        if constraint.at("matchAttribute").is_none() && constraint.at("distinctAttribute").is_none() {
            constraint.required(
                "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
            );
        }
    });
    devices.each("config", |entry| check_references(entry, &known));
    check_configurations(&devices.field("config"));
}

/// Elements with names of their own.
fn check_named(list: &At, most: usize, check: impl Fn(&At)) {
    list.at_most(most);
    let mut seen = BTreeSet::new();
    for item in list.elements() {
        item.field("name").name(names::dns1123_label);
        check(&item);
        item.field("name").unique(&mut seen);
    }
}

fn check_request(request: &At) {
    const ONE: &str = "exactly one of `exactly` or `firstAvailable` is required";
    let alternatives = request.field("firstAvailable");
    match (request.given("exactly"), alternatives.is_empty()) {
        (None, true) => request.required(ONE),
        (Some(_), false) => {
            request.invalid_value(Value::Null, format!("{ONE}, but multiple fields are set"));
        }
        (Some(exactly), true) => check_device_request(&exactly),
        (None, false) => check_named(&alternatives, ALTERNATIVES_MAX, check_device_request),
    }
}

fn check_device_request(request: &At) {
    request.field("deviceClassName").name(names::dns1123_subdomain);
    check_selectors(&request.field("selectors"));
    let (mode, count) = (request.field("allocationMode"), request.field("count"));
    match mode.str() {
        "All" => count.number_within(0..=0, "must not be specified when allocationMode is 'All'"),
        "ExactCount" => count.number_within(1.., "must be greater than zero"),
        _ => mode.not_supported(&["All", "ExactCount"]),
    }
}

fn check_selectors(selectors: &At) {
    selectors.at_most(REQUESTS_MAX);
    for selector in selectors.elements().filter(|selector| selector.at("cel").is_none()) {
        selector.field("cel").required("");
    }
}

fn check_configurations(entries: &At) {
    entries.at_most(CONFIG_MAX);
    for entry in entries.elements() {
        if entry.field("opaque").is_given() {
            driver_name(&entry.field("opaque.driver"));
        } else {
            entry.field("opaque").required("");
        }
    }
}

fn check_references(parent: &At, known: &Requests<'_>) {
    parent.each("requests", |name| {
        let is_known = match name.str().split_once('/') {
            Some((request, alternative)) => known.get(request).is_some_and(|a| a.contains(&alternative)),
            None => known.contains_key(name.str()),
        };
        if !is_known {
            name.invalid(NOT_A_REQUEST);
        }
    });
}

fn check_pool(pool: &At) {
    let name = pool.field("name");
    name.filled("");
    name.at_most_bytes(POOL_NAME_MAX);
    if !name.is_empty() {
        name.str().split('/').for_each(|part| name.invalid_each(part, names::dns1123_subdomain(part)));
    }
    pool.field("resourceSliceCount").number_within(1.., "must be greater than zero");
    pool.field("generation").within(0.., "must be greater than or equal to zero");
}

fn check_node_selection(spec: &At) {
    const ONE: &str =
        "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let mut given = Vec::new();
    spec.optional("nodeName", |node| {
        if node.is_empty() {
            node.invalid("must be either unset or set to a non-empty string");
        } else {
            given.push("`nodeName`");
            node.form(names::dns1123_subdomain);
        }
    });
    spec.optional("nodeSelector", |selector| {
        given.push("`nodeSelector`");
        check_node_selector(selector);
        let terms = selector.field("nodeSelectorTerms");
        if terms.list().len() != 1 {
            terms.invalid("must have exactly one node selector term");
        }
    });
    for (name, said) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        match spec.at(name).and_then(Value::as_bool) {
            Some(true) => given.push(said),
            Some(false) => spec.field(name).invalid("must be either unset or set to true"),
            None => {}
        }
    }
    match given.len() {
        0 => spec.required(ONE),
        1 => {}
        _ => spec.invalid_value(
            format!("{{{}}}", given.join(", ")),
            format!("{ONE}, but multiple fields are set"),
        ),
    }
}

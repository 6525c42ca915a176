//! Dynamic resources: claims, their templates, classes of devices, and what drivers offer.
//!
//! Deliberately absent: compilation of the CEL expressions of selectors, and the rules of attributes, counters and
//! taints of single devices; nothing acts on these kinds yet.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    common::{Seen, immutable, reset_status, spec},
    pod_spec::validate_node_selector,
};
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt, Touch, same_meaning},
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
        if let Some(spec) = object.get_mut("spec") {
            default_claim(spec);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        reset_status(object);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        claim_spec(&mut errors, &Path::ROOT.field("spec"), spec(object));
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if context.subresource.is_none() {
            immutable(&mut errors, &Path::ROOT, new, old, &["spec"]);
            return errors.into_vec();
        }
        let null = Value::Null;
        let path = Path::ROOT.field("status");
        let (new, old) = (new.get("status").unwrap_or(&null), old.get("status").unwrap_or(&null));
        let users = path.field("reservedFor");
        if new.items("reservedFor").len() > USERS_MAX {
            errors.too_many(&users, new.items("reservedFor").len(), USERS_MAX);
        }
        for (index, user) in new.items("reservedFor").iter().enumerate() {
            let path = users.index(index);
            for name in ["resource", "name", "uid"].into_iter().filter(|name| user.text(name).is_empty()) {
                errors.required(&path.field(name), "");
            }
        }
        match (new.at("allocation"), old.at("allocation")) {
            (None, _) if !new.items("reservedFor").is_empty() => {
                errors.forbidden(&users, "may not be specified when `allocated` is not set");
            }
            (Some(allocation), Some(before)) if !same_meaning(Some(allocation), Some(before)) => {
                errors.immutable(&path.field("allocation"), allocation);
            }
            _ => {}
        }
        errors.into_vec()
    }
}

/// What is special about templates of claims.
pub struct ResourceClaimTemplate;

impl Strategy for ResourceClaimTemplate {
    fn set_defaults(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec").and_then(|s| s.get_mut("spec")) {
            default_claim(spec);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let template = spec(object);
        if let Some(metadata) = template.at("metadata") {
            let path = path.field("metadata");
            meta::validate_annotations(&mut errors, &path.field("annotations"), metadata);
            meta::validate_labels(&mut errors, &path.field("labels"), metadata);
        }
        claim_spec(&mut errors, &path.field("spec"), spec(template));
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, _context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        immutable(&mut errors, &Path::ROOT, new, old, &["spec"]);
        errors.into_vec()
    }
}

/// What is special about classes of devices.
pub struct DeviceClass;

impl Strategy for DeviceClass {
    fn tracks_generation(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        selectors(&mut errors, &path, spec);
        configurations(&mut errors, &path.field("config"), spec.items("config"));
        let name = spec.text("extendedResourceName");
        if spec.at("extendedResourceName").is_some()
            && (!name.contains('/')
                || name.contains("kubernetes.io/")
                || !names::qualified_name(name).is_empty())
        {
            errors.invalid(
                &path.field("extendedResourceName"),
                name,
                "must be a valid extended resource name",
            );
        }
        errors.into_vec()
    }
}

/// What is special about what drivers offer.
pub struct ResourceSlice;

impl Strategy for ResourceSlice {
    fn tracks_generation(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        driver(&mut errors, &path.field("driver"), spec.text("driver"));
        pool(&mut errors, &path.field("pool"), spec.get("pool").unwrap_or(&Value::Null));
        node_selection(&mut errors, &path, spec);
        let devices = path.field("devices");
        if spec.items("devices").len() > DEVICES_MAX {
            errors.too_many(&devices, spec.items("devices").len(), DEVICES_MAX);
        }
        let mut seen = Seen::default();
        for (index, device) in spec.items("devices").iter().enumerate() {
            let path = devices.index(index);
            let name = device.text("name");
            request_name(&mut errors, &path.field("name"), name);
            if !seen.is_new(name) {
                errors.duplicate(&path.field("name"), name);
            }
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, _context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let null = Value::Null;
        let (new, old) = (spec(new), spec(old));
        let pool = |spec: &Value| spec.get("pool").cloned().unwrap_or_default();
        if pool(new).get("name") != pool(old).get("name") {
            errors.immutable(&path.field("pool.name"), pool(new).get("name").unwrap_or(&null));
        }
        immutable(&mut errors, &path, new, old, &["driver", "nodeName"]);
        errors.into_vec()
    }
}

fn default_claim(spec: &mut Value) {
    let Some(devices) = spec.get_mut("devices") else { return };
    for request in devices.items_mut("requests") {
        let exactly = request.get_mut("exactly").filter(|e| e.is_object());
        exactly.into_iter().for_each(default_amount);
        request.items_mut("firstAvailable").iter_mut().for_each(default_amount);
    }
}

fn default_amount(request: &mut Value) {
    request.default_text("allocationMode", "ExactCount");
    if request.text("allocationMode") == "ExactCount" && request.int("count").unwrap_or_default() == 0 {
        request.put("count", 1);
    }
}

/// The names of a claim's requests, each with those of its alternatives.
type Requests<'a> = BTreeMap<&'a str, Vec<&'a str>>;

fn claim_spec(errors: &mut Errors, path: &Path, spec: &Value) {
    let path = path.field("devices");
    let devices = spec.get("devices").unwrap_or(&Value::Null);
    let requests = path.field("requests");
    let listed = devices.items("requests");
    let known: Requests<'_> = listed
        .iter()
        .map(|r| (r.text("name"), r.items("firstAvailable").iter().map(|a| a.text("name")).collect()))
        .collect();
    named(errors, &requests, listed, REQUESTS_MAX, request);
    let constraints = path.field("constraints");
    for (index, constraint) in devices.items("constraints").iter().enumerate() {
        let path = constraints.index(index);
        references(errors, &path.field("requests"), constraint, &known);
        if constraint.at("matchAttribute").is_none() && constraint.at("distinctAttribute").is_none() {
            errors.required(
                &path,
                "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
            );
        }
    }
    let config = path.field("config");
    for (index, entry) in devices.items("config").iter().enumerate() {
        references(errors, &config.index(index).field("requests"), entry, &known);
    }
    configurations(errors, &config, devices.items("config"));
}

/// Elements with names of their own.
fn named(
    errors: &mut Errors,
    path: &Path,
    items: &[Value],
    most: usize,
    check: fn(&mut Errors, &Path, &Value),
) {
    if items.len() > most {
        errors.too_many(path, items.len(), most);
    }
    let mut seen = Seen::default();
    for (index, item) in items.iter().enumerate() {
        let path = path.index(index);
        check(errors, &path, item);
        if !seen.is_new(item.text("name")) {
            errors.duplicate(&path.field("name"), item.text("name"));
        }
    }
}

fn request(errors: &mut Errors, path: &Path, request: &Value) {
    request_name(errors, &path.field("name"), request.text("name"));
    let alternatives = request.items("firstAvailable");
    match (request.at("exactly"), alternatives.is_empty()) {
        (None, true) => {
            errors.required(path, "exactly one of `exactly` or `firstAvailable` is required");
        }
        (Some(_), false) => errors.invalid(
            path,
            Value::Null,
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        ),
        (Some(exactly), true) => device_request(errors, &path.field("exactly"), exactly),
        (None, false) => {
            named(
                errors,
                &path.field("firstAvailable"),
                alternatives,
                ALTERNATIVES_MAX,
                |errors, path, item| {
                    request_name(errors, &path.field("name"), item.text("name"));
                    device_request(errors, path, item);
                },
            );
        }
    }
}

fn device_request(errors: &mut Errors, path: &Path, request: &Value) {
    let class = request.text("deviceClassName");
    let class_path = path.field("deviceClassName");
    if class.is_empty() {
        errors.required(&class_path, "");
    } else {
        errors.invalid_each(&class_path, class, names::dns1123_subdomain(class));
    }
    selectors(errors, path, request);
    let count = request.int("count").unwrap_or_default();
    match request.text("allocationMode") {
        "All" if count != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            errors.invalid(&path.field("count"), count, detail);
        }
        "ExactCount" if count <= 0 => {
            errors.invalid(&path.field("count"), count, "must be greater than zero")
        }
        "All" | "ExactCount" => {}
        other => errors.not_supported(&path.field("allocationMode"), other, &["All", "ExactCount"]),
    }
}

fn selectors(errors: &mut Errors, path: &Path, parent: &Value) {
    let path = path.field("selectors");
    let selectors = parent.items("selectors");
    if selectors.len() > REQUESTS_MAX {
        errors.too_many(&path, selectors.len(), REQUESTS_MAX);
    }
    for (index, selector) in selectors.iter().enumerate() {
        if selector.at("cel").is_none() {
            errors.required(&path.index(index).field("cel"), "");
        }
    }
}

fn configurations(errors: &mut Errors, path: &Path, entries: &[Value]) {
    if entries.len() > CONFIG_MAX {
        errors.too_many(path, entries.len(), CONFIG_MAX);
    }
    for (index, entry) in entries.iter().enumerate() {
        let path = path.index(index);
        match entry.at("opaque") {
            None => errors.required(&path.field("opaque"), ""),
            Some(opaque) => driver(errors, &path.field("opaque.driver"), opaque.text("driver")),
        }
    }
}

fn references(errors: &mut Errors, path: &Path, parent: &Value, known: &Requests<'_>) {
    for (index, name) in parent.items("requests").iter().filter_map(Value::as_str).enumerate() {
        let is_known = match name.split_once('/') {
            Some((request, alternative)) => known.get(request).is_some_and(|a| a.contains(&alternative)),
            None => known.contains_key(name),
        };
        if !is_known {
            errors.invalid(&path.index(index), name, NOT_A_REQUEST);
        }
    }
}

fn request_name(errors: &mut Errors, path: &Path, name: &str) {
    if name.is_empty() {
        errors.required(path, "");
    } else {
        errors.invalid_each(path, name, names::dns1123_label(name));
    }
}

fn driver(errors: &mut Errors, path: &Path, name: &str) {
    super::storage::driver_name(errors, path, name);
}

fn pool(errors: &mut Errors, path: &Path, pool: &Value) {
    let name = pool.text("name");
    let name_path = path.field("name");
    if name.is_empty() {
        errors.required(&name_path, "");
    } else {
        if name.len() > POOL_NAME_MAX {
            errors.too_long(&name_path, POOL_NAME_MAX);
        }
        for part in name.split('/') {
            errors.invalid_each(&name_path, part, names::dns1123_subdomain(part));
        }
    }
    let count = pool.int("resourceSliceCount").unwrap_or_default();
    if count <= 0 {
        errors.invalid(&path.field("resourceSliceCount"), count, "must be greater than zero");
    }
    let generation = pool.int("generation").unwrap_or_default();
    if generation < 0 {
        errors.invalid(&path.field("generation"), generation, "must be greater than or equal to zero");
    }
}

fn node_selection(errors: &mut Errors, path: &Path, spec: &Value) {
    let mut given = Vec::new();
    if spec.at("nodeName").is_some() {
        let node = spec.text("nodeName");
        let path = path.field("nodeName");
        if node.is_empty() {
            errors.invalid(&path, node, "must be either unset or set to a non-empty string");
        } else {
            given.push("`nodeName`");
            errors.invalid_each(&path, node, names::dns1123_subdomain(node));
        }
    }
    if let Some(selector) = spec.at("nodeSelector") {
        given.push("`nodeSelector`");
        validate_node_selector(errors, &path.field("nodeSelector"), selector);
        let terms = selector.items("nodeSelectorTerms");
        if terms.len() != 1 {
            let path = path.field("nodeSelector.nodeSelectorTerms");
            errors.invalid(&path, terms.to_vec(), "must have exactly one node selector term");
        }
    }
    for (name, said) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        if spec.flag(name) {
            given.push(said);
        } else if spec.at(name).is_some() {
            errors.invalid(&path.field(name), false, "must be either unset or set to true");
        }
    }
    const ONE: &str =
        "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match given.len() {
        0 => errors.required(path, ONE),
        1 => {}
        _ => {
            let detail = format!("{ONE}, but multiple fields are set");
            errors.invalid(path, format!("{{{}}}", given.join(", ")), detail);
        }
    }
}

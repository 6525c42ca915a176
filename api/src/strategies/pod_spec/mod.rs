//! What a pod's `spec` is, shared by pods and by everything that has a template of them.
//!
//! Deliberately absent: checks of fields that only Windows nodes know, of in-tree volume types other than those
//! listed in `volumes.rs`, and of resource claims.

mod containers;
pub mod defaults;
mod environment;
mod probes;
pub mod resources;
mod scheduling;
mod security;
mod volumes;

use serde_json::Value;

use super::common::{Seen, one_of};
use crate::{
    field::{Errors, Look, Path, PathExt},
    meta,
    names::{self, NameRule},
};

pub use scheduling::{validate_node_selector, validate_tolerations};

/// The lists of containers, in the order in which they are checked.
pub const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

const HOSTNAME_LENGTH_MAX: usize = 64;
const NAMESERVERS_MAX: usize = 3;
const SEARCH_PATHS_MAX: usize = 32;
const SEARCH_CHARACTERS_MAX: usize = 2048;

/// Whose spec it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// A pod's own.
    Pod,
    /// A template's, from which pods will be made.
    Template,
}

/// Checks a pod template: its metadata and its spec.
pub fn validate_template(errors: &mut Errors, path: &Path, template: &Value) {
    let null = Value::Null;
    let metadata = template.get("metadata").unwrap_or(&null);
    // Upstream leaves `metadata` out of these two paths.
    meta::validate_labels(errors, &path.field("labels"), metadata);
    meta::validate_annotations(errors, &path.field("annotations"), metadata);
    let spec_path = path.field("spec");
    let spec = template.get("spec").unwrap_or(&null);
    validate(errors, &spec_path, spec, Of::Template);
    if !spec.items("ephemeralContainers").is_empty() {
        errors.forbidden(
            &spec_path.field("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

/// Checks a pod's spec.
pub fn validate(errors: &mut Errors, path: &Path, spec: &Value, of: Of) {
    let volumes = volumes::validate(errors, &path.field("volumes"), spec);
    containers::validate(errors, path, spec, &volumes, of);
    host_network_ports(errors, path, spec, of);
    one_of(errors, &path.field("restartPolicy"), spec, &["Always", "OnFailure", "Never"]);
    one_of(
        errors,
        &path.field("dnsPolicy"),
        spec,
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    let selector = path.field("nodeSelector");
    for (key, value) in spec.entries("nodeSelector") {
        errors.invalid_each(&selector, key, names::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        errors.invalid_each(&selector, value, names::label_value(value));
    }
    security::validate_pod(errors, path, spec);
    scheduling::validate_affinity(errors, &path.field("affinity"), spec);
    dns_config(errors, &path.field("dnsConfig"), spec);
    let gates = path.field("readinessGates");
    for (index, gate) in spec.items("readinessGates").iter().enumerate() {
        let kind = gate.text("conditionType");
        let gate = gates.index(index);
        errors.invalid_each(&gate.field("conditionType"), kind, names::qualified_name(kind));
    }
    scheduling::validate_gates(errors, &path.field("schedulingGates"), spec);
    scheduling::validate_spreading(errors, &path.field("topologySpreadConstraints"), spec);
    identity(errors, path, spec);
    if let Some(seconds) = spec.int("activeDeadlineSeconds")
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        errors.invalid(&path.field("activeDeadlineSeconds"), seconds, names::between(1, i64::from(i32::MAX)));
    }
    validate_tolerations(errors, &path.field("tolerations"), spec.items("tolerations"));
    host_aliases(errors, &path.field("hostAliases"), spec);
    if spec.at("overhead").is_some() {
        resources::validate_list(errors, &path.field("overhead").field("limits"), spec, "overhead");
    }
    if spec.at("preemptionPolicy").is_some() {
        one_of(errors, &path.field("preemptionPolicy"), spec, &["PreemptLowerPriority", "Never"]);
    }
}

fn identity(errors: &mut Errors, path: &Path, spec: &Value) {
    for (name, rule) in [
        ("serviceAccountName", NameRule::Subdomain),
        ("nodeName", NameRule::Subdomain),
        ("hostname", NameRule::Label),
        ("subdomain", NameRule::Label),
        ("priorityClassName", NameRule::Subdomain),
        ("runtimeClassName", NameRule::Subdomain),
    ] {
        let value = spec.text(name);
        if !value.is_empty() {
            errors.invalid_each(&path.field(name), value, rule.check(value));
        }
    }
    let Some(hostname) = spec.at("hostnameOverride").and_then(Value::as_str) else { return };
    let path = path.field("hostnameOverride");
    if spec.flag("setHostnameAsFQDN") {
        errors.forbidden(&path, "may not be specified when setHostnameAsFQDN is true");
    }
    if spec.flag("hostNetwork") {
        errors.forbidden(&path, "may not be specified when hostNetwork is true");
    }
    if hostname.len() > HOSTNAME_LENGTH_MAX {
        errors.too_long(&path, HOSTNAME_LENGTH_MAX);
    }
    errors.invalid_each(&path, hostname, names::dns1123_subdomain(hostname));
}

fn host_network_ports(errors: &mut Errors, path: &Path, spec: &Value, of: Of) {
    if !spec.flag("hostNetwork") {
        return;
    }
    let containers = path.field("containers");
    for (index, container) in spec.items("containers").iter().enumerate() {
        let container_path = containers.index(index);
        let ports = container_path.field("ports");
        for (index, port) in container.items("ports").iter().enumerate() {
            let host = port.int("hostPort").unwrap_or_default();
            if (of == Of::Pod || host != 0) && Some(host) != port.int("containerPort") {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(&ports.index(index).field("hostPort"), host, detail);
            }
        }
    }
}

fn dns_config(errors: &mut Errors, path: &Path, spec: &Value) {
    let config = spec.at("dnsConfig");
    if spec.text("dnsPolicy") == "None" {
        let Some(config) = config else {
            errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        };
        if config.items("nameservers").is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.required(&path.field("nameservers"), detail);
            return;
        }
    }
    let Some(config) = config else { return };
    let nameservers = config.items("nameservers");
    let nameservers_path = path.field("nameservers");
    if nameservers.len() > NAMESERVERS_MAX {
        let detail = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        errors.invalid(&nameservers_path, nameservers.to_vec(), detail);
    }
    for (index, server) in nameservers.iter().filter_map(Value::as_str).enumerate() {
        errors.invalid_each(&nameservers_path.index(index), server, names::ip_address(server));
    }
    let searches = config.items("searches");
    let searches_path = path.field("searches");
    if searches.len() > SEARCH_PATHS_MAX {
        let detail = format!("must not have more than {SEARCH_PATHS_MAX} search paths");
        errors.invalid(&searches_path, searches.to_vec(), detail);
    }
    let texts: Vec<&str> = searches.iter().filter_map(Value::as_str).collect();
    if texts.join(" ").len() > SEARCH_CHARACTERS_MAX {
        let detail = format!(
            "must not have more than {SEARCH_CHARACTERS_MAX} characters (including spaces) in the search list"
        );
        errors.invalid(&searches_path, searches.to_vec(), detail);
    }
    for (index, search) in texts.into_iter().enumerate().filter(|(_, text)| *text != ".") {
        let name = search.strip_suffix('.').unwrap_or(search);
        errors.invalid_each(
            &searches_path.index(index),
            name,
            names::dns1123_subdomain_with_underscore(name),
        );
    }
    let options = path.field("options");
    for (index, option) in config.items("options").iter().enumerate() {
        if option.text("name").is_empty() {
            errors.required(&options.index(index), "must not be empty");
        }
    }
}

fn host_aliases(errors: &mut Errors, path: &Path, spec: &Value) {
    for (index, alias) in spec.items("hostAliases").iter().enumerate() {
        let path = path.index(index);
        let ip = alias.text("ip");
        errors.invalid_each(&path.field("ip"), ip, names::ip_address(ip));
        let hostnames = path.field("hostnames");
        for (index, name) in alias.items("hostnames").iter().filter_map(Value::as_str).enumerate() {
            errors.invalid_each(&hostnames.index(index), name, names::dns1123_subdomain(name));
        }
    }
}

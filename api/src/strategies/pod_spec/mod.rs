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

use crate::{
    at::At,
    field::Look,
    meta,
    names::{self, NameRule},
};

pub use scheduling::{check_node_selector, check_tolerations};

/// The lists of containers, in the order in which they are checked.
pub const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

const SECONDS_MAX: i64 = i32::MAX as i64;
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
pub fn check_template(template: &At) {
    // Upstream leaves `metadata` out of these two paths.
    let metadata = template.with(template.field("metadata").value());
    metadata.field("labels").labels();
    meta::check_annotations(&metadata.field("annotations"));
    let spec = template.field("spec");
    check(&spec, Of::Template);
    let ephemeral = spec.field("ephemeralContainers");
    if !ephemeral.is_empty() {
        ephemeral.forbidden("ephemeral containers not allowed in pod template");
    }
}

/// Checks a pod's spec.
pub fn check(spec: &At, of: Of) {
    let volumes = volumes::check(&spec.field("volumes"));
    containers::check(spec, &volumes, of);
    host_network_ports(spec, of);
    spec.field("restartPolicy").one_of(&["Always", "OnFailure", "Never"]);
    spec.field("dnsPolicy").one_of(&["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    spec.field("nodeSelector").labels();
    security::check_pod(spec);
    spec.optional("affinity", scheduling::check_affinity);
    dns_config(spec);
    spec.each("readinessGates", |gate| gate.field("conditionType").form(names::qualified_name));
    scheduling::check_gates(&spec.field("schedulingGates"));
    scheduling::check_spreading(&spec.field("topologySpreadConstraints"));
    identity(spec);
    spec.optional("activeDeadlineSeconds", |seconds| {
        seconds.within(1..=SECONDS_MAX, &names::between(1, SECONDS_MAX));
    });
    check_tolerations(&spec.field("tolerations"));
    spec.each("hostAliases", |alias| {
        alias.field("ip").form(names::ip_address);
        alias.each("hostnames", |name| name.form(names::dns1123_subdomain));
    });
    spec.optional("overhead", |overhead| {
        resources::check_list(&overhead.field("limits").with(overhead.value()));
    });
    spec.optional("preemptionPolicy", |policy| policy.one_of(&["PreemptLowerPriority", "Never"]));
}

fn identity(spec: &At) {
    for (name, rule) in [
        ("serviceAccountName", NameRule::Subdomain),
        ("nodeName", NameRule::Subdomain),
        ("hostname", NameRule::Label),
        ("subdomain", NameRule::Label),
        ("priorityClassName", NameRule::Subdomain),
        ("runtimeClassName", NameRule::Subdomain),
    ] {
        let value = spec.field(name);
        if !value.is_empty() {
            value.invalid_each(value.str(), rule.check(value.str()));
        }
    }
    spec.optional("hostnameOverride", |hostname| {
        for flag in ["setHostnameAsFQDN", "hostNetwork"].into_iter().filter(|flag| spec.flag(flag)) {
            hostname.forbidden(&format!("may not be specified when {flag} is true"));
        }
        hostname.at_most_bytes(HOSTNAME_LENGTH_MAX);
        hostname.form(names::dns1123_subdomain);
    });
}

fn host_network_ports(spec: &At, of: Of) {
    if !spec.flag("hostNetwork") {
        return;
    }
    spec.each("containers", |container| {
        container.each("ports", |port| {
            let host = port.field("hostPort");
            if (of == Of::Pod || host.number() != 0) && Some(host.number()) != port.int("containerPort") {
                host.invalid_value(host.number(), "must match `containerPort` when `hostNetwork` is true");
            }
        });
    });
}

fn dns_config(spec: &At) {
    let config = spec.field("dnsConfig");
    let (nameservers, searches) = (config.field("nameservers"), config.field("searches"));
    if spec.text("dnsPolicy") == "None" {
        if !config.is_given() {
            return config.required("must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if nameservers.is_empty() {
            return nameservers.required("must provide at least one DNS nameserver when `dnsPolicy` is None");
        }
    }
    if nameservers.list().len() > NAMESERVERS_MAX {
        nameservers.invalid(format!("must not have more than {NAMESERVERS_MAX} nameservers"));
    }
    nameservers.elements().for_each(|server| server.form(names::ip_address));
    if searches.list().len() > SEARCH_PATHS_MAX {
        searches.invalid(format!("must not have more than {SEARCH_PATHS_MAX} search paths"));
    }
    // With a space between each two.
    let characters = searches.elements().map(|search| search.str().len() + 1).sum::<usize>();
    if characters > SEARCH_CHARACTERS_MAX + 1 {
        searches.invalid(format!(
            "must not have more than {SEARCH_CHARACTERS_MAX} characters (including spaces) in the search list"
        ));
    }
    for search in searches.elements().filter(|search| search.str() != ".") {
        let name = search.str().strip_suffix('.').unwrap_or(search.str());
        search.invalid_each(name, names::dns1123_subdomain_with_underscore(name));
    }
    config.each("options", |option| {
        if option.text("name").is_empty() {
            option.required("must not be empty");
        }
    });
}

//! Nodes, namespaces, events, configuration, and who may do what.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{AGE, Kind, NAME, Subject, at, boolean, count, integer, named, or, or_none, text, wide};
use crate::{field::Look, humanize, selector::LabelSelector};

pub(super) const NODE: Kind = &[
    NAME,
    text("Status", node_state),
    text("Roles", |s| or_none(&roles(s).join(",")).into()),
    AGE,
    text("Version", |s| s.text("status.nodeInfo.kubeletVersion")),
    wide("Internal-IP", |s| address(s, "InternalIP")),
    wide("External-IP", |s| address(s, "ExternalIP")),
    wide("OS-Image", |s| or_unknown(s, "status.nodeInfo.osImage").into()),
    wide("Kernel-Version", |s| {
        let kernel = or_unknown(s, "status.nodeInfo.kernelVersion");
        match s.str("status.nodeInfo.architecture") {
            "" => kernel.into(),
            architecture => format!("{kernel} ({architecture})").into(),
        }
    }),
    wide("Container-Runtime", |s| or_unknown(s, "status.nodeInfo.containerRuntimeVersion").into()),
];
pub(super) const NAMESPACE: Kind = &[NAME, text("Status", |s| s.text("status.phase")), AGE];
pub(super) const EVENT: Kind = &[
    text("Last Seen", |s| match (s.str("series.lastObservedTime"), s.str("lastTimestamp")) {
        ("", "") if s.at("series").is_null() => first_seen(s),
        ("", last) if s.at("series").is_null() => s.since(last).into(),
        (last, _) => s.since(last).into(),
    }),
    text("Type", |s| s.text("type")),
    text("Reason", |s| s.text("reason")),
    text("Object", |s| {
        let kind = s.str("involvedObject.kind").to_lowercase();
        match s.str("involvedObject.name") {
            "" => kind.into(),
            name => format!("{kind}/{name}").into(),
        }
    }),
    wide("Subobject", |s| s.text("involvedObject.fieldPath")),
    wide("Source", |s| {
        let component = or(s.str("source.component"), s.str("reportingComponent"));
        let host = or(s.str("source.host"), s.str("reportingInstance"));
        let parts: Vec<&str> = [component, host].into_iter().filter(|part| !part.is_empty()).collect();
        parts.join(", ").into()
    }),
    text("Message", |s| s.str("message").trim().into()),
    wide("First Seen", first_seen),
    wide("Count", |s| match s.object.at("series") {
        Some(series) => count(series, "count").into(),
        None => s.number("count").max(1).into(),
    }),
    named(1, |s| s.name().into()),
];
pub(super) const CONFIG_MAP: Kind =
    &[NAME, text("Data", |s| (keys(s, "data") + keys(s, "binaryData")).into()), AGE];
pub(super) const SECRET: Kind =
    &[NAME, text("Type", |s| s.text("type")), text("Data", |s| keys(s, "data").into()), AGE];
pub(super) const RESOURCE_QUOTA: Kind =
    &[NAME, text("Request", |s| quota(s, false)), text("Limit", |s| quota(s, true)), AGE];
pub(super) const COMPONENT_STATUS: Kind = &[
    NAME,
    text("Status", |s| match healthy(s, "status") {
        Some("True") => "Healthy".into(),
        Some(_) => "Unhealthy".into(),
        None => "Unknown".into(),
    }),
    text("Message", |s| healthy(s, "message").unwrap_or_default().into()),
    text("Error", |s| healthy(s, "error").unwrap_or_default().into()),
];
pub(super) const ROLE_BINDING: Kind = &[
    NAME,
    text("Role", |s| format!("{}/{}", s.str("roleRef.kind"), s.str("roleRef.name")).into()),
    AGE,
    wide("Users", |s| subjects(s, "User")),
    wide("Groups", |s| subjects(s, "Group")),
    wide("ServiceAccounts", |s| subjects(s, "ServiceAccount")),
];
pub(super) const SIGNING_REQUEST: Kind = &[
    NAME,
    AGE,
    text("SignerName", |s| s.or_none("spec.signerName")),
    text("Requestor", |s| s.text("spec.username")),
    text("RequestedDuration", |s| {
        let seconds = s.at("spec.expirationSeconds").as_i64();
        seconds.map_or("<none>".to_string(), humanize::duration).into()
    }),
    text("Condition", signing_state),
];
pub(super) const LEASE: Kind = &[NAME, text("Holder", |s| s.text("spec.holderIdentity")), AGE];
pub(super) const PRIORITY_CLASS: Kind = &[
    NAME,
    integer("Value", |s| s.count("value")),
    boolean("Global-Default", |s| s.flag("globalDefault")),
    AGE,
    text("PreemptionPolicy", |s| s.text("preemptionPolicy")),
];
pub(super) const RUNTIME_CLASS: Kind = &[NAME, text("Handler", |s| s.text("handler")), AGE];
pub(super) const FLOW_SCHEMA: Kind = &[
    NAME,
    text("PriorityLevel", |s| s.text("spec.priorityLevelConfiguration.name")),
    text("MatchingPrecedence", |s| s.count("spec.matchingPrecedence")),
    text("DistinguisherMethod", |s| s.or_none("spec.distinguisherMethod.type")),
    AGE,
    text("MissingPL", |s| s.condition("Dangling").map_or("?", |c| c.text("status")).into()),
];
pub(super) const PRIORITY_LEVEL: Kind = &[
    NAME,
    text("Type", |s| s.text("spec.type")),
    text("NominalConcurrencyShares", |s| given(s, "spec.limited.nominalConcurrencyShares")),
    text("Queues", |s| given(s, "spec.limited.limitResponse.queuing.queues")),
    text("HandSize", |s| given(s, "spec.limited.limitResponse.queuing.handSize")),
    text("QueueLengthLimit", |s| given(s, "spec.limited.limitResponse.queuing.queueLengthLimit")),
    AGE,
];
pub(super) const WEBHOOKS: Kind = &[NAME, integer("Webhooks", |s| s.list("webhooks").len().into()), AGE];
pub(super) const VALIDATING_POLICY: Kind = &[
    NAME,
    integer("Validations", |s| s.list("spec.validations").len().into()),
    text("ParamKind", parameter_kind),
    AGE,
];
pub(super) const MUTATING_POLICY: Kind = &[
    NAME,
    integer("Mutations", |s| s.list("spec.mutations").len().into()),
    text("ParamKind", parameter_kind),
    AGE,
];
pub(super) const POLICY_BINDING: Kind =
    &[NAME, text("PolicyName", |s| s.text("spec.policyName")), text("ParamRef", parameter_reference), AGE];
pub(super) const API_SERVICE: Kind = &[
    NAME,
    text("Service", |s| match s.spec().at("service") {
        Some(service) => format!("{}/{}", service.text("namespace"), service.text("name")).into(),
        None => "Local".into(),
    }),
    text("Available", |s| match s.condition("Available") {
        Some(c) if c.text("status") == "True" => "True".into(),
        Some(c) => format!("{} ({})", c.text("status"), c.text("reason")).into(),
        None => "".into(),
    }),
    AGE,
];

fn node_state(subject: &Subject) -> Value {
    let state = match subject.condition("Ready").map(|c| c.text("status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let cordoned = if subject.spec().flag("unschedulable") { ",SchedulingDisabled" } else { "" };
    format!("{state}{cordoned}").into()
}

fn or_unknown<'a>(subject: &Subject<'a>, path: &str) -> &'a str {
    or(subject.str(path), "<unknown>")
}

fn address(subject: &Subject, kind: &str) -> Value {
    let address = subject.list("status.addresses").iter().find(|a| a.text("type") == kind);
    address.map_or("<none>", |a| a.text("address")).into()
}

fn roles<'a>(subject: &Subject<'a>) -> Vec<&'a str> {
    let labels = subject.at("metadata.labels").as_object().into_iter().flatten();
    let roles: BTreeSet<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.into_iter().collect()
}

fn first_seen(subject: &Subject) -> Value {
    subject.since(or(subject.str("firstTimestamp"), subject.str("eventTime"))).into()
}

fn keys(subject: &Subject, map: &str) -> usize {
    subject.object.entries(map).count()
}

fn quota(subject: &Subject, of_limits: bool) -> Value {
    let status = subject.status();
    let hard = status.entries("hard").filter(|(name, _)| name.starts_with("limits.") == of_limits);
    let lines = hard.map(|(name, hard)| {
        let used = at(status, "used").get(name).and_then(Value::as_str).unwrap_or("0");
        format!("{name}: {used}/{}", hard.as_str().unwrap_or_default())
    });
    lines.collect::<Vec<_>>().join(", ").into()
}

fn healthy<'a>(subject: &Subject<'a>, field: &str) -> Option<&'a str> {
    let condition = subject.list("conditions").iter().find(|c| c.text("type") == "Healthy");
    condition.map(|c| c.text(field))
}

fn subjects(binding: &Subject, kind: &str) -> Value {
    let subjects = binding.list("subjects").iter().filter(|s| s.text("kind") == kind);
    let names = subjects.map(|s| match s.text("namespace") {
        "" => s.text("name").to_string(),
        namespace => format!("{namespace}/{}", s.text("name")),
    });
    names.collect::<Vec<_>>().join(", ").into()
}

fn signing_state(subject: &Subject) -> Value {
    let has = |kind: &str| subject.condition(kind).is_some();
    let mut state = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (_, true) => "Approved",
        _ => "Pending",
    }
    .to_string();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !subject.str("status.certificate").is_empty() {
        state.push_str(",Issued");
    }
    state.into()
}

fn given(subject: &Subject, path: &str) -> Value {
    match subject.at(path) {
        Value::Null => "<none>".into(),
        other => other.clone(),
    }
}

fn parameter_kind(subject: &Subject) -> Value {
    match subject.spec().at("paramKind") {
        Some(kind) => format!("{}/{}", kind.text("apiVersion"), kind.text("kind")).into(),
        None => "<unset>".into(),
    }
}

fn parameter_reference(subject: &Subject) -> Value {
    let Some(reference) = subject.spec().at("paramRef") else { return "<unset>".into() };
    match (reference.text("name"), reference.text("namespace")) {
        ("", _) => {
            let selector = LabelSelector::from_object(reference.at("selector"));
            selector.map(|s| s.to_string()).unwrap_or_default().into()
        }
        (name, "") => format!("*/{name}").into(),
        (name, namespace) => format!("{namespace}/{name}").into(),
    }
}

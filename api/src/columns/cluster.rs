//! Nodes, namespaces, events, configuration, and who may do what.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{AGE, Column, Kind, NAME, Subject, boolean, count, integer, or, or_none, text, wide};
use crate::{field::Look, humanize, selector::LabelSelector};

pub(super) const NODE: Kind = (
    &[
        NAME,
        text("Status"),
        text("Roles"),
        AGE,
        text("Version"),
        wide("Internal-IP"),
        wide("External-IP"),
        wide("OS-Image"),
        wide("Kernel-Version"),
        wide("Container-Runtime"),
    ],
    node,
);
pub(super) const NAMESPACE: Kind = (&[NAME, text("Status"), AGE], namespace);
pub(super) const EVENT: Kind = (
    &[
        text("Last Seen"),
        text("Type"),
        text("Reason"),
        text("Object"),
        wide("Subobject"),
        wide("Source"),
        text("Message"),
        wide("First Seen"),
        wide("Count"),
        Column { name: "Name", column_type: "string", format: "name", priority: 1 },
    ],
    event,
);
pub(super) const CONFIG_MAP: Kind = (&[NAME, text("Data"), AGE], config_map);
pub(super) const SECRET: Kind = (&[NAME, text("Type"), text("Data"), AGE], secret);
pub(super) const RESOURCE_QUOTA: Kind = (&[NAME, text("Request"), text("Limit"), AGE], resource_quota);
pub(super) const COMPONENT_STATUS: Kind =
    (&[NAME, text("Status"), text("Message"), text("Error")], component_status);
pub(super) const ROLE_BINDING: Kind =
    (&[NAME, text("Role"), AGE, wide("Users"), wide("Groups"), wide("ServiceAccounts")], role_binding);
pub(super) const SIGNING_REQUEST: Kind = (
    &[NAME, AGE, text("SignerName"), text("Requestor"), text("RequestedDuration"), text("Condition")],
    signing_request,
);
pub(super) const LEASE: Kind = (&[NAME, text("Holder"), AGE], lease);
pub(super) const PRIORITY_CLASS: Kind =
    (&[NAME, integer("Value"), boolean("Global-Default"), AGE, text("PreemptionPolicy")], priority_class);
pub(super) const RUNTIME_CLASS: Kind = (&[NAME, text("Handler"), AGE], runtime_class);
pub(super) const FLOW_SCHEMA: Kind = (
    &[
        NAME,
        text("PriorityLevel"),
        text("MatchingPrecedence"),
        text("DistinguisherMethod"),
        AGE,
        text("MissingPL"),
    ],
    flow_schema,
);
pub(super) const PRIORITY_LEVEL: Kind = (
    &[
        NAME,
        text("Type"),
        text("NominalConcurrencyShares"),
        text("Queues"),
        text("HandSize"),
        text("QueueLengthLimit"),
        AGE,
    ],
    priority_level,
);
pub(super) const WEBHOOKS: Kind = (&[NAME, integer("Webhooks"), AGE], webhooks);
pub(super) const VALIDATING_POLICY: Kind =
    (&[NAME, integer("Validations"), text("ParamKind"), AGE], validating_policy);
pub(super) const MUTATING_POLICY: Kind =
    (&[NAME, integer("Mutations"), text("ParamKind"), AGE], mutating_policy);
pub(super) const POLICY_BINDING: Kind = (&[NAME, text("PolicyName"), text("ParamRef"), AGE], policy_binding);
pub(super) const API_SERVICE: Kind = (&[NAME, text("Service"), text("Available"), AGE], api_service);

fn node(subject: &Subject) -> Vec<Value> {
    let (spec, status) = (subject.spec(), subject.status());
    let ready = status.items("conditions").iter().find(|c| c.text("type") == "Ready");
    let mut state = match ready.map(|c| c.text("status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_string();
    if spec.flag("unschedulable") {
        state.push_str(",SchedulingDisabled");
    }
    let info = status.get("nodeInfo").unwrap_or(&Value::Null);
    let address = |kind: &str| {
        let address = status.items("addresses").iter().find(|a| a.text("type") == kind);
        address.map_or("<none>", |a| a.text("address")).to_string()
    };
    let mut kernel = or(info.text("kernelVersion"), "<unknown>").to_string();
    if !info.text("architecture").is_empty() {
        kernel = format!("{kernel} ({})", info.text("architecture"));
    }
    vec![
        subject.name().into(),
        state.into(),
        or_none(&roles(subject.metadata()).join(",")).into(),
        subject.age().into(),
        info.text("kubeletVersion").into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        or(info.text("osImage"), "<unknown>").into(),
        kernel.into(),
        or(info.text("containerRuntimeVersion"), "<unknown>").into(),
    ]
}

fn roles(metadata: &Value) -> Vec<&str> {
    let roles: BTreeSet<&str> = metadata
        .entries("labels")
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.into_iter().collect()
}

fn namespace(subject: &Subject) -> Vec<Value> {
    vec![subject.name().into(), subject.status().text("phase").into(), subject.age().into()]
}

fn event(subject: &Subject) -> Vec<Value> {
    let object = subject.object;
    let involved = object.get("involvedObject").unwrap_or(&Value::Null);
    let source = object.get("source").unwrap_or(&Value::Null);
    let first = subject.since(or(object.text("firstTimestamp"), object.text("eventTime")));
    let (last, times) = match object.at("series") {
        Some(series) => (subject.since(series.text("lastObservedTime")), count(series, "count")),
        None if object.text("lastTimestamp").is_empty() => (first.clone(), count(object, "count").max(1)),
        None => (subject.since(object.text("lastTimestamp")), count(object, "count").max(1)),
    };
    let kind = involved.text("kind").to_lowercase();
    let target = match involved.text("name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let component = or(source.text("component"), object.text("reportingComponent"));
    let host = or(source.text("host"), object.text("reportingInstance"));
    let origin: Vec<&str> = [component, host].into_iter().filter(|part| !part.is_empty()).collect();
    vec![
        last.into(),
        object.text("type").into(),
        object.text("reason").into(),
        target.into(),
        involved.text("fieldPath").into(),
        origin.join(", ").into(),
        object.text("message").trim().into(),
        first.into(),
        times.into(),
        subject.name().into(),
    ]
}

fn config_map(subject: &Subject) -> Vec<Value> {
    let keys = subject.object.entries("data").count() + subject.object.entries("binaryData").count();
    vec![subject.name().into(), keys.into(), subject.age().into()]
}

fn secret(subject: &Subject) -> Vec<Value> {
    let keys = subject.object.entries("data").count();
    vec![subject.name().into(), subject.object.text("type").into(), keys.into(), subject.age().into()]
}

fn resource_quota(subject: &Subject) -> Vec<Value> {
    let used = subject.status().get("used").unwrap_or(&Value::Null);
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (name, hard) in subject.status().entries("hard") {
        let used = used.get(name).and_then(Value::as_str).unwrap_or("0");
        let line = format!("{name}: {used}/{}", hard.as_str().unwrap_or_default());
        if name.starts_with("limits.") { limits.push(line) } else { requests.push(line) }
    }
    vec![subject.name().into(), requests.join(", ").into(), limits.join(", ").into(), subject.age().into()]
}

fn component_status(subject: &Subject) -> Vec<Value> {
    let healthy = subject.object.items("conditions").iter().find(|c| c.text("type") == "Healthy");
    let state = match healthy.map(|c| c.text("status")) {
        Some("True") => "Healthy",
        Some(_) => "Unhealthy",
        None => "Unknown",
    };
    let said = |field: &str| healthy.map(|c| c.text(field)).unwrap_or_default();
    vec![subject.name().into(), state.into(), said("message").into(), said("error").into()]
}

fn role_binding(subject: &Subject) -> Vec<Value> {
    let role = subject.object.get("roleRef").unwrap_or(&Value::Null);
    let of_kind = |kind: &str| {
        let subjects = subject.object.items("subjects").iter().filter(|s| s.text("kind") == kind);
        let names: Vec<String> = subjects
            .map(|s| match s.text("namespace") {
                "" => s.text("name").to_string(),
                namespace => format!("{namespace}/{}", s.text("name")),
            })
            .collect();
        names.join(", ")
    };
    vec![
        subject.name().into(),
        format!("{}/{}", role.text("kind"), role.text("name")).into(),
        subject.age().into(),
        of_kind("User").into(),
        of_kind("Group").into(),
        of_kind("ServiceAccount").into(),
    ]
}

fn signing_request(subject: &Subject) -> Vec<Value> {
    let (spec, status) = (subject.spec(), subject.status());
    let has = |kind: &str| status.items("conditions").iter().any(|c| c.text("type") == kind);
    let mut state = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (_, true) => "Approved",
        _ => "Pending",
    }
    .to_string();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !status.text("certificate").is_empty() {
        state.push_str(",Issued");
    }
    let duration = spec.int("expirationSeconds").map_or("<none>".to_string(), humanize::duration);
    vec![
        subject.name().into(),
        subject.age().into(),
        or_none(spec.text("signerName")).into(),
        spec.text("username").into(),
        duration.into(),
        state.into(),
    ]
}

fn lease(subject: &Subject) -> Vec<Value> {
    vec![subject.name().into(), subject.spec().text("holderIdentity").into(), subject.age().into()]
}

fn priority_class(subject: &Subject) -> Vec<Value> {
    vec![
        subject.name().into(),
        count(subject.object, "value").into(),
        subject.object.flag("globalDefault").into(),
        subject.age().into(),
        subject.object.text("preemptionPolicy").into(),
    ]
}

fn runtime_class(subject: &Subject) -> Vec<Value> {
    vec![subject.name().into(), subject.object.text("handler").into(), subject.age().into()]
}

fn flow_schema(subject: &Subject) -> Vec<Value> {
    let spec = subject.spec();
    let method = spec.get("distinguisherMethod").unwrap_or(&Value::Null).text("type");
    let dangling = subject.status().items("conditions").iter().find(|c| c.text("type") == "Dangling");
    vec![
        subject.name().into(),
        spec.get("priorityLevelConfiguration").unwrap_or(&Value::Null).text("name").into(),
        count(spec, "matchingPrecedence").into(),
        or_none(method).into(),
        subject.age().into(),
        dangling.map_or("?", |c| c.text("status")).into(),
    ]
}

fn priority_level(subject: &Subject) -> Vec<Value> {
    let spec = subject.spec();
    let none = Value::from("<none>");
    let limited = spec.get("limited").unwrap_or(&Value::Null);
    let queuing = limited.dig(&["limitResponse", "queuing"]).unwrap_or(&Value::Null);
    let number = |parent: &Value, field: &str| parent.at(field).cloned().unwrap_or(none.clone());
    vec![
        subject.name().into(),
        spec.text("type").into(),
        number(limited, "nominalConcurrencyShares"),
        number(queuing, "queues"),
        number(queuing, "handSize"),
        number(queuing, "queueLengthLimit"),
        subject.age().into(),
    ]
}

fn webhooks(subject: &Subject) -> Vec<Value> {
    vec![subject.name().into(), subject.object.items("webhooks").len().into(), subject.age().into()]
}

fn policy(subject: &Subject, list: &str) -> Vec<Value> {
    let kind = subject.spec().at("paramKind").map(|k| format!("{}/{}", k.text("apiVersion"), k.text("kind")));
    vec![
        subject.name().into(),
        subject.spec().items(list).len().into(),
        kind.unwrap_or("<unset>".to_string()).into(),
        subject.age().into(),
    ]
}

fn validating_policy(subject: &Subject) -> Vec<Value> {
    policy(subject, "validations")
}

fn mutating_policy(subject: &Subject) -> Vec<Value> {
    policy(subject, "mutations")
}

fn policy_binding(subject: &Subject) -> Vec<Value> {
    let reference = subject.spec().at("paramRef").map(|reference| {
        match (reference.text("name"), reference.text("namespace")) {
            ("", _) => LabelSelector::from_object(reference.at("selector"))
                .map(|s| s.to_string())
                .unwrap_or_default(),
            (name, "") => format!("*/{name}"),
            (name, namespace) => format!("{namespace}/{name}"),
        }
    });
    vec![
        subject.name().into(),
        subject.spec().text("policyName").into(),
        reference.unwrap_or("<unset>".to_string()).into(),
        subject.age().into(),
    ]
}

fn api_service(subject: &Subject) -> Vec<Value> {
    let service = subject.spec().at("service");
    let service =
        service.map_or("Local".to_string(), |s| format!("{}/{}", s.text("namespace"), s.text("name")));
    let condition = subject.status().items("conditions").iter().find(|c| c.text("type") == "Available");
    let available = match condition {
        Some(c) if c.text("status") == "True" => "True".to_string(),
        Some(c) => format!("{} ({})", c.text("status"), c.text("reason")),
        None => String::new(),
    };
    vec![subject.name().into(), service.into(), available.into(), subject.age().into()]
}

//! Workloads and what watches over them.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Column, Kind, NAME, Subject, boolean, integer, or_none, text, wide};
use crate::{field::Look, humanize, selector::LabelSelector};

const CONTAINERS: Column = wide("Containers", |s| containers_of(s, "spec.template.spec", "name"));
const IMAGES: Column = wide("Images", |s| containers_of(s, "spec.template.spec", "image"));
const SELECTOR: Column = wide("Selector", |s| selector(s.spec().at("selector")).into());
const READY: Column =
    text("Ready", |s| format!("{}/{}", s.number("status.readyReplicas"), s.number("spec.replicas")).into());
const DESIRED: Column = integer("Desired", |s| s.count("spec.replicas"));
const CURRENT: Column = integer("Current", |s| s.count("status.replicas"));
const ARE_READY: Column = integer("Ready", |s| s.count("status.readyReplicas"));

pub(super) const DEPLOYMENT: Kind = &[
    NAME,
    READY,
    text("Up-to-date", |s| s.count("status.updatedReplicas")),
    text("Available", |s| s.count("status.availableReplicas")),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) const REPLICA_SET: Kind = &[NAME, DESIRED, CURRENT, ARE_READY, AGE, CONTAINERS, IMAGES, SELECTOR];

pub(super) const REPLICATION_CONTROLLER: Kind = &[
    NAME,
    DESIRED,
    CURRENT,
    ARE_READY,
    AGE,
    CONTAINERS,
    IMAGES,
    wide("Selector", |s| labels(s.spec(), "selector").into()),
];

pub(super) const DAEMON_SET: Kind = &[
    NAME,
    integer("Desired", |s| s.count("status.desiredNumberScheduled")),
    integer("Current", |s| s.count("status.currentNumberScheduled")),
    integer("Ready", |s| s.count("status.numberReady")),
    integer("Up-to-date", |s| s.count("status.updatedNumberScheduled")),
    integer("Available", |s| s.count("status.numberAvailable")),
    text("Node Selector", |s| labels(s.at("spec.template.spec"), "nodeSelector").into()),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) const STATEFUL_SET: Kind = &[NAME, READY, AGE, CONTAINERS, IMAGES];

pub(super) const CONTROLLER_REVISION: Kind = &[
    NAME,
    text("Controller", |s| or_none(&controller(s).unwrap_or_default()).into()),
    text("Revision", |s| s.count("revision")),
    AGE,
];

pub(super) const JOB: Kind = &[
    NAME,
    text("Status", job_state),
    text("Completions", |s| {
        let succeeded = s.number("status.succeeded");
        match (s.at("spec.completions").as_i64(), s.number("spec.parallelism")) {
            (Some(wanted), _) => format!("{succeeded}/{wanted}").into(),
            (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}").into(),
            (None, _) => format!("{succeeded}/1").into(),
        }
    }),
    text("Duration", |s| job_duration(s).into()),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) const CRON_JOB: Kind = &[
    NAME,
    text("Schedule", |s| s.text("spec.schedule")),
    text("Timezone", |s| s.or_none("spec.timeZone")),
    boolean("Suspend", |s| match s.at("spec.suspend") {
        Value::Null => "<unset>".into(),
        Value::Bool(true) => "True".into(),
        _ => "False".into(),
    }),
    integer("Active", |s| s.list("status.active").len().into()),
    text("Last Schedule", |s| match s.str("status.lastScheduleTime") {
        "" => "<none>".into(),
        last => s.since(last).into(),
    }),
    AGE,
    wide("Containers", |s| containers_of(s, "spec.jobTemplate.spec.template.spec", "name")),
    wide("Images", |s| containers_of(s, "spec.jobTemplate.spec.template.spec", "image")),
    wide("Selector", |s| selector(s.at("spec.jobTemplate.spec").at("selector")).into()),
];

pub(super) const AUTOSCALER: Kind = &[
    NAME,
    text("Reference", |s| {
        format!("{}/{}", s.str("spec.scaleTargetRef.kind"), s.str("spec.scaleTargetRef.name")).into()
    }),
    text("Targets", |s| metrics(s.list("spec.metrics"), s.list("status.currentMetrics")).into()),
    text("MinPods", |s| {
        let least = s.at("spec.minReplicas").as_i64();
        least.map_or("<unset>".to_string(), |least| least.to_string()).into()
    }),
    text("MaxPods", |s| s.count("spec.maxReplicas")),
    text("Replicas", |s| s.count("status.currentReplicas")),
    AGE,
];

pub(super) const DISRUPTION_BUDGET: Kind = &[
    NAME,
    text("Min Available", |s| amount(s, "spec.minAvailable")),
    text("Max Unavailable", |s| amount(s, "spec.maxUnavailable")),
    integer("Allowed Disruptions", |s| s.count("status.disruptionsAllowed")),
    AGE,
];

/// What the containers of a pod spec say in one of their fields.
pub(super) fn containers_of(subject: &Subject, spec: &str, field: &str) -> Value {
    let texts: Vec<&str> = subject.at(spec).items("containers").iter().map(|c| c.text(field)).collect();
    texts.join(",").into()
}

/// `a=b,c=d` of a map field.
pub(super) fn labels(parent: &Value, field: &str) -> String {
    let pairs: Vec<String> = parent
        .entries(field)
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    or_none(&pairs.join(",")).to_string()
}

/// The text of a `LabelSelector` object.
pub(super) fn selector(object: Option<&Value>) -> String {
    match LabelSelector::from_object(object) {
        Err(_) => "<error>".to_string(),
        Ok(selector) => or_none(&selector.to_string()).to_string(),
    }
}

fn controller(subject: &Subject) -> Option<String> {
    let owner = subject.list("metadata.ownerReferences").iter().find(|owner| owner.flag("controller"))?;
    let kind = owner.text("kind").to_lowercase();
    let group = owner.text("apiVersion").split_once('/').map(|(group, _)| format!(".{group}"));
    Some(format!("{kind}{}/{}", group.unwrap_or_default(), owner.text("name")))
}

fn job_state(subject: &Subject) -> Value {
    let has = |kind: &str| {
        let conditions = subject.list("status.conditions").iter();
        conditions.filter(|c| c.text("type") == kind).any(|c| c.text("status") == "True")
    };
    let state = if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if !subject.at("metadata.deletionTimestamp").is_null() {
        "Terminating"
    } else {
        ["Suspended", "FailureTarget", "SuccessCriteriaMet"].into_iter().find(|c| has(c)).unwrap_or("Running")
    };
    state.into()
}

fn job_duration(subject: &Subject) -> String {
    let time = |field: &str| subject.status().text(field).parse::<Timestamp>().ok();
    let Some(start) = time("startTime") else { return String::new() };
    let end = time("completionTime").unwrap_or(subject.now);
    humanize::duration(end.as_second() - start.as_second())
}

fn amount(subject: &Subject, path: &str) -> Value {
    match subject.at(path) {
        Value::Null => "N/A".into(),
        Value::String(text) => text.as_str().into(),
        other => other.to_string().into(),
    }
}

/// `cpu: 12%/80%, memory: 100Mi/200Mi + 1 more...`
fn metrics(specs: &[Value], statuses: &[Value]) -> String {
    const SHOWN_MAX: usize = 2;
    if specs.is_empty() {
        return "<none>".to_string();
    }
    let all: Vec<String> =
        specs.iter().enumerate().map(|(index, spec)| metric(spec, statuses.get(index))).collect();
    let shown = all.get(..SHOWN_MAX.min(all.len())).unwrap_or_default().join(", ");
    match all.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

fn metric(spec: &Value, status: Option<&Value>) -> String {
    let (source, is_resource) = match spec.text("type") {
        "External" => ("external", false),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        _ => return "<unknown type>".to_string(),
    };
    let target = spec.dig(&[source, "target"]).unwrap_or(&Value::Null);
    let current = |field: &str| status.and_then(|s| s.dig(&[source, "current", field]));
    let amount = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("<unknown>").to_string();
    let percent = |value: Option<&Value>, otherwise: &str| {
        value.and_then(Value::as_i64).map_or(otherwise.to_string(), |p| format!("{p}%"))
    };
    if is_resource {
        let name = spec.dig(&[source, "name"]).and_then(Value::as_str).unwrap_or_default();
        return match target.at("averageValue") {
            Some(wanted) => format!("{name}: {}/{}", amount(current("averageValue")), amount(Some(wanted))),
            None => format!(
                "{name}: {}/{}",
                percent(current("averageUtilization"), "<unknown>"),
                percent(target.at("averageUtilization"), "<auto>")
            ),
        };
    }
    match target.at("averageValue") {
        Some(wanted) if source == "pods" => {
            format!("{}/{}", amount(current("averageValue")), amount(Some(wanted)))
        }
        Some(wanted) => format!("{}/{} (avg)", amount(current("averageValue")), amount(Some(wanted))),
        None => format!("{}/{}", amount(current("value")), amount(target.at("value"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::fill, *};

    #[test]
    fn jobs_should_show_how_far_they_are() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let object = json!({"metadata": {"name": "j", "creationTimestamp": "2026-01-01T00:08:00Z"},
            "spec": {"completions": 3, "selector": {"matchLabels": {"a": "b"}},
                "template": {"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "k"}]}}},
            "status": {"succeeded": 1, "startTime": "2026-01-01T00:08:00Z"}});
        assert_eq!(
            fill(JOB, &Subject { object: &object, now }),
            ["j", "Running", "1/3", "2m", "2m", "c,d", "i,k", "a=b"]
        );
    }

    #[test]
    fn metrics_should_show_current_and_target() {
        let specs = [
            json!({"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}}),
            json!({"type": "Pods", "pods": {"target": {"averageValue": "10"}}}),
            json!({"type": "Pods", "pods": {"target": {"averageValue": "10"}}}),
        ];
        let statuses = [json!({"type": "Resource", "resource": {"current": {"averageUtilization": 12}}})];
        assert_eq!(metrics(&specs, &statuses), "cpu: 12%/80%, <unknown>/10 + 1 more...");
    }
}

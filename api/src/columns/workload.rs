//! Workloads and what watches over them.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Kind, NAME, Subject, boolean, count, integer, or_none, text, wide};
use crate::{field::Look, humanize, selector::LabelSelector};

pub(super) const DEPLOYMENT: Kind = (
    &[
        NAME,
        text("Ready"),
        text("Up-to-date"),
        text("Available"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    deployment,
);

pub(super) const REPLICA_SET: Kind = (
    &[
        NAME,
        integer("Desired"),
        integer("Current"),
        integer("Ready"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    replica_set,
);

pub(super) const REPLICATION_CONTROLLER: Kind = (REPLICA_SET.0, replication_controller);

pub(super) const DAEMON_SET: Kind = (
    &[
        NAME,
        integer("Desired"),
        integer("Current"),
        integer("Ready"),
        integer("Up-to-date"),
        integer("Available"),
        text("Node Selector"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    daemon_set,
);

pub(super) const STATEFUL_SET: Kind =
    (&[NAME, text("Ready"), AGE, wide("Containers"), wide("Images")], stateful_set);

pub(super) const CONTROLLER_REVISION: Kind =
    (&[NAME, text("Controller"), text("Revision"), AGE], controller_revision);

pub(super) const JOB: Kind = (
    &[
        NAME,
        text("Status"),
        text("Completions"),
        text("Duration"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    job,
);

pub(super) const CRON_JOB: Kind = (
    &[
        NAME,
        text("Schedule"),
        text("Timezone"),
        boolean("Suspend"),
        integer("Active"),
        text("Last Schedule"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cron_job,
);

pub(super) const AUTOSCALER: Kind = (
    &[NAME, text("Reference"), text("Targets"), text("MinPods"), text("MaxPods"), text("Replicas"), AGE],
    autoscaler,
);

pub(super) const DISRUPTION_BUDGET: Kind = (
    &[NAME, text("Min Available"), text("Max Unavailable"), integer("Allowed Disruptions"), AGE],
    disruption_budget,
);

/// The names and the images of a pod spec's containers.
pub(super) fn containers_and_images(spec: &Value) -> (String, String) {
    let joined = |field: &str| {
        let texts: Vec<&str> = spec.items("containers").iter().map(|c| c.text(field)).collect();
        texts.join(",")
    };
    (joined("name"), joined("image"))
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

fn template_cells(spec: &Value) -> [Value; 3] {
    let pod = spec.dig(&["template", "spec"]).unwrap_or(&Value::Null);
    let (names, images) = containers_and_images(pod);
    [names.into(), images.into(), selector(spec.at("selector")).into()]
}

fn deployment(subject: &Subject) -> Vec<Value> {
    let (spec, status) = (subject.spec(), subject.status());
    let mut cells = vec![
        subject.name().into(),
        format!("{}/{}", count(status, "readyReplicas"), count(spec, "replicas")).into(),
        count(status, "updatedReplicas").into(),
        count(status, "availableReplicas").into(),
        subject.age().into(),
    ];
    cells.extend(template_cells(spec));
    cells
}

fn replica_set(subject: &Subject) -> Vec<Value> {
    let (spec, status) = (subject.spec(), subject.status());
    let mut cells = vec![
        subject.name().into(),
        count(spec, "replicas").into(),
        count(status, "replicas").into(),
        count(status, "readyReplicas").into(),
        subject.age().into(),
    ];
    cells.extend(template_cells(spec));
    cells
}

fn replication_controller(subject: &Subject) -> Vec<Value> {
    let mut cells = replica_set(subject);
    if let Some(last) = cells.last_mut() {
        *last = labels(subject.spec(), "selector").into();
    }
    cells
}

fn daemon_set(subject: &Subject) -> Vec<Value> {
    let (spec, status) = (subject.spec(), subject.status());
    let mut cells = vec![
        subject.name().into(),
        count(status, "desiredNumberScheduled").into(),
        count(status, "currentNumberScheduled").into(),
        count(status, "numberReady").into(),
        count(status, "updatedNumberScheduled").into(),
        count(status, "numberAvailable").into(),
        labels(spec.dig(&["template", "spec"]).unwrap_or(&Value::Null), "nodeSelector").into(),
        subject.age().into(),
    ];
    cells.extend(template_cells(spec));
    cells
}

fn stateful_set(subject: &Subject) -> Vec<Value> {
    let (spec, status) = (subject.spec(), subject.status());
    let [names, images, _] = template_cells(spec);
    let ready = format!("{}/{}", count(status, "readyReplicas"), count(spec, "replicas"));
    vec![subject.name().into(), ready.into(), subject.age().into(), names, images]
}

fn controller_revision(subject: &Subject) -> Vec<Value> {
    let owners = subject.metadata().items("ownerReferences");
    let controller = owners.iter().find(|owner| owner.flag("controller")).map(|owner| {
        let group = owner.text("apiVersion").split_once('/').map(|(group, _)| group);
        let kind = owner.text("kind").to_lowercase();
        let kind = group.map_or(kind.clone(), |group| format!("{kind}.{group}"));
        format!("{kind}/{}", owner.text("name"))
    });
    vec![
        subject.name().into(),
        or_none(&controller.unwrap_or_default()).into(),
        count(subject.object, "revision").into(),
        subject.age().into(),
    ]
}

fn job(subject: &Subject) -> Vec<Value> {
    let (spec, status) = (subject.spec(), subject.status());
    let succeeded = count(status, "succeeded");
    let completions = match (spec.int("completions"), count(spec, "parallelism")) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let has = |kind: &str| {
        status.items("conditions").iter().any(|c| c.text("type") == kind && c.text("status") == "True")
    };
    let state = if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if subject.metadata().at("deletionTimestamp").is_some() {
        "Terminating"
    } else {
        ["Suspended", "FailureTarget", "SuccessCriteriaMet"].into_iter().find(|c| has(c)).unwrap_or("Running")
    };
    let mut cells = vec![
        subject.name().into(),
        state.into(),
        completions.into(),
        job_duration(subject).into(),
        subject.age().into(),
    ];
    cells.extend(template_cells(spec));
    cells
}

fn job_duration(subject: &Subject) -> String {
    let time = |field: &str| subject.status().text(field).parse::<Timestamp>().ok();
    let Some(start) = time("startTime") else { return String::new() };
    let end = time("completionTime").unwrap_or(subject.now);
    humanize::duration(end.as_second() - start.as_second())
}

fn cron_job(subject: &Subject) -> Vec<Value> {
    let (spec, status) = (subject.spec(), subject.status());
    let last = status.text("lastScheduleTime");
    let job = spec.dig(&["jobTemplate", "spec"]).unwrap_or(&Value::Null);
    let suspend = match spec.at("suspend") {
        Some(Value::Bool(true)) => "True",
        Some(_) => "False",
        None => "<unset>",
    };
    let active = i64::try_from(status.items("active").len()).unwrap_or_default();
    let mut cells = vec![
        subject.name().into(),
        spec.text("schedule").into(),
        or_none(spec.text("timeZone")).into(),
        suspend.into(),
        active.into(),
        if last.is_empty() { "<none>".to_string() } else { subject.since(last) }.into(),
        subject.age().into(),
    ];
    cells.extend(template_cells(job));
    cells
}

fn disruption_budget(subject: &Subject) -> Vec<Value> {
    let amount = |field: &str| match subject.spec().at(field) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "N/A".to_string(),
    };
    vec![
        subject.name().into(),
        amount("minAvailable").into(),
        amount("maxUnavailable").into(),
        count(subject.status(), "disruptionsAllowed").into(),
        subject.age().into(),
    ]
}

fn autoscaler(subject: &Subject) -> Vec<Value> {
    let (spec, status) = (subject.spec(), subject.status());
    let target = spec.get("scaleTargetRef").unwrap_or(&Value::Null);
    let least = spec.int("minReplicas").map_or("<unset>".to_string(), |least| least.to_string());
    vec![
        subject.name().into(),
        format!("{}/{}", target.text("kind"), target.text("name")).into(),
        metrics(spec.items("metrics"), status.items("currentMetrics")).into(),
        least.into(),
        count(spec, "maxReplicas").into(),
        count(status, "currentReplicas").into(),
        subject.age().into(),
    ]
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

    use super::*;

    #[test]
    fn jobs_should_show_how_far_they_are() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let object = json!({"metadata": {"name": "j", "creationTimestamp": "2026-01-01T00:08:00Z"},
            "spec": {"completions": 3, "selector": {"matchLabels": {"a": "b"}},
                "template": {"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "k"}]}}},
            "status": {"succeeded": 1, "startTime": "2026-01-01T00:08:00Z"}});
        assert_eq!(
            job(&Subject { object: &object, now }),
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

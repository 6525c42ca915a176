//! What to do about one workload's replicas, and what to report. Pure but for the history, which it keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::quantity::{Format, Quantity};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition,
    HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
    ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::rate::History;
use super::usage::{Goal, Proposal, Sample, Tolerance, Usage};

const TOLERANCE: f64 = 0.1;

/// The use of resources, by container (empty: all of a pod's), resource and pod.
pub(super) type Samples = BTreeMap<(String, String), BTreeMap<String, Sample>>;

/// What is known of the workload.
pub(super) struct Snapshot<'a> {
    pub autoscaler: &'a HorizontalPodAutoscaler,
    pub current: i32,
    pub pods: &'a [Arc<Pod>],
    /// Or why there are none.
    pub samples: Result<&'a Samples, String>,
}

/// What to do.
#[derive(Debug)]
pub(super) struct Plan {
    pub status: HorizontalPodAutoscalerStatus,
    /// The new number of replicas, with the reason.
    pub scale: Option<(i32, String)>,
    /// Reasons and messages of warnings.
    pub warnings: Vec<(&'static str, String)>,
}

/// What the metrics call for: replicas, and the metric that calls for most.
struct Wanted {
    replicas: i32,
    metric: String,
}

pub(super) fn decide(snapshot: &Snapshot<'_>, history: &mut History, now: Timestamp) -> Plan {
    let spec = &snapshot.autoscaler.spec;
    let mut plan = begin(snapshot.autoscaler, snapshot.current);
    let current = snapshot.current;
    history.begin(current, now);
    plan.tell(
        "AbleToScale",
        true,
        "SucceededGetScale",
        "the HPA controller was able to get the target's current scale",
        now,
    );
    let (least, most) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
    if current == 0 {
        let message = "scaling is disabled since the replica count of the target is zero";
        plan.tell("ScalingActive", false, "ScalingDisabled", message, now);
        plan.status.desired_replicas = 0;
    } else if current > most {
        plan.scale = Some((most, "Current number of replicas above Spec.MaxReplicas".into()));
    } else if current < least {
        plan.scale = Some((least, "Current number of replicas below Spec.MinReplicas".into()));
    } else if let Some(wanted) = wanted(snapshot, &mut plan, now) {
        let behavior = spec.behavior.as_ref();
        let (stable, held) = history.stabilize(behavior, current, wanted.replicas, now);
        let (reason, message) = held.unwrap_or(("ReadyForNewScale", "recommended size matches current size"));
        plan.tell("AbleToScale", true, reason, message, now);
        let (replicas, limited) = history.limit(behavior, current, stable, (least, most), now);
        let within = ("DesiredWithinRange", "the desired count is within the acceptable range");
        let (reason, message) = limited.unwrap_or(within);
        plan.tell("ScalingLimited", limited.is_some(), reason, message, now);
        let because = if wanted.replicas > current {
            format!("{} above target", wanted.metric)
        } else {
            "All metrics below target".into()
        };
        plan.status.desired_replicas = replicas;
        plan.scale = (replicas != current).then_some((replicas, because));
    }
    if let Some((replicas, _)) = &plan.scale {
        plan.status.desired_replicas = *replicas;
    }
    plan
}

fn begin(autoscaler: &HorizontalPodAutoscaler, current: i32) -> Plan {
    let mut status = autoscaler.status.clone().unwrap_or_default();
    status.observed_generation = autoscaler.metadata.generation;
    status.current_replicas = Some(current);
    Plan { status, scale: None, warnings: Vec::new() }
}

/// The plan for a workload that cannot be found or has no scale.
pub(super) fn without_scale(autoscaler: &HorizontalPodAutoscaler, error: &str, now: Timestamp) -> Plan {
    let mut plan =
        begin(autoscaler, autoscaler.status.as_ref().and_then(|s| s.current_replicas).unwrap_or(0));
    let message = format!("the HPA controller was unable to get the target's current scale: {error}");
    plan.tell("AbleToScale", false, "FailedGetScale", &message, now);
    plan.warnings.push(("FailedGetScale", error.into()));
    plan
}

/// The most that any metric calls for. A metric that cannot be computed keeps a workload from shrinking.
fn wanted(snapshot: &Snapshot<'_>, plan: &mut Plan, now: Timestamp) -> Option<Wanted> {
    let metrics = snapshot.autoscaler.spec.metrics.as_deref().unwrap_or_default();
    let mut wanted: Option<Wanted> = None;
    let mut statuses = Vec::new();
    let mut failures: Vec<(&'static str, String)> = Vec::new();
    for metric in metrics {
        match one(snapshot, metric, now) {
            Ok((replicas, name, status)) => {
                statuses.push(status);
                if wanted.as_ref().is_none_or(|most| replicas > most.replicas) {
                    wanted = Some(Wanted { replicas, metric: name });
                }
            }
            Err(failure) => failures.push(failure),
        }
    }
    plan.status.current_metrics = Some(statuses).filter(|statuses| !statuses.is_empty());
    let blind =
        !failures.is_empty() && wanted.as_ref().is_none_or(|wanted| wanted.replicas < snapshot.current);
    if let Some((reason, message)) = failures.first().cloned() {
        plan.warnings.push((reason, message.clone()));
        if blind {
            let told = format!("the HPA was unable to compute the replica count: {message}");
            plan.tell("ScalingActive", false, reason, &told, now);
            let (failed, all) = (failures.len(), metrics.len());
            let told = format!("invalid metrics ({failed} invalid out of {all}), first error is: {message}");
            plan.warnings.push(("FailedComputeMetricsReplicas", told));
            return None;
        }
    }
    let wanted = wanted?;
    let message =
        format!("the HPA was able to successfully calculate a replica count from {}", wanted.metric);
    plan.tell("ScalingActive", true, "ValidMetricFound", &message, now);
    Some(wanted)
}

type Computed = (i32, String, MetricStatus);

fn one(
    snapshot: &Snapshot<'_>,
    metric: &MetricSpec,
    now: Timestamp,
) -> Result<Computed, (&'static str, String)> {
    let mut status = MetricStatus { type_: metric.type_.clone(), ..MetricStatus::default() };
    if let Some(source) = &metric.resource {
        let (proposal, name) = resource_use(snapshot, &source.name, None, &source.target, now)
            .map_err(|error| ("FailedGetResourceMetric", error))?;
        let current = value(&source.name, &proposal);
        status.resource = Some(ResourceMetricStatus { name: source.name.clone(), current });
        return Ok((proposal.replicas, name, status));
    }
    if let Some(source) = &metric.container_resource {
        let container = Some(source.container.as_str());
        let (proposal, name) = resource_use(snapshot, &source.name, container, &source.target, now)
            .map_err(|error| ("FailedGetContainerResourceMetric", error))?;
        status.container_resource = Some(ContainerResourceMetricStatus {
            name: source.name.clone(),
            container: source.container.clone(),
            current: value(&source.name, &proposal),
        });
        return Ok((proposal.replicas, name, status));
    }
    let reason = match metric.type_.as_str() {
        "Pods" => "FailedGetPodsMetric",
        "Object" => "FailedGetObjectMetric",
        _ => "FailedGetExternalMetric",
    };
    Err((
        reason,
        format!("metrics of type {} are not supported: this cluster measures resources only", metric.type_),
    ))
}

fn resource_use(
    snapshot: &Snapshot<'_>,
    resource: &str,
    container: Option<&str>,
    target: &MetricTarget,
    now: Timestamp,
) -> Result<(Proposal, String), String> {
    let average = target.average_value.as_ref().and_then(|amount| amount.0.parse::<Quantity>().ok());
    let (goal, what) = match (average, target.average_utilization) {
        (Some(amount), _) => (Goal::AverageMilli(amount.milli_value()), "usage"),
        (None, Some(percent)) => (Goal::Utilization(percent.into()), "utilization"),
        (None, None) => {
            let error = "invalid resource metric source: neither an average utilization target nor an average value \
                 (usage) target was set";
            return Err(error.into());
        }
    };
    let failed = |error: String| format!("failed to get {resource} {what}: {error}");
    let none = BTreeMap::new();
    let samples = snapshot
        .samples
        .as_ref()
        .map_err(|error| failed(format!("unable to get metrics for resource {resource}: {error}")))?;
    let key = (container.unwrap_or_default().to_string(), resource.to_string());
    let usage = Usage {
        resource,
        container,
        goal,
        pods: snapshot.pods,
        samples: samples.get(&key).unwrap_or(&none),
        tolerance: tolerance(snapshot.autoscaler),
    };
    let proposal = usage.propose(snapshot.current, now).map_err(failed)?;
    let of_container = if container.is_some() { "container " } else { "" };
    let name = match goal {
        Goal::Utilization(_) => {
            format!("{resource} {of_container}resource utilization (percentage of request)")
        }
        Goal::AverageMilli(_) => format!("{resource} resource"),
    };
    Ok((proposal, name))
}

fn tolerance(autoscaler: &HorizontalPodAutoscaler) -> Tolerance {
    let behavior = autoscaler.spec.behavior.as_ref();
    let of = |rules: Option<&k8s_openapi::api::autoscaling::v2::HPAScalingRules>| {
        let given = rules.and_then(|rules| rules.tolerance.as_ref());
        let milli =
            given.and_then(|amount| amount.0.parse::<Quantity>().ok()).map(|amount| amount.milli_value());
        milli.and_then(|milli| i32::try_from(milli).ok()).map_or(TOLERANCE, |milli| f64::from(milli) / 1000.0)
    };
    Tolerance {
        down: of(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
        up: of(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
    }
}

fn value(resource: &str, proposal: &Proposal) -> MetricValueStatus {
    let amount = match resource {
        "memory" => Quantity::new(proposal.average_milli / 1000, Format::BinarySi),
        _ => Quantity::from_milli(proposal.average_milli),
    };
    MetricValueStatus {
        average_utilization: proposal.utilization,
        average_value: Some(resource::Quantity(amount.to_string())),
        value: None,
    }
}

impl Plan {
    /// Sets a condition; its time moves only with its status.
    pub fn tell(&mut self, type_: &str, status: bool, reason: &str, message: &str, now: Timestamp) {
        let mut new = HorizontalPodAutoscalerCondition {
            type_: type_.into(),
            status: if status { "True" } else { "False" }.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_transition_time: Some(Time(now)),
        };
        let conditions = self.status.conditions.get_or_insert_default();
        match conditions.iter_mut().find(|known| known.type_ == type_) {
            Some(known) => {
                if known.status == new.status {
                    new.last_transition_time = known.last_transition_time.clone();
                }
                *known = new;
            }
            None => conditions.push(new),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use serde_json::json;

    use super::*;
    use crate::testing::{at, ready_pod};

    fn autoscaler() -> HorizontalPodAutoscaler {
        let target = json!({"type": "Utilization", "averageUtilization": 50});
        serde_json::from_value(json!({"metadata": {"name": "web", "generation": 3}, "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 5,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]}}))
        .unwrap()
    }

    fn pods(count: usize) -> Vec<Arc<Pod>> {
        let spec = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]});
        let one = |number: usize| {
            let mut pod = ready_pod(&format!("p{number}"), "n", at(0));
            pod.status.as_mut().unwrap().start_time = Some(Time(at(0)));
            pod.spec = Some(serde_json::from_value(spec.clone()).unwrap());
            Arc::new(pod)
        };
        (0..count).map(one).collect()
    }

    fn plan(current: usize, milli: Option<i64>, second: i64, history: &mut History) -> Plan {
        let pods = pods(current);
        let sample = |milli| Sample { milli, at: at(second), window: SignedDuration::from_secs(10) };
        let by_pod =
            |milli| pods.iter().map(|pod| (pod.metadata.name.clone().unwrap(), sample(milli))).collect();
        let samples = milli.map(|milli| Samples::from([((String::new(), "cpu".into()), by_pod(milli))]));
        let snapshot = Snapshot {
            autoscaler: &autoscaler(),
            current: i32::try_from(current).unwrap(),
            pods: &pods,
            samples: samples.as_ref().ok_or_else(|| "down".to_string()),
        };
        decide(&snapshot, history, at(second))
    }

    fn condition(plan: &Plan, type_: &str) -> (String, String) {
        let all = plan.status.conditions.as_ref().unwrap();
        let found = all.iter().find(|condition| condition.type_ == type_).unwrap();
        (found.status.clone(), found.reason.clone().unwrap())
    }

    #[test]
    fn a_busy_workload_grows_within_its_bounds() {
        let plan = plan(2, Some(200), 600, &mut History::default());
        let because = "cpu resource utilization (percentage of request) above target".to_string();
        assert_eq!(plan.scale, Some((4, because)));
        assert_eq!(condition(&plan, "ScalingLimited"), ("True".into(), "ScaleUpLimit".into()));
        assert_eq!(plan.status.desired_replicas, 4);
        let shown = serde_json::to_value(plan.status.current_metrics.unwrap()).unwrap();
        assert_eq!(
            shown[0]["resource"]["current"],
            json!({"averageUtilization": 200, "averageValue": "200m"})
        );
    }

    #[test]
    fn an_idle_workload_shrinks_only_after_the_window() {
        let mut history = History::default();
        let early = plan(3, Some(5), 600, &mut history);
        assert_eq!(early.scale, None);
        assert_eq!(condition(&early, "AbleToScale"), ("True".into(), "ScaleDownStabilized".into()));
        let late = plan(3, Some(5), 901, &mut history);
        assert_eq!(late.scale, Some((1, "All metrics below target".into())));
    }

    #[test]
    fn without_metrics_nothing_changes_and_the_status_says_why() {
        let plan = plan(3, None, 600, &mut History::default());
        assert!(plan.scale.is_none());
        assert_eq!(condition(&plan, "ScalingActive"), ("False".into(), "FailedGetResourceMetric".into()));
        assert_eq!(plan.warnings.len(), 2);
    }

    #[test]
    fn a_workload_of_none_is_left_alone_and_one_beyond_its_bounds_brought_back() {
        let none = plan(0, Some(1), 600, &mut History::default());
        assert_eq!(
            (none.scale.is_none(), condition(&none, "ScalingActive").1),
            (true, "ScalingDisabled".into())
        );
        assert_eq!(plan(9, Some(1), 600, &mut History::default()).scale.unwrap().0, 5);
    }
}

//! How many replicas the use of a resource calls for. Pure.
//!
//! Pods that do not count yet (starting, not ready) and pods without a measurement are taken to make the case weaker, never
//! stronger: as idle when there should be more pods, as fully busy when there should be fewer.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};

use crate::common::pods;

/// So long after its start a pod's use of CPU may be that of starting.
const STARTING: SignedDuration = SignedDuration::from_mins(5);
/// A pod that becomes not ready so soon has never been ready.
const FIRST_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// What one pod used.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub milli: i64,
    pub at: Timestamp,
    /// Over how long it was measured.
    pub window: SignedDuration,
}

/// What a pod should use.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    /// A percentage of what it requests.
    Utilization(i64),
    /// An amount.
    AverageMilli(i64),
}

/// By how much the use may differ from the goal without any effect, as parts of the goal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerance {
    pub down: f64,
    pub up: f64,
}

/// Whose use of what is looked at.
pub(super) struct Usage<'a> {
    pub resource: &'a str,
    /// One container of each pod rather than all.
    pub container: Option<&'a str>,
    pub goal: Goal,
    pub pods: &'a [Arc<Pod>],
    pub samples: &'a BTreeMap<String, Sample>,
    pub tolerance: Tolerance,
}

/// The replicas that a resource calls for, and how it is used.
#[derive(Debug, PartialEq)]
pub(super) struct Proposal {
    pub replicas: i32,
    pub utilization: Option<i32>,
    pub average_milli: i64,
}

/// The use of some pods against the goal.
struct Ratio {
    value: f64,
    utilization: Option<i32>,
    average_milli: i64,
}

#[derive(PartialEq)]
enum Standing {
    Counts,
    Unready,
    Missing,
    Ignored,
}

impl Usage<'_> {
    pub fn propose(&self, current: i32, now: Timestamp) -> Result<Proposal, String> {
        if self.pods.is_empty() {
            return Err("no pods returned by selector while calculating replica count".into());
        }
        let of = |wanted: Standing| {
            self.pods
                .iter()
                .filter(|pod| self.standing(pod, now) == wanted)
                .map(|pod| pods::name(pod))
                .collect()
        };
        let (counted, unready, missing): (Vec<&str>, Vec<&str>, Vec<&str>) =
            (of(Standing::Counts), of(Standing::Unready), of(Standing::Missing));
        let mut used: BTreeMap<&str, i64> = counted
            .iter()
            .filter_map(|name| self.samples.get(*name).map(|sample| (*name, sample.milli)))
            .collect();
        if used.is_empty() {
            return Err("did not receive metrics for targeted pods (pods might be unready)".into());
        }
        let wanted = self.wanted_by_pod()?;
        let first = self.ratio(&used, &wanted)?;
        let proposal = |replicas| Proposal {
            replicas,
            utilization: first.utilization,
            average_milli: first.average_milli,
        };
        let more_despite_unready = !unready.is_empty() && first.value > 1.0;
        if !more_despite_unready && missing.is_empty() {
            let enough = self.tolerance.covers(first.value);
            return Ok(proposal(if enough { current } else { rounded_up(first.value, counted.len()) }));
        }
        for name in missing.into_iter().filter(|_| first.value != 1.0) {
            let busy = match self.goal {
                Goal::Utilization(percent) => {
                    wanted.get(name).map_or(0, |wanted| wanted * percent.max(100) / 100)
                }
                Goal::AverageMilli(amount) => amount,
            };
            used.insert(name, if first.value < 1.0 { busy } else { 0 });
        }
        if more_despite_unready {
            used.extend(unready.into_iter().map(|name| (name, 0)));
        }
        let second = self.ratio(&used, &wanted)?.value;
        let replicas = rounded_up(second, used.len());
        let turned = (first.value - 1.0) * (second - 1.0) < 0.0;
        let against = (second < 1.0 && replicas > current) || (second > 1.0 && replicas < current);
        Ok(proposal(if self.tolerance.covers(second) || turned || against { current } else { replicas }))
    }

    fn standing(&self, pod: &Pod, now: Timestamp) -> Standing {
        match pods::phase(pod) {
            _ if pods::is_terminating(pod) => return Standing::Ignored,
            "Failed" => return Standing::Ignored,
            "Pending" => return Standing::Unready,
            _ => {}
        }
        let Some(sample) = self.samples.get(pods::name(pod)) else { return Standing::Missing };
        if self.resource != "cpu" {
            return Standing::Counts;
        }
        let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
        let (Some(ready), Some(started)) = (pods::condition(pod, "Ready"), started) else {
            return Standing::Unready;
        };
        let since = ready.last_transition_time.as_ref().map_or(started.0, |time| time.0);
        let is_unready = ready.status == "False";
        let unready = if started.0 + STARTING > now {
            is_unready || sample.at < since + sample.window
        } else {
            is_unready && started.0 + FIRST_READINESS > since
        };
        if unready { Standing::Unready } else { Standing::Counts }
    }

    /// What the goal is a percentage of, by pod.
    fn wanted_by_pod(&self) -> Result<BTreeMap<&str, i64>, String> {
        match self.goal {
            Goal::AverageMilli(_) => Ok(BTreeMap::new()),
            Goal::Utilization(_) => {
                self.pods.iter().map(|pod| Ok((pods::name(pod), self.requested(pod)?))).collect()
            }
        }
    }

    fn requested(&self, pod: &Pod) -> Result<i64, String> {
        let amount = |requirements: Option<&ResourceRequirements>| -> Option<i64> {
            let quantity = requirements?.requests.as_ref()?.get(self.resource)?;
            Some(quantity.0.parse::<api::quantity::Quantity>().ok()?.milli_value())
        };
        let Some(spec) = &pod.spec else { return Ok(0) };
        if self.container.is_none()
            && let Some(whole) = amount(spec.resources.as_ref())
        {
            return Ok(whole);
        }
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        let mut total = 0;
        for container in spec.containers.iter().chain(sidecars) {
            if self.container.is_some_and(|wanted| wanted != container.name) {
                continue;
            }
            total += amount(container.resources.as_ref()).ok_or_else(|| {
                let (resource, container, pod) = (self.resource, &container.name, pods::name(pod));
                format!("missing request for {resource} in container {container} of Pod {pod}")
            })?;
        }
        Ok(total)
    }

    fn ratio(&self, used: &BTreeMap<&str, i64>, wanted: &BTreeMap<&str, i64>) -> Result<Ratio, String> {
        let total: i64 = used.values().sum();
        let average_milli = total / i64::try_from(used.len()).unwrap_or(i64::MAX).max(1);
        match self.goal {
            Goal::AverageMilli(goal) => {
                Ok(Ratio { value: share(average_milli, goal), utilization: None, average_milli })
            }
            Goal::Utilization(percent) => {
                let requested: i64 = used.keys().filter_map(|name| wanted.get(name)).sum();
                if requested == 0 {
                    return Err("no metrics returned matched known pods".into());
                }
                let utilization = total * 100 / requested;
                let value = share(utilization, percent);
                Ok(Ratio { value, utilization: i32::try_from(utilization).ok(), average_milli })
            }
        }
    }
}

impl Tolerance {
    fn covers(&self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

#[allow(clippy::cast_precision_loss)]
fn share(part: i64, whole: i64) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
fn rounded_up(ratio: f64, count: usize) -> i32 {
    // A cast saturates, and the rates and the maximum bound what comes of it.
    (ratio * count as f64).ceil() as i32
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;
    use crate::testing::{at, ready_pod};

    fn pod(name: &str, phase: &str) -> Arc<Pod> {
        let mut pod = ready_pod(name, "n", at(0));
        let status = pod.status.as_mut().unwrap();
        (status.phase, status.start_time) = (Some(phase.into()), Some(Time(at(0))));
        pod.spec = Some(
            serde_json::from_value(
                json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}),
            )
            .unwrap(),
        );
        Arc::new(pod)
    }

    fn propose(pods: &[Arc<Pod>], used: &[(&str, i64)], goal: Goal) -> Result<Proposal, String> {
        let sample = |milli: i64| Sample { milli, at: at(600), window: SignedDuration::from_secs(10) };
        let samples = used.iter().map(|(name, milli)| (name.to_string(), sample(*milli))).collect();
        let tolerance = Tolerance { down: 0.1, up: 0.1 };
        let current = i32::try_from(pods.len()).unwrap();
        let usage = Usage { resource: "cpu", container: None, goal, pods, samples: &samples, tolerance };
        usage.propose(current, at(600))
    }

    #[test]
    fn replicas_follow_the_use_beyond_the_tolerance() {
        let pods = [pod("a", "Running"), pod("b", "Running")];
        let replicas = |a: i64, b: i64| propose(&pods, &[("a", a), ("b", b)], Goal::Utilization(50)).unwrap();
        assert_eq!(
            replicas(1000, 1000),
            Proposal { replicas: 4, utilization: Some(100), average_milli: 1000 }
        );
        assert_eq!(replicas(540, 540).replicas, 2);
        assert_eq!(replicas(100, 200).replicas, 1);
        let average = propose(&pods, &[("a", 300), ("b", 500)], Goal::AverageMilli(100)).unwrap();
        assert_eq!(average, Proposal { replicas: 8, utilization: None, average_milli: 400 });
    }

    #[test]
    fn pods_that_tell_nothing_weaken_the_case() {
        let pods = [pod("a", "Running"), pod("b", "Running"), pod("starting", "Pending")];
        // Idle pods count in when there should be more ...
        assert_eq!(propose(&pods, &[("a", 900), ("b", 900)], Goal::Utilization(30)).unwrap().replicas, 6);
        // ... and one without a sample is busy when there should be fewer.
        assert_eq!(propose(&pods, &[("a", 100)], Goal::Utilization(50)).unwrap().replicas, 3);
    }

    #[test]
    fn without_requests_or_samples_there_is_no_proposal() {
        let mut bare = pod("a", "Running").as_ref().clone();
        bare.spec.as_mut().unwrap().containers[0].resources = None;
        let error = propose(&[Arc::new(bare)], &[("a", 1)], Goal::Utilization(50)).unwrap_err();
        assert_eq!(error, "missing request for cpu in container c of Pod a");
        assert!(propose(&[pod("a", "Running")], &[], Goal::Utilization(50)).is_err());
    }
}

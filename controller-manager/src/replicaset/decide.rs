//! How many pods to make or delete, which ones, and what to report. Pure.

use std::sync::Arc;
use std::time::Duration;

use client::ErrorExt;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::kinds::ReplicaOwner;
use crate::common::conditions::until;
use crate::common::owned_pods::Failure;
use crate::common::pod_control::BURST_MAX;
use crate::common::pods;

/// What to do about the number of pods.
#[derive(Debug, PartialEq)]
pub(super) enum Scaling {
    Keep,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

/// Compares the claimed pods with the wanted number. `crowd` says how many replicas share a pod's node.
pub(super) fn scaling(
    claimed: &[Arc<Pod>],
    wanted: usize,
    crowd: impl Fn(&Pod) -> usize,
    now: Timestamp,
) -> Scaling {
    let mut active: Vec<Arc<Pod>> = claimed.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
    if active.len() < wanted {
        return Scaling::Create((wanted - active.len()).min(BURST_MAX));
    }
    let surplus = (active.len() - wanted).min(BURST_MAX);
    if surplus == 0 {
        return Scaling::Keep;
    }
    if surplus < active.len() {
        pods::sort_for_deletion(&mut active, crowd, now);
    }
    active.truncate(surplus);
    Scaling::Delete(active)
}

/// The status that the pods and the last attempt to scale call for.
pub(super) fn status<O: ReplicaOwner>(
    owner: &O,
    claimed: &[Arc<Pod>],
    failure: Option<&Failure>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let labels = owner.template_labels();
    let min_ready_s = owner.min_ready_seconds();
    let active: Vec<&Arc<Pod>> = claimed.iter().filter(|pod| pods::is_active(pod)).collect();
    let count = |wanted: &dyn Fn(&Pod) -> bool| active.iter().filter(|pod| wanted(pod)).count();
    let fully_labelled =
        count(&|pod| labels.iter().all(|(key, value)| pods::labels(pod).get(key) == Some(value)));
    let terminating =
        claimed.iter().filter(|pod| pods::is_terminating(pod) && !pods::is_finished(pod)).count();
    let old = owner.status();
    ReplicaSetStatus {
        replicas: number(active.len()),
        fully_labeled_replicas: positive(fully_labelled),
        ready_replicas: positive(count(&|pod| pods::is_ready(pod))),
        available_replicas: positive(count(&|pod| pods::is_available(pod, min_ready_s, now))),
        terminating_replicas: Some(number(terminating)),
        observed_generation: owner.meta().generation.max(old.observed_generation),
        conditions: conditions(old.conditions, failure, now),
    }
}

fn conditions(
    old: Option<Vec<ReplicaSetCondition>>,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = old.unwrap_or_default();
    let known = conditions.iter().any(|condition| condition.type_ == "ReplicaFailure");
    match failure {
        Some(failure) if !known => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(if failure.creating { "FailedCreate" } else { "FailedDelete" }.into()),
            message: Some(failure.error.told()),
            last_transition_time: Some(Time(now)),
        }),
        None => conditions.retain(|condition| condition.type_ != "ReplicaFailure"),
        Some(_) => {}
    }
    Some(conditions).filter(|conditions| !conditions.is_empty())
}

/// How long until the next ready pod becomes available, if one has yet to.
pub(super) fn next_available(claimed: &[Arc<Pod>], min_ready_s: i32, now: Timestamp) -> Option<Duration> {
    claimed
        .iter()
        .filter(|pod| pods::is_active(pod))
        .filter_map(|pod| pods::available_at(pod, min_ready_s))
        .filter(|at| *at > now)
        .min()
        .map(|at| until(at, now))
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Counts of zero are left out, as upstream does.
fn positive(count: usize) -> Option<i32> {
    (count > 0).then(|| number(count))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::ReplicaSet;

    use super::*;
    use crate::testing::{at, ready_pod, running_pod};

    fn pods_of(count: usize) -> Vec<Arc<Pod>> {
        (0..count).map(|index| Arc::new(ready_pod(&format!("p{index}"), "n", at(0)))).collect()
    }

    #[test]
    fn missing_pods_are_created_and_surplus_ones_deleted() {
        assert_eq!(scaling(&pods_of(2), 5, |_| 0, at(1)), Scaling::Create(3));
        assert_eq!(scaling(&pods_of(2), 2, |_| 0, at(1)), Scaling::Keep);
        assert_eq!(scaling(&[], 600, |_| 0, at(1)), Scaling::Create(500));
        let mut pods = pods_of(2);
        pods.push(Arc::new(running_pod("not-ready", "n")));
        let Scaling::Delete(victims) = scaling(&pods, 2, |_| 0, at(1)) else { panic!("deletes") };
        assert_eq!(pods::name(&victims[0]), "not-ready");
    }

    #[test]
    fn finished_and_terminating_pods_are_replaced() {
        let mut failed = running_pod("failed", "n");
        failed.status.as_mut().unwrap().phase = Some("Failed".into());
        let mut leaving = running_pod("leaving", "n");
        leaving.metadata.deletion_timestamp = Some(Time(at(0)));
        let pods = [Arc::new(failed), Arc::new(leaving)];
        assert_eq!(scaling(&pods, 2, |_| 0, at(1)), Scaling::Create(2));
        let status = status(&ReplicaSet::default(), &pods, None, at(1));
        assert_eq!((status.replicas, status.terminating_replicas), (0, Some(1)));
    }

    #[test]
    fn a_failure_is_reported_once_and_taken_back_after_success() {
        let refusal = kube::core::Status::failure("pods \"p\" is forbidden: exceeded quota", "Forbidden");
        let failure = Failure { creating: true, error: kube::Error::Api(Box::new(refusal)) };
        let mut owner = ReplicaSet::default();
        let failed = status(&owner, &[], Some(&failure), at(1));
        let condition = &failed.conditions.as_ref().unwrap()[0];
        assert_eq!(condition.reason.as_deref(), Some("FailedCreate"));
        assert_eq!(condition.message.as_deref(), Some("pods \"p\" is forbidden: exceeded quota"));
        owner.status = Some(failed.clone());
        assert_eq!(status(&owner, &[], Some(&failure), at(2)), failed);
        assert_eq!(status(&owner, &[], None, at(3)).conditions, None);
    }

    /// The number of pods never overshoots, whatever the order in which a lagging watch and reconciles take turns.
    #[test]
    fn a_lagging_cache_never_doubles_pods() {
        use client::ObjectKey;
        use client::expectations::Expectations;
        use rand::{Rng, SeedableRng};

        for seed in 0..200 {
            let mut random = rand::rngs::StdRng::seed_from_u64(seed);
            let (expectations, key, now) =
                (Expectations::new(), ObjectKey::new("a", "b"), tokio::time::Instant::now());
            let (mut real, mut cached, mut made) = (Vec::<String>::new(), Vec::<String>::new(), 0);
            let mut pending: std::collections::VecDeque<(bool, String)> = Default::default();
            for step in 0..200 {
                let wanted = if step < 100 { 7 } else { 3 };
                if random.random_bool(0.5) {
                    let Some((added, name)) = pending.pop_front() else { continue };
                    if added {
                        expectations.creation_observed(&key);
                        cached.push(name);
                    } else {
                        expectations.deletion_observed(&key, &format!("uid-{name}"));
                        cached.retain(|known| *known != name);
                    }
                    continue;
                }
                if !expectations.satisfied(&key, now) {
                    continue;
                }
                let pods: Vec<Arc<Pod>> =
                    cached.iter().map(|name| Arc::new(ready_pod(name, "n", at(0)))).collect();
                match scaling(&pods, wanted, |_| 0, at(1)) {
                    Scaling::Keep => {}
                    Scaling::Create(count) => {
                        expectations.expect(&key, count, [], now);
                        for _ in 0..count {
                            made += 1;
                            real.push(format!("p{made}"));
                            pending.push_back((true, format!("p{made}")));
                        }
                    }
                    Scaling::Delete(victims) => {
                        let uids = victims.iter().map(|pod| pods::uid(pod).to_string());
                        expectations.expect(&key, 0, uids, now);
                        for pod in &victims {
                            real.retain(|known| known != pods::name(pod));
                            pending.push_back((false, pods::name(pod).into()));
                        }
                    }
                }
                assert!(real.len() <= 7, "seed {seed}: {} pods", real.len());
                assert!(step < 100 || real.len() >= 3, "seed {seed}: {} pods", real.len());
            }
            assert_eq!(real.len(), 3, "seed {seed}");
        }
    }
}

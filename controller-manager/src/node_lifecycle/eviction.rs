//! Pods leave nodes whose taints they do not tolerate, or no longer. The decision is pure.

use std::sync::Arc;

use client::patch::update_status;
use client::{EventRecorder, EventType, Forgive};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use kube::Api;
use kube::api::DeleteParams;

use crate::common::conditions::seconds;
use crate::common::pod_control::delete_exactly;
use crate::common::pods;

#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    Stay,
    Until(Timestamp),
    Evict,
}

/// The taints of a node that make pods leave.
pub(super) fn evicting_taints(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
    let key = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    let effect_fits = empty(&toleration.effect) || toleration.effect.as_deref() == Some(&taint.effect);
    let key_fits = if key.is_empty() { exists } else { key == taint.key };
    let value = |text: &Option<String>| text.clone().unwrap_or_default();
    effect_fits && key_fits && (exists || value(&toleration.value) == value(&taint.value))
}

/// Whether and when a pod has to leave: the earliest end of a toleration, at once if one is missing. Taints that do not say
/// when they came count from when they were first `seen`.
pub(super) fn decide(pod: &Pod, taints: &[Taint], seen: Timestamp, now: Timestamp) -> Decision {
    if taints.is_empty() || pods::is_terminating(pod) || pods::is_finished(pod) {
        return Decision::Stay;
    }
    let tolerations: Vec<&Toleration> =
        pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten()).collect();
    let mut earliest: Option<Timestamp> = None;
    for taint in taints {
        let fitting: Vec<_> = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).collect();
        if fitting.is_empty() {
            return Decision::Evict;
        }
        let Some(limit) = fitting.iter().filter_map(|toleration| toleration.toleration_seconds).min() else {
            continue;
        };
        let since = taint.time_added.as_ref().map_or(seen, |time| time.0);
        let end = since.checked_add(seconds(limit.max(0))).unwrap_or(Timestamp::MAX);
        earliest = Some(earliest.map_or(end, |known| known.min(end)));
    }
    match earliest {
        None => Decision::Stay,
        Some(end) if end <= now => Decision::Evict,
        Some(end) => Decision::Until(end),
    }
}

/// Marks the pod as disrupted and deletes it.
pub(super) async fn evict(
    api: &Api<Pod>,
    pod: &Arc<Pod>,
    recorder: &EventRecorder,
    now: Timestamp,
) -> Result<(), kube::Error> {
    let message = format!(
        "Marking for deletion Pod {}/{}",
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pods::name(pod)
    );
    recorder.record(pod.as_ref(), EventType::Normal, "TaintManagerEviction", message);
    let message = "Taint manager: deleting due to NoExecute taint";
    let marked = pods::disrupted(pod, "DeletionByTaintManager", message, now);
    match update_status(api, pod.as_ref(), &marked).await.if_found()? {
        Some(_) => delete_exactly(api, pod, DeleteParams::default()).await.map(|_| ()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, running_pod};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn unreachable() -> Taint {
        Taint {
            key: "node.kubernetes.io/unreachable".into(),
            effect: "NoExecute".into(),
            time_added: Some(Time(at(0))),
            value: None,
        }
    }

    fn pod_tolerating(limit: Option<i64>) -> Pod {
        let mut pod = running_pod("a", "n");
        let toleration = Toleration {
            key: Some("node.kubernetes.io/unreachable".into()),
            operator: Some("Exists".into()),
            effect: Some("NoExecute".into()),
            toleration_seconds: limit,
            value: None,
        };
        pod.spec.as_mut().unwrap().tolerations = Some(vec![toleration]);
        pod
    }

    #[test]
    fn pods_stay_as_long_as_they_tolerate() {
        let taints = [unreachable()];
        assert_eq!(decide(&running_pod("a", "n"), &taints, at(0), at(0)), Decision::Evict);
        assert_eq!(decide(&pod_tolerating(None), &taints, at(0), at(1000)), Decision::Stay);
        assert_eq!(decide(&pod_tolerating(Some(300)), &taints, at(5), at(10)), Decision::Until(at(300)));
        assert_eq!(decide(&pod_tolerating(Some(300)), &taints, at(5), at(300)), Decision::Evict);
        assert_eq!(decide(&running_pod("a", "n"), &[], at(0), at(0)), Decision::Stay);
    }

    #[test]
    fn a_taint_without_a_time_should_be_tolerated_from_when_it_was_seen() {
        let taints = [Taint { time_added: None, ..unreachable() }];
        let decide = |now| decide(&pod_tolerating(Some(300)), &taints, at(5), now);
        assert_eq!(decide(at(5)), Decision::Until(at(305)));
        assert_eq!(decide(at(304)), Decision::Until(at(305)));
        assert_eq!(decide(at(305)), Decision::Evict);
    }
}

//! The two kinds, seen as one.

use std::collections::BTreeMap;

use client::Watched;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use kube::Resource;
use kube::core::Selector;

use crate::common::owners::PodOwner;

/// What keeps a number of equal pods.
pub(crate) trait ReplicaOwner: Watched + Resource<DynamicType = ()> {
    fn replicas(&self) -> usize;
    fn min_ready_seconds(&self) -> i32;
    fn template(&self) -> PodTemplateSpec;
    /// The status, in the shape of replica sets; both kinds have the same fields.
    fn status(&self) -> ReplicaSetStatus;
    fn set_status(&mut self, status: ReplicaSetStatus);

    fn template_labels(&self) -> BTreeMap<String, String> {
        self.template().metadata.and_then(|meta| meta.labels).unwrap_or_default()
    }
}

impl PodOwner for ReplicaSet {
    const KIND: &'static str = "ReplicaSet";

    fn pod_selector(&self) -> Option<Selector> {
        self.spec.as_ref().and_then(|spec| spec.selector.clone().try_into().ok())
    }
}

impl ReplicaOwner for ReplicaSet {
    fn replicas(&self) -> usize {
        let replicas = self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        usize::try_from(replicas).unwrap_or(0)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    fn template(&self) -> PodTemplateSpec {
        self.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default()
    }

    fn status(&self) -> ReplicaSetStatus {
        self.status.clone().unwrap_or_default()
    }

    fn set_status(&mut self, status: ReplicaSetStatus) {
        self.status = Some(status);
    }
}

impl PodOwner for ReplicationController {
    const KIND: &'static str = "ReplicationController";

    fn pod_selector(&self) -> Option<Selector> {
        let selector = self.spec.as_ref().and_then(|spec| spec.selector.clone())?;
        (!selector.is_empty()).then(|| selector.into_iter().collect())
    }
}

impl ReplicaOwner for ReplicationController {
    fn replicas(&self) -> usize {
        let replicas = self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        usize::try_from(replicas).unwrap_or(0)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    fn template(&self) -> PodTemplateSpec {
        self.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default()
    }

    fn status(&self) -> ReplicaSetStatus {
        let status = self.status.clone().unwrap_or_default();
        ReplicaSetStatus {
            available_replicas: status.available_replicas,
            conditions: status.conditions.map(|all| {
                all.into_iter()
                    .map(|condition| ReplicaSetCondition {
                        last_transition_time: condition.last_transition_time,
                        message: condition.message,
                        reason: condition.reason,
                        status: condition.status,
                        type_: condition.type_,
                    })
                    .collect()
            }),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
            terminating_replicas: None,
        }
    }

    fn set_status(&mut self, status: ReplicaSetStatus) {
        self.status = Some(ReplicationControllerStatus {
            available_replicas: status.available_replicas,
            conditions: status.conditions.map(|all| {
                all.into_iter()
                    .map(|condition| ReplicationControllerCondition {
                        last_transition_time: condition.last_transition_time,
                        message: condition.message,
                        reason: condition.reason,
                        status: condition.status,
                        type_: condition.type_,
                    })
                    .collect()
            }),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
        });
    }
}

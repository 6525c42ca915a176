//! The two kinds, seen as one.

use std::collections::BTreeMap;

use client::Watched;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController};
use kube::Resource;
use kube::core::Selector;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::common::owners::PodOwner;

/// The part of a spec that both kinds have: replicas, seconds until ready is available, template.
type SharedSpec<'a> = (Option<i32>, Option<i32>, Option<&'a PodTemplateSpec>);

/// What keeps a number of equal pods.
pub(crate) trait ReplicaOwner: Watched + Resource<DynamicType = ()> {
    fn shared_spec(&self) -> SharedSpec<'_>;
    /// The status, in the shape of replica sets; both kinds have the same fields.
    fn status(&self) -> ReplicaSetStatus;
    fn set_status(&mut self, status: ReplicaSetStatus);

    fn replicas(&self) -> usize {
        usize::try_from(self.shared_spec().0.unwrap_or(1)).unwrap_or(0)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.shared_spec().1.unwrap_or(0)
    }

    fn template(&self) -> PodTemplateSpec {
        self.shared_spec().2.cloned().unwrap_or_default()
    }

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
    fn shared_spec(&self) -> SharedSpec<'_> {
        self.spec.as_ref().map_or_else(SharedSpec::default, |spec| {
            (spec.replicas, spec.min_ready_seconds, spec.template.as_ref())
        })
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
    fn shared_spec(&self) -> SharedSpec<'_> {
        self.spec.as_ref().map_or_else(SharedSpec::default, |spec| {
            (spec.replicas, spec.min_ready_seconds, spec.template.as_ref())
        })
    }

    fn status(&self) -> ReplicaSetStatus {
        self.status.as_ref().map(same_fields).unwrap_or_default()
    }

    fn set_status(&mut self, status: ReplicaSetStatus) {
        self.status = Some(same_fields(&status));
    }
}

/// One status as the other, by the names of the fields.
fn same_fields<A: Serialize, B: DeserializeOwned + Default>(status: &A) -> B {
    serde_json::to_value(status).and_then(serde_json::from_value).unwrap_or_default()
}

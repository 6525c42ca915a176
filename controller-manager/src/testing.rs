//! Objects for tests.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

pub(crate) fn running_pod(name: &str, node: &str) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.name = Some(name.into());
    pod.metadata.namespace = Some("default".into());
    pod.metadata.uid = Some(format!("uid-{name}"));
    pod.metadata.creation_timestamp = Some(Time(at(0)));
    pod.spec.get_or_insert_default().node_name = Some(node.into());
    pod.status.get_or_insert_default().phase = Some("Running".into());
    pod
}

pub(crate) fn ready_pod(name: &str, node: &str, since: Timestamp) -> Pod {
    let mut pod = running_pod(name, node);
    let ready = PodCondition {
        type_: "Ready".into(),
        status: "True".into(),
        last_transition_time: Some(Time(since)),
        ..PodCondition::default()
    };
    pod.status.get_or_insert_default().conditions = Some(vec![ready]);
    pod
}

pub(crate) fn labelled(mut pod: Pod, key: &str, value: &str) -> Pod {
    pod.metadata.labels.get_or_insert_default().insert(key.into(), value.into());
    pod
}

pub(crate) fn controlled_by(mut pod: Pod, uid: &str) -> Pod {
    pod.metadata.owner_references =
        Some(vec![OwnerReference { uid: uid.into(), controller: Some(true), ..OwnerReference::default() }]);
    pod
}

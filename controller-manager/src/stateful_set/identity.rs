//! What makes pod number n of a stateful set itself. Pure.

use client::owner::controller_ref;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, Volume};
use kube::ResourceExt;

use crate::common::history::{REVISION_HASH, template_of};
use crate::common::pod_control::pod_from_template;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.name_any())
}

fn claim_name(template: &PersistentVolumeClaim, set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{}", template.name_any(), pod_name(set, ordinal))
}

fn claim_templates(set: &StatefulSet) -> impl Iterator<Item = &PersistentVolumeClaim> {
    set.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten())
}

/// The volume claims of an ordinal. They outlive its pods.
pub(super) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let labels = set.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone()).unwrap_or_default();
    claim_templates(set)
        .map(|template| {
            let mut claim = template.clone();
            claim.metadata.name = Some(claim_name(template, set, ordinal));
            claim.metadata.namespace = set.namespace();
            claim.metadata.labels.get_or_insert_default().extend(labels.clone());
            claim.status = None;
            claim
        })
        .collect()
}

/// The pod of an ordinal, from the template that the revision keeps.
pub(super) fn pod(set: &StatefulSet, ordinal: i32, revision: &ControllerRevision, namespace: &str) -> Pod {
    let present = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let template = template_of(revision).unwrap_or(present);
    let mut pod = pod_from_template(&template, &controller_ref(set), namespace);
    let name = pod_name(set, ordinal);
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.into(), name.clone());
    labels.insert(POD_INDEX.into(), ordinal.to_string());
    labels.insert(REVISION_HASH.into(), revision.name_any());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain =
        set.spec.as_ref().and_then(|spec| spec.service_name.clone()).filter(|name| !name.is_empty());
    let volumes = spec.volumes.get_or_insert_default();
    for template in claim_templates(set) {
        volumes.retain(|volume| volume.name != template.name_any());
        volumes.push(Volume {
            name: template.name_any(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(template, set, ordinal),
                read_only: Some(false),
            }),
            ..Volume::default()
        });
    }
    spec.volumes = spec.volumes.take().filter(|volumes| !volumes.is_empty());
    pod
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_has_its_own_name_host_and_volumes() {
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": "db", "namespace": "default"},
            "spec": {
                "serviceName": "dbs", "selector": {"matchLabels": {"app": "db"}},
                "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": []}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]
            }
        }))
        .unwrap();
        let revision = ControllerRevision::default();
        let pod = pod(&set, 2, &revision, "default");
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!(
            (pod.name_any().as_str(), spec.hostname.as_deref(), spec.subdomain.as_deref()),
            ("db-2", Some("db-2"), Some("dbs"))
        );
        let claim = spec.volumes.as_ref().unwrap()[0].persistent_volume_claim.as_ref().unwrap();
        assert_eq!(claim.claim_name, "data-db-2");
        assert_eq!(claims(&set, 2)[0].name_any(), "data-db-2");
        assert_eq!(pod.labels()["apps.kubernetes.io/pod-index"], "2");
    }
}

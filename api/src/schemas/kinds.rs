//! Which type describes which kind.

use k8s_openapi::api::{
    admissionregistration::v1 as admissionregistration, apps::v1 as apps,
    authentication::v1 as authentication, authorization::v1 as authorization,
    autoscaling::v1 as autoscaling_v1, autoscaling::v2 as autoscaling_v2, batch::v1 as batch,
    certificates::v1 as certificates, coordination::v1 as coordination, core::v1 as core,
    discovery::v1 as discovery, events::v1 as events, flowcontrol::v1 as flowcontrol,
    networking::v1 as networking, node::v1 as node, policy::v1 as policy, rbac::v1 as rbac,
    resource::v1 as resource, scheduling::v1 as scheduling, storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration;
use schemars::{JsonSchema, SchemaGenerator};

/// How a kind is described.
#[derive(Clone, Copy)]
pub(super) struct Source {
    /// The API group; empty for core.
    pub group: &'static str,
    /// `v1`, …
    pub version: &'static str,
    /// `Deployment`
    pub kind: &'static str,
    /// The definition's full name.
    pub definition: fn() -> String,
    /// Adds the definition and all that it refers to.
    pub generate: fn(&mut SchemaGenerator),
}

fn name_of<T: JsonSchema>() -> String {
    T::schema_name().into_owned()
}

fn generate<T: JsonSchema>(generator: &mut SchemaGenerator) {
    let _reference = generator.subschema_for::<T>();
}

macro_rules! sources {
    ($( $group:literal $version:literal $module:ident: $($kind:ident)*; )*) => {
        &[ $( $( Source {
            group: $group,
            version: $version,
            kind: stringify!($kind),
            definition: name_of::<$module::$kind>,
            generate: generate::<$module::$kind>,
        }, )* )* ]
    };
}

/// Every kind that a request may carry, with those of subresources.
pub(super) const SOURCES: &[Source] = sources! {
    "" "v1" core: Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume
        PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount;
    "admissionregistration.k8s.io" "v1" admissionregistration: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding
        MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding
        ValidatingWebhookConfiguration;
    "apiextensions.k8s.io" "v1" apiextensions: CustomResourceDefinition;
    "apiregistration.k8s.io" "v1" apiregistration: APIService;
    "apps" "v1" apps: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet;
    "authentication.k8s.io" "v1" authentication: SelfSubjectReview TokenRequest TokenReview;
    "authorization.k8s.io" "v1" authorization: LocalSubjectAccessReview SelfSubjectAccessReview
        SelfSubjectRulesReview SubjectAccessReview;
    "autoscaling" "v1" autoscaling_v1: HorizontalPodAutoscaler Scale;
    "autoscaling" "v2" autoscaling_v2: HorizontalPodAutoscaler;
    "batch" "v1" batch: CronJob Job;
    "certificates.k8s.io" "v1" certificates: CertificateSigningRequest;
    "coordination.k8s.io" "v1" coordination: Lease;
    "discovery.k8s.io" "v1" discovery: EndpointSlice;
    "events.k8s.io" "v1" events: Event;
    "flowcontrol.apiserver.k8s.io" "v1" flowcontrol: FlowSchema PriorityLevelConfiguration;
    "networking.k8s.io" "v1" networking: IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR;
    "node.k8s.io" "v1" node: RuntimeClass;
    "policy" "v1" policy: Eviction PodDisruptionBudget;
    "rbac.authorization.k8s.io" "v1" rbac: ClusterRole ClusterRoleBinding Role RoleBinding;
    "resource.k8s.io" "v1" resource: DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice;
    "scheduling.k8s.io" "v1" scheduling: PriorityClass;
    "storage.k8s.io" "v1" storage: CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment
        VolumeAttributesClass;
    "" "v1" meta: DeleteOptions Status;
};

/// The definition's name of `metadata`.
pub(super) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

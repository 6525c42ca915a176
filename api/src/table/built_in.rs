//! The rows that are always there.
//!
//! Deliberately absent: alpha and beta versions (upstream serves only a few of them, and none by default since
//! v1.24), the kinds of `internal.apiserver.k8s.io` and `storagemigration.k8s.io`.
//! Added: `metrics.k8s.io`, which upstream leaves to an extension server.

use serde_json::{Value, json};

use crate::{Row, Scope, Selectable, ServedVersion, Subresource, Verb, names::NameRule, strategies};
use Verb::{Create, Delete, DeleteCollection, Get, List, Patch, Update, Watch};

const FULL: &[Verb] = &[Create, Delete, DeleteCollection, Get, List, Patch, Update, Watch];
const CREATE: &[Verb] = &[Create];
const GET: &[Verb] = &[Get];
const READ: &[Verb] = &[Get, List];
const CONNECT: &[Verb] = &[Create, Get];
const VIEW: &[Verb] = &[Get, Patch, Update];
const PROXY: &[Verb] = &[Create, Delete, Get, Patch, Update];
const UPDATE: &[Verb] = &[Update];

const SCALE: Subresource = other("scale", ("autoscaling", "v1", "Scale"), VIEW);
const STATUS: Subresource = own("status", VIEW);

/// A subresource whose body is the kind itself.
const fn own(name: &'static str, verbs: &'static [Verb]) -> Subresource {
    Subresource { name, body: None, verbs }
}

/// A subresource with a body of its own.
const fn other(
    name: &'static str,
    body: (&'static str, &'static str, &'static str),
    verbs: &'static [Verb],
) -> Subresource {
    Subresource { name, body: Some(body), verbs }
}

/// The compact form of a row.
#[derive(Clone, Copy)]
struct Line {
    served: &'static [(&'static str, &'static str)],
    kind: &'static str,
    plural: &'static str,
    scope: Scope,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    verbs: &'static [Verb],
    subresources: &'static [Subresource],
    stored: bool,
    acted_on: bool,
    counts: bool,
    upsert: bool,
    versioned: bool,
    first_status: Option<fn() -> Value>,
    names: NameRule,
    selectable: &'static [Selectable],
}

type Versions = &'static [(&'static str, &'static str)];

const fn line(served: Versions, kind: &'static str, plural: &'static str, scope: Scope) -> Line {
    Line {
        served,
        kind,
        plural,
        scope,
        short: &[],
        categories: &[],
        verbs: FULL,
        subresources: &[],
        stored: true,
        acted_on: true,
        counts: false,
        upsert: false,
        versioned: false,
        first_status: None,
        names: NameRule::Subdomain,
        selectable: &[],
    }
}

const fn namespaced(served: Versions, kind: &'static str, plural: &'static str) -> Line {
    line(served, kind, plural, Scope::Namespaced)
}

const fn cluster(served: Versions, kind: &'static str, plural: &'static str) -> Line {
    line(served, kind, plural, Scope::Cluster)
}

impl Line {
    const fn short(mut self, short: &'static [&'static str]) -> Self {
        self.short = short;
        self
    }

    const fn all(mut self) -> Self {
        self.categories = &["all"];
        self
    }

    const fn extension(mut self) -> Self {
        self.categories = &["api-extensions"];
        self
    }

    const fn verbs(mut self, verbs: &'static [Verb]) -> Self {
        self.verbs = verbs;
        self
    }

    const fn sub(mut self, subresources: &'static [Subresource]) -> Self {
        self.subresources = subresources;
        self
    }

    /// Answered and forgotten.
    const fn virtual_(mut self, verbs: &'static [Verb]) -> Self {
        self.stored = false;
        self.verbs = verbs;
        self
    }

    /// No part of the system acts on it yet.
    const fn idle(mut self) -> Self {
        self.acted_on = false;
        self
    }

    /// Its generation counts.
    const fn counts(mut self) -> Self {
        self.counts = true;
        self
    }

    /// An update makes what is not there.
    const fn upsert(mut self) -> Self {
        self.upsert = true;
        self
    }

    /// An update names the version that it replaces.
    const fn versioned(mut self) -> Self {
        self.versioned = true;
        self
    }

    /// The status of a new object.
    const fn first(mut self, status: fn() -> Value) -> Self {
        self.first_status = Some(status);
        self
    }

    const fn names(mut self, rule: NameRule) -> Self {
        self.names = rule;
        self
    }

    const fn selects(mut self, fields: &'static [Selectable]) -> Self {
        self.selectable = fields;
        self
    }

    fn row(&self) -> Row {
        let served: Vec<ServedVersion> = self.served.iter().map(|(g, v)| ServedVersion::new(g, v)).collect();
        // The first version listed is the preferred one and the one in which objects are stored.
        let (group, version) = self.served.first().copied().unwrap_or_default();
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Row {
            kind: self.kind.to_string(),
            list_kind: format!("{}List", self.kind),
            plural: self.plural.to_string(),
            singular: self.kind.to_lowercase(),
            short_names: texts(self.short),
            categories: texts(self.categories),
            scope: self.scope,
            verbs: self.verbs.to_vec(),
            served,
            storage: ServedVersion::new(group, version),
            subresources: self.subresources.to_vec(),
            stored: self.stored,
            acted_on: self.acted_on,
            counts_generation: self.counts,
            created_by_update: self.upsert,
            versioned_update: self.versioned,
            first_status: self.first_status,
            name_rule: self.names,
            selectable: self.selectable,
            strategy: strategies::for_kind(group, self.kind),
            custom: None,
        }
    }
}

const CORE: Versions = &[("", "v1")];
const APIREGISTRATION: Versions = &[("apiregistration.k8s.io", "v1")];
const APPS: Versions = &[("apps", "v1")];
const EVENTS: Versions = &[("", "v1"), ("events.k8s.io", "v1")];
const AUTHENTICATION: Versions = &[("authentication.k8s.io", "v1")];
const AUTHORIZATION: Versions = &[("authorization.k8s.io", "v1")];
const AUTOSCALING: Versions = &[("autoscaling", "v2"), ("autoscaling", "v1")];
const BATCH: Versions = &[("batch", "v1")];
const CERTIFICATES: Versions = &[("certificates.k8s.io", "v1")];
const NETWORKING: Versions = &[("networking.k8s.io", "v1")];
const POLICY: Versions = &[("policy", "v1")];
const RBAC: Versions = &[("rbac.authorization.k8s.io", "v1")];
const STORAGE: Versions = &[("storage.k8s.io", "v1")];
const ADMISSION: Versions = &[("admissionregistration.k8s.io", "v1")];
const APIEXTENSIONS: Versions = &[("apiextensions.k8s.io", "v1")];
const SCHEDULING: Versions = &[("scheduling.k8s.io", "v1")];
const COORDINATION: Versions = &[("coordination.k8s.io", "v1")];
const NODE: Versions = &[("node.k8s.io", "v1")];
const DISCOVERY: Versions = &[("discovery.k8s.io", "v1")];
const RESOURCE: Versions = &[("resource.k8s.io", "v1")];
const FLOWCONTROL: Versions = &[("flowcontrol.apiserver.k8s.io", "v1")];
const METRICS: Versions = &[("metrics.k8s.io", "v1beta1")];

/// A field that selectors name by where it is.
const fn field(path: &'static str) -> Selectable {
    field_or(path, path, "")
}

const fn field_or(label: &'static str, path: &'static str, otherwise: &'static str) -> Selectable {
    Selectable { label, paths: [path, path], otherwise }
}

const PHASE: Selectable = field("status.phase");
const REPLICAS: Selectable = field_or("status.replicas", "status.replicas", "0");
const OF_PODS: &[Selectable] = &[
    field("spec.nodeName"),
    field("spec.restartPolicy"),
    field("spec.schedulerName"),
    field("spec.serviceAccountName"),
    field_or("spec.hostNetwork", "spec.hostNetwork", "false"),
    PHASE,
    field("status.podIP"),
    field_or("status.podIPs", "status.podIP", ""),
    field("status.nominatedNodeName"),
];
const OF_EVENTS: &[Selectable] = &[
    field("involvedObject.kind"),
    field("involvedObject.namespace"),
    field("involvedObject.name"),
    field("involvedObject.uid"),
    field("involvedObject.apiVersion"),
    field("involvedObject.resourceVersion"),
    field("involvedObject.fieldPath"),
    field("reason"),
    field("reportingComponent"),
    Selectable { label: "source", paths: ["source.component", "reportingComponent"], otherwise: "" },
    field("type"),
];

fn no_balancer() -> Value {
    json!({"loadBalancer": {}})
}

fn scheduled_none() -> Value {
    json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0})
}

fn disrupted_none() -> Value {
    json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0})
}

const PODS: &[Subresource] = &[
    other("attach", ("", "v1", "PodAttachOptions"), CONNECT),
    other("binding", ("", "v1", "Binding"), CREATE),
    own("ephemeralcontainers", VIEW),
    other("eviction", ("policy", "v1", "Eviction"), CREATE),
    other("exec", ("", "v1", "PodExecOptions"), CONNECT),
    own("log", GET),
    other("portforward", ("", "v1", "PodPortForwardOptions"), CONNECT),
    other("proxy", ("", "v1", "PodProxyOptions"), PROXY),
    own("resize", VIEW),
    STATUS,
];

#[rustfmt::skip]
const LINES: &[Line] = &[
    namespaced(CORE, "Binding", "bindings").virtual_(CREATE),
    cluster(CORE, "ComponentStatus", "componentstatuses").short(&["cs"]).virtual_(READ),
    namespaced(CORE, "ConfigMap", "configmaps").short(&["cm"]),
    namespaced(CORE, "Endpoints", "endpoints").short(&["ep"]).upsert(),
    namespaced(EVENTS, "Event", "events").short(&["ev"]).upsert().selects(OF_EVENTS),
    namespaced(CORE, "LimitRange", "limitranges").short(&["limits"]),
    cluster(CORE, "Namespace", "namespaces").short(&["ns"])
        .verbs(&[Create, Delete, Get, List, Patch, Update, Watch])
        .sub(&[own("finalize", UPDATE), STATUS]).first(|| json!({"phase": "Active"}))
        .names(NameRule::Label).selects(&[PHASE]),
    cluster(CORE, "Node", "nodes").short(&["no"])
        .sub(&[other("proxy", ("", "v1", "NodeProxyOptions"), PROXY), STATUS])
        .selects(&[field_or("spec.unschedulable", "spec.unschedulable", "false")]),
    namespaced(CORE, "PersistentVolumeClaim", "persistentvolumeclaims").short(&["pvc"]).sub(&[STATUS]).idle()
        .first(|| json!({"phase": "Pending"})),
    cluster(CORE, "PersistentVolume", "persistentvolumes").short(&["pv"]).sub(&[STATUS]).idle(),
    namespaced(CORE, "Pod", "pods").short(&["po"]).all().sub(PODS).counts().selects(OF_PODS),
    namespaced(CORE, "PodTemplate", "podtemplates").counts(),
    namespaced(CORE, "ReplicationController", "replicationcontrollers").short(&["rc"]).all()
        .sub(&[SCALE, STATUS]).counts().first(|| json!({"replicas": 0})).selects(&[REPLICAS]),
    namespaced(CORE, "ResourceQuota", "resourcequotas").short(&["quota"]).sub(&[STATUS]).first(|| json!({})),
    namespaced(CORE, "Secret", "secrets").selects(&[field("type")]),
    namespaced(CORE, "ServiceAccount", "serviceaccounts").short(&["sa"])
        .sub(&[other("token", ("authentication.k8s.io", "v1", "TokenRequest"), CREATE)]),
    namespaced(CORE, "Service", "services").short(&["svc"]).all()
        .sub(&[other("proxy", ("", "v1", "ServiceProxyOptions"), PROXY), STATUS]).upsert().first(no_balancer)
        .names(NameRule::Label).selects(&[field("spec.clusterIP"), field("spec.type")]),

    cluster(APIREGISTRATION, "APIService", "apiservices").extension().sub(&[STATUS]).idle().first(|| json!({})),

    namespaced(APPS, "ControllerRevision", "controllerrevisions"),
    namespaced(APPS, "DaemonSet", "daemonsets").short(&["ds"]).all().sub(&[STATUS]).counts().first(scheduled_none),
    namespaced(APPS, "Deployment", "deployments").short(&["deploy"]).all().sub(&[SCALE, STATUS]).counts().first(|| json!({})),
    namespaced(APPS, "ReplicaSet", "replicasets").short(&["rs"]).all().sub(&[SCALE, STATUS])
        .counts().first(|| json!({"replicas": 0})).selects(&[REPLICAS]),
    namespaced(APPS, "StatefulSet", "statefulsets").short(&["sts"]).all().sub(&[SCALE, STATUS])
        .counts().first(|| json!({"replicas": 0, "availableReplicas": 0})),

    cluster(AUTHENTICATION, "SelfSubjectReview", "selfsubjectreviews").virtual_(CREATE),
    cluster(AUTHENTICATION, "TokenReview", "tokenreviews").virtual_(CREATE),

    namespaced(AUTHORIZATION, "LocalSubjectAccessReview", "localsubjectaccessreviews").virtual_(CREATE),
    cluster(AUTHORIZATION, "SelfSubjectAccessReview", "selfsubjectaccessreviews").virtual_(CREATE),
    cluster(AUTHORIZATION, "SelfSubjectRulesReview", "selfsubjectrulesreviews").virtual_(CREATE),
    cluster(AUTHORIZATION, "SubjectAccessReview", "subjectaccessreviews").virtual_(CREATE),

    namespaced(AUTOSCALING, "HorizontalPodAutoscaler", "horizontalpodautoscalers").short(&["hpa"]).all()
        .sub(&[STATUS]).first(|| json!({"desiredReplicas": 0})),

    namespaced(BATCH, "CronJob", "cronjobs").short(&["cj"]).all().sub(&[STATUS]).counts().first(|| json!({})),
    namespaced(BATCH, "Job", "jobs").all().sub(&[STATUS]).counts().first(|| json!({}))
        .selects(&[field_or("status.successful", "status.succeeded", "0")]),

    cluster(CERTIFICATES, "CertificateSigningRequest", "certificatesigningrequests").short(&["csr"])
        .sub(&[own("approval", VIEW), STATUS]).first(|| json!({}))
        .names(NameRule::Any).selects(&[field("spec.signerName")]),

    cluster(NETWORKING, "IngressClass", "ingressclasses").idle().counts(),
    namespaced(NETWORKING, "Ingress", "ingresses").short(&["ing"]).sub(&[STATUS]).idle().counts().first(no_balancer),
    cluster(NETWORKING, "IPAddress", "ipaddresses").short(&["ip"]).counts().names(NameRule::IpAddress),
    namespaced(NETWORKING, "NetworkPolicy", "networkpolicies").short(&["netpol"]).idle().counts(),
    cluster(NETWORKING, "ServiceCIDR", "servicecidrs").sub(&[STATUS]).first(|| json!({})),

    namespaced(POLICY, "PodDisruptionBudget", "poddisruptionbudgets").short(&["pdb"]).sub(&[STATUS])
        .counts().versioned().first(disrupted_none),

    cluster(RBAC, "ClusterRoleBinding", "clusterrolebindings").upsert().names(NameRule::PathSegment),
    cluster(RBAC, "ClusterRole", "clusterroles").upsert().names(NameRule::PathSegment),
    namespaced(RBAC, "RoleBinding", "rolebindings").upsert().names(NameRule::PathSegment),
    namespaced(RBAC, "Role", "roles").upsert().names(NameRule::PathSegment),

    cluster(STORAGE, "CSIDriver", "csidrivers").idle().counts(),
    cluster(STORAGE, "CSINode", "csinodes").idle(),
    namespaced(STORAGE, "CSIStorageCapacity", "csistoragecapacities").idle(),
    cluster(STORAGE, "StorageClass", "storageclasses").short(&["sc"]).idle(),
    cluster(STORAGE, "VolumeAttachment", "volumeattachments").sub(&[STATUS]).idle()
        .versioned().first(|| json!({"attached": false})),
    cluster(STORAGE, "VolumeAttributesClass", "volumeattributesclasses").short(&["vac"]).idle(),

    cluster(ADMISSION, "MutatingAdmissionPolicy", "mutatingadmissionpolicies").extension().idle().counts(),
    cluster(ADMISSION, "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings").extension().idle()
        .counts(),
    cluster(ADMISSION, "MutatingWebhookConfiguration", "mutatingwebhookconfigurations").extension()
        .counts().versioned(),
    cluster(ADMISSION, "ValidatingAdmissionPolicy", "validatingadmissionpolicies").extension().sub(&[STATUS])
        .counts().first(|| json!({})),
    cluster(ADMISSION, "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings").extension().counts(),
    cluster(ADMISSION, "ValidatingWebhookConfiguration", "validatingwebhookconfigurations").extension()
        .counts().versioned(),

    cluster(APIEXTENSIONS, "CustomResourceDefinition", "customresourcedefinitions").short(&["crd", "crds"])
        .extension().sub(&[STATUS]).counts().versioned(),

    cluster(SCHEDULING, "PriorityClass", "priorityclasses").short(&["pc"]).counts(),

    namespaced(COORDINATION, "Lease", "leases").upsert().versioned(),

    cluster(NODE, "RuntimeClass", "runtimeclasses").upsert().versioned(),

    namespaced(DISCOVERY, "EndpointSlice", "endpointslices").counts(),

    cluster(RESOURCE, "DeviceClass", "deviceclasses").idle().counts(),
    namespaced(RESOURCE, "ResourceClaim", "resourceclaims").sub(&[STATUS]).idle().first(|| json!({})),
    namespaced(RESOURCE, "ResourceClaimTemplate", "resourceclaimtemplates").idle(),
    cluster(RESOURCE, "ResourceSlice", "resourceslices").idle().counts(),

    cluster(FLOWCONTROL, "FlowSchema", "flowschemas").sub(&[STATUS]).counts().first(|| json!({})),
    cluster(FLOWCONTROL, "PriorityLevelConfiguration", "prioritylevelconfigurations").sub(&[STATUS])
        .counts().first(|| json!({})),

    cluster(METRICS, "NodeMetrics", "nodes").virtual_(READ),
    namespaced(METRICS, "PodMetrics", "pods").virtual_(READ),
];

/// Makes the rows.
pub(super) fn rows() -> Vec<Row> {
    LINES.iter().map(Line::row).collect()
}

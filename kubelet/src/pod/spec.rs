//! What a pod's object says, in the words the agent needs.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity;

/// Upstream's default, which the API server fills in as well.
const GRACE_DEFAULT_S: i64 = 30;

/// When a container is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whenever it ends.
    Always,
    /// When it fails.
    OnFailure,
    /// Never.
    Never,
}

impl RestartPolicy {
    fn parse(text: &str) -> Self {
        match text {
            "Never" => Self::Never,
            "OnFailure" => Self::OnFailure,
            _ => Self::Always,
        }
    }

    /// Whether a container that ended so is started again.
    pub fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// The pod's classes of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    /// Every container has limits on CPU and memory, and asks for just these.
    Guaranteed,
    /// Some container asks for something.
    Burstable,
    /// None does.
    BestEffort,
}

impl QosClass {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// Reading aids for pods.
pub trait PodExt {
    /// The UID, empty where missing.
    fn uid(&self) -> &str;
    /// The namespace.
    fn namespace(&self) -> &str;
    /// The name.
    fn name(&self) -> &str;
    /// `name_namespace(uid)`, as upstream's messages name pods.
    fn title(&self) -> String;
    /// The spec; an empty one where missing.
    fn spec(&self) -> &PodSpec;
    /// The init containers, sidecars among them.
    fn init_containers(&self) -> &[Container];
    /// Init and main containers.
    fn all_containers(&self) -> impl Iterator<Item = &Container>;
    /// The containers that were added for debugging, as containers that are never started again.
    fn ephemeral_containers(&self) -> Vec<Container>;
    /// A container of any kind.
    fn container(&self, name: &str) -> Option<Container>;
    /// The pod's restart policy.
    fn restart_policy(&self) -> RestartPolicy;
    /// Seconds between the stop signal and the kill.
    fn grace_s(&self) -> i64;
    /// Whether the pod is being deleted.
    fn is_deleted(&self) -> bool;
    /// Whether the pod is on the node's network.
    fn host_network(&self) -> bool;
    /// The phase in the status, empty where missing.
    fn phase(&self) -> &str;
    /// Whether the status says that the pod is over.
    fn is_over(&self) -> bool;
    /// The pod's class of service.
    fn qos_class(&self) -> QosClass;
    /// When the pod has run for as long as it may.
    fn deadline(&self) -> Option<Timestamp>;
}

static EMPTY_SPEC: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);

impl PodExt for Pod {
    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or("default")
    }

    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn title(&self) -> String {
        format!("{}_{}({})", self.name(), self.namespace(), self.uid())
    }

    fn spec(&self) -> &PodSpec {
        self.spec.as_ref().unwrap_or(&EMPTY_SPEC)
    }

    fn init_containers(&self) -> &[Container] {
        self.spec().init_containers.as_deref().unwrap_or_default()
    }

    fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.init_containers().iter().chain(&self.spec().containers)
    }

    fn ephemeral_containers(&self) -> Vec<Container> {
        self.spec().ephemeral_containers.iter().flatten().map(as_container).collect()
    }

    fn container(&self, name: &str) -> Option<Container> {
        let known = self.all_containers().find(|c| c.name == name).cloned();
        known.or_else(|| self.ephemeral_containers().into_iter().find(|c| c.name == name))
    }

    fn restart_policy(&self) -> RestartPolicy {
        RestartPolicy::parse(self.spec().restart_policy.as_deref().unwrap_or_default())
    }

    fn grace_s(&self) -> i64 {
        let asked =
            self.metadata.deletion_timestamp.as_ref().and(self.metadata.deletion_grace_period_seconds);
        asked.or(self.spec().termination_grace_period_seconds).unwrap_or(GRACE_DEFAULT_S).max(0)
    }

    fn is_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    fn host_network(&self) -> bool {
        self.spec().host_network.unwrap_or(false)
    }

    fn phase(&self) -> &str {
        self.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
    }

    fn is_over(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }

    fn qos_class(&self) -> QosClass {
        qos_class(self)
    }

    fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.spec().active_deadline_seconds?;
        let start = self.status.as_ref()?.start_time.as_ref()?.0;
        start.checked_add(SignedDuration::from_secs(seconds)).ok()
    }
}

fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let ephemeral = ephemeral.clone();
    Container {
        name: ephemeral.name,
        image: ephemeral.image,
        image_pull_policy: ephemeral.image_pull_policy,
        command: ephemeral.command,
        args: ephemeral.args,
        working_dir: ephemeral.working_dir,
        env: ephemeral.env,
        env_from: ephemeral.env_from,
        volume_mounts: ephemeral.volume_mounts,
        security_context: ephemeral.security_context,
        stdin: ephemeral.stdin,
        stdin_once: ephemeral.stdin_once,
        tty: ephemeral.tty,
        termination_message_path: ephemeral.termination_message_path,
        termination_message_policy: ephemeral.termination_message_policy,
        restart_policy: Some("Never".to_string()),
        ..Container::default()
    }
}

/// Whether an init container stays beside the main ones.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The restart policy of one main or init container: its own, else the pod's.
pub fn container_restart_policy(pod: &Pod, container: &Container) -> RestartPolicy {
    container.restart_policy.as_deref().map_or_else(|| pod.restart_policy(), RestartPolicy::parse)
}

/// Whether a container that ended so is started again: by its rules, its own policy, or the pod's.
pub fn restarts(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.as_ref().is_some_and(|values| values.contains(&exit_code));
        if listed == (codes.operator == "In") && rule.action == "Restart" {
            return true;
        }
    }
    container_restart_policy(pod, container).restarts(exit_code)
}

/// An entry of requests or limits.
pub fn amount<'a>(
    resources: Option<&'a ResourceRequirements>,
    limit: bool,
    name: &str,
) -> Option<&'a Quantity> {
    let resources = resources?;
    let map = if limit { resources.limits.as_ref() } else { resources.requests.as_ref() };
    map?.get(name)
}

fn qos_class(pod: &Pod) -> QosClass {
    let positive = |r: Option<&ResourceRequirements>, limit, name: &str| {
        amount(r, limit, name).map(quantity::millis).filter(|n| *n > 0)
    };
    let pod_level = pod.spec().resources.as_ref();
    let all: Vec<Option<&ResourceRequirements>> = if pod_level.is_some() {
        vec![pod_level]
    } else {
        pod.all_containers().map(|c| c.resources.as_ref()).collect()
    };
    let (mut guaranteed, mut best_effort) = (true, true);
    for resources in all {
        for name in ["cpu", "memory"] {
            let (request, limit) = (positive(resources, false, name), positive(resources, true, name));
            if request.is_some() || limit.is_some() {
                best_effort = false;
            }
            if limit.is_none() || request.is_some_and(|request| Some(request) != limit) {
                guaranteed = false;
            }
        }
    }
    match (best_effort, guaranteed) {
        (true, _) => QosClass::BestEffort,
        (false, true) => QosClass::Guaranteed,
        (false, false) => QosClass::Burstable,
    }
}

/// A hash over what makes a running container another one when it changes: its name and its image.
pub fn container_hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    let text = serde_json::json!({ "name": container.name, "image": image }).to_string();
    let hash =
        text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:x}")
}

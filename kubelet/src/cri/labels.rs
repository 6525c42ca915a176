//! The labels and annotations that upstream's agent puts on sandboxes and containers, so that `crictl` and a later agent
//! find their pods by them.

/// The pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// The pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The pod's UID.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// The container's name.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// A hash over what makes a container another one.
pub const HASH: &str = "io.kubernetes.container.hash";
/// How often the container was started before.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Where the container leaves its last words.
pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Whether the log stands in for last words.
pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// The pod's grace period.
pub const TERMINATION_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
/// The hook to run before the stop signal, JSON.
pub const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
/// Of the image of a mount: the part of it that is mounted. Known to the embedded runtime only.
pub const IMAGE_SUB_PATH: &str = "gantry.image-sub-path";

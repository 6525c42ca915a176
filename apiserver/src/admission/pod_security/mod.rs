//! Pod security: refuses, notes and warns of pods that violate the Pod Security Standards of their namespace.
//!
//! As upstream: pods are judged when they are made and when their images or ephemeral containers change; what makes pods
//! (deployments, jobs, …) is warned of and noted, never refused. A namespace whose labels become stricter is told of the
//! pods that violate them already. Users, namespaces and runtime classes can be exempt.

mod baseline;
mod checks;
mod level;
mod restricted;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};

use api::ApiError;
use api::field::Look;
use async_trait::async_trait;
use serde_json::Value;

pub use level::{Level, Policy, Standard};
pub(crate) use level::{level, version};

use self::checks::{Violation, violations};
use super::{Admission, AdmissionRequest, Operation};
use crate::objects::Objects;

/// How many pods are looked at when a namespace becomes stricter.
const PODS_CHECKED_MAX: usize = 3000;

/// What holds where labels say nothing, and for whom nothing holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSecurityConfig {
    /// The policy of namespaces without labels.
    pub defaults: Policy,
    /// Users who are not judged.
    pub exempt_users: Vec<String>,
    /// Namespaces in which nobody is judged.
    pub exempt_namespaces: Vec<String>,
    /// Runtime classes whose pods are not judged.
    pub exempt_runtime_classes: Vec<String>,
}

/// The plugin.
pub struct PodSecurity {
    objects: Objects,
    config: PodSecurityConfig,
}

impl PodSecurity {
    /// Looks namespaces and pods up in the cache.
    pub fn new(objects: Objects, config: PodSecurityConfig) -> Self {
        Self { objects, config }
    }

    fn check_namespace(&self, request: &AdmissionRequest<'_>, namespace: &Value) -> Result<(), ApiError> {
        let (new, errors) = Policy::of(namespace, self.config.defaults);
        let before = request.old.map(|old| Policy::of(old, self.config.defaults));
        let was_invalid = before.as_ref().is_some_and(|(_, old)| *old == errors);
        if !errors.is_empty() && !was_invalid {
            return Err(ApiError::invalid("", "Namespace", request.name, &errors));
        }
        let Some((old, _)) = before else { return Ok(()) };
        let relaxed = new.enforce.minor == old.enforce.minor && new.enforce.level <= old.enforce.level;
        if new.enforce == old.enforce || new.enforce.level == Level::Privileged || relaxed {
            return Ok(());
        }
        if !self.config.exempt_namespaces.iter().any(|exempt| exempt == request.name) {
            request.warnings.lock().extend(self.existing_violations(request.name, new.enforce));
        }
        Ok(())
    }

    /// What the pods that are there already do against a standard.
    fn existing_violations(&self, namespace: &str, standard: Standard) -> Vec<String> {
        let pods = self.objects.list("core/pods", namespace);
        let total = pods.len();
        // Of those that one controller has made, the first stands for all until there is time for the others.
        let mut seen = HashSet::new();
        let (firsts, others): (Vec<&Value>, Vec<&Value>) =
            pods.iter().filter(|pod| !self.is_exempt_class(spec_of(pod))).partition(|pod| {
                let owner =
                    metadata_of(pod).items("ownerReferences").iter().find(|owner| owner.flag("controller"));
                owner.is_none_or(|owner| seen.insert(owner.text("uid").to_string()))
            });
        let mut by_reason: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for pod in firsts.iter().chain(&others).take(PODS_CHECKED_MAX) {
            let found = violations_of(standard, pod);
            if !found.is_empty() {
                let reasons: Vec<&str> = found.iter().map(|violation| violation.reason.as_str()).collect();
                by_reason.entry(reasons.join(", ")).or_default().push(api::object::name(pod));
            }
        }
        let mut warnings = Vec::new();
        if total > PODS_CHECKED_MAX {
            warnings.push(format!("new PodSecurity enforce level only checked against the first {PODS_CHECKED_MAX} of {total} existing pods"));
        }
        if !by_reason.is_empty() {
            warnings.push(format!("existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{standard}\""));
        }
        let mut lines: Vec<String> =
            by_reason.into_iter().map(|(reasons, pods)| told(&reasons, &pods)).collect();
        lines.sort();
        warnings.extend(lines);
        warnings
    }

    fn is_exempt_class(&self, spec: &Value) -> bool {
        let class = spec.text("runtimeClassName");
        !class.is_empty() && self.config.exempt_runtime_classes.iter().any(|exempt| exempt == class)
    }

    /// Judges a pod or a template. Only pods are refused.
    fn judge(
        &self,
        request: &AdmissionRequest<'_>,
        policy: Policy,
        pod: &Value,
        enforce: bool,
    ) -> Result<(), ApiError> {
        if self.is_exempt_class(spec_of(pod)) {
            request.note("pod-security.kubernetes.io/exempt", "runtimeClass");
            return Ok(());
        }
        let against = |standard: Standard| detail(&violations_of(standard, pod));
        if let Some(why) = against(policy.audit) {
            let text = format!("would violate PodSecurity \"{}\": {why}", policy.audit);
            request.note("pod-security.kubernetes.io/audit-violations", &text);
        }
        if enforce {
            request.note("pod-security.kubernetes.io/enforce-policy", &policy.enforce.to_string());
            if let Some(why) = against(policy.enforce) {
                return Err(request.forbidden(&format!("violates PodSecurity \"{}\": {why}", policy.enforce)));
            }
        }
        if let Some(why) = against(policy.warn) {
            request.warnings.lock().push(format!("would violate PodSecurity \"{}\": {why}", policy.warn));
        }
        Ok(())
    }
}

#[async_trait]
impl Admission for PodSecurity {
    async fn validate(&self, request: &AdmissionRequest<'_>, object: Option<&Value>) -> Result<(), ApiError> {
        let Some(object) = object else { return Ok(()) };
        if !matches!(request.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        if request.is("", "namespaces") {
            return self.check_namespace(request, object);
        }
        let is_pod = request.row.storage.group.is_empty() && request.row.plural == "pods";
        let judged = match request.subresource {
            "" if is_pod => Some(object),
            "ephemeralcontainers" | "resize" if is_pod => Some(object),
            "" => template_of(request, object),
            _ => None,
        };
        let Some(judged) = judged else { return Ok(()) };
        if self.config.exempt_namespaces.iter().any(|exempt| exempt == request.namespace) {
            request.note("pod-security.kubernetes.io/exempt", "namespace");
            return Ok(());
        }
        if self.config.exempt_users.contains(&request.user.name) {
            request.note("pod-security.kubernetes.io/exempt", "user");
            return Ok(());
        }
        let namespace = self.objects.look_up("core/namespaces", "", request.namespace).unwrap_or_default();
        let (policy, errors) = Policy::of(&namespace, self.config.defaults);
        if policy.is_privileged() && errors.is_empty() {
            return Ok(());
        }
        if is_pod && request.old.is_some_and(|old| !changes_containers(old, object)) {
            return Ok(());
        }
        self.judge(request, policy, judged, is_pod)
    }
}

fn spec_of(pod: &Value) -> &Value {
    pod.get("spec").unwrap_or(&Value::Null)
}

fn metadata_of(pod: &Value) -> &Value {
    pod.get("metadata").unwrap_or(&Value::Null)
}

/// What a pod or a template does that a standard forbids.
fn violations_of(standard: Standard, pod: &Value) -> Vec<Violation> {
    violations(standard, metadata_of(pod).get("annotations").unwrap_or(&Value::Null), spec_of(pod))
}

/// The pod template of a kind that has one.
fn template_of<'a>(request: &AdmissionRequest<'_>, object: &'a Value) -> Option<&'a Value> {
    match (request.row.storage.group.as_str(), request.row.plural.as_str()) {
        ("", "replicationcontrollers")
        | ("apps", "daemonsets" | "deployments" | "replicasets" | "statefulsets")
        | ("batch", "jobs") => object.dig(&["spec", "template"]),
        ("batch", "cronjobs") => object.dig(&["spec", "jobTemplate", "spec", "template"]),
        ("", "podtemplates") => object.at("template"),
        _ => None,
    }
}

/// Whether an update brings other images or more containers; nothing else of a pod's security can change.
fn changes_containers(old: &Value, new: &Value) -> bool {
    let images = |pod: &Value, list: &str| -> Vec<(String, String)> {
        let containers = spec_of(pod).items(list).iter();
        containers.map(|c| (c.text("name").to_string(), c.text("image").to_string())).collect()
    };
    ["containers", "initContainers", "ephemeralContainers"]
        .into_iter()
        .any(|list| images(old, list) != images(new, list))
}

/// All violations in one line; `None` when there are none.
fn detail(violations: &[Violation]) -> Option<String> {
    let lines: Vec<String> = violations.iter().map(|v| format!("{} ({})", v.reason, v.detail)).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

/// The pods that violate a standard for the same reasons.
fn told(reasons: &str, pods: &[&str]) -> String {
    let first = pods.iter().min().copied().unwrap_or_default();
    match pods.len() {
        1 => format!("{first}: {reasons}"),
        2 => format!("{first} (and 1 other pod): {reasons}"),
        more => format!("{first} (and {} other pods): {reasons}", more - 1),
    }
}

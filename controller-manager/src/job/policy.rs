//! What a job's pod failure policy says about a failed pod. Pure.

use k8s_openapi::api::batch::v1::{Job, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::common::pods;

#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Count,
    Ignore,
    /// The pod's index fails without another try.
    FailIndex,
    /// The whole job fails, for this reason.
    FailJob(String),
}

/// The action of the first rule that matches; without one the failure counts.
pub(super) fn judge(job: &Job, pod: &Pod) -> Verdict {
    let policy = job.spec.as_ref().and_then(|spec| spec.pod_failure_policy.as_ref());
    for (number, rule) in policy.iter().flat_map(|policy| policy.rules.iter()).enumerate() {
        let Some(cause) = matches(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailIndex" => Verdict::FailIndex,
            "FailJob" => Verdict::FailJob(format!("{cause} matching FailJob rule at index {number}")),
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

fn matches(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let id = format!("{}/{}", pod.metadata.namespace.as_deref().unwrap_or_default(), pods::name(pod));
    if let Some(requirement) = &rule.on_exit_codes {
        let (container, code) = statuses(pod).find_map(|status| exit_code(requirement, status))?;
        return Some(format!("Container {container} for pod {id} failed with exit code {code}"));
    }
    let patterns = rule.on_pod_conditions.iter().flatten();
    for pattern in patterns {
        let wanted = pattern.status.as_deref().unwrap_or("True");
        if pods::condition(pod, &pattern.type_).is_some_and(|condition| condition.status == wanted) {
            return Some(format!("Pod {id} has condition {}", pattern.type_));
        }
    }
    None
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    })
}

fn exit_code<'a>(
    requirement: &PodFailurePolicyOnExitCodesRequirement,
    status: &'a ContainerStatus,
) -> Option<(&'a str, i32)> {
    if requirement.container_name.as_ref().is_some_and(|name| *name != status.name) {
        return None;
    }
    let code = status.state.as_ref()?.terminated.as_ref()?.exit_code;
    let listed = requirement.values.contains(&code);
    let fits = code != 0 && if requirement.operator == "NotIn" { !listed } else { listed };
    fits.then_some((status.name.as_str(), code))
}

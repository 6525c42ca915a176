//! The checks of the Pod Security Standards, as a table. Pure.
//!
//! Ids, versions and words are upstream's, so that what users have written about refusals still matches.

use std::collections::BTreeSet;

use api::field::Look;
use serde_json::Value;

use super::level::{Level, Standard};
use super::{baseline, restricted};

/// Something that a standard forbids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub reason: String,
    pub detail: String,
}

/// What is judged: a pod, or the template of one.
pub(super) struct Subject<'a> {
    pub annotations: &'a Value,
    pub spec: &'a Value,
    /// The minor version of the standards.
    pub minor: u16,
}

/// One check.
struct Check {
    level: Level,
    /// The minor version that brought it.
    since: u16,
    run: fn(&Subject<'_>) -> Option<Violation>,
    /// The stricter check that takes its place at the restricted level, and the version that brought that.
    replaced: Option<u16>,
}

const fn baseline_check(
    since: u16,
    run: fn(&Subject<'_>) -> Option<Violation>,
    replaced: Option<u16>,
) -> Check {
    Check { level: Level::Baseline, since, run, replaced }
}

const fn restricted_check(since: u16, run: fn(&Subject<'_>) -> Option<Violation>) -> Check {
    Check { level: Level::Restricted, since, run, replaced: None }
}

/// In the order in which violations are told.
const CHECKS: [Check; 19] = [
    baseline_check(0, baseline::app_armor, None),
    baseline_check(0, baseline::capabilities, Some(22)),
    baseline_check(0, baseline::host_namespaces, None),
    baseline_check(0, baseline::host_path_volumes, Some(0)),
    baseline_check(0, baseline::host_ports, None),
    baseline_check(34, baseline::probe_hosts, None),
    baseline_check(0, baseline::privileged, None),
    baseline_check(0, baseline::proc_mount, Some(35)),
    baseline_check(0, baseline::se_linux, None),
    baseline_check(0, baseline::seccomp, Some(19)),
    baseline_check(0, baseline::sysctls, None),
    baseline_check(0, baseline::windows_host_process, None),
    restricted_check(8, restricted::privilege_escalation),
    restricted_check(22, restricted::capabilities),
    restricted_check(35, restricted::proc_mount),
    restricted_check(0, restricted::volumes),
    restricted_check(0, restricted::run_as_non_root),
    restricted_check(23, restricted::run_as_user),
    restricted_check(19, restricted::seccomp),
];

/// What a pod does that a standard forbids.
pub(super) fn violations(standard: Standard, annotations: &Value, spec: &Value) -> Vec<Violation> {
    let minor = standard.minor.unwrap_or(u16::MAX);
    let subject = Subject { annotations, spec, minor };
    let applies = |check: &&Check| {
        let replaced =
            standard.level == Level::Restricted && check.replaced.is_some_and(|since| minor >= since);
        check.level <= standard.level && minor >= check.since && !replaced
    };
    CHECKS.iter().filter(applies).filter_map(|check| (check.run)(&subject)).collect()
}

impl<'a> Subject<'a> {
    /// All containers: init containers first, ephemeral ones last.
    pub fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| spec.items(list))
    }

    /// The names of the containers that something is wrong with.
    pub fn containers_that(&self, is_bad: impl FnMut(&&'a Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(is_bad).map(|container| container.text("name")).collect()
    }

    /// The pod's own security context.
    pub fn security_context(&self) -> Option<&'a Value> {
        self.spec.at("securityContext")
    }

    /// Whether the pod is made for Windows, which has no such fields.
    pub fn is_windows(&self) -> bool {
        self.minor >= 25 && self.spec.dig(&["os", "name"]).is_some_and(|name| name == "windows")
    }

    /// Whether root in the pod is nobody outside, which newer versions take into account.
    pub fn has_user_namespace(&self) -> bool {
        self.minor >= 35 && self.spec.at("hostUsers").is_some_and(|host| host == false)
    }

    /// Who sets something, the pod or its containers, that it must not: with the values where they are forbidden.
    pub fn setters(&self, mut is_bad: impl FnMut(&Value) -> bool) -> Option<String> {
        let mut setters: Vec<String> = Vec::new();
        if self.security_context().is_some_and(&mut is_bad) {
            setters.push("pod".to_string());
        }
        let containers =
            self.containers_that(|container| container.at("securityContext").is_some_and(&mut is_bad));
        if !containers.is_empty() {
            setters.push(named("container", &containers));
        }
        (!setters.is_empty()).then(|| setters.join(" and "))
    }
}

/// A violation.
pub(super) fn violation(reason: &str, detail: String) -> Option<Violation> {
    Some(Violation { reason: reason.to_string(), detail })
}

/// `container "a"`, `containers "a", "b"`
pub(super) fn named(what: &str, names: &[&str]) -> String {
    format!("{} {}", plural(what, names.len()), quoted(names.iter().copied()))
}

/// A word for one or more.
pub(super) fn plural(word: &str, count: usize) -> String {
    if count == 1 { word.to_string() } else { format!("{word}s") }
}

/// `"a", "b"`
pub(super) fn quoted(texts: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let all: Vec<String> = texts.into_iter().map(|text| format!("\"{}\"", text.as_ref())).collect();
    all.join(", ")
}

/// Forbidden values that were found: each once, sorted.
pub(super) type Found = BTreeSet<String>;

/// Whether a profile is one that a pod may choose, noting its type when not.
pub(super) fn is_unconfined(context: &Value, field: &str, found: &mut Found) -> bool {
    let Some(profile) = context.at(field) else { return false };
    let kind = profile.text("type");
    let is_bad = !["RuntimeDefault", "Localhost"].contains(&kind);
    if is_bad {
        found.insert(kind.to_string());
    }
    is_bad
}

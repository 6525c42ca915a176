//! Which of the Pod Security Standards hold in a namespace: its labels over the server's defaults.

use std::fmt;

use api::FieldError;
use api::field::Look;
use serde_json::Value;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How much is forbidden.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    Privileged,
    /// Known ways to gain rights over the node.
    Baseline,
    /// Whatever a hardened pod does not need.
    Restricted,
}

/// A level as of a version of the standards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standard {
    /// How much.
    pub level: Level,
    /// The minor version; `None` is the latest.
    pub minor: Option<u16>,
}

/// What is enforced, told to the audit log, and warned of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What violates it is refused.
    pub enforce: Standard,
    /// What violates it is noted in the audit log.
    pub audit: Standard,
    /// Who violates it is warned.
    pub warn: Standard,
}

impl Default for Standard {
    fn default() -> Self {
        Self { level: Level::Privileged, minor: None }
    }
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.minor {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

impl Policy {
    /// Whether nothing is forbidden in any way.
    pub fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|standard| standard.level == Level::Privileged)
    }

    /// Reads a namespace's labels over the defaults. A label that cannot be read counts as the strictest for what is
    /// enforced and as none for the rest, as upstream.
    pub fn of(namespace: &Value, defaults: Self) -> (Self, Vec<FieldError>) {
        let labels = namespace.dig(&["metadata", "labels"]).unwrap_or(&Value::Null);
        let mut policy = defaults;
        let mut errors = Vec::new();
        let mut said = [false; 3];
        let modes = [&mut policy.enforce, &mut policy.audit, &mut policy.warn];
        for ((standard, mode), said) in modes.into_iter().zip(["enforce", "audit", "warn"]).zip(&mut said) {
            let label = format!("{PREFIX}{mode}");
            if let Some(text) = labels.get(&label).and_then(Value::as_str) {
                let read = level(text).map_err(|why| errors.push(invalid(&label, text, why)));
                // A level that cannot be read enforces the most, and warns of nothing else.
                *said = read.is_ok() || mode == "warn";
                let fallback = if mode == "enforce" { Level::Restricted } else { Level::Privileged };
                standard.level = read.unwrap_or(fallback);
            }
            let label = format!("{PREFIX}{mode}-version");
            if let Some(text) = labels.get(&label).and_then(Value::as_str) {
                let read = version(text).map_err(|why| errors.push(invalid(&label, text, why)));
                standard.minor = read.unwrap_or_default();
            }
        }
        let [enforces, _, warns] = said;
        if enforces && !warns && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if labels.get(format!("{PREFIX}warn-version")).is_none() {
                policy.warn.minor = policy.enforce.minor;
            }
        }
        (policy, errors)
    }
}

fn invalid(label: &str, value: &str, why: &str) -> FieldError {
    FieldError {
        reason: "FieldValueInvalid",
        field: format!("metadata.labels[{label}]"),
        message: format!("Invalid value: {value:?}: {why}"),
    }
}

/// Reads a level.
pub(crate) fn level(text: &str) -> Result<Level, &'static str> {
    match text {
        "privileged" => Ok(Level::Privileged),
        "baseline" => Ok(Level::Baseline),
        "restricted" => Ok(Level::Restricted),
        _ => Err("must be one of privileged, baseline, restricted"),
    }
}

/// Reads `latest` or `v1.x`.
pub(crate) fn version(text: &str) -> Result<Option<u16>, &'static str> {
    if text == "latest" {
        return Ok(None);
    }
    let minor = text.strip_prefix("v1.").filter(|minor| *minor == "0" || !minor.starts_with(['0', '+']));
    minor.and_then(|minor| minor.parse().ok()).map(Some).ok_or("must be \"latest\" or \"v1.x\"")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(labels: &[(&str, &str)]) -> (String, usize) {
        let labels: serde_json::Map<String, Value> =
            labels.iter().map(|(mode, value)| (format!("{PREFIX}{mode}"), json!(value))).collect();
        let (policy, errors) = Policy::of(&json!({"metadata": {"labels": labels}}), Policy::default());
        (format!("{} {} {}", policy.enforce, policy.audit, policy.warn), errors.len())
    }

    #[test]
    fn labels_are_read_as_upstream_reads_them() {
        let free = "privileged:latest";
        type Labels = &'static [(&'static str, &'static str)];
        let table: [(Labels, String, usize); 7] = [
            (&[], format!("{free} {free} {free}"), 0),
            (&[("enforce", "baseline")], format!("baseline:latest {free} baseline:latest"), 0),
            (
                &[("enforce", "restricted"), ("enforce-version", "v1.20"), ("warn", "baseline")],
                format!("restricted:v1.20 {free} baseline:latest"),
                0,
            ),
            (
                &[("enforce", "baseline"), ("enforce-version", "v1.9"), ("warn-version", "v1.30")],
                format!("baseline:v1.9 {free} baseline:v1.30"),
                0,
            ),
            (&[("enforce", "strict")], format!("restricted:latest {free} {free}"), 1),
            (&[("audit", "x"), ("warn", "y"), ("warn-version", "v2.1")], format!("{free} {free} {free}"), 3),
            (
                &[("audit", "restricted"), ("audit-version", "v1.01")],
                format!("{free} restricted:latest {free}"),
                1,
            ),
        ];
        for (labels, expected, errors) in table {
            assert_eq!(of(labels), (expected, errors), "{labels:?}");
        }
    }
}

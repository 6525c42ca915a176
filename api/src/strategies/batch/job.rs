//! Jobs.
//!
//! Deliberately absent: the insides of `successPolicy` rules beyond their number.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::super::{
    common::{default_template, domain_prefixed_path, immutable, non_negative, one_of, spec},
    pod, pod_spec,
};
use super::failure_policy;
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt, Touch, same_meaning},
    names, selector,
};

const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";
const UID_LABELS: [&str; 2] = ["controller-uid", UID_LABEL];
const NAME_LABELS: [&str; 2] = ["job-name", NAME_LABEL];
const INDEXED_PARALLELISM_MAX: i64 = 100_000;
const RULES_MAX: usize = 20;
const MANAGER_LENGTH_MAX: usize = 63;

/// What is special about jobs. Assumes that name and UID are set before [`Strategy::prepare_for_create`].
pub struct Job;

impl Strategy for Job {
    fn set_defaults(&self, object: &mut Value) {
        take_labels_of_template(object);
        if let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) {
            set_spec_defaults(spec);
        }
    }

    fn tracks_generation(&self) -> bool {
        true
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        object.put("status", json!({}));
        let name = object.dig(&["metadata", "name"]).cloned().unwrap_or_default();
        let uid = object.dig(&["metadata", "uid"]).cloned().unwrap_or_default();
        let Some(spec) = object.get_mut("spec").filter(|s| !s.flag("manualSelector")) else { return };
        let labels = spec
            .object_mut("template")
            .and_then(|template| template.object_mut("metadata"))
            .and_then(|metadata| metadata.object_mut("labels"));
        if let Some(labels) = labels {
            NAME_LABELS.iter().for_each(|label| labels.default_to(label, name.clone()));
            UID_LABELS.iter().for_each(|label| labels.default_to(label, uid.clone()));
        }
        if let Some(labels) = spec.object_mut("selector").and_then(|s| s.object_mut("matchLabels")) {
            labels.default_to(UID_LABEL, uid);
        }
        take_labels_of_template(object);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        let selector_path = path.field("selector");
        match spec.at("selector") {
            None => errors.required(&selector_path, ""),
            Some(selector) => selector::validate_object(&mut errors, &selector_path, selector),
        }
        generated_selector(&mut errors, &path, object);
        validate_spec(&mut errors, &path, spec);
        let labels = spec.dig(&["template", "metadata", "labels"]).unwrap_or(&Value::Null);
        let selects = selector::LabelSelector::from_object(spec.at("selector"))
            .is_ok_and(|selector| selector.matches(labels));
        if spec.at("selector").is_some() && !selects {
            let path = path.field("template.metadata.labels");
            errors.invalid(&path, labels.clone(), "`selector` does not match template `labels`");
        }
        let completions = spec.int("completions").unwrap_or_default();
        if spec.text("completionMode") == "Indexed" && completions > 0 {
            let name = object.dig(&["metadata", "name"]).and_then(Value::as_str).unwrap_or_default();
            let longest = format!("{name}-{}", completions - 1);
            if !names::dns1123_label(&longest).is_empty() {
                let detail = format!("will not able to create pod with invalid DNS label: {longest}");
                errors.invalid(&Path::ROOT.field("metadata.name"), name, detail);
            }
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        if context.subresource == Some("status") {
            let path = Path::ROOT.field("status");
            let counts = ["active", "succeeded", "failed", "ready", "terminating"];
            non_negative(&mut errors, &path, new.get("status").unwrap_or(&Value::Null), &counts);
            return errors.into_vec();
        }
        let (new, old) = (spec(new), spec(old));
        if new.text("completionMode") != "Indexed" {
            immutable(&mut errors, &path, new, old, &["completions"]);
        } else if new.at("completions") != old.at("completions")
            && let Some(completions) = new.at("completions")
            && Some(completions) != new.at("parallelism")
        {
            let detail = "can only be modified in tandem with spec.parallelism";
            errors.invalid(&path.field("completions"), completions.clone(), detail);
        }
        immutable(&mut errors, &path, new, old, &["selector"]);
        template_change(&mut errors, &path.field("template"), new, old);
        let fixed =
            ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"];
        immutable(&mut errors, &path, new, old, &fixed);
        errors.into_vec()
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        pod::warnings_of_template(new, old)
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(Cow<'static, str>, String)> {
        let succeeded = object.dig(&["status", "succeeded"]).and_then(Value::as_i64).unwrap_or_default();
        vec![("status.successful".into(), succeeded.to_string())]
    }
}

/// A job without labels has those of its template, the generated ones as well.
fn take_labels_of_template(object: &mut Value) {
    let labels = object.dig(&["spec", "template", "metadata", "labels"]).cloned();
    let has_labels = object.get("metadata").is_some_and(|m| m.entries("labels").next().is_some());
    if let Some(labels) = labels
        && !has_labels
        && let Some(metadata) = object.object_mut("metadata")
    {
        metadata.put("labels", labels);
    }
}

/// What absent fields of a job's spec become, also of a cron job's template.
pub(super) fn set_spec_defaults(spec: &mut Value) {
    if spec.at("completions").is_none() && spec.at("parallelism").is_none() {
        spec.put("completions", 1);
    }
    spec.default_to("parallelism", 1);
    let unlimited = spec.at("backoffLimitPerIndex").is_some();
    spec.default_to("backoffLimit", if unlimited { i32::MAX } else { 6 });
    spec.default_text("completionMode", "NonIndexed");
    spec.default_to("suspend", false);
    let replacement = if spec.at("podFailurePolicy").is_some() { "Failed" } else { "TerminatingOrFailed" };
    spec.default_text("podReplacementPolicy", replacement);
    spec.default_to("manualSelector", false);
    default_template(spec);
}

fn generated_selector(errors: &mut Errors, path: &Path, object: &Value) {
    let spec = spec(object);
    let Some(selector) = spec.at("selector").filter(|_| !spec.flag("manualSelector")) else { return };
    let metadata = |name: &str| object.dig(&["metadata", name]).and_then(Value::as_str).unwrap_or_default();
    let labels_path = path.field("template.metadata.labels");
    let labels = spec.dig(&["template", "metadata", "labels"]).unwrap_or(&Value::Null);
    let mut expected = serde_json::Map::new();
    for (label, value) in [(UID_LABELS, metadata("uid")), (NAME_LABELS, metadata("name"))]
        .into_iter()
        .flat_map(|(labels, value)| labels.map(|label| (label, value)))
    {
        expected.insert(label.to_string(), value.into());
        match labels.at(label).and_then(Value::as_str) {
            None => errors.required(&labels_path.key(label), &format!("must be '{value}'")),
            Some(actual) if actual != value => {
                errors.invalid(&labels_path.key(label), labels.clone(), format!("must be '{value}'"));
            }
            Some(_) => {}
        }
    }
    let selects = selector::LabelSelector::from_object(Some(selector)).is_ok_and(|s| s.matches(&expected));
    if !selects {
        errors.invalid(&path.field("selector"), selector.clone(), "`selector` not auto-generated");
    }
}

/// Checks a job's spec, also that of a cron job's template.
pub(super) fn validate_spec(errors: &mut Errors, path: &Path, spec: &Value) {
    non_negative(
        errors,
        path,
        spec,
        &[
            "parallelism",
            "completions",
            "activeDeadlineSeconds",
            "backoffLimit",
            "ttlSecondsAfterFinished",
            "backoffLimitPerIndex",
            "maxFailedIndexes",
        ],
    );
    if spec.at("maxFailedIndexes").is_some() && spec.at("backoffLimitPerIndex").is_none() {
        errors.required(&path.field("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    one_of(errors, &path.field("completionMode"), spec, &["Indexed", "NonIndexed"]);
    if spec.text("completionMode") == "Indexed" {
        indexed(errors, path, spec);
    } else {
        for name in ["backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"] {
            if let Some(value) = spec.at(name) {
                errors.invalid(&path.field(name), value.clone(), "requires indexed completion mode");
            }
        }
    }
    if let Some(manager) = spec.at("managedBy").and_then(Value::as_str) {
        domain_prefixed_path(errors, &path.field("managedBy"), manager);
        if manager.len() > MANAGER_LENGTH_MAX {
            errors.too_long(&path.field("managedBy"), MANAGER_LENGTH_MAX);
        }
    }
    failure_policy::validate(errors, &path.field("podFailurePolicy.rules"), spec);
    let replacements: &[&str] =
        if spec.at("podFailurePolicy").is_some() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    one_of(errors, &path.field("podReplacementPolicy"), spec, replacements);
    let template = spec.get("template").unwrap_or(&Value::Null);
    pod_spec::validate_template(errors, &path.field("template"), template);
    let policy_path = path.field("template.spec.restartPolicy");
    let policy = template.get("spec").map(|s| s.text("restartPolicy")).unwrap_or_default();
    match policy {
        "" | "Always" => errors.required(&policy_path, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if spec.at("podFailurePolicy").is_some() => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.invalid(&policy_path, policy, detail);
        }
        "OnFailure" | "Never" => {}
        other => errors.not_supported(&policy_path, other, &["OnFailure", "Never"]),
    }
}

fn indexed(errors: &mut Errors, path: &Path, spec: &Value) {
    if spec.at("completions").is_none() {
        errors.required(&path.field("completions"), "when completion mode is Indexed");
    }
    if let Some(parallelism) = spec.int("parallelism").filter(|p| *p > INDEXED_PARALLELISM_MAX) {
        let detail = format!(
            "must be less than or equal to {INDEXED_PARALLELISM_MAX} when completion mode is Indexed"
        );
        errors.invalid(&path.field("parallelism"), parallelism, detail);
    }
    if let (Some(failed), Some(completions)) = (spec.int("maxFailedIndexes"), spec.int("completions"))
        && failed > completions
    {
        errors.invalid(&path.field("maxFailedIndexes"), failed, "must be less than or equal to completions");
    }
    if let Some(policy) = spec.at("successPolicy") {
        let path = path.field("successPolicy.rules");
        let rules = policy.items("rules").len();
        if rules == 0 {
            errors
                .required(&path, "at least one rules must be specified when the successPolicy is specified");
        } else if rules > RULES_MAX {
            errors.too_many(&path, rules, RULES_MAX);
        }
    }
}

/// The template of a job that runs stays; of one that never ran and is suspended, what decides on nodes may change.
fn template_change(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let null = Value::Null;
    let template = new.get("template").unwrap_or(&null);
    let mut old_template = old.get("template").cloned().unwrap_or_default();
    if old.flag("suspend") {
        for (part, names) in [
            ("metadata", &["labels", "annotations"][..]),
            ("spec", &["nodeSelector", "tolerations", "schedulingGates", "affinity"][..]),
        ] {
            let new_part = template.get(part).unwrap_or(&null);
            let Some(old_part) = old_template.object_mut(part) else { continue };
            for name in names {
                match new_part.at(name) {
                    Some(value) => old_part.put(name, value.clone()),
                    None => old_part.drop_field(name),
                }
            }
        }
    }
    if !same_meaning(Some(template), Some(&old_template)) {
        errors.immutable(path, template);
    }
}

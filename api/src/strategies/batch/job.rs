//! Jobs.
//!
//! Deliberately absent: the insides of `successPolicy` rules beyond their number.

use serde_json::{Map, Value};

use super::super::{
    common::{
        default_template, domain_prefixed_path, labels_of_template, spec, spec_mut, take_labels_of_template,
    },
    pod, pod_spec,
};
use super::failure_policy;
use crate::{
    Strategy, WriteContext,
    at::At,
    field::{Look, Touch, same_meaning},
    names,
    selector::{self, LabelSelector},
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
        if let Some(spec) = spec_mut(object) {
            set_spec_defaults(spec);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
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

    fn check(&self, object: &At) {
        let spec = object.field("spec");
        let selector = spec.field("selector");
        if selector.is_given() {
            selector::check(&selector)
        } else {
            selector.required("")
        }
        check_generated_selector(object, &spec);
        check_spec(&spec);
        if spec.at("selector").is_some() {
            let selector = LabelSelector::from_object(spec.at("selector"));
            labels_of_template(&spec, &selector.unwrap_or_else(|_| LabelSelector::nothing()));
        }
        let completions = spec.field("completions").number();
        if spec.text("completionMode") == "Indexed" && completions > 0 {
            let name = object.field("metadata.name");
            let longest = format!("{}-{}", name.str(), completions - 1);
            if !names::dns1123_label(&longest).is_empty() {
                name.invalid_text(format!("will not able to create pod with invalid DNS label: {longest}"));
            }
        }
    }

    fn check_update(&self, new: &At, old: &Value, context: &WriteContext) {
        if context.subresource == Some("status") {
            let counts = ["active", "succeeded", "failed", "ready", "terminating"];
            return new.field("status").non_negative(&counts);
        }
        let (new, old) = (new.field("spec"), spec(old));
        if new.text("completionMode") != "Indexed" {
            new.fixed(old, &["completions"]);
        } else if new.at("completions") != old.at("completions")
            && let Some(completions) = new.given("completions")
            && Some(completions.value()) != new.at("parallelism")
        {
            completions.invalid("can only be modified in tandem with spec.parallelism");
        }
        new.fixed(old, &["selector"]);
        check_template_change(&new, old);
        let fixed =
            ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"];
        new.fixed(old, &fixed);
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        pod::warnings_of_template(new, old)
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

fn check_generated_selector(object: &At, spec: &At) {
    let selector = spec.field("selector");
    if !selector.is_given() || spec.flag("manualSelector") {
        return;
    }
    let labels = spec.field("template.metadata.labels");
    let mut expected = Map::new();
    for (names, source) in [(UID_LABELS, "metadata.uid"), (NAME_LABELS, "metadata.name")] {
        let value = object.field(source).str();
        for label in names.map(|name| labels.key(name)) {
            let detail = format!("must be '{value}'");
            if !label.is_string() {
                label.required(&detail);
            } else if label.str() != value {
                label.invalid_value(labels.value().clone(), detail);
            }
        }
        expected.extend(names.map(|name| (name.to_string(), value.into())));
    }
    if !LabelSelector::from_object(Some(selector.value())).is_ok_and(|s| s.matches(&expected)) {
        selector.invalid("`selector` not auto-generated");
    }
}

/// Checks a job's spec, also that of a cron job's template.
pub(super) fn check_spec(spec: &At) {
    spec.non_negative(&[
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ]);
    if spec.at("maxFailedIndexes").is_some() && spec.at("backoffLimitPerIndex").is_none() {
        spec.field("backoffLimitPerIndex").required("when maxFailedIndexes is specified");
    }
    spec.field("completionMode").one_of(&["Indexed", "NonIndexed"]);
    if spec.text("completionMode") == "Indexed" {
        check_indexed(spec);
    } else {
        for name in ["backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"] {
            spec.optional(name, |field| field.invalid("requires indexed completion mode"));
        }
    }
    spec.optional("managedBy", |manager| {
        domain_prefixed_path(manager);
        manager.at_most_bytes(MANAGER_LENGTH_MAX);
    });
    failure_policy::check(spec);
    let has_failure_policy = spec.at("podFailurePolicy").is_some();
    spec.field("podReplacementPolicy").one_of(if has_failure_policy {
        &["Failed"]
    } else {
        &["Failed", "TerminatingOrFailed"]
    });
    pod_spec::check_template(&spec.field("template"));
    let policy = spec.field("template.spec.restartPolicy");
    match policy.str() {
        "" | "Always" => policy.required("valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if has_failure_policy => {
            policy.invalid("only \"Never\" is supported when podFailurePolicy is specified");
        }
        _ => policy.among(&["OnFailure", "Never"]),
    }
}

fn check_indexed(spec: &At) {
    let (completions, failed) = (spec.field("completions"), spec.field("maxFailedIndexes"));
    if !completions.is_given() {
        completions.required("when completion mode is Indexed");
    }
    let detail =
        format!("must be less than or equal to {INDEXED_PARALLELISM_MAX} when completion mode is Indexed");
    spec.field("parallelism").within(..=INDEXED_PARALLELISM_MAX, &detail);
    if completions.is_given() {
        failed.within(..=completions.number(), "must be less than or equal to completions");
    }
    if spec.at("successPolicy").is_some() {
        let rules = spec.field("successPolicy.rules");
        rules.filled("at least one rules must be specified when the successPolicy is specified");
        rules.at_most(RULES_MAX);
    }
}

/// The template of a job that runs stays; of one that never ran and is suspended, what decides on nodes may change.
fn check_template_change(new: &At, old: &Value) {
    let null = Value::Null;
    let template = new.field("template");
    let mut old_template = old.get("template").cloned().unwrap_or_default();
    if old.flag("suspend") {
        for (part, names) in [
            ("metadata", &["labels", "annotations"][..]),
            ("spec", &["nodeSelector", "tolerations", "schedulingGates", "affinity"][..]),
        ] {
            let new_part = template.at(part).unwrap_or(&null);
            let Some(old_part) = old_template.object_mut(part) else { continue };
            for name in names {
                match new_part.at(name) {
                    Some(value) => old_part.put(name, value.clone()),
                    None => old_part.drop_field(name),
                }
            }
        }
    }
    if !same_meaning(Some(template.value()), Some(&old_template)) {
        template.immutable();
    }
}

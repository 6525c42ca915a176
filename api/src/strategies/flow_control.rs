//! Flow schemas and priority levels: how requests share the server.
//!
//! Deliberately absent: the bound on the entropy of a priority level's hands.

use serde_json::Value;

use super::common::{reset_status, spec};
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt},
    names,
};

const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;
const EXEMPT: &str = "exempt";
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
/// The kinds of subjects and the fields that describe them.
const SUBJECTS: [(&str, &str); 3] =
    [("Group", "group"), ("ServiceAccount", "serviceAccount"), ("User", "user")];

/// What is special about flow schemas.
pub struct FlowSchema;

impl Strategy for FlowSchema {
    fn tracks_generation(&self) -> bool {
        true
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        reset_status(object);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        let name = object.dig(&["metadata", "name"]).and_then(Value::as_str).unwrap_or_default();
        let precedence = spec.int("matchingPrecedence").unwrap_or_default();
        let precedence_path = path.field("matchingPrecedence");
        if precedence <= 0 {
            errors.invalid(&precedence_path, precedence, "must be a positive value");
        }
        if precedence > PRECEDENCE_MAX {
            let detail = format!("must not be greater than {PRECEDENCE_MAX}");
            errors.invalid(&precedence_path, precedence, detail);
        }
        if precedence == 1 && name != EXEMPT {
            let detail = "only the schema named 'exempt' may have matchingPrecedence 1";
            errors.invalid(&precedence_path, precedence, detail);
        }
        if let Some(method) = spec.at("distinguisherMethod")
            && !["ByNamespace", "ByUser"].contains(&method.text("type"))
        {
            let path = path.field("distinguisherMethod.type");
            errors.not_supported(&path, method.clone(), &["ByNamespace", "ByUser"]);
        }
        let level = spec.get("priorityLevelConfiguration").unwrap_or(&Value::Null).text("name");
        let level_path = path.field("priorityLevelConfiguration.name");
        if level.is_empty() {
            errors.required(&level_path, "must reference a priority level");
        } else {
            errors.invalid_each(&level_path, level, names::dns1123_subdomain(level));
        }
        let rules = path.field("rules");
        for (index, rule) in spec.items("rules").iter().enumerate() {
            flow_rule(&mut errors, &rules.index(index), rule);
        }
        errors.into_vec()
    }
}

/// What is special about priority levels.
pub struct PriorityLevelConfiguration;

impl Strategy for PriorityLevelConfiguration {
    fn tracks_generation(&self) -> bool {
        true
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        reset_status(object);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        let name = object.dig(&["metadata", "name"]).and_then(Value::as_str).unwrap_or_default();
        let kind = spec.text("type");
        if (name == EXEMPT) != (kind == "Exempt") {
            let detail = "must be 'Exempt' if and only if `name` is 'exempt'";
            errors.invalid(&path.field("type"), kind, detail);
        }
        match (kind, spec.at("exempt"), spec.at("limited")) {
            ("Exempt", exempt, limited) => {
                if limited.is_some() {
                    errors.forbidden(&path.field("limited"), "must be nil if the type is not Limited");
                }
                if let Some(exempt) = exempt {
                    shares(&mut errors, &path.field("exempt"), exempt);
                }
            }
            ("Limited", exempt, limited) => {
                if exempt.is_some() {
                    errors.forbidden(&path.field("exempt"), "must be nil if the type is Limited");
                }
                match limited {
                    None => {
                        errors.required(&path.field("limited"), "must not be empty when type is Limited");
                    }
                    Some(limited) => limits(&mut errors, &path.field("limited"), limited),
                }
            }
            (other, ..) => errors.not_supported(&path.field("type"), other, &["Exempt", "Limited"]),
        }
        errors.into_vec()
    }
}

fn flow_rule(errors: &mut Errors, path: &Path, rule: &Value) {
    let subjects = path.field("subjects");
    if rule.items("subjects").is_empty() {
        errors.required(&subjects, "subjects must contain at least one value");
    }
    for (index, subject) in rule.items("subjects").iter().enumerate() {
        flow_subject(errors, &subjects.index(index), subject);
    }
    let (resources, others) = (rule.items("resourceRules"), rule.items("nonResourceRules"));
    if resources.is_empty() && others.is_empty() {
        errors.required(path, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    let list = path.field("resourceRules");
    for (index, rule) in resources.iter().enumerate() {
        resource_rule(errors, &list.index(index), rule);
    }
    let list = path.field("nonResourceRules");
    for (index, rule) in others.iter().enumerate() {
        let path = list.index(index);
        verbs(errors, &path, rule);
        let urls = path.field("nonResourceURLs");
        if some(
            errors,
            &path,
            rule,
            "nonResourceURLs",
            "nonResourceURLs must contain at least one value",
            "non-resource URLs",
        ) {
            for (index, url) in rule.items("nonResourceURLs").iter().filter_map(Value::as_str).enumerate() {
                if let Some(fault) = path_of_no_resource(url) {
                    errors.invalid(&urls.index(index), url, fault);
                }
            }
        }
    }
}

/// A list that holds something, or `*` and nothing else. Whether its elements are to be looked at.
fn some(errors: &mut Errors, path: &Path, rule: &Value, list: &str, missing: &str, others: &str) -> bool {
    let items = rule.items(list);
    let everything = items.iter().any(|item| item == "*");
    if items.is_empty() {
        errors.required(&path.field(list), missing);
    } else if everything && items.len() > 1 {
        let detail = format!("if '*' is present, must not specify other {others}");
        errors.invalid(&path.field(list), items.to_vec(), detail);
    }
    !items.is_empty() && !everything
}

fn verbs(errors: &mut Errors, path: &Path, rule: &Value) {
    let verbs = rule.items("verbs");
    if some(errors, path, rule, "verbs", "verbs must contain at least one value", "verbs")
        && !verbs.iter().all(|verb| VERBS.iter().any(|known| verb == known))
    {
        errors.not_supported(&path.field("verbs"), verbs.to_vec(), &VERBS);
    }
}

fn resource_rule(errors: &mut Errors, path: &Path, rule: &Value) {
    verbs(errors, path, rule);
    some(errors, path, rule, "apiGroups", "resource rules must supply at least one api group", "api groups");
    some(errors, path, rule, "resources", "resource rules must supply at least one resource", "resources");
    if rule.flag("clusterScope") && rule.items("namespaces").is_empty() {
        return;
    }
    let missing = "resource rules that are not cluster scoped must supply at least one namespace";
    if some(errors, path, rule, "namespaces", missing, "namespaces") {
        let path = path.field("namespaces");
        for (index, name) in rule.items("namespaces").iter().filter_map(Value::as_str).enumerate() {
            let faults = names::dns1123_label(name).into_iter();
            let faults =
                faults.map(|f| format!("each member of this list must be '*' or a DNS-1123 label; {f}"));
            errors.invalid_each(&path.index(index), name, faults);
        }
    }
}

fn flow_subject(errors: &mut Errors, path: &Path, subject: &Value) {
    let kind = subject.text("kind");
    let Some((_, expected)) = SUBJECTS.iter().find(|(known, _)| *known == kind) else {
        return errors.not_supported(&path.field("kind"), kind, &SUBJECTS.map(|(kind, _)| kind));
    };
    let described_path = path.field(expected);
    match subject.at(expected) {
        None => {
            let detail = format!("{expected} is required when subject kind is '{kind}'");
            errors.required(&described_path, &detail);
        }
        Some(described) => {
            let name = described.text("name");
            if name.is_empty() {
                errors.required(&described_path.field("name"), "");
            }
            if kind == "ServiceAccount" {
                if !name.is_empty() && name != "*" {
                    errors.invalid_each(&described_path.field("name"), name, names::dns1123_subdomain(name));
                }
                let namespace = described.text("namespace");
                let path = described_path.field("namespace");
                if namespace.is_empty() {
                    errors.required(&path, "must specify namespace for service account");
                } else {
                    errors.invalid_each(&path, namespace, names::dns1123_label(namespace));
                }
            }
        }
    }
    for (other, field) in SUBJECTS.iter().rev().filter(|(k, f)| *k != kind && subject.at(f).is_some()) {
        errors.forbidden(
            &path.field(field),
            &format!("{field} is forbidden when subject kind is not '{other}'"),
        );
    }
}

fn shares(errors: &mut Errors, path: &Path, level: &Value) {
    if let Some(shares) = level.int("nominalConcurrencyShares").filter(|s| *s < 0) {
        errors.invalid(&path.field("nominalConcurrencyShares"), shares, "must be a non-negative integer");
    }
    if let Some(percent) = level.int("lendablePercent").filter(|p| !(0..=100).contains(p)) {
        errors.invalid(&path.field("lendablePercent"), percent, names::between(0, 100));
    }
}

fn limits(errors: &mut Errors, path: &Path, limited: &Value) {
    shares(errors, path, limited);
    if let Some(percent) = limited.int("borrowingLimitPercent").filter(|p| *p < 0) {
        let detail = "if specified, must be a non-negative integer";
        errors.invalid(&path.field("borrowingLimitPercent"), percent, detail);
    }
    let path = path.field("limitResponse");
    let response = limited.get("limitResponse").unwrap_or(&Value::Null);
    let queuing_path = path.field("queuing");
    match (response.text("type"), response.at("queuing")) {
        ("Reject", Some(_)) => {
            errors.forbidden(&queuing_path, "must be nil if limited.limitResponse.type is not Limited");
        }
        ("Queue", None) => {
            errors.required(&queuing_path, "must not be empty if limited.limitResponse.type is Limited");
        }
        ("Queue", Some(queuing)) => queues(errors, &queuing_path, queuing),
        ("Reject", None) => {}
        (other, _) => errors.not_supported(&path.field("type"), other, &["Queue", "Reject"]),
    }
}

fn queues(errors: &mut Errors, path: &Path, queuing: &Value) {
    let number = |name: &str| queuing.int(name).unwrap_or_default();
    let (length, queues, hand) = (number("queueLengthLimit"), number("queues"), number("handSize"));
    for (name, value) in [("queueLengthLimit", length), ("queues", queues), ("handSize", hand)] {
        if value <= 0 {
            errors.invalid(&path.field(name), value, "must be positive");
        }
    }
    if queues > QUEUES_MAX {
        errors.invalid(&path.field("queues"), queues, format!("must not be greater than {QUEUES_MAX}"));
    }
    if hand > 0 && hand > queues {
        let detail = format!("should not be greater than queues ({queues})");
        errors.invalid(&path.field("handSize"), hand, detail);
    }
}

/// What is wrong with a path that names no resource.
fn path_of_no_resource(url: &str) -> Option<&'static str> {
    if url == "/" {
        return None;
    }
    let stars = url.matches('*').count();
    [
        (url.is_empty(), "must not be empty"),
        (!url.starts_with('/'), "must start with slash"),
        (url.contains(' '), "must not contain white-space"),
        (url.contains("//"), "must not contain double slash"),
        (stars > 1 || stars == 1 && !url.ends_with("/*"), "wildcard can only do suffix matching"),
    ]
    .into_iter()
    .find(|(is_wrong, _)| *is_wrong)
    .map(|(_, fault)| fault)
}

//! Webhook configurations, admission policies and their bindings.
//!
//! Deliberately absent: compilation of CEL expressions, which is the business of whoever evaluates them.

use std::sync::Arc;

use serde_json::Value;

use super::common::{Seen, one_of, reset_status, spec};
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt},
    names, selector,
};

const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const CONDITIONS_MAX: usize = 64;
const ANNOTATIONS_MAX: usize = 20;
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const MUTATING_OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];

/// The strategy of a kind of this group.
pub(super) fn for_kind(kind: &str) -> Arc<dyn Strategy> {
    let mutates = kind.starts_with("Mutating");
    if kind.ends_with("PolicyBinding") {
        Arc::new(PolicyBinding { mutates })
    } else if kind.ends_with("Policy") {
        Arc::new(Policy { mutates })
    } else {
        Arc::new(WebhookConfiguration { mutates })
    }
}

/// What is special about configurations of webhooks.
pub struct WebhookConfiguration {
    /// Whether its webhooks change objects.
    pub mutates: bool,
}

impl Strategy for WebhookConfiguration {
    fn tracks_generation(&self) -> bool {
        true
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn generation_grows(&self, new: &Value, old: &Value) -> bool {
        new.get("webhooks") != old.get("webhooks")
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("webhooks");
        let mut seen = Seen::default();
        for (index, hook) in object.items("webhooks").iter().enumerate() {
            let path = path.index(index);
            webhook(&mut errors, &path, hook);
            if self.mutates {
                let words = ["IfNeeded", "Never"];
                one_of(&mut errors, &path.field("reinvocationPolicy"), hook, &words);
            }
            review_versions(&mut errors, &path.field("admissionReviewVersions"), hook);
            let name = hook.text("name");
            if !name.is_empty() && !seen.is_new(name) {
                errors.duplicate(&path.field("name"), name);
            }
        }
        errors.into_vec()
    }
}

/// What is special about admission policies.
pub struct Policy {
    /// Whether it changes objects.
    pub mutates: bool,
}

impl Strategy for Policy {
    fn tracks_generation(&self) -> bool {
        true
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        if !self.mutates {
            reset_status(object);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        one_of(&mut errors, &path.field("failurePolicy"), spec, &["Fail", "Ignore"]);
        if let Some(kind) = spec.at("paramKind") {
            parameter_kind(&mut errors, &path.field("paramKind"), kind);
        }
        let constraints_path = path.field("matchConstraints");
        match spec.at("matchConstraints") {
            None => errors.required(&constraints_path, ""),
            Some(constraints) => {
                match_resources(&mut errors, &constraints_path, constraints);
                if constraints.items("resourceRules").is_empty() {
                    errors.required(&constraints_path.field("resourceRules"), "");
                }
                if self.mutates {
                    mutated_operations(&mut errors, &constraints_path, constraints);
                }
            }
        }
        match_conditions(&mut errors, &path.field("matchConditions"), spec.items("matchConditions"));
        variables(&mut errors, &path.field("variables"), spec.items("variables"));
        if self.mutates {
            mutations(&mut errors, &path, spec);
        } else {
            let name = object.dig(&["metadata", "name"]).and_then(Value::as_str).unwrap_or_default();
            validations(&mut errors, &path, spec, name);
        }
        errors.into_vec()
    }
}

/// What is special about bindings of admission policies.
pub struct PolicyBinding {
    /// Whether the policy changes objects.
    pub mutates: bool,
}

impl Strategy for PolicyBinding {
    fn tracks_generation(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        let policy = spec.text("policyName");
        if policy.is_empty() {
            errors.required(&path.field("policyName"), "");
        } else {
            errors.invalid_each(&path.field("policyName"), policy, names::dns1123_subdomain(policy));
        }
        if let Some(reference) = spec.at("paramRef") {
            parameter_reference(&mut errors, &path.field("paramRef"), reference);
        }
        if let Some(resources) = spec.at("matchResources") {
            let path = path.field("matchResources");
            match_resources(&mut errors, &path, resources);
            if self.mutates {
                mutated_operations(&mut errors, &path, resources);
            }
        }
        if !self.mutates {
            actions(&mut errors, &path.field("validationActions"), spec.items("validationActions"));
        }
        errors.into_vec()
    }
}

fn webhook(errors: &mut Errors, path: &Path, hook: &Value) {
    qualified_host(errors, &path.field("name"), hook.text("name"));
    let rules = path.field("rules");
    for (index, rule) in hook.items("rules").iter().enumerate() {
        rule_with_operations(errors, &rules.index(index), rule);
    }
    one_of(errors, &path.field("failurePolicy"), hook, &["Fail", "Ignore"]);
    one_of(errors, &path.field("matchPolicy"), hook, &["Equivalent", "Exact"]);
    let effects = ["None", "NoneOnDryRun"];
    let effects_path = path.field("sideEffects");
    match hook.at("sideEffects").and_then(Value::as_str) {
        None => errors.required(&effects_path, "must specify one of None, NoneOnDryRun"),
        Some(effect) if !effects.contains(&effect) => errors.not_supported(&effects_path, effect, &effects),
        Some(_) => {}
    }
    if let Some(seconds) = hook.int("timeoutSeconds").filter(|s| !(1..=30).contains(s)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        errors.invalid(&path.field("timeoutSeconds"), seconds, detail);
    }
    for name in ["namespaceSelector", "objectSelector"] {
        if let Some(selector) = hook.at(name) {
            selector::validate_object(errors, &path.field(name), selector);
        }
    }
    client_config(errors, &path.field("clientConfig"), hook.get("clientConfig").unwrap_or(&Value::Null));
    match_conditions(errors, &path.field("matchConditions"), hook.items("matchConditions"));
}

/// A name of at least three labels.
fn qualified_host(errors: &mut Errors, path: &Path, name: &str) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    let faults = names::dns1123_subdomain(name);
    if !faults.is_empty() {
        return errors.invalid(path, name, faults.join(","));
    }
    if name.split('.').count() < 3 {
        errors.invalid(path, name, "should be a domain with at least three segments separated by dots");
    }
}

/// Where a webhook, or a converter, is reached.
pub(super) fn client_config(errors: &mut Errors, path: &Path, config: &Value) {
    match (config.at("url").and_then(Value::as_str), config.at("service")) {
        (Some(url), None) => webhook_url(errors, &path.field("url"), url),
        (None, Some(service)) => {
            let path = path.field("service");
            for name in ["name", "namespace"].into_iter().filter(|name| service.text(name).is_empty()) {
                errors.required(&path.field(name), "");
            }
            let port = service.int("port").unwrap_or(443);
            if names::port_number(port).is_some() {
                let detail = "port is not valid: must be between 1 and 65535, inclusive";
                errors.invalid(&path.field("port"), port, detail);
            }
            webhook_path(errors, &path.field("path"), service.text("path"));
        }
        _ => errors.required(path, "exactly one of url or service is required"),
    }
}

fn webhook_path(errors: &mut Errors, path: &Path, target: &str) {
    if target.is_empty() || target == "/" {
        return;
    }
    let Some(inner) = target.strip_prefix('/') else {
        return errors.invalid(path, target, "must start with a '/'");
    };
    for (index, step) in inner.strip_suffix('/').unwrap_or(inner).split('/').enumerate() {
        if step.is_empty() {
            errors.invalid(path, target, format!("segment[{index}] may not be empty"));
            continue;
        }
        let faults = names::dns1123_subdomain(step).into_iter();
        errors.invalid_each(path, target, faults.map(|fault| format!("segment[{index}]: {fault}")));
    }
}

fn webhook_url(errors: &mut Errors, path: &Path, url: &str) {
    const FORM: &str = "; desired format: https://host[/path]";
    let Some((scheme, rest)) = url.split_once("://") else {
        return errors.required(path, &format!("url must be a valid URL{FORM}"));
    };
    if scheme != "https" {
        let detail = format!("'https' is the only allowed URL scheme{FORM}");
        errors.invalid(path, scheme, detail);
    }
    let (rest, fragment) = rest.split_once('#').map_or((rest, ""), |(rest, f)| (rest, f));
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, q)| (rest, q));
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.is_empty() {
        errors.invalid(path, authority, format!("host must be specified{FORM}"));
    }
    if let Some((user, _)) = authority.rsplit_once('@') {
        errors.invalid(path, user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        errors.invalid(path, fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        errors.invalid(path, query, "query parameters are not permitted in the URL");
    }
}

fn review_versions(errors: &mut Errors, path: &Path, hook: &Value) {
    let versions = hook.items("admissionReviewVersions");
    if versions.is_empty() {
        return errors.required(path, "must specify one of v1, v1beta1");
    }
    let mut seen = Seen::default();
    for (index, version) in versions.iter().filter_map(Value::as_str).enumerate() {
        if !seen.is_new(version) {
            errors.invalid(&path.index(index), version, "duplicate version");
            continue;
        }
        errors.invalid_each(&path.index(index), version, names::dns1035_label(version));
    }
    if !versions.iter().any(|v| REVIEW_VERSIONS.iter().any(|known| v == known)) {
        errors.invalid(path, versions.to_vec(), "must include at least one of v1, v1beta1");
    }
}

fn rule_with_operations(errors: &mut Errors, path: &Path, rule: &Value) {
    let operations_path = path.field("operations");
    let operations = rule.items("operations");
    if operations.is_empty() {
        errors.required(&operations_path, "");
    }
    alone(errors, &operations_path, operations, "operations");
    for (index, operation) in operations.iter().filter_map(Value::as_str).enumerate() {
        if !OPERATIONS.contains(&operation) {
            errors.not_supported(&operations_path.index(index), operation, &OPERATIONS);
        }
    }
    for (list, others) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        if rule.items(list).is_empty() {
            errors.required(&path.field(list), "");
        }
        alone(errors, &path.field(list), rule.items(list), others);
    }
    let versions = path.field("apiVersions");
    for (index, _) in rule.items("apiVersions").iter().enumerate().filter(|(_, v)| *v == "") {
        errors.required(&versions.index(index), "");
    }
    resources(errors, &path.field("resources"), rule.items("resources"));
    let scope = rule.text("scope");
    let scopes = ["*", "Cluster", "Namespaced"];
    if rule.at("scope").is_some() && !scopes.contains(&scope) {
        errors.not_supported(&path.field("scope"), scope, &scopes);
    }
}

fn alone(errors: &mut Errors, path: &Path, items: &[Value], others: &str) {
    if items.len() > 1 && items.iter().any(|item| item == "*") {
        errors.invalid(path, items.to_vec(), format!("if '*' is present, must not specify other {others}"));
    }
}

fn resources(errors: &mut Errors, path: &Path, resources: &[Value]) {
    if resources.is_empty() {
        errors.required(path, "");
    }
    let mut wild: Vec<(&str, &str)> = Vec::new();
    for (index, name) in resources.iter().filter_map(Value::as_str).enumerate() {
        let path = path.index(index);
        if name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        let Some((resource, sub)) = name.split_once('/') else { continue };
        if wild.contains(&(resource, "*")) {
            let detail = format!("if '{resource}/*' is present, must not specify {name}");
            errors.invalid(&path, name, detail);
        }
        if wild.contains(&("*", sub)) {
            let detail = format!("if '*/{sub}' is present, must not specify {name}");
            errors.invalid(&path, name, detail);
        }
        if resource == "*" || sub == "*" {
            wild.push((resource, sub));
        }
    }
    let has = |wanted: &str| resources.iter().any(|r| r == wanted);
    if resources.len() > 1 && has("*/*") {
        let detail = "if '*/*' is present, must not specify other resources";
        errors.invalid(path, resources.to_vec(), detail);
    }
    let plain = |r: &Value| r.as_str().is_some_and(|r| r != "*" && !r.is_empty() && !r.contains('/'));
    if has("*") && resources.iter().any(plain) {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.invalid(path, resources.to_vec(), detail);
    }
}

fn match_resources(errors: &mut Errors, path: &Path, resources: &Value) {
    one_of(errors, &path.field("matchPolicy"), resources, &["Equivalent", "Exact"]);
    for name in ["namespaceSelector", "objectSelector"] {
        if let Some(selector) = resources.at(name) {
            selector::validate_object(errors, &path.field(name), selector);
        }
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        let path = path.field(list);
        for (index, rule) in resources.items(list).iter().enumerate() {
            let path = path.index(index);
            let named = path.field("resourceNames");
            let mut seen = Seen::default();
            for (index, name) in rule.items("resourceNames").iter().filter_map(Value::as_str).enumerate() {
                errors.invalid_each(&named.index(index), name, names::path_segment(name));
                if !seen.is_new(name) {
                    errors.duplicate(&named.index(index), name);
                }
            }
            rule_with_operations(errors, &path, rule);
        }
    }
}

fn mutated_operations(errors: &mut Errors, path: &Path, constraints: &Value) {
    let path = path.field("resourceRules.operations");
    let rules = constraints.items("resourceRules").iter();
    for operation in rules.flat_map(|rule| rule.items("operations")).filter_map(Value::as_str) {
        if !MUTATING_OPERATIONS.contains(&operation) {
            errors.not_supported(&path, operation, &MUTATING_OPERATIONS);
        }
    }
}

fn match_conditions(errors: &mut Errors, path: &Path, conditions: &[Value]) {
    if conditions.len() > CONDITIONS_MAX {
        errors.too_many(path, conditions.len(), CONDITIONS_MAX);
    }
    let mut seen = Seen::default();
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        expression(errors, &path, condition, "expression", "");
        let name = condition.text("name");
        if name.is_empty() {
            errors.required(&path.field("name"), "");
            continue;
        }
        errors.invalid_each(&path.field("name"), name, names::qualified_name(name));
        if !seen.is_new(name) {
            errors.duplicate(&path.field("name"), name);
        }
    }
}

fn expression(errors: &mut Errors, path: &Path, parent: &Value, field: &str, missing: &str) {
    if parent.text(field).trim().is_empty() {
        errors.required(&path.field(field), missing);
    }
}

fn variables(errors: &mut Errors, path: &Path, variables: &[Value]) {
    for (index, variable) in variables.iter().enumerate() {
        let path = path.index(index);
        let name = variable.text("name");
        if name.trim().is_empty() {
            errors.required(&path.field("name"), "name is not specified");
        } else if !names::c_identifier(name).is_empty() {
            errors.invalid(&path.field("name"), name, "must be a valid CEL identifier");
        }
        expression(errors, &path, variable, "expression", "expression is not specified");
    }
}

fn validations(errors: &mut Errors, path: &Path, spec: &Value, name: &str) {
    let (rules, annotations) = (spec.items("validations"), spec.items("auditAnnotations"));
    let annotations_path = path.field("auditAnnotations");
    if rules.is_empty() && annotations.is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        errors.required(&path.field("validations"), detail);
        return errors.required(&annotations_path, detail);
    }
    let rules_path = path.field("validations");
    for (index, rule) in rules.iter().enumerate() {
        let path = rules_path.index(index);
        expression(errors, &path, rule, "expression", "expression is not specified");
        let message = rule.text("message");
        for name in ["messageExpression", "message"] {
            let text = rule.text(name);
            if !text.is_empty() && text.trim().is_empty() {
                errors.invalid(&path.field(name), text, "must be non-empty if specified");
            }
        }
        if message.trim().contains(['\n', '\r']) {
            errors.invalid(&path.field("message"), message, "must not contain line breaks");
        }
        let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
        if rule.at("reason").is_some() && !reasons.contains(&rule.text("reason")) {
            errors.not_supported(&path.field("reason"), rule.text("reason"), &reasons);
        }
    }
    if annotations.len() > ANNOTATIONS_MAX {
        let detail = format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations");
        errors.invalid(&annotations_path, annotations.to_vec(), detail);
    }
    let mut seen = Seen::default();
    for (index, annotation) in annotations.iter().enumerate() {
        let path = annotations_path.index(index);
        let key = annotation.text("key");
        let whole = format!("{name}/{key}");
        errors.invalid_each(&path.field("key"), &whole, names::qualified_name(&whole));
        expression(errors, &path, annotation, "valueExpression", "valueExpression is not specified");
        if !seen.is_new(key) {
            errors.duplicate(&path.field("key"), key);
        }
    }
}

fn mutations(errors: &mut Errors, path: &Path, spec: &Value) {
    let list = path.field("mutations");
    if spec.items("mutations").is_empty() {
        errors.required(&list, "mutations must contain at least one item");
    }
    for (index, mutation) in spec.items("mutations").iter().enumerate() {
        let path = list.index(index);
        let kinds = [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")];
        let kind = mutation.text("patchType");
        let Some((_, field)) = kinds.iter().find(|(known, _)| *known == kind) else {
            if kind.is_empty() {
                errors.required(&path.field("patchType"), "");
            } else {
                errors.not_supported(&path.field("patchType"), kind, &kinds.map(|(kind, _)| kind));
            }
            continue;
        };
        match mutation.at(field) {
            None => {
                errors.required(&path.field(field), &format!("must be specified when patchType is {kind}"))
            }
            Some(described) => {
                let path = path.field(field);
                expression(errors, &path, described, "expression", "");
            }
        }
        for (_, field) in kinds.iter().filter(|(other, f)| *other != kind && mutation.at(f).is_some()) {
            let detail = format!("must not be specified when patchType is {kind}");
            errors.invalid(&path.field(field), format!("{{{field}}}"), detail);
        }
    }
    let policy = path.field("reinvocationPolicy");
    one_of(errors, &policy, spec, &["IfNeeded", "Never"]);
}

fn parameter_kind(errors: &mut Errors, path: &Path, kind: &Value) {
    let api_version = kind.text("apiVersion");
    let version_path = path.field("apiVersion");
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if api_version.is_empty() {
        errors.required(&version_path, "");
    } else if version.contains('/') {
        let detail = format!("unexpected GroupVersion string: {api_version}");
        errors.invalid(&version_path, api_version, detail);
    } else {
        if !group.is_empty() {
            errors.invalid_each(&version_path, group, names::dns1123_subdomain(group));
        }
        if version.is_empty() {
            errors.invalid(&version_path, api_version, "version must be specified");
        } else {
            errors.invalid_each(&version_path, version, names::dns1035_label(version));
        }
    }
    let name = kind.text("kind");
    if name.is_empty() {
        errors.required(&path.field("kind"), "");
    } else {
        let faults = names::dns1035_label(&name.to_lowercase()).into_iter();
        let faults = faults.map(|f| format!("may have mixed case, but should otherwise match: {f}"));
        errors.invalid_each(&path.field("kind"), name, faults);
    }
}

fn parameter_reference(errors: &mut Errors, path: &Path, reference: &Value) {
    let name = reference.text("name");
    let selector = reference.at("selector");
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    if !name.is_empty() {
        errors.invalid_each(&path.field("name"), name, names::path_segment(name));
        if selector.is_some() {
            errors.forbidden(&path.field("name"), EXCLUSIVE);
        }
    }
    if let Some(selector) = selector {
        selector::validate_object(errors, &path.field("selector"), selector);
        if !name.is_empty() {
            errors.forbidden(&path.field("selector"), EXCLUSIVE);
        }
    } else if name.is_empty() {
        errors.required(path, "one of name or selector must be specified");
    }
    one_of(errors, &path.field("parameterNotFoundAction"), reference, &["Allow", "Deny"]);
}

fn actions(errors: &mut Errors, path: &Path, actions: &[Value]) {
    let known = ["Audit", "Deny", "Warn"];
    let mut seen = Seen::default();
    for (index, action) in actions.iter().filter_map(Value::as_str).enumerate() {
        if !known.contains(&action) {
            errors.not_supported(&path.index(index), action, &known);
        }
        if !seen.is_new(action) {
            errors.duplicate(&path.index(index), action);
        }
    }
    let has = |wanted: &str| actions.iter().any(|a| a == wanted);
    if has("Deny") && has("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the \
                      API response and headers serves no purpose)";
        errors.invalid(path, actions.to_vec(), detail);
    }
    if actions.is_empty() {
        errors.required(path, "at least one validation action is required");
    }
}

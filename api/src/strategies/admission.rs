//! Webhook configurations, admission policies and their bindings.
//!
//! Deliberately absent: compilation of CEL expressions, which is the business of whoever evaluates them.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::Value;

use super::common::name_of;
use crate::{Strategy, at::At, field::Look, names, selector};

const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const CONDITIONS_MAX: usize = 64;
const ANNOTATIONS_MAX: usize = 20;
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const MUTATING_OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
const REINVOCATIONS: [&str; 2] = ["IfNeeded", "Never"];

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
    fn generation_grows(&self, new: &Value, old: &Value) -> bool {
        new.get("webhooks") != old.get("webhooks")
    }

    fn check(&self, object: &At) {
        let mut seen = BTreeSet::new();
        object.each("webhooks", |hook| {
            webhook(hook);
            if self.mutates {
                hook.field("reinvocationPolicy").one_of(&REINVOCATIONS);
            }
            review_versions(&hook.field("admissionReviewVersions"));
            let name = hook.field("name");
            if !name.is_empty() {
                name.unique(&mut seen);
            }
        });
    }
}

/// What is special about admission policies.
pub struct Policy {
    /// Whether it changes objects.
    pub mutates: bool,
}

impl Strategy for Policy {
    fn check(&self, object: &At) {
        let spec = object.field("spec");
        spec.field("failurePolicy").one_of(&["Fail", "Ignore"]);
        spec.optional("paramKind", parameter_kind);
        let constraints = spec.field("matchConstraints");
        if constraints.is_given() {
            match_resources(&constraints);
            constraints.field("resourceRules").filled("");
            if self.mutates {
                mutated_operations(&constraints);
            }
        } else {
            constraints.required("");
        }
        match_conditions(&spec.field("matchConditions"));
        spec.each("variables", variable);
        if self.mutates {
            mutations(&spec);
        } else {
            validations(&spec, name_of(object));
        }
    }
}

/// What is special about bindings of admission policies.
pub struct PolicyBinding {
    /// Whether the policy changes objects.
    pub mutates: bool,
}

impl Strategy for PolicyBinding {
    fn check(&self, object: &At) {
        let spec = object.field("spec");
        spec.field("policyName").name(names::dns1123_subdomain);
        spec.optional("paramRef", parameter_reference);
        spec.optional("matchResources", |resources| {
            match_resources(resources);
            if self.mutates {
                mutated_operations(resources);
            }
        });
        if !self.mutates {
            actions(&spec.field("validationActions"));
        }
    }
}

fn webhook(hook: &At) {
    qualified_host(&hook.field("name"));
    hook.each("rules", rule_with_operations);
    hook.field("failurePolicy").one_of(&["Fail", "Ignore"]);
    hook.field("matchPolicy").one_of(&["Equivalent", "Exact"]);
    let effects = hook.field("sideEffects");
    if effects.is_given() {
        effects.among(&["None", "NoneOnDryRun"]);
    } else {
        effects.required("must specify one of None, NoneOnDryRun");
    }
    let detail = "the timeout value must be between 1 and 30 seconds";
    hook.field("timeoutSeconds").within(1..=30, detail);
    for name in ["namespaceSelector", "objectSelector"] {
        hook.optional(name, selector::check);
    }
    client_config(&hook.field("clientConfig"));
    match_conditions(&hook.field("matchConditions"));
}

/// A name of at least three labels.
fn qualified_host(name: &At) {
    if name.is_empty() {
        return name.required("");
    }
    let faults = names::dns1123_subdomain(name.str());
    if !faults.is_empty() {
        return name.invalid(faults.join(","));
    }
    if name.str().split('.').count() < 3 {
        name.invalid("should be a domain with at least three segments separated by dots");
    }
}

/// Where a webhook, or a converter, is reached.
fn client_config(config: &At) {
    match (config.given("url"), config.given("service")) {
        (Some(url), None) => webhook_url(&url),
        (None, Some(service)) => {
            service.all_filled(&["name", "namespace"]);
            let detail = "port is not valid: must be between 1 and 65535, inclusive";
            service.field("port").within(1..=65_535, detail);
            webhook_path(&service.field("path"));
        }
        _ => config.required("exactly one of url or service is required"),
    }
}

fn webhook_path(path: &At) {
    let target = path.str();
    if target.is_empty() || target == "/" {
        return;
    }
    let Some(inner) = target.strip_prefix('/') else { return path.invalid("must start with a '/'") };
    for (index, step) in inner.strip_suffix('/').unwrap_or(inner).split('/').enumerate() {
        if step.is_empty() {
            path.invalid(format!("segment[{index}] may not be empty"));
            continue;
        }
        let faults = names::dns1123_subdomain(step).into_iter();
        path.invalid_each(target, faults.map(|fault| format!("segment[{index}]: {fault}")));
    }
}

fn webhook_url(url: &At) {
    const FORM: &str = "; desired format: https://host[/path]";
    let Some((scheme, rest)) = url.str().split_once("://") else {
        return url.required(&format!("url must be a valid URL{FORM}"));
    };
    if scheme != "https" {
        url.invalid_value(scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.is_empty() {
        url.invalid_value(authority, format!("host must be specified{FORM}"));
    }
    if let Some((user, _)) = authority.rsplit_once('@') {
        url.invalid_value(user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        url.invalid_value(fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        url.invalid_value(query, "query parameters are not permitted in the URL");
    }
}

fn review_versions(versions: &At) {
    if versions.is_empty() {
        return versions.required("must specify one of v1, v1beta1");
    }
    let mut seen = BTreeSet::new();
    for version in versions.elements() {
        if seen.insert(version.str()) {
            version.form(names::dns1035_label);
        } else {
            version.invalid("duplicate version");
        }
    }
    if !seen.iter().any(|version| REVIEW_VERSIONS.contains(version)) {
        versions.invalid("must include at least one of v1, v1beta1");
    }
}

fn rule_with_operations(rule: &At) {
    let operations = rule.field("operations");
    operations.filled("");
    alone(&operations, "operations");
    operations.elements().for_each(|operation| operation.among(&OPERATIONS));
    for (list, others) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        rule.field(list).filled("");
        alone(&rule.field(list), others);
    }
    rule.each("apiVersions", |version| version.filled(""));
    resources(&rule.field("resources"));
    rule.optional("scope", |scope| scope.among(&["*", "Cluster", "Namespaced"]));
}

fn alone(list: &At, others: &str) {
    if list.list().len() > 1 && list.list().iter().any(|item| item == "*") {
        list.invalid(format!("if '*' is present, must not specify other {others}"));
    }
}

fn resources(resources: &At) {
    resources.filled("");
    let mut wild: Vec<(&str, &str)> = Vec::new();
    for name in resources.elements() {
        name.filled("");
        let Some((resource, sub)) = name.str().split_once('/') else { continue };
        if wild.contains(&(resource, "*")) {
            name.invalid(format!("if '{resource}/*' is present, must not specify {}", name.str()));
        }
        if wild.contains(&("*", sub)) {
            name.invalid(format!("if '*/{sub}' is present, must not specify {}", name.str()));
        }
        if resource == "*" || sub == "*" {
            wild.push((resource, sub));
        }
    }
    let names = resources.list();
    let has = |wanted: &str| names.iter().any(|r| r == wanted);
    if names.len() > 1 && has("*/*") {
        resources.invalid("if '*/*' is present, must not specify other resources");
    }
    let plain = |r: &Value| r.as_str().is_some_and(|r| r != "*" && !r.is_empty() && !r.contains('/'));
    if has("*") && names.iter().any(plain) {
        resources.invalid("if '*' is present, must not specify other resources without subresources");
    }
}

fn match_resources(resources: &At) {
    resources.field("matchPolicy").one_of(&["Equivalent", "Exact"]);
    for name in ["namespaceSelector", "objectSelector"] {
        resources.optional(name, selector::check);
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        resources.each(list, |rule| {
            let mut seen = BTreeSet::new();
            rule.each("resourceNames", |name| {
                name.form(names::path_segment);
                name.unique(&mut seen);
            });
            rule_with_operations(rule);
        });
    }
}

fn mutated_operations(constraints: &At) {
    let place = constraints.field("resourceRules.operations");
    let rules = constraints.items("resourceRules").iter();
    for operation in rules.flat_map(|rule| rule.items("operations")) {
        place.with(operation).among(&MUTATING_OPERATIONS);
    }
}

fn match_conditions(conditions: &At) {
    conditions.at_most(CONDITIONS_MAX);
    let mut seen = BTreeSet::new();
    for condition in conditions.elements() {
        expression(&condition.field("expression"), "");
        let name = condition.field("name");
        name.name(names::qualified_name);
        if !name.is_empty() {
            name.unique(&mut seen);
        }
    }
}

fn expression(expression: &At, missing: &str) {
    if expression.str().trim().is_empty() {
        expression.required(missing);
    }
}

fn variable(variable: &At) {
    let name = variable.field("name");
    if name.str().trim().is_empty() {
        name.required("name is not specified");
    } else if !names::c_identifier(name.str()).is_empty() {
        name.invalid("must be a valid CEL identifier");
    }
    expression(&variable.field("expression"), "expression is not specified");
}

fn validations(spec: &At, name: &str) {
    let (rules, annotations) = (spec.field("validations"), spec.field("auditAnnotations"));
    if rules.is_empty() && annotations.is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        rules.required(detail);
        return annotations.required(detail);
    }
    rules.elements().for_each(|rule| validation(&rule));
    if annotations.list().len() > ANNOTATIONS_MAX {
        annotations.invalid(format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations"));
    }
    let mut seen = BTreeSet::new();
    for annotation in annotations.elements() {
        let key = annotation.field("key");
        let whole = format!("{name}/{}", key.str());
        key.invalid_each(&whole, names::qualified_name(&whole));
        expression(&annotation.field("valueExpression"), "valueExpression is not specified");
        key.unique(&mut seen);
    }
}

fn validation(rule: &At) {
    expression(&rule.field("expression"), "expression is not specified");
    for name in ["messageExpression", "message"] {
        let text = rule.field(name);
        if !text.is_empty() && text.str().trim().is_empty() {
            text.invalid("must be non-empty if specified");
        }
    }
    let message = rule.field("message");
    if message.str().trim().contains(['\n', '\r']) {
        message.invalid("must not contain line breaks");
    }
    rule.optional("reason", |reason| {
        reason.among(&["Forbidden", "Invalid", "RequestEntityTooLarge"]);
    });
}

fn mutations(spec: &At) {
    spec.field("mutations").filled("mutations must contain at least one item");
    spec.each("mutations", mutation);
    spec.field("reinvocationPolicy").one_of(&REINVOCATIONS);
}

fn mutation(mutation: &At) {
    let kinds = [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")];
    let kind = mutation.field("patchType");
    let Some((_, expected)) = kinds.iter().find(|(known, _)| *known == kind.str()) else {
        return kind.one_of(&kinds.map(|(kind, _)| kind));
    };
    let described = mutation.field(expected);
    if described.is_given() {
        expression(&described.field("expression"), "");
    } else {
        described.required(&format!("must be specified when patchType is {}", kind.str()));
    }
    for (_, field) in kinds.iter().filter(|(_, field)| field != expected) {
        mutation.optional(field, |described| {
            let detail = format!("must not be specified when patchType is {}", kind.str());
            described.invalid_value(format!("{{{field}}}"), detail);
        });
    }
}

fn parameter_kind(kind: &At) {
    let api_version = kind.field("apiVersion");
    let (group, version) = api_version.str().split_once('/').unwrap_or(("", api_version.str()));
    if api_version.is_empty() {
        api_version.required("");
    } else if version.contains('/') {
        api_version.invalid(format!("unexpected GroupVersion string: {}", api_version.str()));
    } else {
        if !group.is_empty() {
            api_version.invalid_each(group, names::dns1123_subdomain(group));
        }
        if version.is_empty() {
            api_version.invalid("version must be specified");
        } else {
            api_version.invalid_each(version, names::dns1035_label(version));
        }
    }
    kind.field("kind").name(names::mixed_case_label);
}

fn parameter_reference(reference: &At) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let (name, selector) = (reference.field("name"), reference.field("selector"));
    name.name_or_none(names::path_segment);
    if !name.is_empty() && selector.is_given() {
        name.forbidden(EXCLUSIVE);
    }
    if selector.is_given() {
        selector::check(&selector);
        if !name.is_empty() {
            selector.forbidden(EXCLUSIVE);
        }
    } else if name.is_empty() {
        reference.required("one of name or selector must be specified");
    }
    reference.field("parameterNotFoundAction").one_of(&["Allow", "Deny"]);
}

fn actions(actions: &At) {
    let mut seen = BTreeSet::new();
    for action in actions.elements() {
        action.among(&["Audit", "Deny", "Warn"]);
        action.unique(&mut seen);
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        actions.invalid(
            "must not contain both Deny and Warn (repeating the same validation failure information in the API \
             response and headers serves no purpose)",
        );
    }
    actions.filled("at least one validation action is required");
}

//! What is wrong with the rules of a definition: found out when it is written, by types and by estimates of what rules can
//! cost, rather than when the first object comes.

use api::field::{Errors, FieldError, Look, Path, PathExt};
use cel::structural::REQUEST_BYTES_MAX;
use schema::Schema;
use serde_json::Value;

use super::OLD;
use super::compile::{Compiled, Node, field_path};

/// The most that a rule may be estimated to cost, however often its value can be there.
const RULE_COST_MAX: u64 = 10_000_000;
/// The most that all rules of a version may be estimated to cost.
const TOTAL_COST_MAX: u64 = 100_000_000;
/// How many of the most expensive rules are named.
const NAMED_MAX: usize = 4;
const RULES: &str = "x-kubernetes-validations";
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
const ADVICE: &str = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and \
                      strings are declared)";

/// What is wrong with the rules of a definition; nothing where its versions have not changed.
pub(crate) fn faults_of(definition: &Value, live: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Errors::new();
    if live.is_some_and(|live| live.pointer("/spec/versions") == definition.pointer("/spec/versions")) {
        return errors.into_vec();
    }
    let path = Path::ROOT.field("spec.versions");
    let versions = definition.get("spec").map(|spec| spec.items("versions")).unwrap_or_default();
    for (index, version) in versions.iter().enumerate() {
        let Some(source) = version.pointer("/schema/openAPIV3Schema") else { continue };
        let version = path.index(index);
        let path = version.field("schema.openAPIV3Schema");
        texts(&mut errors, &path, source, true);
        // A schema that cannot be read is another's fault.
        let Ok(schema) = Schema::from_openapi(source) else { continue };
        if errors.is_empty()
            && let Some(root) = Node::of(&schema, &schema, true)
        {
            let mut faults = Faults { errors: &mut errors, costs: Vec::new() };
            faults.node(&root, &path, &Place { times: Some(1), uncorrelatable: None });
            faults.total(&path);
        }
    }
    errors.into_vec()
}

/// What is wrong with rules as texts, wherever they stand.
fn texts(errors: &mut Errors, path: &Path, schema: &Value, may_be_here: bool) {
    let list = path.field(RULES);
    let rules = schema.items(RULES);
    if !may_be_here && !rules.is_empty() {
        errors.forbidden(&list, "must be empty to be structural");
    }
    // Paths lead through what the schema describes; one that cannot be read is told about elsewhere.
    let described = if rules.is_empty() { None } else { Schema::from_openapi(schema).ok() };
    for (index, rule) in rules.iter().enumerate() {
        texts_of_rule(errors, &list.index(index), rule, described.as_ref());
    }
    let properties = path.field("properties");
    for (name, property) in schema.entries("properties") {
        texts(errors, &properties.key(name), property, may_be_here);
    }
    for name in ["items", "additionalProperties", "not"] {
        if let Some(below) = schema.at(name) {
            texts(errors, &path.field(name), below, may_be_here && name != "not");
        }
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        let list = path.field(name);
        for (index, below) in schema.items(name).iter().enumerate() {
            texts(errors, &list.index(index), below, may_be_here && name == "allOf");
        }
    }
}

fn texts_of_rule(errors: &mut Errors, path: &Path, rule: &Value, schema: Option<&Schema>) {
    let has_breaks = |text: &str| text.contains(['\n', '\r']);
    let (text, message) = (rule.text("rule").trim(), rule.text("message"));
    if text.is_empty() {
        errors.required(&path.field("rule"), "rule is not specified");
    } else if !message.is_empty() && message.trim().is_empty() {
        errors.invalid(&path.field("message"), message, "must be non-empty if specified");
    } else if has_breaks(message.trim()) {
        errors.invalid(&path.field("message"), message, "must not contain line breaks");
    } else if has_breaks(text) && message.is_empty() {
        errors.required(&path.field("message"), "message must be specified if rule contains line breaks");
    }
    let expression = rule.text("messageExpression");
    if !expression.is_empty() && expression.trim().is_empty() {
        errors.required(&path.field("messageExpression"), "messageExpression must be non-empty if specified");
    }
    let reason = rule.text("reason");
    if !reason.is_empty() && !REASONS.contains(&reason) {
        errors.not_supported(&path.field("reason"), reason, &REASONS);
    }
    let below = rule.text("fieldPath");
    if !below.is_empty() {
        let path = path.field("fieldPath");
        if below.trim().is_empty() {
            errors.invalid(&path, below, "must be non-empty if specified");
        }
        if has_breaks(below) {
            errors.invalid(&path, below, "must not contain line breaks");
        }
        if schema.is_some_and(|schema| field_path(below, schema).is_none()) {
            errors.invalid(&path, below, "must be a valid path");
        }
    }
}

/// Where in a schema a node is.
struct Place {
    /// How often its value can be there; `None` where that is not limited.
    times: Option<u64>,
    /// The list around it whose elements cannot be compared with what they were.
    uncorrelatable: Option<String>,
}

struct Faults<'e> {
    errors: &'e mut Errors,
    /// The rules that cost most, and what all cost.
    costs: Vec<(String, u64)>,
}

impl Faults<'_> {
    fn node(&mut self, node: &Node, path: &Path, place: &Place) {
        let list = path.field(RULES);
        for (index, rule) in node.rules.iter().enumerate() {
            self.rule(node, rule, &list.index(index), place);
        }
        let times = place.times.zip(node.elements_max).map(|(times, each)| times.saturating_mul(each));
        let properties = path.field("properties");
        for (name, below) in &node.fields {
            let place = Place { times, uncorrelatable: place.uncorrelatable.clone() };
            self.node(below, &properties.key(name), &place);
        }
        if let Some(below) = &node.elements {
            let is_list = node.type_name == "array";
            let here = node.is_uncorrelatable().then(|| path.to_string());
            let place = Place { times, uncorrelatable: place.uncorrelatable.clone().or(here) };
            self.node(below, &path.field(if is_list { "items" } else { "additionalProperties" }), &place);
        }
    }

    fn rule(&mut self, node: &Node, rule: &Compiled, path: &Path, place: &Place) {
        let (rule_path, message_path) = (path.field("rule"), path.field("messageExpression"));
        let text = rule.source.rule.as_str();
        match &rule.expression {
            None => {}
            Some(Err(why)) => self.errors.invalid(&rule_path, text, why),
            Some(Ok(expression)) => {
                // Without a limit, as often as the smallest of them go into a request.
                let times = place.times.unwrap_or(REQUEST_BYTES_MAX / (node.shape.bytes_min + 1));
                self.cost(&rule_path, "rule", expression.estimate(&node.shape).saturating_mul(times));
                if let (true, Some(list)) = (expression.uses(OLD), &place.uncorrelatable) {
                    let why = "oldSelf cannot be used on the uncorrelatable portion of the schema within";
                    self.errors.invalid(&rule_path, text, format!("{why} {list}"));
                }
                if let (false, Some(optional)) = (expression.uses(OLD), rule.source.optional_old_self) {
                    let why = "may not be set if oldSelf is not used in rule";
                    self.errors.invalid(&path.field("optionalOldSelf"), optional, why);
                }
            }
        }
        match &rule.message {
            None => {}
            Some(Err(why)) => {
                self.errors.invalid(&message_path, rule.source.message_expression.as_str(), why);
            }
            Some(Ok(expression)) => {
                self.cost(&message_path, "messageExpression", expression.estimate(&node.shape));
            }
        }
    }

    fn cost(&mut self, path: &Path, name: &str, cost: u64) {
        if cost > RULE_COST_MAX {
            let why = format!(
                "estimated {name} cost exceeds budget by factor of {} {ADVICE}",
                factor(cost, RULE_COST_MAX)
            );
            self.errors.forbidden(path, &why);
        }
        self.costs.push((path.to_string(), cost));
    }

    fn total(&mut self, path: &Path) {
        let total = self.costs.iter().fold(0_u64, |total, (_, cost)| total.saturating_add(*cost));
        if total <= TOTAL_COST_MAX {
            return;
        }
        // Rules that are not a hundredth of it are not what makes it too much.
        self.costs.retain(|(_, cost)| *cost >= TOTAL_COST_MAX / 100);
        self.costs.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        for (path, _) in self.costs.iter().take(NAMED_MAX) {
            let why =
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            self.errors.forbidden(&Path::ROOT.field(path), why);
        }
        let why = format!(
            "{RULES} estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of {} {ADVICE}",
            factor(total, TOTAL_COST_MAX)
        );
        self.errors.forbidden(path, &why);
    }
}

fn factor(cost: u64, limit: u64) -> String {
    match cost as f64 / limit as f64 {
        factor if factor > 100.0 => "more than 100x".to_string(),
        factor if factor < 1.5 => format!("{factor:.6}x"),
        factor => format!("{factor:.1}x"),
    }
}

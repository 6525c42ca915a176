//! Rules in CEL that a definition's schemas hold (`x-kubernetes-validations`): whether they can be used, and what they
//! say of objects.
//!
//! Guarantees: rules that look at the old state are asked only where there is one to compare with; rules that do not
//! are not asked again of what has not changed, so that a new rule does not stand in the way of other changes; all
//! rules of one object together cost no more than upstream allows.
//! Deliberately absent: rules below `allOf`, and the estimate of costs when a definition is written.

use std::collections::HashMap;
use std::sync::Arc;

use api::field::{Errors, FieldError, Look, Path, PathExt};
use schema::{ListType, Rule, Schema, Type};
use serde_json::Value;

use crate::cel::{self, COST_MAX, Expression};

/// The most that all rules of one object may cost, as upstream.
const BUDGET: u64 = 10_000_000;
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
const THIS: &str = "self";
const OLD: &str = "oldSelf";

/// The compiled rules of a schema.
pub(super) struct Rules {
    schema: Arc<Schema>,
    expressions: HashMap<String, Expression>,
}

impl Rules {
    /// Compiles the rules of a schema; `None` when it has none. An error names the rule that does not compile.
    pub fn of(schema: &Arc<Schema>) -> Result<Option<Self>, String> {
        let mut expressions = HashMap::new();
        compile(schema, &mut expressions)?;
        Ok((!expressions.is_empty()).then(|| Self { schema: schema.clone(), expressions }))
    }

    /// What the rules have against an object, or against what it has become.
    pub fn check(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut walk = Walk { rules: self, errors: Errors::new(), budget: BUDGET };
        walk.node(&self.schema, &Path::ROOT, new, old);
        walk.errors.into_vec()
    }
}

/// What is wrong with the rules of a definition; nothing where its versions have not changed.
pub(crate) fn faults_of(definition: &Value, live: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Errors::new();
    if live.is_some_and(|live| live.pointer("/spec/versions") == definition.pointer("/spec/versions")) {
        return errors.into_vec();
    }
    let path = Path::ROOT.field("spec.versions");
    let versions = definition.get("spec").map(|spec| spec.items("versions")).unwrap_or_default();
    for (index, version) in versions.iter().enumerate() {
        if let Some(schema) = version.pointer("/schema/openAPIV3Schema") {
            faults_of_node(&mut errors, &path.index(index).field("schema.openAPIV3Schema"), schema);
        }
    }
    errors.into_vec()
}

fn faults_of_node(errors: &mut Errors, path: &Path, schema: &Value) {
    let list = path.field("x-kubernetes-validations");
    for (index, rule) in schema.items("x-kubernetes-validations").iter().enumerate() {
        faults_of_rule(errors, &list.index(index), rule);
    }
    let properties = path.field("properties");
    for (name, property) in schema.entries("properties") {
        faults_of_node(errors, &properties.key(name), property);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(below) = schema.at(name) {
            faults_of_node(errors, &path.field(name), below);
        }
    }
}

fn faults_of_rule(errors: &mut Errors, path: &Path, rule: &Value) {
    let text = rule.text("rule");
    if text.trim().is_empty() {
        errors.required(&path.field("rule"), "rule is not specified");
    }
    for name in ["rule", "messageExpression"].into_iter().filter(|name| !rule.text(name).trim().is_empty()) {
        if let Err(error) = Expression::compile(rule.text(name), &[THIS, OLD]) {
            errors.invalid(&path.field(name), rule.text(name), error.to_string());
        }
    }
    let message = rule.text("message");
    if !message.is_empty() && message.trim().is_empty() {
        errors.invalid(&path.field("message"), message, "message must be non-empty if specified");
    } else if message.trim().contains(['\n', '\r']) {
        errors.invalid(&path.field("message"), message, "message must not contain line breaks");
    }
    let reason = rule.text("reason");
    if !reason.is_empty() && !REASONS.contains(&reason) {
        errors.not_supported(&path.field("reason"), reason, &REASONS);
    }
    if rule.flag("optionalOldSelf") && Expression::compile(text, &[THIS, OLD]).is_ok_and(|e| !e.uses(OLD)) {
        let detail = "may not be set if oldSelf is not used in rule";
        errors.invalid(&path.field("optionalOldSelf"), true, detail);
    }
}

fn compile(schema: &Schema, into: &mut HashMap<String, Expression>) -> Result<(), String> {
    for rule in rules_of(schema) {
        for text in [&rule.rule, &rule.message_expression].into_iter().filter(|text| !text.is_empty()) {
            if !into.contains_key(text.as_str()) {
                let compiled = Expression::compile(text, &[THIS, OLD]);
                let compiled = compiled.map_err(|error| format!("{text:?}: {error}"))?;
                into.insert(text.clone(), compiled);
            }
        }
    }
    for below in children(schema) {
        compile(below, into)?;
    }
    Ok(())
}

fn rules_of(schema: &Schema) -> &[Rule] {
    schema.checks.as_deref().map_or(&[], |checks| &checks.rules)
}

fn children(schema: &Schema) -> impl Iterator<Item = &Schema> {
    let properties = schema.properties.iter().map(|property| property.schema.get());
    let additional = match &schema.additional {
        schema::Additional::Schema(link) => Some(link.get()),
        _ => None,
    };
    properties.chain(additional).chain(schema.items.as_ref().map(|link| link.get()))
}

struct Walk<'r> {
    rules: &'r Rules,
    errors: Errors,
    budget: u64,
}

impl Walk<'_> {
    fn node(&mut self, schema: &Schema, path: &Path, new: &Value, old: Option<&Value>) {
        if new.is_null() {
            return;
        }
        let old = old.filter(|old| !old.is_null());
        for rule in rules_of(schema) {
            self.rule(schema, path, rule, new, old);
        }
        match new {
            Value::Object(fields) => {
                for (name, value) in fields {
                    if let Some(described) = schema.field(name) {
                        let before = old.and_then(|old| old.get(name));
                        self.node(described, &path.field(name), value, before);
                    }
                }
            }
            Value::Array(items) => {
                let Some(described) = schema.items.as_ref().map(|link| link.get()) else { return };
                for (index, item) in items.iter().enumerate() {
                    self.node(described, &path.index(index), item, counterpart(schema, item, old));
                }
            }
            _ => {}
        }
    }

    fn rule(&mut self, schema: &Schema, path: &Path, rule: &Rule, new: &Value, old: Option<&Value>) {
        let Some(expression) = self.rules.expressions.get(&rule.rule) else { return };
        let optional = rule.optional_old_self == Some(true);
        let is_transition = expression.uses(OLD);
        if is_transition && !optional && old.is_none() || !is_transition && old == Some(new) {
            return;
        }
        let mut variables = vec![(THIS, cel::of_json(schema, new))];
        match old {
            Some(old) if optional => variables.push((OLD, cel::some(cel::of_json(schema, old)))),
            Some(old) => variables.push((OLD, cel::of_json(schema, old))),
            None => variables.push((OLD, cel::none())),
        }
        let trees: Vec<(&str, &Value)> = [(THIS, new)].into_iter().chain(old.map(|old| (OLD, old))).collect();
        let cost = expression.cost(&trees);
        let told = if rule.message.is_empty() {
            format!("failed rule: {}", rule.rule.trim())
        } else {
            rule.message.clone()
        };
        if cost > COST_MAX {
            let detail = format!(
                "no further validation rules will be run due to call cost exceeds limit for rule: {told}"
            );
            return self.errors.invalid(path, type_of(schema), detail);
        }
        if cost > self.budget {
            let detail = "validation failed due to running out of cost budget, no further validation rules will be run";
            return self.errors.invalid(path, type_of(schema), detail);
        }
        self.budget -= cost;
        match expression.evaluate(&variables) {
            Ok(::cel::Value::Bool(true)) => {}
            Ok(::cel::Value::Bool(false)) => {
                let said = self.rules.expressions.get(&rule.message_expression);
                let said = said.and_then(|message| message.evaluate(&variables).ok());
                let said = match said {
                    Some(::cel::Value::String(text)) if !text.trim().is_empty() => text.to_string(),
                    _ => told,
                };
                self.refuse(schema, path, rule, new, &said);
            }
            Ok(_) => {
                self.errors.invalid(path, type_of(schema), format!("no boolean evaluating rule: {told}"))
            }
            Err(error) => {
                self.errors.invalid(path, type_of(schema), format!("{error} evaluating rule: {told}"))
            }
        }
    }

    fn refuse(&mut self, schema: &Schema, path: &Path, rule: &Rule, value: &Value, said: &str) {
        let below = rule.field_path.trim_start_matches('.');
        let named = path.field(below);
        let path = if below.is_empty() { path } else { &named };
        match rule.reason.as_str() {
            "FieldValueForbidden" => self.errors.forbidden(path, said),
            "FieldValueRequired" => self.errors.required(path, said),
            "FieldValueDuplicate" => self.errors.duplicate(path, value.clone()),
            _ if matches!(schema.value_type, Type::Object | Type::Array) => {
                self.errors.invalid_unnamed(path, said)
            }
            _ => self.errors.invalid(path, value.clone(), said),
        }
    }
}

/// What an element of a list was before: known only where elements have keys.
fn counterpart<'a>(schema: &Schema, item: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
    if schema.list_type != ListType::Map {
        return None;
    }
    let same =
        |before: &&Value| schema.list_map_keys.iter().all(|key| before.get(&**key) == item.get(&**key));
    old?.as_array()?.iter().find(same)
}

/// The type as schemas write it.
fn type_of(schema: &Schema) -> &'static str {
    match schema.value_type {
        Type::Object => "object",
        Type::Array => "array",
        Type::Boolean => "boolean",
        Type::Number => "number",
        Type::Int32 | Type::Int64 => "integer",
        Type::String(_) => "string",
        Type::Any | Type::IntOrString => "",
    }
}

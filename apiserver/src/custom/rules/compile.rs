//! A schema's rules as a tree of what they are about.

use std::sync::Arc;

use cel::{CompileError, Environment, Expression, Shape, Type, structural};
use schema::{Additional, ListType, Rule, Schema};
use serde_json::Value;

use super::{OLD, THIS};

/// What a value is called in messages about types.
const TYPE: &str = "selfType";

/// A described value at which, or below which, there are rules.
pub(super) struct Node {
    pub shape: Arc<Shape>,
    /// The type as schemas write it.
    pub type_name: &'static str,
    pub rules: Vec<Compiled>,
    pub fields: Vec<(Box<str>, Node)>,
    /// Of a list or a map.
    pub elements: Option<Box<Node>>,
    pub all_of: Vec<Node>,
    /// The fields that identify an element; `None` where nothing does.
    keys: Option<Box<[Box<str>]>>,
    /// The most elements or entries; `None` where they are not limited. Of anything but lists and maps there is one.
    pub elements_max: Option<u64>,
}

/// A rule and what became of it.
pub(super) struct Compiled {
    pub source: Rule,
    /// `None` where there is no rule.
    pub expression: Option<Result<Expression, String>>,
    pub message: Option<Result<Expression, String>>,
    /// Where faults are reported, within the value.
    pub field_path: Option<String>,
}

impl Node {
    /// The rules of a schema, in which `validations` holds them and `schema` says what they are about. The two differ
    /// below `allOf`. `None` where there are no rules, or expressions do not see the value.
    pub fn of(validations: &Schema, schema: &Schema, is_resource: bool) -> Option<Self> {
        if !has_rules(validations) {
            return None;
        }
        let shape = structural::shape(schema, is_resource)?;
        let checks = validations.checks.as_deref();
        let rules = checks.map_or(&[][..], |checks| &checks.rules);
        let below =
            |validations: &Schema, schema: &Schema| Self::of(validations, schema, schema.embedded_resource);
        let fields = validations.properties.iter().filter_map(|property| {
            let described = schema.property(&property.name)?;
            Some((property.name.clone(), below(property.schema.get(), described.schema.get())?))
        });
        let elements = match (&validations.items, &schema.items) {
            (Some(validations), Some(schema)) => below(validations.get(), schema.get()),
            _ => match (&validations.additional, &schema.additional) {
                (Additional::Schema(validations), Additional::Schema(schema)) => {
                    below(validations.get(), schema.get())
                }
                _ => None,
            },
        };
        let all_of = checks.map_or(&[][..], |checks| &checks.all_of).iter();
        Some(Self {
            type_name: type_name(schema),
            rules: rules.iter().map(|rule| Compiled::of(rule, schema, &shape)).collect(),
            fields: fields.collect(),
            elements: elements.map(Box::new),
            all_of: all_of.filter_map(|other| Self::of(other, schema, is_resource)).collect(),
            keys: (schema.list_type == ListType::Map).then(|| schema.list_map_keys.clone()),
            elements_max: elements_max(schema),
            shape,
        })
    }

    /// What an element of a list was before: known only where elements have keys.
    pub fn counterpart<'v>(&self, item: &Value, old: &'v Value) -> Option<&'v Value> {
        let keys = self.keys.as_ref()?;
        let same = |before: &&Value| keys.iter().all(|key| before.get(&**key) == item.get(&**key));
        old.as_array()?.iter().find(same)
    }

    /// Whether elements of a list have nothing that they can be compared with.
    pub fn is_uncorrelatable(&self) -> bool {
        self.type_name == "array" && self.keys.is_none()
    }
}

impl Compiled {
    fn of(rule: &Rule, schema: &Schema, shape: &Arc<Shape>) -> Self {
        let this = Type::of(shape, TYPE);
        let is_optional = rule.optional_old_self == Some(true);
        let old = if is_optional { Type::Optional(Arc::new(this.clone())) } else { this.clone() };
        let environment = Environment::new().with(THIS, this).with(OLD, old);
        let compiled = |text: &str, wanted: &Type, name: &str, otherwise: &str| {
            let compiled = match Expression::compile(text, &environment) {
                Ok(expression) if expression.output() == wanted => Ok(expression),
                Ok(_) => Err(otherwise.to_string()),
                Err(CompileError::Constant(why)) => Err(format!("{name}instantiation failed: {why}")),
                Err(CompileError::Issues(why)) => {
                    Err(format!("{}compilation failed: {why}", name.trim_start_matches("program ")))
                }
            };
            (!text.trim().is_empty()).then_some(compiled)
        };
        let expression =
            compiled(&rule.rule, &Type::Bool, "program ", "cel expression must evaluate to a bool");
        let otherwise = "messageExpression must evaluate to a string";
        // Where there is no rule, nothing has to be said about it.
        let message = matches!(expression, Some(Ok(_)))
            .then(|| compiled(&rule.message_expression, &Type::String, "messageExpression ", otherwise))
            .flatten();
        let field_path = field_path(&rule.field_path, schema);
        Self { source: rule.clone(), expression, message, field_path }
    }

    /// The rule as messages about it name it.
    pub fn told(&self) -> &str {
        let Rule { rule, message, .. } = &self.source;
        if message.is_empty() { rule.trim() } else { message.trim() }
    }

    pub fn message_or_rule(&self) -> String {
        if self.source.message.is_empty() {
            format!("failed rule: {}", self.told())
        } else {
            self.told().to_string()
        }
    }
}

fn has_rules(schema: &Schema) -> bool {
    let checks = schema.checks.as_deref();
    let elements = match &schema.additional {
        Additional::Schema(link) => Some(link.get()),
        _ => schema.items.as_ref().map(|link| link.get()),
    };
    checks
        .is_some_and(|checks| !checks.rules.is_empty() || checks.all_of.iter().any(|other| has_rules(other)))
        || schema
            .properties
            .iter()
            .any(|property| property.schema.get().name.is_none() && has_rules(property.schema.get()))
        || elements.is_some_and(has_rules)
}

fn elements_max(schema: &Schema) -> Option<u64> {
    let checks = schema.checks.as_deref();
    match type_name(schema) {
        "array" => checks.and_then(|checks| checks.max_items),
        "object" if schema.is_map() => checks.and_then(|checks| checks.max_properties),
        _ => Some(1),
    }
}

/// The type as schemas write it.
fn type_name(schema: &Schema) -> &'static str {
    use schema::Type::{Any, Array, Boolean, Int32, Int64, IntOrString, Number, Object, String};
    match schema.value_type {
        Object => "object",
        Array => "array",
        Boolean => "boolean",
        Number => "number",
        Int32 | Int64 => "integer",
        String(_) => "string",
        Any | IntOrString => "",
    }
}

/// A path such as `.spec['a.b'].c` as messages write it; `None` where there is nothing there.
pub(super) fn field_path(path: &str, schema: &Schema) -> Option<String> {
    let (mut rest, mut here, mut out) = (path, schema, String::new());
    while !rest.is_empty() {
        let (name, after) = if let Some(quoted) = rest.strip_prefix("['") {
            let (name, after) = unquoted(quoted)?;
            (name, after.strip_prefix(']')?)
        } else {
            let plain = rest.strip_prefix('.')?;
            let (name, after) = plain.split_at(plain.find(['.', '[', ']']).unwrap_or(plain.len()));
            (name.to_string(), after)
        };
        if here.properties.is_empty() {
            let Additional::Schema(values) = &here.additional else { return None };
            out.push_str(&format!("[{name}]"));
            here = values.get();
        } else {
            out.push_str(if out.is_empty() { "" } else { "." });
            out.push_str(&name);
            here = here.property(&name)?.schema.get();
        }
        rest = after;
    }
    (!out.is_empty()).then_some(out)
}

/// What stands before the next quotation mark that is not escaped, and what comes after.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\'' => return Some((name, text.get(at + 1..)?)),
            '\\' => {
                let letter = letters.next()?.1;
                name.push(cel::plain_escape(letter).filter(|_| !matches!(letter, '"' | '?' | '`'))?);
            }
            _ => name.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn field_paths_should_lead_to_described_fields() {
        let schema = Schema::from_openapi(&json!({"type": "object", "properties": {
            "a": {"type": "object", "properties": {"b.c": {"type": "string"}, "it's": {"type": "string"}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"x": {"type": "string"}}}},
            "list": {"type": "array", "items": {"type": "string"}}}}))
        .unwrap();
        for (path, expected) in [
            (".a", Some("a")),
            (".a['b.c']", Some("a.b.c")),
            ("['a']['it\\'s']", Some("a.it's")),
            (".map.key.x", Some("map[key].x")),
            (".missing", None),
            (".list[0]", None),
            (".a.b.c", None),
            ("a", None),
            (".a[b]", None),
            (".a['b.c'", None),
        ] {
            assert_eq!(field_path(path, &schema).as_deref(), expected, "{path}");
        }
    }
}

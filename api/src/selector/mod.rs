//! Label and field selectors: their text forms, the `LabelSelector` object, and matching.

mod field;
mod parse;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

pub use field::{FieldSelector, FieldTerm};
use serde_json::{Map, Value};

use crate::{
    at::At,
    field::{Errors, Look, Path, PathExt, quoted},
    names,
};

/// Why text or an object is no selector. The request has to change: 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(String);

/// Anything that has labels.
pub trait Labels {
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for Map<String, Value> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }
}

/// A JSON map of labels; anything else has none.
impl Labels for Value {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl Labels for HashMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl<L: Labels> Labels for Option<L> {
    fn label(&self, key: &str) -> Option<&str> {
        self.as_ref()?.label(key)
    }
}

impl<L: Labels + ?Sized> Labels for &L {
    fn label(&self, key: &str) -> Option<&str> {
        (**self).label(key)
    }
}

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `=` and `==`
    Equals,
    /// `!=`
    NotEquals,
    /// `in`
    In,
    /// `notin`
    NotIn,
    /// The key alone.
    Exists,
    /// `!key`
    DoesNotExist,
    /// `>`
    GreaterThan,
    /// `<`
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

/// A conjunction of requirements; without any it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Requirement {
    /// A checked requirement.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, SelectorError> {
        values.sort();
        values.dedup();
        let mut errors = Errors::new();
        let values_path = Path::ROOT.field("values");
        let faults = names::qualified_name(key);
        if !faults.is_empty() {
            errors.invalid(&Path::ROOT.field("key"), key, faults.join("; "));
        }
        let wrong_count = match operator {
            Operator::In | Operator::NotIn => {
                values.is_empty().then_some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Equals | Operator::NotEquals => {
                (values.len() != 1).then_some("exact-match compatibility requires one single value")
            }
            Operator::Exists | Operator::DoesNotExist => {
                (!values.is_empty()).then_some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan => {
                (values.len() != 1).then_some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
        };
        if let Some(detail) = wrong_count {
            errors.invalid(&values_path, values.clone(), detail);
        }
        for (index, value) in values.iter().enumerate() {
            let path = values_path.index(index);
            let compares = matches!(operator, Operator::GreaterThan | Operator::LessThan);
            if compares && value.parse::<i64>().is_err() {
                errors.invalid(
                    &path,
                    value.as_str(),
                    "for 'Gt', 'Lt' operators, the value must be an integer",
                );
            }
            let faults = names::label_value(value);
            if !faults.is_empty() {
                errors.invalid(&path.key(key), value.as_str(), faults.join("; "));
            }
        }
        let said: Vec<String> =
            errors.into_vec().iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
        match said.as_slice() {
            [] => Ok(Self { key: key.to_string(), operator, values }),
            [one] => Err(SelectorError(one.clone())),
            many => Err(SelectorError(format!("[{}]", many.join(", ")))),
        }
    }

    /// The label's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How it compares.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// With what it compares, sorted.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether the labels fulfil it.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        let value = labels.label(&self.key);
        let is_listed = |v: &str| self.values.iter().any(|listed| listed == v);
        let number = |text: &str| text.parse::<i64>().ok();
        let wanted = || self.values.first().and_then(|v| number(v));
        match self.operator {
            Operator::Equals | Operator::In => value.is_some_and(is_listed),
            Operator::NotEquals | Operator::NotIn => !value.is_some_and(is_listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => value.and_then(number).zip(wanted()).is_some_and(|(v, w)| v > w),
            Operator::LessThan => value.and_then(number).zip(wanted()).is_some_and(|(v, w)| v < w),
        }
    }
}

impl LabelSelector {
    /// Selects every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects no object.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// The conjunction of these.
    pub fn of(requirements: Vec<Requirement>) -> Self {
        Self { requirements, nothing: false }
    }

    /// Reads `app=web,tier in (a,b),!canary`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::parse(text).map(Self::of)
    }

    /// The selector of a plain map, as services have it. An empty map selects everything.
    pub fn from_map(labels: &Map<String, Value>) -> Self {
        Self::of(labels.iter().map(|(key, value)| equals(key, value.as_str().unwrap_or_default())).collect())
    }

    /// Reads a `LabelSelector` object. Absent, it selects nothing; empty, everything.
    pub fn from_object(object: Option<&Value>) -> Result<Self, SelectorError> {
        let Some(object) = object.filter(|o| !o.is_null()) else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        for (key, value) in object.entries("matchLabels") {
            let value = value.as_str().unwrap_or_default().to_string();
            requirements.push(Requirement::new(key, Operator::Equals, vec![value])?);
        }
        for expression in object.items("matchExpressions") {
            let operator = match expression.text("operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    let message = format!("{} is not a valid label selector operator", quoted(other));
                    return Err(SelectorError(message));
                }
            };
            let values =
                expression.items("values").iter().filter_map(|v| v.as_str().map(str::to_string)).collect();
            requirements.push(Requirement::new(expression.text("key"), operator, values)?);
        }
        Ok(Self::of(requirements))
    }

    /// The requirements.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether it selects every object.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether the labels fulfil every requirement.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    /// Whether it selects an object, by `metadata.labels`.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.matches(object.dig(&["metadata", "labels"]).unwrap_or(&Value::Null))
    }
}

fn equals(key: &str, value: &str) -> Requirement {
    Requirement { key: key.to_string(), operator: Operator::Equals, values: vec![value.to_string()] }
}

impl fmt::Display for Requirement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One empty value would read as none.
        let is_empty = matches!(self.values.as_slice(), [only] if only.is_empty());
        let values = if is_empty && matches!(self.operator, Operator::In | Operator::NotIn) {
            ",".to_string()
        } else {
            self.values.join(",")
        };
        match self.operator {
            Operator::Equals => write!(out, "{}={values}", self.key),
            Operator::NotEquals => write!(out, "{}!={values}", self.key),
            Operator::In => write!(out, "{} in ({values})", self.key),
            Operator::NotIn => write!(out, "{} notin ({values})", self.key),
            Operator::Exists => out.write_str(&self.key),
            Operator::DoesNotExist => write!(out, "!{}", self.key),
            Operator::GreaterThan => write!(out, "{}>{values}", self.key),
            Operator::LessThan => write!(out, "{}<{values}", self.key),
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                out.write_str(",")?;
            }
            requirement.fmt(out)?;
        }
        Ok(())
    }
}

/// Checks a `LabelSelector` object.
pub fn check(selector: &At) {
    selector.field("matchLabels").labels();
    selector.each("matchExpressions", check_expression);
}

fn check_expression(expression: &At) {
    let (operator, values) = (expression.field("operator"), expression.field("values"));
    match operator.str() {
        "In" | "NotIn" => values.filled("must be specified when `operator` is 'In' or 'NotIn'"),
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Exists" | "DoesNotExist" => {}
        _ => operator.invalid_text("not a valid selector operator"),
    }
    expression.field("key").form(names::qualified_name);
    values.elements().for_each(|value| value.form(names::label_value));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_should_select_as_upstream_does() {
        let labels = json!({"app": "web", "tier": "a", "weight": "5"});
        for (text, selects) in [
            ("", true),
            ("app=web", true),
            ("app==web , tier in (a,b)", true),
            ("app!=web", false),
            ("missing!=x", true),
            ("app", true),
            ("!app", false),
            ("!missing", true),
            ("tier notin (a)", false),
            ("missing notin (a)", true),
            ("missing in (a)", false),
            ("weight>4,weight<6", true),
            ("weight>5", false),
            ("app in (,web)", true),
            ("app=", false),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(&labels), selects, "{text}");
        }
    }

    #[test]
    fn bad_text_should_be_refused_in_upstreams_words() {
        for (text, said) in [
            ("app=web,", "found '', expected: identifier after ','"),
            ("=web", "found '=', expected: !, identifier, or 'end of string'"),
            ("app web", "unable to parse requirement: found 'web', expected: in, notin, =, ==, !=, gt, lt"),
            ("app in web", "unable to parse requirement: found 'web' expected: '('"),
            ("app in (web", "unable to parse requirement: found '', expected: ',' or ')'"),
            (
                "app in ()",
                "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set \
              can't be empty",
            ),
            ("app=a=b", "found '=', expected: ',' or 'end of string'"),
            (
                "weight>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the \
              value must be an integer",
            ),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap_err().to_string(), said, "{text}");
        }
    }

    #[test]
    fn objects_should_select_and_print() {
        let object = json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["b", "a"]},
                                 {"key": "old", "operator": "DoesNotExist"}],
        });
        let selector = LabelSelector::from_object(Some(&object)).unwrap();
        assert_eq!(selector.to_string(), "app=web,tier in (a,b),!old");
        assert!(selector.matches(&json!({"app": "web", "tier": "a"})));
        assert!(!selector.matches(&json!({"app": "web", "tier": "a", "old": ""})));
        assert!(!LabelSelector::from_object(None).unwrap().matches(&json!({})));
        assert!(LabelSelector::from_object(Some(&json!({}))).unwrap().matches(&json!({})));
        assert_eq!(
            LabelSelector::from_object(Some(&json!({"matchExpressions": [{"key": "a", "operator": "X"}]})))
                .unwrap_err()
                .to_string(),
            "\"X\" is not a valid label selector operator"
        );
    }
}

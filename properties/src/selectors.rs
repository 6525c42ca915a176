//! Selectors: writing and reading again gives the same one, and what they match agrees with a model that is too simple to
//! be wrong.

use api::selector::{FieldSelector, LabelSelector, Operator, Requirement};
use serde_json::{Map, Value};

pub fn labels(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(selector) = LabelSelector::parse(text) else { return };
    let shown = selector.to_string();
    let again = LabelSelector::parse(&shown).unwrap_or_else(|error| panic!("{shown:?}: {error}"));
    assert_eq!(again, selector, "{shown:?}");
    for labels in sets(&selector) {
        let expected = selector.requirements().iter().all(|requirement| holds(requirement, &labels));
        let labels = Value::Object(labels);
        assert_eq!(selector.matches(&labels), expected, "{shown:?} of {labels}");
    }
}

/// Sets of labels that are worth a try: each key alone with each of its values, all with their first, none.
fn sets(selector: &LabelSelector) -> Vec<Map<String, Value>> {
    let mut sets = vec![Map::new(), Map::new()];
    for requirement in selector.requirements() {
        for value in requirement.values().iter().map(String::as_str).chain(["", "0", "5", "other"]) {
            let mut set = Map::new();
            set.insert(requirement.key().to_string(), value.into());
            sets.push(set);
        }
        let first = requirement.values().first().cloned().unwrap_or_default();
        sets[1].insert(requirement.key().to_string(), first.into());
    }
    sets
}

fn holds(requirement: &Requirement, labels: &Map<String, Value>) -> bool {
    let label = labels.get(requirement.key()).and_then(Value::as_str);
    let values = requirement.values();
    match requirement.operator() {
        Operator::Exists => label.is_some(),
        Operator::DoesNotExist => label.is_none(),
        Operator::Equals | Operator::In => values.iter().any(|value| label == Some(value)),
        Operator::NotEquals | Operator::NotIn => values.iter().all(|value| label != Some(value)),
        Operator::GreaterThan => compares(label, &values[0], |label, value| label > value),
        Operator::LessThan => compares(label, &values[0], |label, value| label < value),
    }
}

fn compares(label: Option<&str>, value: &str, is: impl Fn(i64, i64) -> bool) -> bool {
    match (label.map(str::parse), value.parse()) {
        (Some(Ok(label)), Ok(value)) => is(label, value),
        _ => false,
    }
}

pub fn fields(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(selector) = FieldSelector::parse(text) else { return };
    let shown = selector.to_string();
    let again = FieldSelector::parse(&shown).unwrap_or_else(|error| panic!("{shown:?}: {error}"));
    assert_eq!(again, selector, "{shown:?}");
    assert_eq!(selector.is_everything(), selector.terms.is_empty());
    for candidate in selector.terms.iter().map(|term| term.value.as_str()).chain(["", "other"]) {
        let expected = selector.terms.iter().all(|term| match term.equal {
            true => term.value == candidate,
            false => term.value != candidate,
        });
        assert_eq!(selector.matches(|_| candidate), expected, "{shown:?} of {candidate:?}");
    }
    for term in &selector.terms {
        let exact = selector.exact(&term.field);
        assert!(
            exact.is_none_or(|value| selector.terms.iter().any(|term| term.equal && term.value == value))
        );
    }
}

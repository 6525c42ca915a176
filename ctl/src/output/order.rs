//! `--sort-by`: objects in the order of one of their fields.

use std::cmp::Ordering;

use api::quantity::Quantity;
use serde_json::Value;

use super::jsonpath::Template;

/// The field by which is sorted.
pub struct Order(Template);

impl Order {
    /// Reads a path such as `.metadata.name` or `{.metadata.name}`.
    pub fn parse(path: &str) -> anyhow::Result<Self> {
        Template::parse(path).map(Self)
    }

    /// Sorts; what lacks the field comes first.
    pub fn sort<T>(&self, all: &mut [T], object: impl Fn(&T) -> &Value) {
        all.sort_by(|one, other| {
            let first = |of: &Value| self.0.values(of).first().map(|value| (*value).clone());
            compare(first(object(one)).as_ref(), first(object(other)).as_ref())
        });
    }
}

fn compare(one: Option<&Value>, other: Option<&Value>) -> Ordering {
    match (one, other) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(one), Some(other)) => values(one, other),
    }
}

fn values(one: &Value, other: &Value) -> Ordering {
    if let (Some(one), Some(other)) = (one.as_f64(), other.as_f64()) {
        return one.total_cmp(&other);
    }
    let (one, other) = (one.as_str().unwrap_or_default(), other.as_str().unwrap_or_default());
    match (one.parse::<Quantity>(), other.parse::<Quantity>()) {
        (Ok(one), Ok(other)) => one.cmp(&other),
        _ => naturally(one, other),
    }
}

/// As people count: `web-9` before `web-10`.
fn naturally(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one, other);
    loop {
        let (Some(a), Some(b)) = (one.chars().next(), other.chars().next()) else {
            return one.len().cmp(&other.len());
        };
        if a.is_ascii_digit() && b.is_ascii_digit() {
            let ((left, rest_one), (right, rest_other)) = (digits(one), digits(other));
            let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
            let order = left.len().cmp(&right.len()).then_with(|| left.cmp(right));
            if order != Ordering::Equal {
                return order;
            }
            (one, other) = (rest_one, rest_other);
        } else if a != b {
            return a.cmp(&b);
        } else {
            one = one.strip_prefix(a).unwrap_or_default();
            other = other.strip_prefix(b).unwrap_or_default();
        }
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_are_sorted_as_people_count() {
        let mut all: Vec<Value> =
            ["web-10", "web-9", "a"].iter().map(|name| json!({"metadata": {"name": name}})).collect();
        Order::parse(".metadata.name").unwrap().sort(&mut all, |one| one);
        let names: Vec<&str> = all.iter().filter_map(|one| one["metadata"]["name"].as_str()).collect();
        assert_eq!(names, ["a", "web-9", "web-10"]);
        let mut all = [json!({"n": "1Gi"}), json!({"n": "500Mi"}), json!({})];
        Order::parse("{.n}").unwrap().sort(&mut all, |one| one);
        assert_eq!(all, [json!({}), json!({"n": "500Mi"}), json!({"n": "1Gi"})]);
    }
}

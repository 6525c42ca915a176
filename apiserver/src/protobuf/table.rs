//! Which field has which number: upstream's messages as a table of text.
//!
//! A line is a message: its name, then its fields as `number:name:type`. Types are `s` text, `b` boolean, `i` integer,
//! `d` double, `y` bytes, or the name of a message (in the same package when it has no dots); in capitals where Go
//! writes zero values, too. Before them stand `*` for lists, `%` for maps from text, `^` for inlined structures.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::Value;

const FIELDS: &str = include_str!("fields.txt");

static TABLE: OnceLock<HashMap<String, Message>> = OnceLock::new();

/// How often a value occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    List,
    Map,
    Inline,
}

/// One field of a message.
#[derive(Debug)]
pub(super) struct Field {
    number: u64,
    pub name: &'static str,
    pub shape: Shape,
    /// A letter or the full name of a message.
    pub kind: String,
    /// Whether a zero is written where it stands alone.
    pub keeps_zero: bool,
}

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    pub name: String,
    fields: Vec<Field>,
}

impl Message {
    pub fn field(&self, number: u64) -> Option<&Field> {
        self.fields.iter().find(|field| field.number == number)
    }
}

impl Field {
    /// The message that the field holds.
    pub fn message(&self) -> Option<&'static Message> {
        table().get(&self.kind)
    }

    /// Whether elements are numbers, which may be packed.
    pub fn is_number(&self) -> bool {
        matches!(self.kind.as_str(), "i" | "b")
    }

    /// The zero value, as elements of lists and maps have it.
    pub fn zero(&self) -> Value {
        match self.kind.as_str() {
            "s" | "y" => "".into(),
            "i" | "d" => 0.into(),
            "b" => false.into(),
            _ => Value::Null,
        }
    }
}

/// The message of a kind: `apps/v1 Deployment` is `apps.v1.Deployment`, `rbac.authorization.k8s.io/v1 Role` is
/// `rbac.v1.Role`.
pub(super) fn of_kind(api_version: &str, kind: &str) -> Option<&'static Message> {
    if kind == "DeleteOptions" {
        return table().get("meta.v1.DeleteOptions");
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    let package = group.split('.').next().unwrap_or_default();
    // Older clients send beta versions of what has not changed since (evictions, for one).
    table()
        .get(&format!("{package}.{version}.{kind}"))
        .or_else(|| table().get(&format!("{package}.v1.{kind}")))
}

fn table() -> &'static HashMap<String, Message> {
    TABLE.get_or_init(|| FIELDS.lines().filter_map(message).map(|m| (m.name.clone(), m)).collect())
}

fn message(line: &'static str) -> Option<Message> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let package = name.rsplit_once('.')?.0;
    Some(Message { name: name.to_string(), fields: words.filter_map(|word| field(package, word)).collect() })
}

fn field(package: &str, word: &'static str) -> Option<Field> {
    let mut parts = word.splitn(3, ':');
    let (number, name, kind) = (parts.next()?, parts.next()?, parts.next()?);
    let (shape, kind) = match kind.chars().next()? {
        '*' => (Shape::List, kind.get(1..)?),
        '%' => (Shape::Map, kind.get(1..)?),
        '^' => (Shape::Inline, kind.get(1..)?),
        _ => (Shape::One, kind),
    };
    let scalar = kind.len() == 1;
    let keeps_zero = scalar && kind.chars().all(char::is_uppercase);
    let kind = match (scalar, kind.contains('.')) {
        (true, _) => kind.to_lowercase(),
        (false, true) => kind.to_string(),
        (false, false) => format!("{package}.{kind}"),
    };
    Some(Field { number: number.parse().ok()?, name, shape, kind, keeps_zero })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_should_lead_somewhere() {
        let mut fields = 0;
        for message in table().values() {
            for field in &message.fields {
                fields += 1;
                assert!(
                    field.kind.len() == 1 || field.message().is_some(),
                    "{}.{}",
                    message.name,
                    field.name
                );
            }
        }
        assert!(fields > 2000, "{fields}");
        assert_eq!(of_kind("rbac.authorization.k8s.io/v1", "Role").unwrap().name, "rbac.v1.Role");
    }
}

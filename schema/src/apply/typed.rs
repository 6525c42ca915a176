//! A schema node as server-side apply sees it: is a value a leaf, a map or a keyed list, and what are its parts called.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::node::{Additional, ListType, MapType, Schema, Type};

/// A schema with what the field it stands in overrides.
#[derive(Clone, Copy)]
pub(super) struct Typed<'s> {
    pub schema: &'s Schema,
    map_type: MapType,
}

/// How a value is taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// As a whole.
    Leaf,
    /// Field by field.
    Map,
    /// Element by element.
    List,
}

impl<'s> Typed<'s> {
    pub fn of(schema: &'s Schema) -> Self {
        Self { schema, map_type: schema.map_type }
    }

    /// How these values are taken apart. What has no type is a map if it looks like one, else a leaf.
    pub fn shape(&self, values: [Option<&Value>; 2]) -> Shape {
        match self.schema.value_type {
            Type::Object | Type::Any if self.map_type == MapType::Atomic => Shape::Leaf,
            Type::Object => Shape::Map,
            Type::Any => {
                let is_map = values.iter().flatten().all(|value| value.is_object());
                if is_map { Shape::Map } else { Shape::Leaf }
            }
            Type::Array if self.schema.list_type != ListType::Atomic => Shape::List,
            _ => Shape::Leaf,
        }
    }

    /// A field of a map.
    pub fn field(&self, name: &str) -> Typed<'s> {
        if let Some(property) = self.schema.property(name) {
            return Typed { schema: property.schema.get(), map_type: property.map_type() };
        }
        match &self.schema.additional {
            Additional::Schema(link) => Typed::of(link.get()),
            Additional::Any | Additional::Unknown => Typed::of(Schema::anything()),
        }
    }

    /// Whether the field is one of a structure's, rather than a key of a free map.
    pub fn declares(&self, name: &str) -> bool {
        self.schema.property(name).is_some()
    }

    /// Whether the field is a structure of a built-in, which always exists and is owned by nobody as such.
    pub fn is_structure(&self, name: &str) -> bool {
        self.schema.property(name).is_some_and(|p| p.schema.get().is_built_in())
    }

    /// An element of a list.
    pub fn item(&self) -> Typed<'s> {
        match &self.schema.items {
            Some(link) => Typed::of(link.get()),
            None => Typed::of(Schema::anything()),
        }
    }

    /// What is below a path element.
    pub fn element(&self, element: &str) -> Typed<'s> {
        match element.strip_prefix("f:") {
            Some(name) => self.field(name),
            None => self.item(),
        }
    }

    /// The path element of a list's element. A key that is neither there nor has a default counts as null.
    pub fn name_of(&self, item: &Value) -> String {
        match self.schema.list_type {
            ListType::Map => {
                let keys: Map<String, Value> = self
                    .schema
                    .list_map_keys
                    .iter()
                    .map(|key| (key.to_string(), self.key_of(item, key).unwrap_or_default()))
                    .collect();
                format!("k:{}", Value::Object(keys))
            }
            ListType::Set | ListType::Atomic => format!("v:{item}"),
        }
    }

    /// The value of one key of a list's element, or its default.
    pub fn key_of(&self, item: &Value, key: &str) -> Option<Value> {
        if let Some(value) = item.get(key) {
            return Some(value.clone());
        }
        let property = self.item().schema.property(key)?;
        property.default.as_deref().cloned()
    }
}

/// The list, where null and absence are the empty one.
pub(super) fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The map, where null and absence are the empty one.
pub(super) fn fields(value: Option<&Value>) -> Cow<'_, Map<String, Value>> {
    match value.and_then(Value::as_object) {
        Some(map) => Cow::Borrowed(map),
        None => Cow::Owned(Map::new()),
    }
}

/// Whether there is nothing in a map or list: it is absent, null or empty.
pub(super) fn is_hollow(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}

/// Walks two maps in step, in the order of their keys.
pub(super) fn zip<'a>(
    left: &'a Map<String, Value>,
    right: &'a Map<String, Value>,
) -> impl Iterator<Item = (&'a String, Option<&'a Value>, Option<&'a Value>)> {
    let mut left = left.iter().peekable();
    let mut right = right.iter().peekable();
    std::iter::from_fn(move || {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return None,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        match order {
            std::cmp::Ordering::Less => left.next().map(|(key, value)| (key, Some(value), None)),
            std::cmp::Ordering::Greater => right.next().map(|(key, value)| (key, None, Some(value))),
            std::cmp::Ordering::Equal => {
                let (key, value) = left.next()?;
                Some((key, Some(value), right.next().map(|(_, value)| value)))
            }
        }
    })
}

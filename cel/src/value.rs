//! Values: views of JSON trees under their shapes, and what expressions compute. A view is a reference; nothing of a
//! tree is copied before something is made of it.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use jiff::{SignedDuration, Zoned};
use serde_json::{Map as Object, Value as Json};

use crate::functions::time;
use crate::meter::{Fault, Outcome};
use crate::shape::{Kind, Merge, Shape};

/// A value.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Value<'v> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'v>),
    Bytes(Arc<[u8]>),
    Duration(SignedDuration),
    /// With how far the clock was ahead that wrote it.
    Timestamp(Zoned),
    List(List<'v>),
    Map(Map<'v>),
    Optional(Option<Arc<Value<'v>>>),
    /// A type, by its name.
    Type(Text<'v>),
    /// What a library brings.
    Opaque(Arc<dyn Opaque>),
    /// A tree that nothing is declared of.
    Raw(&'v Json),
}

/// A value of a library's type.
pub trait Opaque: Any + fmt::Debug + Send + Sync {
    /// The name of the type.
    fn type_name(&self) -> &'static str;
    /// Whether the other is the same.
    fn is(&self, other: &dyn Opaque) -> bool;
    /// What it weighs in costs.
    fn size(&self) -> u64 {
        1
    }
}

/// Text: of a tree or an expression, or computed.
#[derive(Clone)]
pub enum Text<'v> {
    /// As it stands there.
    Borrowed(&'v str),
    /// Made.
    Shared(Arc<str>),
}

/// A list.
#[derive(Clone, Debug)]
pub struct List<'v> {
    pub(crate) items: Items<'v>,
    pub(crate) merge: Merge,
}

#[derive(Clone, Debug)]
pub(crate) enum Items<'v> {
    Json(&'v [Json], &'v Shape),
    Values(Arc<Vec<Value<'v>>>),
}

/// A map, or an object with its fields.
#[derive(Clone, Debug)]
pub enum Map<'v> {
    /// Of a tree.
    Json(&'v Object<String, Json>, &'v Shape),
    /// Made.
    Values(Arc<BTreeMap<Key<'v>, Value<'v>>>),
}

/// What an entry of a map is found by; numbers that are equal are the same key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Key<'v> {
    Bool(bool),
    Int(i64),
    /// One that is no `Int`.
    Uint(u64),
    String(Text<'v>),
}

impl<'v> Value<'v> {
    /// A tree of which nothing is declared: whole numbers are integers.
    pub fn of_json(tree: &'v Json) -> Self {
        Self::view(tree, Shape::any()).unwrap_or(Self::Raw(tree))
    }

    /// A tree that is declared. Fails where it is not what it is declared to be.
    pub fn view(tree: &'v Json, shape: &'v Shape) -> Outcome<'v> {
        let wrong = |expected: &str| Err(Fault::failed(format!("invalid data, expected {expected}")));
        Ok(match (&shape.kind, tree) {
            (Kind::Raw, _) => Self::Raw(tree),
            (_, Json::Null) if shape.nullable => Self::Null,
            (_, Json::Null) => {
                return Err(Fault::failed("invalid data, got null for schema with nullable=false"));
            }
            (Kind::Any | Kind::Bool, Json::Bool(flag)) => Self::Bool(*flag),
            (Kind::Any | Kind::Int, Json::Number(number)) if number.is_i64() => {
                Self::Int(number.as_i64().unwrap_or_default())
            }
            (Kind::Any | Kind::Double, Json::Number(number)) => {
                Self::Double(number.as_f64().unwrap_or_default())
            }
            (Kind::Any | Kind::String, Json::String(text)) => Self::String(Text::Borrowed(text)),
            (Kind::Bytes | Kind::Duration | Kind::Date | Kind::Timestamp, Json::String(text)) => {
                return formatted(&shape.kind, text);
            }
            (Kind::Any, Json::Array(items)) => Self::List(List::view(items, Shape::any(), Merge::Atomic)),
            (Kind::List { items: shape, merge }, Json::Array(items)) => {
                Self::List(List::view(items, shape, merge.clone()))
            }
            (Kind::Any | Kind::Map { .. } | Kind::Object { .. }, Json::Object(fields)) => {
                Self::Map(Map::Json(fields, shape))
            }
            (Kind::Object { .. } | Kind::Map { .. }, _) => return wrong("a map"),
            (Kind::List { .. }, _) => return wrong("an array"),
            (Kind::Bool, _) => return wrong("bool"),
            (Kind::Int, _) => return wrong("int"),
            (Kind::Double, _) => return wrong("float"),
            _ => return wrong("string"),
        })
    }

    /// Text that was made.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::String(Text::Shared(text.into()))
    }

    /// A list that was made.
    pub fn list(items: Vec<Self>) -> Self {
        Self::List(List { items: Items::Values(Arc::new(items)), merge: Merge::Atomic })
    }

    /// A map that was made, as when its keys are the names of fields.
    pub fn fields<'n>(fields: impl IntoIterator<Item = (&'n str, Self)>) -> Self {
        let entry = |(name, value): (&str, Self)| (Key::String(Text::Shared(name.into())), value);
        Self::Map(Map::Values(Arc::new(fields.into_iter().map(entry).collect())))
    }

    /// The same, as a copy of whatever it looks at.
    pub fn into_owned(self) -> Result<Value<'static>, Fault> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Bool(flag) => Value::Bool(flag),
            Self::Int(number) => Value::Int(number),
            Self::Uint(number) => Value::Uint(number),
            Self::Double(number) => Value::Double(number),
            Self::String(text) => Value::text(&*text),
            Self::Bytes(bytes) => Value::Bytes(bytes),
            Self::Duration(span) => Value::Duration(span),
            Self::Timestamp(time) => Value::Timestamp(time),
            Self::Type(name) => Value::Type(Text::Shared((&*name).into())),
            Self::Opaque(value) => Value::Opaque(value),
            Self::Optional(None) => Value::none(),
            Self::Optional(Some(value)) => Value::some((*value).clone().into_owned()?),
            Self::List(list) => {
                let items = list.iter().map(|item| item?.into_owned()).collect::<Result<Vec<_>, _>>()?;
                Value::List(List { items: Items::Values(Arc::new(items)), merge: list.merge })
            }
            Self::Map(map) => {
                let entry = |key: Value<'v>| {
                    let value =
                        Key::of(&key).and_then(|key| map.get(&key)).unwrap_or(Err(Fault::NoOverload))?;
                    Ok((key.into_owned()?, value.into_owned()?))
                };
                return made(map.keys().into_iter().map(entry).collect::<Result<_, Fault>>()?);
            }
            Self::Raw(_) => return Err(Fault::failed("values that are not described cannot be kept")),
        })
    }

    /// `optional.of(value)`
    pub fn some(value: Self) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// `optional.none()`
    pub fn none() -> Self {
        Self::Optional(None)
    }

    /// A value of a library's type.
    pub fn opaque(value: impl Opaque) -> Self {
        Self::Opaque(Arc::new(value))
    }

    /// What a library made, if that is what it is.
    pub(crate) fn downcast<T: 'static>(&self) -> Result<&T, Fault> {
        match self {
            Self::Opaque(value) => (&**value as &dyn Any).downcast_ref().ok_or(Fault::NoOverload),
            _ => Err(Fault::NoOverload),
        }
    }

    /// Its text, if it is text.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// Whether it is true, if it is a truth.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(flag) = self { Some(*flag) } else { None }
    }

    /// The name of its type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Opaque(value) => value.type_name(),
            Self::Raw(_) => "unknown",
        }
    }

    /// What it weighs in costs: its characters, bytes, elements or entries.
    pub(crate) fn size(&self) -> u64 {
        let size = match self {
            Self::String(text) => text.chars().count(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(list) => list.len(),
            Self::Map(map) => map.len(),
            Self::Optional(Some(value)) => return value.size(),
            Self::Opaque(value) => return value.size(),
            _ => 1,
        };
        size as u64
    }

    /// Whether it is a scalar that says nothing.
    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Self::Null | Self::Optional(None) => true,
            Self::Bool(flag) => !flag,
            Self::Int(number) => *number == 0,
            Self::Uint(number) => *number == 0,
            Self::Double(number) => *number == 0.0,
            Self::Duration(duration) => duration.is_zero(),
            Self::Timestamp(time) => time.timestamp().as_second() == -62_135_596_800,
            Self::String(_) | Self::Bytes(_) | Self::List(_) | Self::Map(_) => self.size() == 0,
            _ => false,
        }
    }
}

/// A string that is declared to say something else.
fn formatted<'v>(kind: &Kind, text: &'v str) -> Outcome<'v> {
    use base64::Engine;
    let bad = |what: &str| Fault::failed(format!("Invalid {what} {text}"));
    match kind {
        Kind::Bytes => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            bytes.map(|bytes| Value::Bytes(bytes.into())).map_err(|_| bad("byte formatted string"))
        }
        Kind::Duration => time::long_duration(text).map(Value::Duration).ok_or_else(|| bad("duration")),
        Kind::Date => {
            let start = format!("{text}T00:00:00Z");
            time::parse_timestamp(&start).map(Value::Timestamp).ok_or_else(|| bad("date formatted string"))
        }
        _ => {
            time::parse_timestamp(text).map(Value::Timestamp).ok_or_else(|| bad("date-time formatted string"))
        }
    }
}

/// A map of what a literal spells.
pub(crate) fn made<'v>(entries: Vec<(Value<'v>, Value<'v>)>) -> Outcome<'v> {
    let mut map = BTreeMap::new();
    for (key, value) in entries {
        let key = Key::of(&key)
            .ok_or_else(|| Fault::failed(format!("unsupported key type: {}", key.type_name())))?;
        if map.contains_key(&key) {
            let key = crate::functions::format::plain(&key.into());
            return Err(Fault::failed(format!("Failed with repeated key '{key}'")));
        }
        map.insert(key, value);
    }
    Ok(Value::Map(Map::Values(Arc::new(map))))
}

impl<'v> List<'v> {
    fn view(items: &'v [Json], shape: &'v Shape, merge: Merge) -> Self {
        Self { items: Items::Json(items, shape), merge }
    }

    /// How many elements it has.
    pub fn len(&self) -> usize {
        match &self.items {
            Items::Json(items, _) => items.len(),
            Items::Values(items) => items.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An element, if there is one.
    pub fn get(&self, index: usize) -> Option<Outcome<'v>> {
        match &self.items {
            Items::Json(items, shape) => items.get(index).map(|item| Value::view(item, shape)),
            Items::Values(items) => items.get(index).cloned().map(Ok),
        }
    }

    /// Its elements.
    pub fn iter(&self) -> impl Iterator<Item = Outcome<'v>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// All of its elements.
    pub(crate) fn all(&self) -> Result<Vec<Value<'v>>, Fault> {
        self.iter().collect()
    }
}

impl<'v> Map<'v> {
    /// How many entries it has.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(fields, _) => fields.len(),
            Self::Values(entries) => entries.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry of a key, if there is one. Fields that are null are not there.
    pub fn get(&self, key: &Key<'v>) -> Option<Outcome<'v>> {
        match (self, key) {
            (Self::Values(entries), _) => entries.get(key).cloned().map(Ok),
            (Self::Json(..), Key::String(name)) => self.field(name),
            _ => None,
        }
    }

    /// The entry of a name.
    pub fn field(&self, name: &str) -> Option<Outcome<'v>> {
        match self {
            Self::Json(fields, shape) if matches!(shape.kind, Kind::Object { .. }) => {
                let field = shape.field(name)?;
                let tree = fields.get(&*field.name).filter(|tree| !tree.is_null())?;
                Some(Value::view(tree, &field.shape))
            }
            Self::Json(fields, shape) => {
                let of = shape.elements().unwrap_or_else(|| Shape::any());
                fields.get(name).map(|tree| Value::view(tree, of))
            }
            Self::Values(entries) => entries.get(&Key::String(Text::Shared(name.into()))).cloned().map(Ok),
        }
    }

    /// The keys.
    pub fn keys(&self) -> Vec<Value<'v>> {
        match self {
            Self::Json(fields, Shape { kind: Kind::Object { fields: declared }, .. }) => {
                let there = declared.iter().filter(|(_, field)| fields.contains_key(&*field.name));
                there.map(|(name, _)| Value::String(Text::Borrowed(name))).collect()
            }
            Self::Json(fields, _) => fields.keys().map(|name| Value::String(Text::Borrowed(name))).collect(),
            Self::Values(entries) => entries.keys().cloned().map(Value::from).collect(),
        }
    }
}

impl<'v> Key<'v> {
    /// A value as a key, if it can be one.
    pub fn of(value: &Value<'v>) -> Option<Self> {
        Some(match value {
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Int(number) => Self::Int(*number),
            Value::Uint(number) => i64::try_from(*number).map_or(Self::Uint(*number), Self::Int),
            Value::Double(number) if number.fract() == 0.0 && number.abs() < 9.0e18 => {
                Self::Int(*number as i64)
            }
            Value::String(text) => Self::String(text.clone()),
            _ => return None,
        })
    }
}

impl<'v> From<Key<'v>> for Value<'v> {
    fn from(key: Key<'v>) -> Self {
        match key {
            Key::Bool(flag) => Self::Bool(flag),
            Key::Int(number) => Self::Int(number),
            Key::Uint(number) => Self::Uint(number),
            Key::String(text) => Self::String(text),
        }
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text<'_> {}

impl std::hash::Hash for Text<'_> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl PartialOrd for Text<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(other)
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(out)
    }
}

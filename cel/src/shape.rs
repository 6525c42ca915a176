//! What JSON trees are declared to be: which of their numbers are integers, which strings are times, what their fields
//! are called in expressions, and how large they can be.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// A declared JSON value.
#[derive(Clone, Debug)]
pub struct Shape {
    /// What it is.
    pub kind: Kind,
    /// Whether null is a value of its own.
    pub nullable: bool,
    /// The most characters, bytes, elements or entries.
    pub elements_max: u64,
    /// The fewest bytes that it takes as JSON text.
    pub bytes_min: u64,
}

/// The kinds of declared values.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Kind {
    /// Whatever it turns out to be.
    Any,
    /// Not described: it can be compared, and nothing else.
    Raw,
    Bool,
    Int,
    Double,
    String,
    /// Base64.
    Bytes,
    Duration,
    Date,
    Timestamp,
    List {
        items: Arc<Shape>,
        merge: Merge,
    },
    Map {
        values: Arc<Shape>,
    },
    /// Fields by the names that expressions write.
    Object {
        fields: BTreeMap<Box<str>, Field>,
    },
}

/// A declared field.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: Box<str>,
    /// What it is.
    pub shape: Arc<Shape>,
}

/// What makes two lists equal, and what comes of adding them.
#[derive(Clone, Debug, Default)]
pub enum Merge {
    /// Element by element, and one after the other.
    #[default]
    Atomic,
    /// As a set of scalars.
    Set,
    /// By the elements' values of these fields, as expressions write them.
    Map(Arc<[Box<str>]>),
}

impl Shape {
    /// A value of this kind that is never null.
    pub fn new(kind: Kind, elements_max: u64, bytes_min: u64) -> Arc<Self> {
        Arc::new(Self { kind, nullable: false, elements_max, bytes_min })
    }

    /// The shape of whatever a tree turns out to be.
    pub fn any() -> &'static Arc<Self> {
        static ANY: OnceLock<Arc<Shape>> = OnceLock::new();
        ANY.get_or_init(|| {
            Arc::new(Self { kind: Kind::Any, nullable: true, elements_max: u64::MAX, bytes_min: 1 })
        })
    }

    /// The shape of a map's keys, which upstream takes to be of no size.
    pub(crate) fn text() -> &'static Arc<Self> {
        static TEXT: OnceLock<Arc<Shape>> = OnceLock::new();
        TEXT.get_or_init(|| Self::new(Kind::String, 0, 2))
    }

    /// The shape of a field by the name that expressions write. Words that the language has for itself stand between
    /// underscores, and may stand as they are where nothing else can be meant.
    pub fn field(&self, name: &str) -> Option<&Field> {
        match &self.kind {
            Kind::Object { fields } => fields.get(name).or_else(|| fields.get(&*format!("__{name}__"))),
            _ => None,
        }
    }

    /// The shape of what a list or map holds.
    pub fn elements(&self) -> Option<&Arc<Self>> {
        match &self.kind {
            Kind::List { items, .. } => Some(items),
            Kind::Map { values } => Some(values),
            _ => None,
        }
    }
}

//! The schema tree: compact, immutable, shared by reference count.

use std::sync::{Arc, OnceLock};

use regex::Regex;
use serde_json::Value;

/// What values a schema admits and how they are merged.
///
/// Nodes of named definitions are shared between all kinds that use them. Recursive definitions form a reference
/// cycle through [`Link::Named`], so they are never freed: only built-in schemas, which live for ever, have them.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// The last parts of the definition's name, as type errors show it: `v1.DeploymentSpec`. Only built-ins have it.
    pub name: Option<Arc<str>>,
    /// The type.
    pub value_type: Type,
    /// Whether null is a value of its own (custom resources only).
    pub nullable: bool,
    /// The known fields, sorted by name.
    pub properties: Box<[Property]>,
    /// What other fields are.
    pub additional: Additional,
    /// Fields that have to be there.
    pub required: Box<[Box<str>]>,
    /// What elements of a list are.
    pub items: Option<Link>,
    /// How lists are merged by server-side apply.
    pub list_type: ListType,
    /// The fields that identify an element of a [`ListType::Map`].
    pub list_map_keys: Box<[Box<str>]>,
    /// How maps are merged by server-side apply.
    pub map_type: MapType,
    /// Whether unknown fields are kept.
    pub preserve_unknown: bool,
    /// Whether the value is an object with `apiVersion`, `kind` and `metadata`.
    pub embedded_resource: bool,
    /// Everything that only validation looks at.
    pub checks: Option<Box<Checks>>,
    /// What this node is by default where it is an element rather than a property.
    pub default: Option<Arc<Value>>,
}

/// The type of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Type {
    /// Anything.
    #[default]
    Any,
    Object,
    Array,
    String(ScalarFormat),
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    Number,
    Boolean,
    IntOrString,
}

/// What a built-in string holds, where the decoder itself has an opinion on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScalarFormat {
    /// Any text.
    #[default]
    Plain,
    /// Base64.
    Bytes,
    /// RFC 3339 with seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// A resource quantity; numbers are taken as well.
    Quantity,
}

/// One known field of an object.
#[derive(Clone, Debug)]
pub struct Property {
    /// Its name.
    pub name: Box<str>,
    /// What it is.
    pub schema: Link,
    /// What it becomes when it is absent.
    pub default: Option<Arc<Value>>,
    /// How a strategic merge patch treats it.
    pub patch: Option<Box<Patch>>,
    /// Overrides [`Schema::map_type`] for this field.
    pub map_type: Option<MapType>,
}

/// How a strategic merge patch treats a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// Lists are merged, not replaced.
    pub merge: bool,
    /// Maps are replaced, not merged.
    pub replace: bool,
    /// Fields of the object that the patch does not name are dropped.
    pub retain_keys: bool,
    /// The field that identifies an element of a merged list of objects.
    pub merge_key: Option<Box<str>>,
}

/// Fields beside the known ones.
#[derive(Clone, Debug, Default)]
pub enum Additional {
    /// There are none; what comes is unknown.
    #[default]
    Unknown,
    /// Anything goes and is kept as it is.
    Any,
    /// A map of these.
    Schema(Link),
}

/// How server-side apply merges a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// As a whole.
    #[default]
    Atomic,
    /// As a set of scalars.
    Set,
    /// By the keys of its elements.
    Map,
}

/// How server-side apply merges a map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MapType {
    /// Field by field.
    #[default]
    Granular,
    /// As a whole.
    Atomic,
}

/// A child: at hand, or a definition that may be its own ancestor.
#[derive(Clone)]
pub enum Link {
    /// At hand.
    Direct(Arc<Schema>),
    /// A named definition, filled in when the set of definitions is complete.
    Named(Arc<OnceLock<Arc<Schema>>>),
}

/// What validation asks of a value beyond its type.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Checks {
    pub enumeration: Option<Box<[Value]>>,
    pub pattern: Option<Pattern>,
    pub format: Option<Box<str>>,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<f64>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub unique_items: bool,
    pub min_properties: Option<u64>,
    pub max_properties: Option<u64>,
    pub all_of: Box<[Arc<Schema>]>,
    pub any_of: Box<[Arc<Schema>]>,
    pub one_of: Box<[Arc<Schema>]>,
    pub not: Option<Arc<Schema>>,
    /// `x-kubernetes-validations`, for whoever evaluates CEL.
    pub rules: Box<[Rule]>,
}

/// A regular expression that is compiled when it is first needed: a custom resource brings hundreds of them, and a
/// compiled one takes kilobytes.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: Box<str>,
    compiled: OnceLock<Option<Arc<Regex>>>,
}

impl Pattern {
    /// Checks the syntax.
    pub(crate) fn new(source: &str) -> Result<Self, String> {
        regex_syntax::Parser::new().parse(source).map_err(|error| error.to_string())?;
        Ok(Self { source: source.into(), compiled: OnceLock::new() })
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it matches anywhere in the text. One that turns out too large to compile matches everything.
    pub fn is_match(&self, text: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| Regex::new(&self.source).ok().map(Arc::new));
        compiled.as_ref().is_none_or(|regex| regex.is_match(text))
    }
}

impl Checks {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        let Checks {
            enumeration,
            pattern,
            format,
            minimum,
            exclusive_minimum: _,
            maximum,
            exclusive_maximum: _,
            multiple_of,
            min_length,
            max_length,
            min_items,
            max_items,
            unique_items,
            min_properties,
            max_properties,
            all_of,
            any_of,
            one_of,
            not,
            rules,
        } = self;
        let counts = [min_length, max_length, min_items, max_items, min_properties, max_properties];
        let numbers = [minimum, maximum, multiple_of];
        let lists = [all_of, any_of, one_of];
        enumeration.is_none()
            && pattern.is_none()
            && format.is_none()
            && !unique_items
            && not.is_none()
            && rules.is_empty()
            && counts.iter().all(|c| c.is_none())
            && numbers.iter().all(|n| n.is_none())
            && lists.iter().all(|l| l.is_empty())
    }
}

/// One entry of `x-kubernetes-validations`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Rule {
    pub rule: String,
    pub message: String,
    pub message_expression: String,
    pub reason: String,
    pub field_path: String,
    pub optional_old_self: Option<bool>,
}

static ANYTHING: OnceLock<Arc<Schema>> = OnceLock::new();

impl Schema {
    /// The schema that admits everything and merges maps field by field.
    pub fn anything() -> &'static Arc<Schema> {
        ANYTHING.get_or_init(|| {
            Arc::new(Schema { preserve_unknown: true, additional: Additional::Any, ..Schema::default() })
        })
    }

    /// The known field of that name.
    pub fn property(&self, name: &str) -> Option<&Property> {
        let index = self.properties.binary_search_by(|p| (*p.name).cmp(name)).ok()?;
        self.properties.get(index)
    }

    /// What a field of that name is, known or additional; `None` when it is unknown and not described.
    pub fn field(&self, name: &str) -> Option<&Schema> {
        if let Some(property) = self.property(name) {
            return Some(property.schema.get());
        }
        match &self.additional {
            Additional::Schema(link) => Some(link.get()),
            Additional::Any | Additional::Unknown => None,
        }
    }

    /// Whether this is a built-in structure, whose decoder reports type errors.
    pub fn is_built_in(&self) -> bool {
        self.name.is_some()
    }

    /// Whether the type says all there is to say about a scalar.
    pub(crate) fn is_plain_scalar(&self) -> bool {
        self.name.is_none()
            && self.checks.is_none()
            && self.default.is_none()
            && !self.nullable
            && !self.preserve_unknown
            && self.items.is_none()
            && self.properties.is_empty()
            && self.required.is_empty()
            && matches!(self.additional, Additional::Unknown)
    }

    /// Whether the value is a free map rather than a structure.
    pub fn is_map(&self) -> bool {
        matches!(self.additional, Additional::Schema(_))
    }

    /// This schema as the root of a custom resource: with `apiVersion`, `kind` and the given `metadata`.
    #[must_use]
    pub fn with_envelope(mut self, object_meta: &Arc<Schema>) -> Schema {
        let text = Arc::new(Schema { value_type: Type::String(ScalarFormat::Plain), ..Schema::default() });
        let metadata = match self.property("metadata") {
            // A custom resource may restrict its name and generateName; nothing else of metadata can be described.
            Some(described) => with_checks_of(object_meta, described.schema.get()),
            None => object_meta.clone(),
        };
        let envelope = [("apiVersion", text.clone()), ("kind", text), ("metadata", metadata)];
        let mut properties: Vec<Property> = std::mem::take(&mut self.properties)
            .into_iter()
            .filter(|p| envelope.iter().all(|(name, _)| *name != &*p.name))
            .collect();
        properties.extend(envelope.map(|(name, schema)| Property::plain(name, schema)));
        properties.sort_by(|a, b| a.name.cmp(&b.name));
        self.properties = properties.into();
        self.value_type = Type::Object;
        self
    }
}

fn with_checks_of(object_meta: &Arc<Schema>, described: &Schema) -> Arc<Schema> {
    let Some(name) = described.property("name") else { return object_meta.clone() };
    let mut restricted = (**object_meta).clone();
    for property in &mut restricted.properties {
        if &*property.name == "name" {
            let mut schema = property.schema.get().clone();
            schema.checks = name.schema.get().checks.clone();
            property.schema = Link::Direct(Arc::new(schema));
        }
    }
    Arc::new(restricted)
}

impl Property {
    /// A field without defaults and patch hints.
    pub fn plain(name: &str, schema: Arc<Schema>) -> Self {
        Self { name: name.into(), schema: Link::Direct(schema), default: None, patch: None, map_type: None }
    }

    /// How server-side apply merges the field, if it is a map.
    pub fn map_type(&self) -> MapType {
        self.map_type.unwrap_or(self.schema.get().map_type)
    }
}

impl Link {
    /// The node. A definition that was never filled in admits everything.
    pub fn get(&self) -> &Schema {
        match self {
            Self::Direct(schema) => schema,
            Self::Named(cell) => cell.get().unwrap_or_else(|| Schema::anything()),
        }
    }

    /// The node, shared.
    pub fn share(&self) -> Arc<Schema> {
        match self {
            Self::Direct(schema) => schema.clone(),
            Self::Named(cell) => cell.get().unwrap_or_else(|| Schema::anything()).clone(),
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Direct(schema) => schema.fmt(out),
            // Not followed: definitions may be recursive.
            Self::Named(cell) => write!(out, "Named({:?})", cell.get().and_then(|s| s.name.as_deref())),
        }
    }
}

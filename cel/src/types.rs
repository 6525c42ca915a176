//! Static types, and how they unify: what an expression's parts are, as far as that can be said without values.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::shape::Shape;

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Type {
    /// Anything; what can be done with it is found out by doing it.
    Dyn,
    /// Of what did not check. Goes with everything, so that one fault is told once.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    List(Arc<Type>),
    Map(Arc<(Type, Type)>),
    Optional(Arc<Type>),
    /// The type of a type.
    Type(Arc<Type>),
    /// What a library brings.
    Opaque(&'static str),
    /// An object with declared fields.
    Object(Object),
    /// To be found out.
    Param(u32),
}

/// An object type: known by its name.
#[derive(Clone, Debug)]
pub struct Object {
    /// Tells it from others, also from those with the same fields.
    pub name: Arc<str>,
    /// Its fields.
    pub shape: Arc<Shape>,
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// How many parts the type of a literal may have: nested macros can square them at every level.
const PARTS_MAX: usize = 100;

impl Type {
    /// What a declared value is; the name tells objects from others that have the same fields.
    pub fn of(shape: &Arc<Shape>, name: &str) -> Self {
        Self::of_shape(shape, name)
    }

    pub(crate) fn list(item: Self) -> Self {
        Self::List(Arc::new(item))
    }

    pub(crate) fn map(key: Self, value: Self) -> Self {
        Self::Map(Arc::new((key, value)))
    }

    /// The same, unless it is made of too much to go on with: then it is anything.
    pub(crate) fn bounded(self) -> Self {
        let mut left = PARTS_MAX;
        self.count(&mut left);
        if left == 0 { Self::Dyn } else { self }
    }

    pub(crate) fn optional(inner: Self) -> Self {
        Self::Optional(Arc::new(inner))
    }

    fn count(&self, left: &mut usize) {
        *left = left.saturating_sub(1);
        if *left > 0 {
            self.parts().iter().for_each(|part| part.count(left));
        }
    }

    /// The types that it is made of.
    pub(crate) fn parts(&self) -> Vec<&Self> {
        match self {
            Self::List(inner) | Self::Optional(inner) | Self::Type(inner) => vec![inner],
            Self::Map(parts) => vec![&parts.0, &parts.1],
            _ => Vec::new(),
        }
    }

    fn with_parts(&self, change: &mut dyn FnMut(&Self) -> Self) -> Self {
        match self {
            Self::List(inner) => Self::list(change(inner)),
            Self::Optional(inner) => Self::optional(change(inner)),
            Self::Type(inner) => Self::Type(Arc::new(change(inner))),
            Self::Map(parts) => Self::map(change(&parts.0), change(&parts.1)),
            other => other.clone(),
        }
    }

    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn | Self::Error)
    }

    /// Whether null may stand in its place.
    fn is_nullable(&self) -> bool {
        use Type::{Duration, Null, Object, Opaque, Optional, Timestamp};
        matches!(self, Null | Opaque(_) | Object(_) | Optional(_) | Duration | Timestamp)
    }

    /// Whether every value of it is about as large as any other.
    pub(crate) fn is_scalar(&self) -> bool {
        use Type::{Bool, Double, Duration, Int, Timestamp, Uint};
        match self {
            Self::Optional(inner) => inner.is_scalar(),
            other => matches!(other, Bool | Double | Duration | Int | Timestamp | Uint),
        }
    }

    /// The type of a field or element, as upstream's name for it goes on from its owner's.
    pub(crate) fn of_shape(shape: &Arc<Shape>, name: &str) -> Self {
        use crate::shape::Kind;
        match &shape.kind {
            Kind::Any | Kind::Raw => Self::Dyn,
            Kind::Bool => Self::Bool,
            Kind::Int => Self::Int,
            Kind::Double => Self::Double,
            Kind::String => Self::String,
            Kind::Bytes => Self::Bytes,
            Kind::Duration => Self::Duration,
            Kind::Date | Kind::Timestamp => Self::Timestamp,
            Kind::List { items, .. } => Self::list(Self::of_shape(items, &format!("{name}.@idx"))),
            Kind::Map { values } => Self::map(Self::String, Self::of_shape(values, &format!("{name}.@elem"))),
            Kind::Object { .. } => Self::Object(Object { name: name.into(), shape: shape.clone() }),
        }
    }

    /// The name that a value of this type answers `type()` with.
    pub(crate) fn runtime_name(&self) -> String {
        match self {
            Self::List(_) => "list".into(),
            Self::Map(_) | Self::Object(_) => "map".into(),
            Self::Optional(_) => "optional_type".into(),
            Self::Type(_) => "type".into(),
            Self::Null => "null_type".into(),
            Self::Duration => "google.protobuf.Duration".into(),
            Self::Timestamp => "google.protobuf.Timestamp".into(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Dyn | Self::Param(_) => "dyn",
            Self::Error => "!error!",
            Self::Null => "null",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Duration => "duration",
            Self::Timestamp => "timestamp",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Opaque(name) => name,
            Self::Object(object) => &object.name,
        };
        out.write_str(name)?;
        let parts: Vec<String> = self.parts().iter().map(ToString::to_string).collect();
        if parts.is_empty() { Ok(()) } else { write!(out, "({})", parts.join(", ")) }
    }
}

/// What the parameters of types have been found to be.
#[derive(Clone, Default)]
pub(crate) struct Solver {
    known: HashMap<u32, Type>,
    next: u32,
}

/// The parameters that a signature can name: one for every capital letter.
const LETTERS: u32 = 26;

impl Solver {
    pub fn fresh(&mut self) -> Type {
        Type::Param(self.fresh_base())
    }

    /// Where the parameters of a signature begin in this use of it.
    pub fn fresh_base(&mut self) -> u32 {
        self.next += LETTERS;
        self.next
    }

    /// A type of a signature, in this use of it.
    pub fn instance(of: &Type, base: u32) -> Type {
        match of {
            Type::Param(letter) => Type::Param(base + letter),
            other => other.with_parts(&mut |part| Self::instance(part, base)),
        }
    }

    /// Whether values of these types go where those are wanted. Learns from it if so.
    pub fn admits(&mut self, given: &[Type], wanted: &[Type]) -> bool {
        let before = self.known.clone();
        let fits = given.len() == wanted.len()
            && given.iter().zip(wanted).all(|(given, wanted)| self.assignable(given, wanted));
        if !fits {
            self.known = before;
        }
        fits
    }

    /// A type with what is known of its parameters.
    pub fn resolve(&self, of: &Type) -> Type {
        match of {
            Type::Param(param) => {
                self.known.get(param).map_or_else(|| of.clone(), |known| self.resolve(known))
            }
            other => other.with_parts(&mut |part| self.resolve(part)),
        }
    }

    /// The same, with anything for what stayed unknown.
    pub fn settle(&self, of: &Type) -> Type {
        match self.resolve(of) {
            Type::Param(_) => Type::Dyn,
            other => other.with_parts(&mut |part| self.settle(part)),
        }
    }

    fn assignable(&mut self, one: &Type, other: &Type) -> bool {
        if let Type::Param(param) = other {
            match self.bind(*param, one) {
                Binding::Fits => return true,
                Binding::IsOther => return false,
                Binding::Occurs => {}
            }
        }
        match (one, other) {
            (Type::Param(param), _) => matches!(self.bind(*param, other), Binding::Fits),
            _ if one.is_dyn() || other.is_dyn() => true,
            (Type::Null, nullable) | (nullable, Type::Null) => nullable.is_nullable(),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(_), Type::List(_))
            | (Type::Map(_), Type::Map(_))
            | (Type::Optional(_), Type::Optional(_)) => {
                one.parts().iter().zip(other.parts()).all(|(one, other)| self.assignable(one, other))
            }
            _ => one == other,
        }
    }

    fn bind(&mut self, param: u32, to: &Type) -> Binding {
        if *to == Type::Param(param) {
            return Binding::Fits;
        }
        if let Some(known) = self.known.get(&param).cloned() {
            if *to == known {
                return Binding::Fits;
            }
            if !self.assignable(to, &known) {
                return Binding::IsOther;
            }
            let general = most_general(to, &known);
            if !self.occurs(param, &general) {
                self.known.insert(param, general);
            }
            return Binding::Fits;
        }
        if self.occurs(param, to) {
            return Binding::Occurs;
        }
        self.known.insert(param, to.clone());
        Binding::Fits
    }

    fn occurs(&self, param: u32, within: &Type) -> bool {
        match within {
            Type::Param(other) if *other == param => true,
            Type::Param(other) => self.known.get(other).is_some_and(|known| self.occurs(param, known)),
            other => other.parts().iter().any(|part| self.occurs(param, part)),
        }
    }
}

enum Binding {
    Fits,
    /// The parameter is known to be something else.
    IsOther,
    /// The parameter is a part of what it would have to be.
    Occurs,
}

/// The one of two types that fit that says less.
pub(crate) fn most_general(one: &Type, other: &Type) -> Type {
    if says_no_more(one, other) { one.clone() } else { other.clone() }
}

fn says_no_more(one: &Type, other: &Type) -> bool {
    match (one, other) {
        (Type::Dyn | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Param(_)) => false,
        (Type::Type(_), Type::Type(_)) => true,
        (Type::List(_), Type::List(_))
        | (Type::Map(_), Type::Map(_))
        | (Type::Optional(_), Type::Optional(_)) => {
            one.parts().iter().zip(other.parts()).all(|(one, other)| says_no_more(one, other))
        }
        _ => one == other,
    }
}

/// `string.(string, int) -> list(T)` as (is a member function, parameters, result). What libraries bring has dots in its
/// name, parameters are capital letters.
pub(crate) fn signature(text: &'static str) -> Option<(bool, Vec<Type>, Type)> {
    let (call, result) = text.split_once(" -> ")?;
    let (target, arguments) = match call.split_once(".(") {
        Some((target, arguments)) => (Some(target), arguments),
        None => (None, call.strip_prefix('(')?),
    };
    let arguments = arguments.strip_suffix(')')?;
    let all = target.into_iter().chain(split(arguments)).map(parsed).collect::<Option<Vec<_>>>()?;
    Some((target.is_some(), all, parsed(result)?))
}

fn parsed(text: &'static str) -> Option<Type> {
    let (name, inner) = match text.split_once('(') {
        Some((name, inner)) => (name, split(inner.strip_suffix(')')?)),
        None => (text, Vec::new()),
    };
    let mut inner = inner.into_iter().map(parsed);
    Some(match name {
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        "list" => Type::list(inner.next()??),
        "map" => Type::map(inner.next()??, inner.next()??),
        "optional" => Type::optional(inner.next()??),
        "type" => Type::Type(Arc::new(inner.next()??)),
        _ => match name.as_bytes() {
            [letter @ b'A'..=b'Z'] => Type::Param(u32::from(letter - b'A')),
            _ => Type::Opaque(name),
        },
    })
}

/// What commas part, outside of brackets.
fn split(text: &'static str) -> Vec<&'static str> {
    let (mut depth, mut start, mut parts) = (0_i32, 0, Vec::new());
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.extend(text.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(text.get(start..));
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

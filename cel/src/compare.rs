//! Equality and order.

use std::cmp::Ordering;
use std::collections::HashMap;

use serde_json::Value as Json;

use crate::meter::{Fault, Meter};
use crate::shape::Merge;
use crate::value::{Key, List, Map, Value};

/// Whether two values are equal. Numbers are by what they amount to; what cannot be compared is not equal.
pub(crate) fn equal<'v>(meter: &Meter<'_>, one: &Value<'v>, other: &Value<'v>) -> Result<bool, Fault> {
    meter.work(8)?;
    Ok(match (one, other) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(one), Value::Bool(other)) => one == other,
        (Value::String(one), Value::String(other)) => {
            meter.work(one.len().min(other.len()))?;
            one == other
        }
        (Value::Bytes(one), Value::Bytes(other)) => one == other,
        (Value::Duration(one), Value::Duration(other)) => one == other,
        (Value::Timestamp(one), Value::Timestamp(other)) => one == other,
        (Value::Type(one), Value::Type(other)) => one == other,
        (Value::Optional(None), Value::Optional(None)) => true,
        (Value::Optional(Some(one)), Value::Optional(Some(other))) => equal(meter, one, other)?,
        (Value::List(one), Value::List(other)) => lists(meter, one, other)?,
        (Value::Map(one), Value::Map(other)) => maps(meter, one, other)?,
        (Value::Opaque(one), Value::Opaque(other)) => one.is(&**other),
        (Value::Raw(one), Value::Raw(other)) => same_trees(meter, one, other)?,
        _ => numbers(one, other) == Some(Ordering::Equal),
    })
}

/// The order of two values that have one.
pub(crate) fn order(one: &Value<'_>, other: &Value<'_>) -> Result<Ordering, Fault> {
    Ok(match (one, other) {
        (Value::Bool(one), Value::Bool(other)) => one.cmp(other),
        (Value::String(one), Value::String(other)) => one.cmp(other),
        (Value::Bytes(one), Value::Bytes(other)) => one.cmp(other),
        (Value::Duration(one), Value::Duration(other)) => one.cmp(other),
        (Value::Timestamp(one), Value::Timestamp(other)) => one.cmp(other),
        (Value::Double(number), _) | (_, Value::Double(number)) if number.is_nan() => {
            return Err(Fault::failed("NaN values cannot be ordered"));
        }
        _ => return numbers(one, other).ok_or(Fault::NoOverload),
    })
}

fn numbers(one: &Value<'_>, other: &Value<'_>) -> Option<Ordering> {
    match (one, other) {
        (Value::Double(one), Value::Double(other)) => one.partial_cmp(other),
        (Value::Double(one), other) => to_double(*one, whole(other)?),
        (one, Value::Double(other)) => to_double(*other, whole(one)?).map(Ordering::reverse),
        (one, other) => Some(whole(one)?.cmp(&whole(other)?)),
    }
}

fn whole(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Int(number) => Some((*number).into()),
        Value::Uint(number) => Some((*number).into()),
        _ => None,
    }
}

fn to_double(one: f64, other: i128) -> Option<Ordering> {
    // What a double cannot hold exactly is larger than any integer here, or smaller.
    match one {
        _ if one.is_nan() => None,
        _ if one >= 2e19 => Some(Ordering::Greater),
        _ if one <= -2e19 => Some(Ordering::Less),
        _ => match (one.trunc() as i128).cmp(&other) {
            Ordering::Equal => one.fract().partial_cmp(&0.0),
            unequal => Some(unequal),
        },
    }
}

fn lists<'v>(meter: &Meter<'_>, one: &List<'v>, other: &List<'v>) -> Result<bool, Fault> {
    if one.len() != other.len() {
        return Ok(false);
    }
    match (&one.merge, &other.merge) {
        (Merge::Set, _) | (_, Merge::Set) => {
            let known = Lookup::of(one, &Merge::Set)?;
            other.all()?.iter().try_fold(true, |all, item| Ok(all && known.find(meter, item)?.is_some()))
        }
        (keyed @ Merge::Map(_), _) | (_, keyed @ Merge::Map(_)) => {
            let known = Lookup::of(one, keyed)?;
            for item in other.iter() {
                let item = item?;
                match known.find(meter, &item)?.and_then(|at| known.items.get(at)) {
                    Some(at) if equal(meter, at, &item)? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        (Merge::Atomic, Merge::Atomic) => {
            for (one, other) in one.iter().zip(other.iter()) {
                if !equal(meter, &one?, &other?)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}

/// The elements of a list by what makes them what they are.
pub(crate) struct Lookup<'v> {
    pub items: Vec<Value<'v>>,
    merge: Merge,
    places: HashMap<Vec<Option<Key<'v>>>, usize>,
    /// Elements that are no keys, and have to be looked through.
    others: Vec<usize>,
}

impl<'v> Lookup<'v> {
    pub fn of(list: &List<'v>, merge: &Merge) -> Result<Self, Fault> {
        let mut lookup =
            Self { items: Vec::new(), merge: merge.clone(), places: HashMap::new(), others: Vec::new() };
        for item in list.iter() {
            lookup.add(item?);
        }
        Ok(lookup)
    }

    pub fn add(&mut self, item: Value<'v>) {
        let at = self.items.len();
        match self.key(&item) {
            Some(key) => drop(self.places.insert(key, at)),
            None => self.others.push(at),
        }
        self.items.push(item);
    }

    /// Where an element is that is the same by that.
    pub fn find(&self, meter: &Meter<'_>, item: &Value<'v>) -> Result<Option<usize>, Fault> {
        if let Some(key) = self.key(item) {
            return Ok(self.places.get(&key).copied());
        }
        for at in &self.others {
            if let Some(known) = self.items.get(*at)
                && equal(meter, known, item)?
            {
                return Ok(Some(*at));
            }
        }
        Ok(None)
    }

    fn key(&self, item: &Value<'v>) -> Option<Vec<Option<Key<'v>>>> {
        match (&self.merge, item) {
            (Merge::Map(names), Value::Map(fields)) => {
                let key =
                    |name: &str| fields.field(name).and_then(Result::ok).and_then(|value| Key::of(&value));
                Some(names.iter().map(|name| key(name)).collect())
            }
            (Merge::Map(_), _) => None,
            (Merge::Set | Merge::Atomic, item) => Some(vec![Some(Key::of(item)?)]),
        }
    }
}

fn maps<'v>(meter: &Meter<'_>, one: &Map<'v>, other: &Map<'v>) -> Result<bool, Fault> {
    if one.len() != other.len() {
        return Ok(false);
    }
    for key in one.keys() {
        let Some(key) = Key::of(&key) else { return Ok(false) };
        let same = match (one.get(&key), other.get(&key)) {
            (Some(one), Some(other)) => equal(meter, &one?, &other?)?,
            (one, other) => one.is_none() && other.is_none(),
        };
        if !same {
            return Ok(false);
        }
    }
    // Fields that are not declared take part as the trees they are.
    if let (Map::Json(one_fields, shape), Map::Json(other_fields, _)) = (one, other)
        && let crate::shape::Kind::Object { fields } = &shape.kind
    {
        let declared: Vec<&str> = fields.values().map(|field| &*field.name).collect();
        for (name, tree) in one_fields.iter().filter(|(name, _)| !declared.contains(&name.as_str())) {
            if let Some(other) = other_fields.get(name)
                && !same_trees(meter, tree, other)?
            {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn same_trees(meter: &Meter<'_>, one: &Json, other: &Json) -> Result<bool, Fault> {
    meter.work(weight(one))?;
    Ok(one == other)
}

/// About how many bytes a tree takes.
fn weight(tree: &Json) -> usize {
    16 + match tree {
        Json::String(text) => text.len(),
        Json::Array(items) => items.iter().map(weight).sum(),
        Json::Object(fields) => fields.values().map(weight).sum(),
        _ => 0,
    }
}

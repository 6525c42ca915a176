//! What calls cost: before anything is known but types and largest sizes, and when the arguments are there.
//!
//! All factors are upstream's, to the unit: an estimate decides which rules a definition may have.

use crate::types::Type;
use crate::value::Value;

/// A character is a tenth of a unit.
const PER_CHARACTER: f64 = 0.1;
/// A character of a pattern is a quarter of a step of its automaton.
const PER_PATTERN_CHARACTER: f64 = 0.25;
const LIST: u64 = 10;
const STRUCTURE: u64 = 40;

/// From at least to at most. What would not fit is the most there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub min: u64,
    pub max: u64,
}

impl Range {
    pub const UNKNOWN: Self = Self { min: 0, max: u64::MAX };

    pub const fn fixed(count: u64) -> Self {
        Self { min: count, max: count }
    }

    pub fn plus(self, other: Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    pub fn times(self, other: Self) -> Self {
        self.with(other, u64::saturating_mul)
    }

    pub fn scaled(self, factor: f64) -> Self {
        Self { min: scaled(self.min, factor), max: scaled(self.max, factor) }
    }

    pub fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    fn with(self, other: Self, of: fn(u64, u64) -> u64) -> Self {
        Self { min: of(self.min, other.min), max: of(self.max, other.max) }
    }
}

fn scaled(count: u64, factor: f64) -> u64 {
    (count as f64 * factor).ceil() as u64
}

/// What is known of an argument beforehand.
pub(crate) struct Node<'e> {
    pub size: Range,
    /// The size of the elements of a declared list.
    pub element: Range,
    pub ty: &'e Type,
    pub literal: Option<&'e Value<'static>>,
}

/// What a call costs, and how large its result is, where that can be said.
pub(crate) struct Estimate {
    pub cost: Range,
    pub size: Option<Range>,
}

/// How a function is charged.
pub(crate) struct Cost {
    pub estimate: fn(&[Node<'_>]) -> Estimate,
    pub actual: fn(&[Value<'_>]) -> u64,
}

fn cost(cost: Range) -> Estimate {
    Estimate { cost, size: None }
}

fn sized(cost: Range, size: Range) -> Estimate {
    Estimate { cost, size: Some(size) }
}

fn size(nodes: &[Node<'_>], at: usize) -> Range {
    nodes.get(at).map_or(Range::UNKNOWN, |node| node.size)
}

fn actual(args: &[Value<'_>], at: usize) -> u64 {
    args.get(at).map_or(1, Value::size)
}

const ONE_MORE: Range = Range::fixed(1);

pub(crate) static ONE: Cost = Cost { estimate: |_| cost(ONE_MORE), actual: |_| 1 };

/// A check of rights: two of them are what an expression can have.
pub(crate) static CHECK: Cost = Cost { estimate: |_| cost(Range::fixed(350_000)), actual: |_| 350_000 };

/// Goes through its first argument, and makes nothing as large of it.
pub(crate) static READS: Cost = Cost {
    estimate: |nodes| cost(size(nodes, 0).scaled(PER_CHARACTER)),
    actual: |args| scaled(actual(args, 0), PER_CHARACTER),
};

/// Goes through its first argument twice.
pub(crate) static READS_TWICE: Cost = Cost {
    estimate: |nodes| cost(size(nodes, 0).scaled(2.0 * PER_CHARACTER)),
    actual: |args| scaled(actual(args, 0), 2.0 * PER_CHARACTER),
};

/// Goes through its first argument, and makes something as large of it.
pub(crate) static CHANGES: Cost = Cost {
    estimate: |nodes| sized(size(nodes, 0).scaled(PER_CHARACTER), size(nodes, 0)),
    actual: |args| scaled(actual(args, 0), PER_CHARACTER),
};

/// Of characters, bytes; of which there can be four times as many.
pub(crate) static TO_BYTES: Cost = Cost {
    estimate: |nodes| {
        let Range { min, max } = size(nodes, 0);
        sized(size(nodes, 0).scaled(PER_CHARACTER), Range { min, max: max.saturating_mul(4) })
    },
    actual: |args| scaled(actual(args, 0), PER_CHARACTER),
};

/// Of bytes, characters.
pub(crate) static FROM_BYTES: Cost = Cost {
    estimate: |nodes| {
        let Range { min, max } = size(nodes, 0);
        sized(size(nodes, 0).scaled(PER_CHARACTER), Range { min: min / 4, max })
    },
    actual: |args| scaled(actual(args, 0), PER_CHARACTER),
};

/// Text in quotes.
pub(crate) static QUOTES: Cost = Cost {
    estimate: |nodes| {
        let Range { min, max } = size(nodes, 0);
        let quoted = Range { min: min.saturating_add(2), max: max.saturating_mul(2).saturating_add(2) };
        // Upstream has no estimate for the function's overload, and none of the tracked ones either.
        sized(ONE_MORE, quoted)
    },
    actual: |_| 1,
};

/// Looks for its second argument at an end of the first.
pub(crate) static AFFIX: Cost = Cost {
    estimate: |nodes| cost(size(nodes, 1).scaled(PER_CHARACTER)),
    actual: |args| scaled(actual(args, 0), PER_CHARACTER),
};

pub(crate) static CONTAINS: Cost = Cost {
    estimate: |nodes| cost(size(nodes, 0).scaled(PER_CHARACTER).times(size(nodes, 1).scaled(PER_CHARACTER))),
    actual: |args| {
        scaled(actual(args, 0), PER_CHARACTER).saturating_mul(scaled(actual(args, 1), PER_CHARACTER))
    },
};

fn pattern_range(nodes: &[Node<'_>]) -> Range {
    let text = size(nodes, 0).plus(ONE_MORE).scaled(PER_CHARACTER);
    text.times(size(nodes, 1).scaled(PER_PATTERN_CHARACTER))
}

fn pattern_cost(args: &[Value<'_>]) -> u64 {
    let text = scaled(actual(args, 0).saturating_add(1), PER_CHARACTER);
    text.saturating_mul(scaled(actual(args, 1), PER_PATTERN_CHARACTER))
}

pub(crate) static MATCHES: Cost = Cost { estimate: |nodes| cost(pattern_range(nodes)), actual: pattern_cost };

pub(crate) static FINDS: Cost = Cost {
    estimate: |nodes| sized(pattern_range(nodes), Range { min: 0, max: size(nodes, 0).max }),
    actual: pattern_cost,
};

/// The pattern of a named format is not at hand beforehand.
pub(crate) static VALIDATES: Cost = Cost {
    estimate: |nodes| cost(size(nodes, 1).scaled(PER_CHARACTER).scaled(128.0 * PER_PATTERN_CHARACTER)),
    actual: |args| {
        let text = scaled(actual(args, 1).saturating_add(1), PER_CHARACTER);
        text.saturating_mul(scaled(actual(args, 0), PER_PATTERN_CHARACTER))
    },
};

pub(crate) static IN_LIST: Cost =
    Cost { estimate: |nodes| cost(size(nodes, 1)), actual: |args| actual(args, 1) };

/// Compares as far as the shorter one goes.
pub(crate) static COMPARES: Cost = Cost {
    estimate: |nodes| {
        let max = size(nodes, 0).max.min(size(nodes, 1).max);
        cost(Range { min: max.min(1), max }.scaled(PER_CHARACTER))
    },
    actual: |args| scaled(actual(args, 0).min(actual(args, 1)), PER_CHARACTER),
};

/// Equality: as comparisons, but for what libraries bring.
pub(crate) static EQUALS: Cost = Cost {
    estimate: |nodes| match nodes {
        [one, other] if one.ty == other.ty => match one.ty {
            Type::Opaque("kubernetes.NamedFormat") => cost(Range { min: 1, max: 64 }.scaled(PER_CHARACTER)),
            Type::Opaque("kubernetes.URL") => {
                let max = if other.size == Range::UNKNOWN { 1 } else { other.size.max };
                cost(Range { min: 1, max }.scaled(PER_CHARACTER))
            }
            Type::Opaque(_) => cost(ONE_MORE),
            _ => (COMPARES.estimate)(nodes),
        },
        _ => (COMPARES.estimate)(nodes),
    },
    actual: |args| match args {
        [Value::Opaque(_), _] => 1,
        _ => (COMPARES.actual)(args),
    },
};

pub(crate) static ADDS_TEXT: Cost = Cost {
    estimate: |nodes| {
        let both = size(nodes, 0).plus(size(nodes, 1));
        sized(both.scaled(PER_CHARACTER), both)
    },
    actual: |args| scaled(actual(args, 0).saturating_add(actual(args, 1)), PER_CHARACTER),
};

pub(crate) static ADDS_LISTS: Cost =
    Cost { estimate: |nodes| sized(ONE_MORE, size(nodes, 0).plus(size(nodes, 1))), actual: |_| 1 };

/// Goes through a list, and through the text in it.
pub(crate) static TRAVERSES: Cost = Cost {
    estimate: |nodes| {
        let Some(list) = nodes.first() else { return cost(ONE_MORE) };
        cost(match list.ty {
            Type::List(item) if matches!(**item, Type::String | Type::Bytes) => {
                list.size.times(ONE_MORE.plus(list.element.scaled(PER_CHARACTER)))
            }
            Type::List(_) => list.size,
            _ => list.size.scaled(PER_CHARACTER),
        })
    },
    actual: |args| args.first().map_or(0, traversal),
};

fn traversal(value: &Value<'_>) -> u64 {
    let sum = |values: &mut dyn Iterator<Item = Value<'_>>| {
        values.map(|value| traversal(&value)).fold(0, u64::saturating_add)
    };
    match value {
        Value::String(text) => (text.len() as f64 * PER_CHARACTER) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * PER_CHARACTER) as u64,
        Value::List(list) => sum(&mut list.iter().filter_map(Result::ok)),
        Value::Map(map) => {
            let keys = map.keys();
            let values = keys.iter().filter_map(crate::value::Key::of).filter_map(|key| map.get(&key)?.ok());
            sum(&mut keys.clone().into_iter().chain(values))
        }
        _ => 1,
    }
}

pub(crate) static REPLACES: Cost = Cost {
    estimate: |nodes| {
        let (text, old, new) = (size(nodes, 0), size(nodes, 1), size(nodes, 2));
        let longest = match () {
            // Between all characters, and around them.
            () if old.min == 0 => text.max.saturating_add(1).saturating_mul(new.max).saturating_add(text.max),
            () if new.max <= old.min => text.max,
            () => text.max.div_ceil(old.min).saturating_mul(new.max),
        };
        let shortest = match () {
            () if old.max == 0 => text.min.saturating_add(1).saturating_mul(new.min).saturating_add(text.min),
            () if old.max <= new.min => text.min,
            () => text.min.div_ceil(old.max).saturating_mul(new.min),
        };
        sized(text.scaled(2.0 * PER_CHARACTER), Range { min: shortest, max: longest })
    },
    actual: |args| scaled(actual(args, 0), 2.0 * PER_CHARACTER),
};

pub(crate) static SPLITS: Cost = Cost {
    estimate: |nodes| {
        let limit = match nodes.get(2).and_then(|node| node.literal) {
            Some(Value::Int(limit)) => *limit as u64,
            _ => size(nodes, 0).max,
        };
        sized(size(nodes, 0).scaled(2.0 * PER_CHARACTER), Range { min: 0, max: limit })
    },
    actual: |args| scaled(actual(args, 0), 2.0 * PER_CHARACTER),
};

pub(crate) static JOINS: Cost = Cost {
    estimate: |nodes| {
        let list = size(nodes, 0);
        let elements = list.times(nodes.first().map_or(Range::UNKNOWN, |node| node.element));
        let gaps = Range { min: list.min.saturating_sub(1), max: list.max.saturating_sub(1) };
        let all = if nodes.len() > 1 { elements.plus(size(nodes, 1).times(gaps)) } else { elements };
        sized(all.scaled(PER_CHARACTER), all)
    },
    actual: |args| {
        let Some(Value::List(list)) = args.first() else { return 1 };
        let texts: u64 = list.iter().map(|item| item.map_or(1, |item| item.size())).sum();
        let gaps = (list.len() as u64).saturating_sub(1);
        let separator = args.get(1).map_or(0, Value::size);
        scaled(texts.saturating_add(gaps.saturating_mul(separator)), 2.0 * PER_CHARACTER)
    },
};

/// Compares every element of one list with every one of another.
pub(crate) static SETS: Cost = Cost {
    estimate: |nodes| cost(size(nodes, 0).times(size(nodes, 1)).plus(ONE_MORE)),
    actual: |args| actual(args, 0).saturating_mul(actual(args, 1)).saturating_add(1),
};

/// The same in both directions.
pub(crate) static SETS_TWICE: Cost = Cost {
    estimate: |nodes| cost(size(nodes, 0).times(size(nodes, 1)).scaled(2.0).plus(ONE_MORE)),
    actual: |args| actual(args, 0).saturating_mul(actual(args, 1)).saturating_mul(2).saturating_add(1),
};

fn allocates(size: Range, factor: f64) -> Estimate {
    sized(size.scaled(factor).plus(Range::fixed(1 + LIST)), size)
}

fn allocated(size: u64, factor: f64) -> u64 {
    ((size as f64 * factor) as u64).saturating_add(1 + LIST)
}

/// Makes as many elements as it has.
pub(crate) static COPIES_LIST: Cost =
    Cost { estimate: |nodes| allocates(size(nodes, 0), 1.0), actual: |args| allocated(actual(args, 0), 1.0) };

fn literal_int(node: Option<&Node<'_>>, otherwise: u64) -> u64 {
    match node.and_then(|node| node.literal) {
        Some(Value::Int(number)) => u64::try_from(*number).unwrap_or_default(),
        _ => otherwise,
    }
}

fn int_at(args: &[Value<'_>], at: usize) -> u64 {
    match args.get(at) {
        Some(Value::Int(number)) => u64::try_from(*number).unwrap_or_default(),
        _ => 0,
    }
}

pub(crate) static SLICES: Cost = Cost {
    estimate: |nodes| {
        let (start, end) = (literal_int(nodes.get(1), 0), literal_int(nodes.get(2), size(nodes, 0).max));
        allocates(Range::fixed(end.saturating_sub(start)), 1.0)
    },
    actual: |args| allocated(int_at(args, 2).saturating_sub(int_at(args, 1)), 1.0),
};

pub(crate) static COUNTS: Cost = Cost {
    estimate: |nodes| allocates(Range::fixed(literal_int(nodes.first(), u64::MAX)), 1.0),
    actual: |args| allocated(int_at(args, 0), 1.0),
};

pub(crate) static FLATTENS: Cost = Cost {
    estimate: |nodes| {
        let depth = if nodes.len() > 1 { literal_int(nodes.get(1), u64::MAX) } else { 1 };
        allocates(size(nodes, 0), depth as f64)
    },
    actual: |args| allocated(actual(args, 0), if args.len() > 1 { int_at(args, 1) as f64 } else { 1.0 }),
};

/// Compares every element of a list with every other.
pub(crate) static DISTINCT: Cost = Cost {
    estimate: |nodes| allocates(size(nodes, 0).times(size(nodes, 0)), 2.0),
    actual: |args| compared_with_itself(args.first()),
};

fn sorts(node: Option<&Node<'_>>) -> Estimate {
    let Some(node) = node else { return cost(ONE_MORE) };
    let is_text = matches!(node.ty, Type::List(item) if matches!(**item, Type::String | Type::Bytes));
    allocates(node.size.times(node.size), if is_text { 2.0 + PER_CHARACTER } else { 2.0 })
}

fn compared_with_itself(list: Option<&Value<'_>>) -> u64 {
    let Some(Value::List(list)) = list else { return 1 };
    let is_text = matches!(list.get(0), Some(Ok(Value::String(_) | Value::Bytes(_))));
    let size = list.len() as u64;
    allocated(size.saturating_mul(size), if is_text { 2.0 + PER_CHARACTER } else { 2.0 })
}

pub(crate) static SORTS: Cost =
    Cost { estimate: |nodes| sorts(nodes.first()), actual: |args| compared_with_itself(args.first()) };

/// Sorts by the second list.
pub(crate) static SORTS_BY: Cost =
    Cost { estimate: |nodes| sorts(nodes.get(1)), actual: |args| compared_with_itself(args.get(1)) };

fn address_range(nodes: &[Node<'_>], masks: u64, texts: u64) -> Range {
    let bytes = Range { min: 4, max: 16 };
    let compared = bytes.plus(bytes).scaled(PER_CHARACTER);
    let masked = bytes.scaled(PER_CHARACTER).plus(ONE_MORE).times(Range::fixed(masks));
    let is_text = nodes.get(1).is_some_and(|node| *node.ty == Type::String);
    let parsed = size(nodes, 1).scaled(PER_CHARACTER).times(Range::fixed(if is_text { texts } else { 0 }));
    compared.plus(masked).plus(parsed)
}

fn address_cost(args: &[Value<'_>], masks: u64) -> u64 {
    let prefix = actual(args, 0);
    let masked = (scaled(prefix, PER_CHARACTER) + 1) * masks;
    let parsed = match args.get(1) {
        Some(text @ Value::String(_)) => scaled(text.size(), PER_CHARACTER),
        _ => 0,
    };
    scaled(prefix * 2, PER_CHARACTER) + masked + parsed
}

pub(crate) static CONTAINS_IP: Cost =
    Cost { estimate: |nodes| cost(address_range(nodes, 0, 1)), actual: |args| address_cost(args, 0) };

pub(crate) static CONTAINS_CIDR: Cost =
    Cost { estimate: |nodes| cost(address_range(nodes, 1, 1)), actual: |args| address_cost(args, 1) };

/// A selector: read, and made into requirements, of which two characters can be one.
pub(crate) static SELECTOR: Cost = Cost {
    estimate: |nodes| cost(selector(size(nodes, 1))),
    actual: |args| selector(Range::fixed(actual(args, 1))).max,
};

fn selector(length: Range) -> Range {
    let requirements = length.scaled(0.5).scaled((LIST + STRUCTURE) as f64);
    Range::fixed(LIST).plus(length.scaled(PER_CHARACTER)).plus(requirements)
}

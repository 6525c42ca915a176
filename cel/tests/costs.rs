//! What expressions cost, over what they look at and from nothing but schemas: these numbers decide which rules a
//! definition may have, and which of them an object is too large for. They follow upstream's rules: a look at a field or
//! a variable costs 1, a call 1, a text as it is read a tenth of its length, a regular expression a quarter of that again.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use cel::{Environment, Expression, Shape, Type, Value, structural};
use schema::Schema;
use serde_json::json;

/// A shop: some of it bounded, some not.
fn shop() -> Arc<Shape> {
    let text = |most: u32| json!({"type": "string", "maxLength": most});
    let schema = json!({"type": "object", "properties": {
        "name": text(63), "note": {"type": "string"}, "size": {"type": "integer"},
        "tags": {"type": "array", "maxItems": 10, "items": text(20)},
        "guests": {"type": "array", "items": {"type": "string"}},
        "doors": {"type": "array", "maxItems": 16, "items": {"type": "object", "properties": {
            "number": {"type": "integer"}, "kind": text(5)}}},
        "limits": {"type": "object", "maxProperties": 5, "additionalProperties": text(10)},
    }});
    structural::shape(&Schema::from_openapi(&schema).unwrap(), true).unwrap()
}

/// True expressions, what they cost over the object below, and what they can cost at most by the schema.
const COSTS: &[(&str, u64, u64)] = &[
    ("true", 0, 0),
    ("self.size == 3", 3, 2),
    ("self.size + 1 > self.size", 6, 6),
    ("has(self.name) && !has(self.note)", 3, 3),
    ("self.size > 1 ? self.size < 9 : false", 6, 6),
    ("self.name == 'web-1'", 3, 3),
    ("self.name.startsWith('web')", 3, 3),
    ("self.name.contains('eb-')", 3, 28),
    ("self.name + '-x' == 'web-1-x'", 4, 29),
    ("self.name.matches('^[a-z]+-[0-9]$')", 6, 106),
    ("self.name in ['web-1', 'web-2']", 2, 14),
    ("self.tags.all(t, t.size() < 20)", 15, 63),
    ("self.tags.exists(t, t.startsWith('b'))", 15, 63),
    ("self.tags.map(t, t + '!').size() == 2", 33, 235),
    ("self.tags.filter(t, t != 'a').size() == 1", 22, 165),
    ("self.tags.isSorted() && self.tags.indexOf('b') == 1", 5, 185),
    ("sets.contains(self.tags, ['a'])", 5, 23),
    ("self.guests.all(g, g.matches('^[A-Z]'))", 21, 659710961253),
    ("self.guests.all(g, self.guests.exists_one(o, o == g))", 57, 345880409622760653),
    ("self.doors.exists(d, d.number == 80 && d.kind == 'wide')", 20, 147),
    ("self.limits.all(k, quantity(self.limits[k]).isLessThan(quantity('9')))", 21, 68),
    ("isIP('10.0.0.1') && ip('10.0.0.1').family() == 4", 4, 4),
    ("cidr('10.0.0.0/8').containsIP('10.1.2.3')", 3, 6),
    ("url('https://shop.example/x').getHost() == 'shop.example'", 6, 6),
    ("[1, 2, 3].sum() == 6", 4, 14),
];

#[test]
fn expressions_should_cost_what_they_look_at() {
    let shape = shop();
    let object = json!({"name": "web-1", "size": 3, "tags": ["a", "b"], "guests": ["Ann", "Bob", "Cy"],
        "doors": [{"number": 22, "kind": "small"}, {"number": 80, "kind": "wide"}], "limits": {"cpu": "2", "mem": "1"}});
    let environment = Environment::new().with("self", Type::of(&shape, "selfType"));
    let mut wrong = Vec::new();
    for (source, cost, most) in COSTS {
        let expression =
            Expression::compile(source, &environment).unwrap_or_else(|error| panic!("{source}: {error}"));
        let this = |name: &str| (name == "self").then(|| Value::view(&object, &shape));
        let evaluated = expression.evaluate(&this, 1_000_000);
        assert!(matches!(evaluated.outcome, Ok(Value::Bool(true))), "{source}: {:?}", evaluated.outcome);
        let (costs, estimate) = (evaluated.cost, expression.estimate(&shape));
        if (costs, estimate) != (*cost, *most) {
            wrong.push(format!("(r#\"{source}\"#, {costs}, {estimate}),"));
        }
    }
    assert!(wrong.is_empty(), "these cost something else:\n{}", wrong.join("\n"));
}

//! Expressions: what compiles ends within its cost with what its type says, and does so again; nothing gets around the
//! limit.

use std::sync::{Arc, LazyLock};

use cel::{Environment, Expression, Fault, Shape, Type, Value, structural};
use schema::Schema;
use serde_json::{Value as Json, json};

/// Small, so that short inputs reach it.
const COST_MAX: u64 = 20_000;

static SHAPE: LazyLock<Arc<Shape>> = LazyLock::new(|| {
    let text = json!({"type": "string"});
    let schema = Schema::from_openapi(&json!({"type": "object", "properties": {
        "name": text, "count": {"type": "integer"}, "ratio": {"type": "number"}, "on": {"type": "boolean"},
        "port": {"x-kubernetes-int-or-string": true}, "data": {"type": "string", "format": "byte"},
        "since": {"type": "string", "format": "date-time"}, "grace": {"type": "string", "format": "duration"},
        "maybe": {"type": "string", "nullable": true}, "list": {"type": "array", "items": {"type": "integer"}},
        "set": {"type": "array", "items": text, "x-kubernetes-list-type": "set"},
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": text, "v": {"type": "integer"}}}},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}));
    structural::shape(&schema.unwrap(), true).unwrap()
});

static OBJECT: LazyLock<Json> = LazyLock::new(|| {
    json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "thing-1"}, "name": "Grün-1", "count": 3,
        "ratio": 2, "on": true, "port": "80%", "data": "QUI=", "since": "2024-02-29T12:30:15.5+02:00", "grace": "1h30m",
        "maybe": null, "list": [3, 1, 2], "set": ["x", "y"], "keyed": [{"k": "a", "v": 1}, {"k": "b", "v": 2}],
        "map": {"one": 1, "two": 2}, "free": {"x": [1]}})
});

/// An expression over `self`, whose type is known, and `any`, whose type is not.
pub fn all(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let environment = Environment::new().with("self", Type::of(&SHAPE, "selfType")).with("any", Type::Dyn);
    let expression = match Expression::compile(source, &environment) {
        Ok(expression) => expression,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert_eq!(expression.estimate(&SHAPE), expression.estimate(&SHAPE));
    let (cost, told) = evaluated(&expression, COST_MAX);
    assert_eq!(evaluated(&expression, COST_MAX), (cost, told.clone()), "{source} is the same again");
    let exceeded = Err(Fault::Exceeded.to_string());
    assert!(cost <= COST_MAX || told == exceeded, "{source} costs {cost} and gives {told:?}");
    if let Some(less) = cost.checked_sub(1) {
        assert_eq!(evaluated(&expression, less).1, exceeded, "{source} costs {cost}");
    }
}

/// What it costs and gives.
fn evaluated(expression: &Expression, cost_max: u64) -> (u64, Result<String, String>) {
    let variables = |name: &str| match name {
        "self" => Some(Value::view(&OBJECT, &SHAPE)),
        "any" => Some(Ok(Value::of_json(&OBJECT))),
        _ => None,
    };
    let evaluated = expression.evaluate(&variables, cost_max);
    let told = evaluated.outcome.map_err(|fault| fault.to_string()).map(|value| {
        let (name, promised) = (value.type_name(), expression.output());
        assert!(gives(promised, &value), "{name} where the type says {promised}");
        format!("{value:?}")
    });
    (evaluated.cost, told)
}

/// Whether a value is of a type, as far as its outside shows.
fn gives(promised: &Type, value: &Value<'_>) -> bool {
    match promised {
        Type::Bool => matches!(value, Value::Bool(_)),
        Type::Int => matches!(value, Value::Int(_)),
        Type::Uint => matches!(value, Value::Uint(_)),
        Type::Double => matches!(value, Value::Double(_)),
        Type::String => matches!(value, Value::String(_)),
        Type::Bytes => matches!(value, Value::Bytes(_)),
        Type::List(_) => matches!(value, Value::List(_)),
        Type::Map(_) => matches!(value, Value::Map(_)),
        _ => true,
    }
}

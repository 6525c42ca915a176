//! Objects that are admitted, and objects that are refused, with upstream's words.
//!
//! The files in `cases/` hold one good object per kind and, for each case, what is different in it and what is said
//! about that. Objects go the way that the API server's pipeline takes: shape, defaults, first state, checks.
//!
//! A case names the fields that it `set`s and, for a change, those that the `update` sets (after the server has set those
//! under `old`), in which `subresource`. It expects the `errors`, whose last word `…` stands for any rest, and those
//! values at those paths that `becomes` names (null: nothing is there).

// A test that cannot go on says so by a panic, in its helpers as well.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::let_underscore_must_use)]

use std::{collections::BTreeSet, path::Path};

use api::{FieldError, ResourceTable, Row, WriteContext, object};
use schema::{conform, decode, defaults, validate};
use serde_json::{Value, json};

const CONTEXT: WriteContext = WriteContext {
    now: "2026-01-01T00:00:00Z",
    user: "someone",
    uid: "",
    groups: &[],
    extra: None,
    subresource: None,
};

#[test]
fn golden() {
    use std::io::Write;
    let mut out = std::io::BufWriter::new(std::fs::File::create(std::env::var("GOLDEN").unwrap()).unwrap());
    let odd: Vec<Value> = vec![
        json!(null),
        json!(-1),
        json!(0),
        json!(1),
        json!(7),
        json!(100001),
        json!(true),
        json!(false),
        json!("x"),
        json!("X_y/"),
        json!(""),
        json!("%"),
        json!("150%"),
        json!("a.b.c/d"),
        json!("*"),
        json!("1.2.3.4"),
        json!("127.0.0.1"),
        json!("10.0.0.0/8"),
        json!("Never"),
        json!("Always"),
        json!("x".repeat(300)),
        json!([]),
        json!({}),
        json!(["*", "x"]),
        json!([{}, {}]),
        json!(["a", "a", ""]),
        json!([[], {}, 7]),
        json!({"a": "b"}),
        json!({"A b": "c d"}),
    ];
    for kind in kinds() {
        let row = row(&kind);
        let mut goods = vec![prepared(&row, kind["object"].clone())];
        for case in kind["cases"].as_array().unwrap() {
            let object = with(kind["object"].clone(), &case["set"]);
            let mut a = object.clone();
            if conform::conform(&schema_of(&row), &mut a).is_ok() {
                goods.push(prepared(&row, object));
            }
            let old = with(prepared(&row, with(kind["object"].clone(), &case["set"])), &case["old"]);
            if !case["update"].is_null() {
                let new = with(old.clone(), &case["update"]);
                dump(&mut out, &row, &new, &old, "case");
            }
        }
        for (n, good) in goods.iter().enumerate() {
            let places = pointers(good, String::new());
            dump(&mut out, &row, good, &goods[0], &format!("good {n}"));
            for pointer in &places {
                if n > 0 && goods[0].pointer(pointer) == good.pointer(pointer) {
                    continue;
                }
                for value in &odd {
                    let mut bad = good.clone();
                    *bad.pointer_mut(pointer).unwrap() = value.clone();
                    dump(&mut out, &row, &bad, good, &format!("{n} {pointer} {value}"));
                }
                if let Some((parent, last)) = pointer.rsplit_once('/') {
                    let mut bad = good.clone();
                    match bad.pointer_mut(parent).unwrap() {
                        Value::Object(map) => {
                            map.remove(last);
                        }
                        Value::Array(list) => {
                            let i: usize = last.parse().unwrap();
                            let x = list[i].clone();
                            list.push(x);
                        }
                        _ => {}
                    }
                    dump(&mut out, &row, &bad, good, &format!("{n} {pointer} gone or twice"));
                }
            }
        }
    }
    out.flush().unwrap();
}

fn sound(row: &Row, object: &mut Value) -> bool {
    let schema = schema_of(row);
    conform::conform(&schema, object).is_ok() && {
        defaults::fill(&schema, object);
        row.strategy.set_defaults(object);
        validate::validate(&schema, object).is_empty()
    }
}

fn dump(out: &mut impl std::io::Write, row: &Row, bad: &Value, good: &Value, what: &str) {
    use std::hash::{Hash, Hasher};
    let mut text = String::new();
    let mut say = |label: &str, errors: Vec<FieldError>| {
        for e in errors {
            text.push_str(&format!("  {label} {} {} {}\n", e.reason, e.field, e.message));
        }
    };
    let mut bad = bad.clone();
    let mut hash = std::collections::hash_map::DefaultHasher::new();
    if !sound(row, &mut bad) {
        let _ = row.strategy.validate(&bad);
        bad.to_string().hash(&mut hash);
        writeln!(out, "{} {what} unsound {:x}", row.kind, hash.finish()).unwrap();
        return;
    }
    let bad = &bad;
    let mut object = bad.clone();
    row.strategy.prepare_for_create(&mut object, &CONTEXT);
    if !good.is_null() && row.subresource("status").is_some() && object["status"].is_null() {
        object["status"] = json!({});
    }
    for (label, object) in [("defaulted", bad), ("prepared", &object)] {
        say(&format!("{label} v"), row.strategy.validate(object));
        say(&format!("{label} c"), row.strategy.validate_create(object));
    }
    say("meta", api::meta::validate(bad, row));
    say("metau", api::meta::validate_update(bad, good));
    bad.to_string().hash(&mut hash);
    object.to_string().hash(&mut hash);
    for subresource in [None, Some("status"), Some("resize"), Some("ephemeralcontainers"), Some("approval")] {
        let context = WriteContext { subresource, ..CONTEXT };
        let mut changed = bad.clone();
        row.strategy.prepare_for_update(&mut changed, good, &context);
        changed.to_string().hash(&mut hash);
        say(&format!("{subresource:?}"), row.strategy.validate_update(&changed, good, &context));
        say(&format!("{subresource:?} raw"), row.strategy.validate_update(bad, good, &context));
        say(&format!("{subresource:?} back"), row.strategy.validate_update(good, bad, &context));
    }
    row.strategy.warnings(bad, Some(good)).hash(&mut hash);
    row.strategy.warnings(bad, None).hash(&mut hash);
    format!("{:?}", row.strategy.selectable_fields(bad)).hash(&mut hash);
    row.strategy.generation_grows(bad, good).hash(&mut hash);
    row.strategy.generation_grows(good, bad).hash(&mut hash);
    format!("{:?}", row.strategy.grace_period_seconds(bad, None)).hash(&mut hash);
    let now = "2026-01-01T00:00:00Z".parse().expect("a time");
    for version in &row.served {
        let mut converted = bad.clone();
        api::convert::convert(row, &mut converted, &row.storage, version);
        format!("{:?}", api::columns::for_row(row, version).cells(&converted, now)).hash(&mut hash);
    }
    writeln!(out, "{} {what} {:x}", row.kind, hash.finish()).unwrap();
    out.write_all(text.as_bytes()).unwrap();
}

/// Where there is something in a tree.
fn pointers(value: &Value, here: String) -> Vec<String> {
    let below: Vec<String> = match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(key, value)| {
                let key = key.replace('~', "~0").replace('/', "~1");
                pointers(value, format!("{here}/{key}"))
            })
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .flat_map(|(index, value)| pointers(value, format!("{here}/{index}")))
            .collect(),
        _ => Vec::new(),
    };
    std::iter::once(here).chain(below).collect()
}

/// Every kind that the case files describe.
fn kinds() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("cases").map(|entry| entry.expect("entry").path()).collect();
    files.sort();
    files.iter().flat_map(|file| documents(file)).collect()
}

fn documents(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).expect("readable");
    text.split("\n---\n")
        .map(|document| {
            decode::yaml(document.as_bytes(), &decode::Limits::default())
                .unwrap_or_else(|why| panic!("{}: {why} in\n{document}", file.display()))
                .value
        })
        .collect()
}

fn row(kind: &Value) -> Row {
    let table = ResourceTable::built_in();
    let api_version = kind["object"]["apiVersion"].as_str().expect("apiVersion");
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    (**table.kind(group, version, kind["kind"].as_str().expect("kind")).expect("a row")).clone()
}

fn matches(said: &str, expected: &str) -> bool {
    expected.strip_suffix('…').map_or(said == expected, |start| said.starts_with(start))
}

/// What is not as a case says it becomes.
fn differences(object: &Value, case: &Value) -> Vec<String> {
    let wanted = case["becomes"].as_object().into_iter().flatten();
    wanted
        .filter_map(|(path, value)| {
            let is = get(object, path);
            (is != value).then(|| format!("{path} is {is}, not {value}"))
        })
        .collect()
}

/// Refusals of a case: of the object created, or of its change when the case says `update`.
fn run(kind: &Value, case: &Value) -> Vec<String> {
    let row = row(kind);
    if case["update"].is_null() {
        let object = prepared(&row, with(kind["object"].clone(), &case["set"]));
        let mut said = texts(&check(&row, &object, None, &CONTEXT));
        said.extend(differences(&object, case));
        return said;
    }
    let subresource = case["subresource"].as_str();
    let context = WriteContext { subresource, ..CONTEXT };
    let old = with(prepared(&row, with(kind["object"].clone(), &case["set"])), &case["old"]);
    let mut new = with(old.clone(), &case["update"]);
    fill(&row, &mut new);
    row.strategy.prepare_for_update(&mut new, &old, &context);
    let mut said = texts(&check(&row, &new, Some(&old), &context));
    said.extend(differences(&new, case));
    said
}

fn prepared(row: &Row, mut object: Value) -> Value {
    if row.is_namespaced() && object["metadata"].get("namespace").is_none() {
        object["metadata"]["namespace"] = "default".into();
    }
    object["metadata"]["uid"] = "00000000-0000-0000-0000-000000000001".into();
    fill(row, &mut object);
    row.strategy.prepare_for_create(&mut object, &CONTEXT);
    object
}

fn fill(row: &Row, object: &mut Value) {
    let schema = schema_of(row);
    conform::conform(&schema, object).unwrap_or_else(|why| panic!("{}: {why}", object::name(object)));
    defaults::fill(&schema, object);
    row.strategy.set_defaults(object);
}

fn schema_of(row: &Row) -> std::sync::Arc<schema::Schema> {
    api::schemas::for_kind(&row.storage.group, &row.storage.version, &row.kind).expect("a schema")
}

fn check(row: &Row, new: &Value, old: Option<&Value>, context: &WriteContext) -> Vec<FieldError> {
    let mut errors = match old {
        None => api::meta::validate(new, row),
        Some(old) => api::meta::validate_update(new, old),
    };
    let mut is_sound = true;
    if context.subresource != Some("status") {
        let structural = validate::validate(&schema_of(row), new);
        is_sound = structural.is_empty();
        errors.extend(structural.into_iter().filter(|error| !api::meta::checks(&error.field)));
        if is_sound {
            errors.extend(row.strategy.validate(new));
            if old.is_none() {
                errors.extend(row.strategy.validate_create(new));
            }
        }
    }
    if let Some(old) = old
        && is_sound
    {
        errors.extend(row.strategy.validate_update(new, old, context));
    }
    errors
}

fn texts(errors: &[FieldError]) -> Vec<String> {
    errors
        .iter()
        .map(|error| {
            let text = format!("{}: {}", error.field, error.message);
            // The differences of two specs stand on lines of their own.
            text.lines().next().unwrap_or_default().to_string()
        })
        .collect()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|v| v.as_str().expect("text").to_string()).collect()
}

/// The object with other values at some paths; null takes a field away.
fn with(mut object: Value, changes: &Value) -> Value {
    for (path, value) in changes.as_object().into_iter().flatten() {
        set(&mut object, path, value);
    }
    object
}

/// The steps of `spec.containers[0].name`.
fn steps(path: &str) -> Vec<&str> {
    path.split('.').flat_map(|part| part.split('[')).collect()
}

fn index(step: &str) -> Option<usize> {
    step.strip_suffix(']').map(|digits| digits.parse::<usize>().expect("an index"))
}

fn get<'a>(object: &'a Value, path: &str) -> &'a Value {
    steps(path).into_iter().fold(object, |here, step| match index(step) {
        Some(index) => &here[index],
        None => &here[step],
    })
}

fn set(object: &mut Value, path: &str, value: &Value) {
    let steps = steps(path);
    let (last, parents) = steps.split_last().expect("a path");
    let mut here = object;
    for step in parents {
        here = match index(step) {
            Some(index) => &mut here[index],
            None => {
                if here.is_null() {
                    *here = json!({});
                }
                &mut here[*step]
            }
        };
    }
    match (index(last), value) {
        (Some(index), _) => here[index] = value.clone(),
        (None, Value::Null) => {
            here.as_object_mut().expect("an object").remove(*last);
        }
        (None, _) => here[*last] = value.clone(),
    }
}

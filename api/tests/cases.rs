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
fn every_case_should_be_admitted_or_refused_as_described() {
    let mut count = 0;
    let mut failures = Vec::new();
    for kind in kinds() {
        for case in kind["cases"].as_array().expect("cases") {
            count += 1;
            let expected: Vec<String> = strings(&case["errors"]);
            let said = run(&kind, case);
            if said.len() != expected.len() || !said.iter().zip(&expected).all(|(s, e)| matches(s, e)) {
                failures.push(format!(
                    "{} {}: said\n  {}\nexpected\n  {}",
                    kind["kind"],
                    case["case"],
                    said.join("\n  "),
                    expected.join("\n  ")
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {count} cases:\n{}", failures.len(), failures.join("\n"));
    assert!(count >= 600, "only {count} cases");
}

#[test]
fn every_good_object_should_keep_its_defaults_when_they_are_set_again() {
    for kind in kinds() {
        let row = row(&kind);
        let once = prepared(&row, kind["object"].clone());
        let mut twice = once.clone();
        fill(&row, &mut twice);
        assert_eq!(once, twice, "{}", kind["kind"]);
        let warnings = row.strategy.warnings(&once, None);
        assert!(warnings.is_empty(), "{}: {warnings:?}", kind["kind"]);
    }
}

#[test]
fn every_row_should_stand_on_its_own() {
    let table = ResourceTable::built_in();
    let mut names = BTreeSet::new();
    for row in table.rows() {
        assert!(names.insert((row.group().to_string(), row.plural.clone())), "{row:?} is there twice");
        assert!(row.served.contains(&row.storage), "{row:?} is not served as it is stored");
        for served in &row.served {
            let known = api::schemas::for_kind(&served.group, &served.version, &row.kind).is_some();
            assert!(known || served.group == "metrics.k8s.io", "{row:?} has no schema in {served:?}");
            let found = table.resource(&served.group, &served.version, &row.plural).expect("by plural");
            assert_eq!(found.kind, row.kind);
            assert!(table.kind(&served.group, &served.version, &row.kind).is_some());
        }
        // A strategy copes with an object that holds nothing.
        let mut empty = json!({});
        row.strategy.set_defaults(&mut empty);
        row.prepare_for_create(&mut empty, &CONTEXT);
        let _ = row.strategy.validate(&empty);
        let _ = row.strategy.validate_create(&empty);
        let mut changed = empty.clone();
        row.strategy.prepare_for_update(&mut changed, &empty, &CONTEXT);
        assert_eq!(changed, empty, "{row:?} changes what did not change");
        assert!(row.strategy.validate_update(&changed, &empty, &CONTEXT).is_empty(), "{row:?}");
    }
}

/// Trees that no schema has checked must not make anything panic: the last line of defence is behind the first.
#[test]
fn no_value_at_any_place_should_make_a_kind_panic() {
    let odd = [
        json!(null),
        json!(-1),
        json!(1.5),
        json!("x"),
        json!("%"),
        json!([]),
        json!({}),
        json!([[], {}, 7]),
    ];
    let now = "2026-01-01T00:00:00Z".parse().expect("a time");
    let mut count = 0;
    for kind in kinds() {
        let row = row(&kind);
        let good = prepared(&row, kind["object"].clone());
        for pointer in pointers(&good, String::new()) {
            for value in &odd {
                let mut bad = good.clone();
                *bad.pointer_mut(&pointer).expect("a place") = value.clone();
                count += 1;
                exercise(&row, &bad, &good, now);
            }
        }
    }
    assert!(count > 5000, "only {count}");
}

fn exercise(row: &Row, bad: &Value, good: &Value, now: jiff::Timestamp) {
    let mut object = bad.clone();
    row.strategy.set_defaults(&mut object);
    row.prepare_for_create(&mut object, &CONTEXT);
    let mut changed = bad.clone();
    for subresource in [None, Some("status"), Some("resize"), Some("ephemeralcontainers"), Some("approval")] {
        let context = WriteContext { subresource, ..CONTEXT };
        row.strategy.prepare_for_update(&mut changed, good, &context);
        let _ = row.strategy.validate_update(&changed, good, &context);
        let _ = row.strategy.validate_update(good, bad, &context);
    }
    let _ = api::meta::validate(bad, row);
    let _ = api::meta::validate_update(bad, good);
    let _ = row.strategy.validate(bad);
    let _ = row.strategy.validate_create(bad);
    let _ = row.strategy.warnings(bad, Some(good));
    let _ = row.selectable_fields(bad);
    let _ = row.strategy.grace_period_seconds(bad, None);
    let _ = row.strategy.generation_grows(bad, good);
    for version in &row.served {
        let mut converted = bad.clone();
        api::convert::convert(row, &mut converted, &row.storage, version);
        let columns = api::columns::for_row(row, version);
        assert_eq!(
            columns.cells(&converted, now).len(),
            columns.definitions().as_array().expect("a list").len()
        );
        api::convert::convert(row, &mut converted, version, &row.storage);
    }
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
    row.prepare_for_create(&mut object, &CONTEXT);
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

//! The forms in which objects are shown.

pub mod columns;
pub mod jsonpath;
pub mod order;
pub mod table;

pub use crate::yaml::write as to_yaml;

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::Value;

/// Prints one object, or a list, in a form that is not a table.
pub fn print_object(object: &Value, form: &str) -> anyhow::Result<()> {
    match form {
        "json" => println!("{}", to_json(object)?),
        "yaml" => print!("{}", to_yaml(object)?),
        "name" => print_names(object),
        _ => match form.split_once('=') {
            Some(("jsonpath", template)) => {
                print!("{}", jsonpath::Template::parse(template)?.render(object))
            }
            Some(("jsonpath-as-json", template)) => {
                let found =
                    jsonpath::Template::parse(template)?.values(object).into_iter().cloned().collect();
                println!("{}", to_json(&Value::Array(found))?)
            }
            Some(("jsonpath-file", path)) => {
                print!("{}", jsonpath::Template::parse(read(path)?.trim_end_matches('\n'))?.render(object))
            }
            Some(("custom-columns", columns)) => print!("{}", columns::render(object, columns)?),
            Some(("custom-columns-file", path)) => {
                print!("{}", columns::render(object, &columns::of_file(&read(path)?)?)?)
            }
            Some(("go-template" | "go-template-file" | "template", _)) => bail!(
                "error: Go templates are not supported; write the same as -o jsonpath=TEMPLATE or -o custom-columns=NAME:PATH,..."
            ),
            _ => bail!(
                "error: unknown form {form:?}; known are json, yaml, name, wide, jsonpath=TEMPLATE, jsonpath-as-json=TEMPLATE, jsonpath-file=FILE, custom-columns=NAME:PATH,... and custom-columns-file=FILE"
            ),
        },
    }
    Ok(())
}

fn read(path: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("error: cannot read {path}"))
}

/// JSON as kubectl writes it: four spaces to a level.
fn to_json(object: &Value) -> anyhow::Result<String> {
    let mut text = Vec::new();
    let form = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    object.serialize(&mut serde_json::Serializer::with_formatter(&mut text, form))?;
    Ok(String::from_utf8(text)?)
}

fn print_names(object: &Value) {
    let items = object["items"].as_array().cloned().unwrap_or_else(|| vec![object.clone()]);
    for item in items {
        let kind = item["kind"].as_str().unwrap_or_default().to_ascii_lowercase();
        let group =
            item["apiVersion"].as_str().and_then(|version| version.split_once('/')).map(|(group, _)| group);
        let name = item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        match group {
            Some(group) => println!("{kind}.{group}/{name}"),
            None => println!("{kind}/{name}"),
        }
    }
}

/// Takes out what the server notes about who set what.
pub fn hide_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    for item in object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        hide_managed_fields(item);
    }
}

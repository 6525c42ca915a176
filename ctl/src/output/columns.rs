//! `-o custom-columns=NAME:.metadata.name,NODE:.spec.nodeName`.

use anyhow::Context;
use serde_json::Value;

use super::jsonpath::Template;
use super::table::{Layout, text_of};

/// Lays out an object, or the items of a list, in columns of the user's making.
pub fn render(object: &Value, columns: &str) -> anyhow::Result<String> {
    let mut headings = Vec::new();
    let mut paths = Vec::new();
    for column in columns.split(',') {
        let (heading, path) = column
            .split_once(':')
            .with_context(|| format!("error: column {column:?} is not of the form NAME:PATH"))?;
        headings.push(heading);
        paths.push(Template::parse(path)?);
    }
    let mut layout = Layout::new(&headings);
    let single = [object.clone()];
    let items = object["items"].as_array().map_or(single.as_slice(), Vec::as_slice);
    for item in items {
        let cell = |path: &Template| {
            let found: Vec<String> = path.values(item).into_iter().map(text_of).collect();
            if found.is_empty() { "<none>".to_string() } else { found.join(",") }
        };
        layout.row(paths.iter().map(cell).collect());
    }
    Ok(layout.render(false))
}

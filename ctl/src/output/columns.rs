//! `-o custom-columns=NAME:.metadata.name,NODE:.spec.nodeName`, and the same from a file.

use anyhow::{Context, bail};
use serde_json::Value;

use super::jsonpath::Template;
use super::table::{Layout, text_of};

/// The columns that a file describes: a line of headings and a line of paths below them.
pub fn of_file(text: &str) -> anyhow::Result<String> {
    let mut lines = text.lines().map(str::split_whitespace);
    let (headings, paths) =
        lines.next().zip(lines.next()).context("error: two lines are needed: headings and paths")?;
    let (headings, paths): (Vec<&str>, Vec<&str>) = (headings.collect(), paths.collect());
    if headings.len() != paths.len() {
        bail!("error: {} headings but {} paths", headings.len(), paths.len());
    }
    let columns = headings.iter().zip(paths).map(|(heading, path)| format!("{heading}:{path}"));
    Ok(columns.collect::<Vec<_>>().join(","))
}

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

//! Tables as the server makes them, laid out in columns three spaces apart.

use serde_json::Value;

/// What the server is asked for to get a table.
pub const ACCEPT: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// No column is narrower.
const NARROWEST: usize = 3;

/// Which columns to show.
#[derive(Clone, Debug, Default)]
pub struct Style {
    /// Also those of lower priority.
    pub wide: bool,
    /// A first column with the namespace.
    pub with_namespace: bool,
    /// Further columns, each with the value of a label.
    pub label_columns: Vec<String>,
    /// A last column with the labels.
    pub show_labels: bool,
    /// Names with their kind in front.
    pub with_kind: bool,
}

/// Rows of text under headings.
#[derive(Debug, Default)]
pub struct Layout {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Layout {
    /// An empty one.
    pub fn new(headings: &[&str]) -> Self {
        Self { headings: headings.iter().map(|heading| heading.to_string()).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The text, with lines of equal columns.
    pub fn render(&self, no_headers: bool) -> String {
        let widths = self.widths(no_headers);
        let mut text = String::new();
        if !no_headers {
            line(&mut text, &self.headings, &widths);
        }
        for row in &self.rows {
            line(&mut text, row, &widths);
        }
        text
    }

    fn widths(&self, no_headers: bool) -> Vec<usize> {
        let mut widths: Vec<usize> = self
            .headings
            .iter()
            .map(|h| if no_headers { NARROWEST } else { h.chars().count().max(NARROWEST) })
            .collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }
}

fn line(text: &mut String, cells: &[String], widths: &[usize]) {
    for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
        text.push_str(cell);
        if index + 1 < cells.len() {
            text.extend(std::iter::repeat_n(' ', width + 3 - cell.chars().count()));
        }
    }
    text.push('\n');
}

/// Lays out a server's `Table`. `kind` is put in front of names where the style asks for it.
pub fn from_server(table: &Value, style: &Style, kind: &str) -> Layout {
    let columns: Vec<&Value> = table["columnDefinitions"].as_array().into_iter().flatten().collect();
    let shown: Vec<usize> = columns
        .iter()
        .enumerate()
        .filter(|(_, column)| style.wide || column["priority"].as_i64().unwrap_or_default() == 0)
        .map(|(index, _)| index)
        .collect();
    let mut headings: Vec<String> = Vec::new();
    if style.with_namespace {
        headings.push("NAMESPACE".into());
    }
    headings.extend(
        shown.iter().filter_map(|index| columns.get(*index)?["name"].as_str()).map(str::to_uppercase),
    );
    headings.extend(style.label_columns.iter().map(|label| heading_of(label)));
    if style.show_labels {
        headings.push("LABELS".into());
    }
    let mut layout = Layout { headings, rows: Vec::new() };
    for row in table["rows"].as_array().into_iter().flatten() {
        layout.row(cells_of(row, &shown, style, kind));
    }
    layout
}

fn cells_of(row: &Value, shown: &[usize], style: &Style, kind: &str) -> Vec<String> {
    let metadata = &row["object"]["metadata"];
    let mut cells = Vec::new();
    if style.with_namespace {
        cells.push(metadata["namespace"].as_str().unwrap_or_default().to_string());
    }
    for (position, index) in shown.iter().enumerate() {
        let cell = text_of(&row["cells"][*index]);
        cells.push(if position == 0 && style.with_kind { format!("{kind}/{cell}") } else { cell });
    }
    cells.extend(style.label_columns.iter().map(|label| text_or_empty(&metadata["labels"][label])));
    if style.show_labels {
        cells.push(labels_of(metadata));
    }
    cells
}

/// A label without what stands before its name.
fn heading_of(label: &str) -> String {
    label.rsplit('/').next().unwrap_or(label).to_uppercase()
}

fn text_or_empty(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

/// A cell as text.
pub fn text_of(cell: &Value) -> String {
    match cell {
        Value::Null => "<none>".into(),
        Value::String(text) if text.is_empty() => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `a=b,c=d`
pub fn labels_of(metadata: &Value) -> String {
    let labels = metadata["labels"].as_object().into_iter().flatten();
    let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={}", text_of(value))).collect();
    if labels.is_empty() { "<none>".into() } else { labels.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn table() -> Value {
        json!({
            "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Age", "priority": 0}, {"name": "IP", "priority": 1}],
            "rows": [
                {"cells": ["web-1", "5s", "10.0.0.1"], "object": {"metadata": {"namespace": "a", "labels": {"x": "y"}}}},
                {"cells": ["long-name", "1h", null], "object": {"metadata": {"namespace": "b"}}},
            ],
        })
    }

    #[test]
    fn columns_stand_three_spaces_apart() {
        let text = from_server(&table(), &Style::default(), "").render(false);
        assert_eq!(text, "NAME        AGE\nweb-1       5s\nlong-name   1h\n");
    }

    #[test]
    fn wide_namespaces_and_labels_are_shown_when_asked() {
        let style = Style { wide: true, with_namespace: true, show_labels: true, ..Style::default() };
        let text = from_server(&table(), &style, "").render(false);
        assert!(text.starts_with("NAMESPACE   NAME        AGE   IP         LABELS\n"), "{text}");
        assert!(text.contains("b           long-name   1h    <none>     <none>\n"), "{text}");
    }
}

//! A page of text whose cells stand in columns.
//!
//! Cells end with a tab. Cells that end in the same column on lines that follow each other are equally wide, two
//! spaces apart; a line without that column begins a new block. (The rules of elastic tab stops.)

use jiff::Timestamp;
use serde_json::Value;

use crate::tree::{fields, plain, text};

const GAP: usize = 2;
const LONGEST_ANNOTATION: usize = 140;
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The page as it is written.
#[derive(Debug, Default)]
pub struct Page {
    lines: Vec<String>,
    /// The text of blocks that are complete.
    done: String,
}

impl Page {
    /// Adds a line at a depth.
    pub fn line(&mut self, depth: usize, text: impl AsRef<str>) {
        for line in text.as_ref().split('\n') {
            self.lines.push(format!("{}{line}", "  ".repeat(depth)));
        }
    }

    /// `Title:` and a value, at the outermost depth.
    pub fn field(&mut self, title: &str, value: impl AsRef<str>) {
        self.line(0, format!("{title}:\t{}", value.as_ref()));
    }

    /// The same, if there is a value.
    pub fn field_if(&mut self, title: &str, value: impl AsRef<str>) {
        if !value.as_ref().is_empty() {
            self.field(title, value);
        }
    }

    /// One value per line under one title; `<none>` without any.
    pub fn list(&mut self, title: &str, values: Vec<String>) {
        if values.is_empty() {
            self.field(title, "<none>");
        }
        for (index, value) in values.into_iter().enumerate() {
            let title = if index == 0 { format!("{title}:") } else { String::new() };
            self.line(0, format!("{title}\t{value}"));
        }
    }

    /// Labels, one per line.
    pub fn labels(&mut self, title: &str, object: &Value, pointer: &str) {
        let labels = fields(object, pointer);
        self.list(title, labels.iter().map(|(key, value)| format!("{key}={}", plain(value))).collect());
    }

    /// Annotations, one per line, without the one that kubectl keeps for itself.
    pub fn annotations(&mut self, title: &str, object: &Value, pointer: &str) {
        let mut lines = Vec::new();
        for (key, value) in fields(object, pointer) {
            let value = plain(value);
            let value = value.trim_end_matches('\n');
            if key == LAST_APPLIED {
                continue;
            }
            if value.len() + key.len() + 2 > LONGEST_ANNOTATION || value.contains('\n') {
                lines.push(format!("{key}:"));
                lines.extend(value.split('\n').map(|line| format!("  {}", shortened(line))));
            } else {
                lines.push(format!("{key}: {value}"));
            }
        }
        self.list(title, lines);
    }

    /// The titles of columns, parted by tabs, and a line below each.
    pub fn heading(&mut self, depth: usize, titles: &str) {
        self.line(depth, titles);
        let below = |c: char| if c == '\t' { '\t' } else { '-' };
        let (indent, words) = titles.split_at(titles.len() - titles.trim_start().len());
        // A title of two words has a line of its whole width.
        self.line(depth, format!("{indent}{}", words.chars().map(below).collect::<String>()));
    }

    /// Name and namespace.
    pub fn named(&mut self, object: &Value) {
        self.field("Name", text(object, "/metadata/name"));
        self.field("Namespace", text(object, "/metadata/namespace"));
    }

    /// Name, namespace, labels and annotations, with which most pages begin.
    pub fn head(&mut self, object: &Value) {
        self.named(object);
        self.marks(object);
    }

    /// Labels and annotations.
    pub fn marks(&mut self, object: &Value) {
        self.labels("Labels", object, "/metadata/labels");
        self.annotations("Annotations", object, "/metadata/annotations");
    }

    /// Ends all columns: what follows is aligned among itself.
    pub fn end_block(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        self.done.push_str(&aligned(&lines));
    }

    /// The text with tabs rather than columns.
    pub fn unaligned(self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// The text.
    pub fn finish(mut self) -> String {
        self.end_block();
        self.done
    }
}

fn shortened(line: &str) -> String {
    if line.chars().count() <= LONGEST_ANNOTATION - 2 {
        return line.to_string();
    }
    let start: String = line.chars().take(LONGEST_ANNOTATION - 5).collect();
    format!("{start}...")
}

/// A moment as mail writes it, in UTC.
pub fn time(moment: &str) -> String {
    match moment.parse::<Timestamp>() {
        Ok(moment) => moment.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string(),
        Err(_) if moment.is_empty() => "<unset>".into(),
        Err(_) => moment.to_string(),
    }
}

/// How long ago a moment was.
pub fn since(moment: &str) -> String {
    api::humanize::since(Some(moment).filter(|moment| !moment.is_empty()), Timestamp::now())
}

/// `<none>` for nothing.
pub fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

/// `<unset>` for nothing.
pub fn or_unset(text: &str) -> &str {
    if text.is_empty() { "<unset>" } else { text }
}

fn aligned(lines: &[String]) -> String {
    let rows: Vec<Vec<&str>> = lines.iter().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = rows.iter().map(|row| vec![0; row.len().saturating_sub(1)]).collect();
    let deepest = widths.iter().map(Vec::len).max().unwrap_or_default();
    for column in 0..deepest {
        let mut block: Vec<usize> = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            // The last cell of a line ends in no column.
            if column + 1 < row.len() {
                block.push(index);
            } else {
                close(&rows, &mut widths, column, &mut block);
            }
        }
        close(&rows, &mut widths, column, &mut block);
    }
    let mut text = String::new();
    for (row, widths) in rows.iter().zip(&widths) {
        for (index, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if let Some(width) = widths.get(index) {
                text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            }
        }
        text.push('\n');
    }
    text
}

/// Gives one column of a block its width.
fn close(rows: &[Vec<&str>], widths: &mut [Vec<usize>], column: usize, block: &mut Vec<usize>) {
    let cell =
        |row: &usize| rows.get(*row).and_then(|row| row.get(column)).map_or(0, |cell| cell.chars().count());
    let width = block.iter().map(cell).max().unwrap_or_default() + GAP;
    for row in block.drain(..) {
        if let Some(slot) = widths.get_mut(row).and_then(|widths| widths.get_mut(column)) {
            *slot = width;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_aligned_within_their_block() {
        let mut page = Page::default();
        page.field("Name", "web");
        page.field("Long title", "x");
        page.line(0, "Break:");
        page.line(1, "A\tB\tC");
        page.line(1, "long\tb\tc");
        assert_eq!(page.finish(), "Name:        web\nLong title:  x\nBreak:\n  A     B  C\n  long  b  c\n");
    }

    #[test]
    fn labels_and_annotations_stand_one_per_line() {
        let mut page = Page::default();
        let long = "x".repeat(200);
        let object = json!({"metadata": {"name": "a", "namespace": "b", "labels": {"k": "v", "l": "w"},
            "annotations": {"short": "1", "long": long}}});
        page.head(&object);
        let text = page.finish();
        assert!(text.contains("Labels:       k=v\n              l=w\n"), "{text}");
        assert!(text.contains("              short: 1\n"), "{text}");
        assert!(text.contains("xxx...\n"), "{text}");
    }
}

//! Manifests: files, directories and standard input with several documents each, and where in them a fault is.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde_json::Value;

/// One object of a manifest, with where it came from.
#[derive(Clone, Debug)]
pub struct Document {
    /// The object.
    pub object: Value,
    source: String,
    first_line: usize,
    text: String,
}

impl Document {
    /// `file.yml:12`, the line on which a field stands if it can be found, else that of the document.
    pub fn place(&self, field: Option<&str>) -> String {
        let line = field.and_then(|field| nearest_line(&self.text, field)).unwrap_or(0);
        format!("{}:{}", self.source, self.first_line + line)
    }
}

/// Reads everything that `-f` names: `-` is standard input, a directory is its manifests (below it too, if asked).
pub fn read_all(names: &[String], recursive: bool) -> anyhow::Result<Vec<Document>> {
    let mut documents = Vec::new();
    for name in names {
        if name == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            documents.extend(split("STDIN", &text)?);
            continue;
        }
        for path in files_under(Path::new(name), recursive)? {
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            documents.extend(split(&path.display().to_string(), &text)?);
        }
    }
    if documents.is_empty() {
        bail!("error: no objects in {}", names.join(", "));
    }
    Ok(documents)
}

fn files_under(path: &Path, recursive: bool) -> anyhow::Result<Vec<PathBuf>> {
    if !path.exists() {
        bail!("error: the path \"{}\" does not exist", path.display());
    }
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    entries.sort();
    let mut files = Vec::new();
    for entry in entries {
        let is_manifest = entry
            .extension()
            .is_some_and(|ending| ["yaml", "yml", "json"].iter().any(|known| ending == *known));
        if entry.is_dir() && recursive {
            files.extend(files_under(&entry, recursive)?);
        } else if entry.is_file() && is_manifest {
            files.push(entry);
        }
    }
    Ok(files)
}

/// Splits a text into its documents. A `List` becomes its items.
pub fn split(source: &str, text: &str) -> anyhow::Result<Vec<Document>> {
    let mut documents = Vec::new();
    for (first_line, part) in parts(text) {
        let blank = part.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
        if blank {
            continue;
        }
        let object = crate::yaml::read(&part).map_err(|error| parse_error(source, first_line, &error))?;
        if object.is_null() {
            continue;
        }
        let document = Document { object, source: source.to_string(), first_line, text: part };
        if !document.object.is_object() {
            bail!("error: {}: not an object, but {}", document.place(None), kind_of(&document.object));
        }
        if document.object["kind"] == "List" {
            for item in document.object["items"].as_array().into_iter().flatten() {
                documents.push(Document { object: item.clone(), ..document.clone() });
            }
        } else {
            documents.push(document);
        }
    }
    for document in &documents {
        for field in ["apiVersion", "kind"] {
            if !document.object[field].is_string() {
                bail!("error: {}: the object has no {field}", document.place(None));
            }
        }
    }
    Ok(documents)
}

fn parse_error(source: &str, first_line: usize, error: &serde_saphyr::Error) -> anyhow::Error {
    let plain = error.without_snippet().to_string();
    // The place stands in front, counted from the file's beginning rather than the document's.
    let plain = plain.split(" at line ").next().unwrap_or(&plain);
    let plain = plain.split(", set DuplicateKeyPolicy").next().unwrap_or(plain);
    match error.location() {
        Some(location) => anyhow!(
            "error: {source}:{}:{}: {}",
            first_line + usize::try_from(location.line()).unwrap_or(1) - 1,
            location.column(),
            plain
        ),
        None => anyhow!("error: {source}:{first_line}: {plain}"),
    }
}

/// The documents of a YAML stream with the number of their first line.
fn parts(text: &str) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    let mut current = (1, String::new());
    for (index, line) in text.lines().enumerate() {
        let separator = line == "---" || line.starts_with("--- ") || line.starts_with("---\t");
        if separator {
            all.push(std::mem::replace(&mut current, (index + 2, String::new())));
        } else {
            current.1.push_str(line);
            current.1.push('\n');
        }
    }
    all.push(current);
    all
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The line of a field, or of the nearest one around it: a field that is missing has none of its own.
fn nearest_line(text: &str, field: &str) -> Option<usize> {
    let mut field = field;
    loop {
        if let Some(line) = find_line(text, field) {
            return Some(line);
        }
        field = field.get(..field.rfind(['.', '['])?)?;
    }
}

/// The line, from 0, on which a field such as `spec.containers[0].image` stands in block-style YAML.
fn find_line(text: &str, field: &str) -> Option<usize> {
    let lines: Vec<&str> = text.lines().collect();
    let mut at = 0;
    let mut parent_indent: Option<usize> = None;
    let mut found = None;
    for step in steps(field) {
        let (line, indent) = match step {
            Step::Key(key) => find_key(&lines, at, parent_indent, &key)?,
            Step::Index(index) => find_item(&lines, at, parent_indent, index)?,
        };
        found = Some(line);
        // An item's first key may stand on the line of its dash.
        at = if matches!(lines.get(line), Some(text) if text.trim_start().starts_with("- ") && indent_of(text) == indent)
        {
            line
        } else {
            line + 1
        };
        parent_indent = Some(indent);
    }
    found
}

enum Step {
    Key(String),
    Index(usize),
}

fn steps(field: &str) -> Vec<Step> {
    let mut all = Vec::new();
    for part in field.trim_start_matches('.').split('.') {
        let (key, indexes) = part.split_once('[').map_or((part, ""), |(key, rest)| (key, rest));
        if !key.is_empty() {
            all.push(Step::Key(key.to_string()));
        }
        all.extend(indexes.split(['[', ']']).filter_map(|index| index.parse().ok()).map(Step::Index));
    }
    all
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn find_key(lines: &[&str], from: usize, parent: Option<usize>, key: &str) -> Option<(usize, usize)> {
    for (number, line) in lines.iter().enumerate().skip(from) {
        let trimmed = line.trim_start();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let after_dash = trimmed.trim_start_matches("- ").trim_start();
        let indent = line.len() - after_dash.len();
        if parent.is_some_and(|parent| indent <= parent && !trimmed.starts_with("- ")) {
            return None;
        }
        let bare = after_dash.trim_start_matches(['"', '\'']);
        if bare.strip_prefix(key).is_some_and(|rest| rest.trim_start_matches(['"', '\'']).starts_with(':')) {
            return Some((number, indent));
        }
    }
    None
}

fn find_item(lines: &[&str], from: usize, parent: Option<usize>, index: usize) -> Option<(usize, usize)> {
    let dashes = lines.iter().enumerate().skip(from).filter(|(_, line)| line.trim_start().starts_with('-'));
    let mut item_indent = None;
    let mut seen = 0;
    for (number, line) in dashes {
        let indent = indent_of(line);
        if parent.is_some_and(|parent| indent < parent) {
            return None;
        }
        if *item_indent.get_or_insert(indent) != indent {
            continue;
        }
        if seen == index {
            return Some((number, indent));
        }
        seen += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "# first\napiVersion: v1\nkind: Service\nmetadata:\n  name: a\n---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: b\nspec:\n  containers:\n  - name: one\n    image: x\n  - name: two\n    imag: y\n";

    #[test]
    fn a_field_is_found_in_its_document() {
        let documents = split("m.yml", TWO).unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[0].place(Some("metadata.name")), "m.yml:5");
        assert_eq!(documents[1].place(Some("spec.containers[1].imag")), "m.yml:16");
        assert_eq!(documents[1].place(Some("spec.containers[0].name")), "m.yml:13");
    }

    #[test]
    fn bad_yaml_is_told_with_its_line_in_the_file() {
        let text = format!("{TWO}---\nkind: Pod\n  apiVersion: v1\n");
        let error = split("m.yml", &text).unwrap_err().to_string();
        assert!(error.contains("m.yml:19") || error.contains("m.yml:18"), "{error}");
    }

    #[test]
    fn an_object_without_a_kind_is_refused() {
        assert!(
            split("m.yml", "apiVersion: v1\n")
                .unwrap_err()
                .to_string()
                .contains("m.yml:1: the object has no kind")
        );
    }

    #[test]
    fn a_missing_field_is_told_with_the_place_where_it_is_missing() {
        let documents = split("m.yml", TWO).unwrap();
        assert_eq!(documents[1].place(Some("spec.containers[1].image")), "m.yml:15");
        assert_eq!(documents[1].place(Some("status.phase")), "m.yml:7");
    }

    #[test]
    fn a_key_given_twice_is_told_with_its_place() {
        let error = split("m.yml", "kind: Pod\napiVersion: v1\nkind: Node\n").unwrap_err().to_string();
        assert_eq!(error, "error: m.yml:3:1: duplicate mapping key: kind");
    }

    #[test]
    fn a_list_becomes_its_items() {
        let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod}\n- {apiVersion: v1, kind: Node}\n";
        assert_eq!(split("m.yml", list).unwrap().len(), 2);
    }
}

//! Any kind, by its fields: custom resources too.

use serde_json::Value;

use super::page::Page;
use crate::tree::plain;

/// Writes an object field by field, sorted by name.
pub fn write(object: &Value, page: &mut Page) {
    page.head(object);
    fields(object, 0, "", page);
}

fn fields(tree: &Value, depth: usize, path: &str, page: &mut Page) {
    let mut all: Vec<(&String, &Value)> = tree.as_object().into_iter().flatten().collect();
    all.sort_by_key(|(key, _)| *key);
    for (key, value) in all {
        let path = format!("{path}.{key}");
        if told_already(&path) {
            continue;
        }
        match value {
            Value::Object(_) => {
                page.line(depth, format!("{}:", title(key)));
                fields(value, depth + 1, &path, page);
            }
            Value::Array(items) => {
                page.line(depth, format!("{}:", title(key)));
                for item in items {
                    if item.is_object() {
                        fields(item, depth + 1, &path, page);
                    } else {
                        page.line(depth + 1, plain(item));
                    }
                }
            }
            scalar => page.line(depth, format!("{}:\t{}", title(key), plain_lines(scalar))),
        }
    }
}

fn plain_lines(value: &Value) -> String {
    if value.is_null() { "<nil>".into() } else { plain(value).replace('\n', "\n\t") }
}

fn told_already(path: &str) -> bool {
    [
        ".metadata.name",
        ".metadata.namespace",
        ".metadata.labels",
        ".metadata.annotations",
        ".metadata.managedFields",
    ]
    .contains(&path)
}

/// `creationTimestamp` as `Creation Timestamp`, `apiVersion` as `API Version`.
fn title(key: &str) -> String {
    const WHOLE: &[&str] = &["api", "uid", "url", "urls", "uri", "tls", "id", "ip", "acl"];
    if key.contains(['.', '/', '-', '_']) {
        return key.to_string();
    }
    let mut words: Vec<String> = Vec::new();
    let mut previous_lower = true;
    for letter in key.chars() {
        let starts = letter.is_ascii_uppercase() && previous_lower;
        previous_lower = !letter.is_ascii_uppercase();
        match words.last_mut() {
            Some(word) if !starts => word.push(letter),
            _ => words.push(letter.to_string()),
        }
    }
    let word = |word: String| {
        let lower = word.to_ascii_lowercase();
        if WHOLE.contains(&lower.as_str()) {
            return lower.to_uppercase();
        }
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
    };
    words.into_iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_titled_in_words() {
        for (key, expected) in [
            ("creationTimestamp", "Creation Timestamp"),
            ("apiVersion", "API Version"),
            ("uid", "UID"),
            ("podIP", "Pod IP"),
            ("spec", "Spec"),
            ("a.b/c", "a.b/c"),
        ] {
            assert_eq!(title(key), expected);
        }
    }

    #[test]
    fn every_field_of_a_custom_resource_is_shown() {
        let object = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "uid": "1"},
            "spec": {"size": 3, "parts": [{"name": "a"}, {"name": "b"}], "tags": ["x"]}});
        let mut page = Page::default();
        write(&object, &mut page);
        let text = page.finish();
        for expected in [
            "API Version:  example.com/v1\n",
            "Spec:\n  Parts:\n    Name:  a\n    Name:  b\n  Size:    3\n",
            "  Tags:\n    x\n",
        ] {
            assert!(text.contains(expected), "{expected:?} in\n{text}");
        }
    }
}

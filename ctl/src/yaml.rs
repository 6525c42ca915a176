//! YAML as kubectl reads and writes it.
//!
//! What is read is YAML 1.1: `y`, `No` and `on` are truth values, `010` is eight, and a number without a fraction is a
//! whole one however it is written. Keys stay as they are written, where kubectl makes `"true"` of a key `on`.
//! Written texts are quoted twice where they would else be read as something other than a text, once where only marks in
//! them ask for quotes. Long lines are not folded.

use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_saphyr::SingleQuoted;

/// Reads one document.
pub fn read(text: &str) -> Result<Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let mut tree = serde_saphyr::from_str_with_options(text, options)?;
    make_whole(&mut tree);
    Ok(tree)
}

fn make_whole(tree: &mut Value) {
    match tree {
        Value::Array(items) => items.iter_mut().for_each(make_whole),
        Value::Object(fields) => fields.values_mut().for_each(make_whole),
        Value::Number(number) if number.is_f64() => {
            let text = number.as_f64().filter(|value| value.fract() == 0.0).map(|value| value.to_string());
            if let Some(whole) = text.and_then(|text| text.parse::<i64>().ok()) {
                *tree = whole.into();
            }
        }
        _ => {}
    }
}

/// Writes one document.
pub fn write(tree: &Value) -> anyhow::Result<String> {
    let mut text = serde_saphyr::to_string(&Quoted(tree))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// A tree whose texts are quoted as kubectl does it.
struct Quoted<'a>(&'a Value);

impl Serialize for Quoted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Array(items) => serializer.collect_seq(items.iter().map(Quoted)),
            Value::Object(fields) => {
                serializer.collect_map(fields.iter().map(|(key, value)| (key, Quoted(value))))
            }
            Value::String(text) if has_marks_only(text) => SingleQuoted(text).serialize(serializer),
            other => other.serialize(serializer),
        }
    }
}

/// Whether a text needs quotes, but not because it could be taken for a number, a truth value or nothing.
fn has_marks_only(text: &str) -> bool {
    let needs_quotes = serde_saphyr::to_string(&text).is_ok_and(|written| written.starts_with('"'));
    needs_quotes
        && !text.contains(char::is_control)
        && !text.trim_start_matches(['+', '-', '.']).starts_with(|first: char| first.is_ascii_digit())
        && (text.trim_start().starts_with('#')
            || !matches!(read(text), Ok(Value::Null | Value::Bool(_) | Value::Number(_))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What kubectl v1.32 made of the same words.
    #[test]
    fn words_and_numbers_mean_what_they_mean_to_kubectl() {
        for (text, expected) in [
            ("y", json!(true)),
            ("N", json!(false)),
            ("on", json!(true)),
            ("off", json!(false)),
            ("yes", json!(true)),
            ("No", json!(false)),
            ("True", json!(true)),
            ("0x1F", json!(31)),
            ("010", json!(8)),
            ("0o17", json!(15)),
            ("0b11", json!(3)),
            ("1_000", json!(1000)),
            ("2001-01-01", json!("2001-01-01")),
            ("1e3", json!(1000)),
            ("1.0", json!(1)),
            ("0.5", json!(0.5)),
            ("+12", json!(12)),
            ("~", json!(null)),
            ("12:30:45", json!("12:30:45")),
            ("\"y\"", json!("y")),
            ("!!str 5", json!("5")),
        ] {
            assert_eq!(read(&format!("v: {text}")).unwrap(), json!({"v": expected}), "{text}");
        }
    }

    #[test]
    fn texts_are_quoted_as_kubectl_does_it() {
        let tree = json!({"a": "a: b", "b": " x", "c": "on", "d": "plain text", "e": "", "f": "2001-01-01", "g": "# no"});
        let expected =
            "a: 'a: b'\nb: ' x'\nc: \"on\"\nd: plain text\ne: \"\"\nf: \"2001-01-01\"\ng: '# no'\n";
        assert_eq!(write(&tree).unwrap(), expected);
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let words = [
            "y",
            "on",
            "No",
            "~",
            "010",
            "1e3",
            "0x1F",
            "1_000",
            "1.0",
            "null",
            "12:30:45",
            "2001-01-01",
            " a",
            "#",
            "",
        ];
        let tree = json!({"words": words, "number": 8, "text": "two\nlines\n"});
        assert_eq!(read(&write(&tree).unwrap()).unwrap(), tree);
    }
}

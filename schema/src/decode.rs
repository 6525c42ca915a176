//! Bytes to JSON trees, within limits.
//!
//! Guarantees: what comes out is no deeper than [`Limits::depth_max`] and came from no more than
//! [`Limits::bytes_max`]; of duplicate keys the last wins, as upstream, and the paths of the first are reported.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How many faults of one body are told, as upstream.
pub(crate) const FAULTS_MAX: usize = 100;
/// What of a path is told: one key can be as long as the whole body.
const PATH_LETTERS_MAX: usize = 1000;

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest body.
    pub bytes_max: usize,
    /// The deepest nesting, at most 127.
    pub depth_max: usize,
}

impl Default for Limits {
    /// Upstream's limit for request bodies, and a depth that leaves room on small stacks.
    fn default() -> Self {
        Self { bytes_max: 3 * 1024 * 1024, depth_max: 100 }
    }
}

/// A decoded body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The tree.
    pub value: Value,
    /// The paths of keys that appeared more than once in one object, the first hundred: `spec.replicas`. The message of
    /// strict decoding is `duplicate field "spec.replicas"`.
    pub duplicates: Vec<String>,
    /// The line of the first of them, where the body is YAML: there strict decoding speaks of lines.
    pub duplicate_line: Option<usize>,
}

/// Why a body is not a tree. A retry does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The body is longer than allowed: 413.
    #[error("limit is {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// The nesting is deeper than allowed: 400.
    #[error("nested deeper than {depth_max} levels")]
    TooDeep {
        /// The limit.
        depth_max: usize,
    },
    /// Not UTF-8: 400.
    #[error("not valid UTF-8 at byte {at}")]
    NotUtf8 {
        /// The offset of the first wrong byte.
        at: usize,
    },
    /// Not JSON or YAML: 400.
    #[error("{message} at line {line} column {column}")]
    Syntax {
        /// What the parser says.
        message: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
}

/// Decodes JSON. Nothing but white space may follow the value.
pub fn json(bytes: &[u8], limits: &Limits) -> Result<Decoded, DecodeError> {
    let text = check(bytes, limits)?;
    let mut reader = Reader::new(limits);
    let mut source = serde_json::Deserializer::from_str(text);
    let result = Tree(&mut reader).deserialize(&mut source).and_then(|value| source.end().map(|()| value));
    match result {
        Ok(value) => Ok(Decoded { value, duplicates: reader.duplicates, duplicate_line: None }),
        Err(_) if reader.too_deep => Err(DecodeError::TooDeep { depth_max: limits.depth_max }),
        Err(error) => Err(syntax_of_json(&error)),
    }
}

/// Decodes one YAML document. JSON, which most clients send where YAML is asked for, is read as such; anything else may
/// nest 64 levels, for the parser needs much of the stack.
pub fn yaml(bytes: &[u8], limits: &Limits) -> Result<Decoded, DecodeError> {
    let text = check(bytes, limits)?;
    if text.trim_start().starts_with('{')
        && let Ok(decoded) = json(bytes, limits)
        && decoded.duplicates.is_empty()
    {
        return Ok(decoded);
    }
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    let mut reader = Reader::new(limits);
    let result = serde_saphyr::with_deserializer_from_str_with_options(text, options, |source| {
        Tree(&mut reader).deserialize(source)
    });
    match result {
        Ok(value) => {
            let duplicate_line = if reader.duplicates.is_empty() { None } else { duplicate_line(text) };
            Ok(Decoded { value, duplicates: reader.duplicates, duplicate_line })
        }
        Err(_) if reader.too_deep => Err(DecodeError::TooDeep { depth_max: limits.depth_max }),
        Err(error) => Err(syntax_of_yaml(&error)),
    }
}

/// Where the first key stands that its map has already.
fn duplicate_line(text: &str) -> Option<usize> {
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    let refused = serde_saphyr::from_str_with_options::<serde::de::IgnoredAny>(text, options).err()?;
    refused.location().map(|at| at.line() as usize)
}

/// How many levels a tree has.
pub fn depth(value: &Value) -> usize {
    match value {
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The [`mark`]s of the paths of all fields of a JSON text in the order in which they stand there, duplicates as often
/// as they do. Nothing for what is no JSON.
pub fn fields_in_order(bytes: &[u8]) -> Vec<u64> {
    let mut found = Vec::new();
    let order = Order { path: mark(""), found: &mut found };
    // What could not be read further is not there.
    let _complete = order.deserialize(&mut serde_json::Deserializer::from_slice(bytes));
    found
}

/// What tells a path from others, without being as long.
pub fn mark(path: &str) -> u64 {
    longer(0xcbf2_9ce4_8422_2325, path)
}

/// The mark of a path that goes on (FNV-1a).
fn longer(mark: u64, step: &str) -> u64 {
    step.bytes().fold(mark, |mark, byte| (mark ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Writes down the paths of fields as they come.
struct Order<'a> {
    path: u64,
    found: &'a mut Vec<u64>,
}

impl<'de> DeserializeSeed<'de> for Order<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Order<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        for index in 0.. {
            let path = longer(self.path, &format!("[{index}]"));
            if access.next_element_seed(Order { path, found: self.found })?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let start = if self.path == mark("") { self.path } else { longer(self.path, ".") };
        while let Some(key) = access.next_key::<String>()? {
            let path = longer(start, &key);
            self.found.push(path);
            access.next_value_seed(Order { path, found: self.found })?;
        }
        Ok(())
    }
}

fn check<'a>(bytes: &'a [u8], limits: &Limits) -> Result<&'a str, DecodeError> {
    if bytes.len() > limits.bytes_max {
        return Err(DecodeError::TooLarge { bytes_max: limits.bytes_max });
    }
    std::str::from_utf8(bytes).map_err(|error| DecodeError::NotUtf8 { at: error.valid_up_to() })
}

fn syntax_of_json(error: &serde_json::Error) -> DecodeError {
    let said = error.to_string();
    let message = said.rsplit_once(" at line ").map_or(said.as_str(), |(message, _)| message);
    DecodeError::Syntax { message: message.to_string(), line: error.line(), column: error.column() }
}

fn syntax_of_yaml(error: &serde_saphyr::Error) -> DecodeError {
    let (line, column) = error.location().map_or((1, 1), |at| (at.line() as usize, at.column() as usize));
    let said = error.to_string();
    let message = said.rsplit_once(" at line ").map_or(said.as_str(), |(message, _)| message);
    DecodeError::Syntax { message: message.to_string(), line, column }
}

/// What is carried along while a tree is read.
struct Reader {
    duplicates: Vec<String>,
    depth_left: usize,
    too_deep: bool,
}

impl Reader {
    fn new(limits: &Limits) -> Self {
        Self { duplicates: Vec::new(), depth_left: limits.depth_max.min(127), too_deep: false }
    }

    fn descend<E: serde::de::Error>(&mut self) -> Result<(), E> {
        match self.depth_left.checked_sub(1) {
            Some(left) => {
                self.depth_left = left;
                Ok(())
            }
            None => {
                self.too_deep = true;
                Err(E::custom("too deep"))
            }
        }
    }

    fn duplicate(&mut self, key: &str) {
        if self.duplicates.len() < FAULTS_MAX {
            self.duplicates.push(told(key));
        }
    }

    /// Puts the step that leads to them before the paths that were found since.
    fn prefix(&mut self, since: usize, step: &str) {
        for path in self.duplicates.iter_mut().skip(since) {
            let joint = if path.starts_with('[') { "" } else { "." };
            *path = told(&format!("{step}{joint}{path}"));
        }
    }
}

/// What is told of a path: all of it, unless it is very long.
pub(crate) fn told(path: &str) -> String {
    path.chars().take(PATH_LETTERS_MAX).collect()
}

/// Reads any value. A seed, because `Value`'s own reader forgets duplicate keys.
struct Tree<'r>(&'r mut Reader);

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.0.descend()?;
        let mut list = Vec::new();
        loop {
            let since = self.0.duplicates.len();
            let Some(item) = access.next_element_seed(Tree(&mut *self.0))? else { break };
            if self.0.duplicates.len() > since {
                self.0.prefix(since, &format!("[{}]", list.len()));
            }
            list.push(item);
        }
        self.0.depth_left += 1;
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.0.descend()?;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let since = self.0.duplicates.len();
            let value = access.next_value_seed(Tree(&mut *self.0))?;
            if self.0.duplicates.len() > since {
                self.0.prefix(since, &key);
            }
            match map.entry(key) {
                serde_json::map::Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                serde_json::map::Entry::Occupied(mut entry) => {
                    self.0.duplicate(entry.key());
                    entry.insert(value);
                }
            }
        }
        self.0.depth_left += 1;
        Ok(Value::Object(map))
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Value, E> {
        // The nearest thing that JSON clients read.
        self.visit_f64(value as f64)
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_bytes<E: serde::de::Error>(self, value: &[u8]) -> Result<Value, E> {
        std::str::from_utf8(value).map(|text| Value::String(text.to_owned())).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn decoded(text: &str) -> Decoded {
        json(text.as_bytes(), &Limits::default()).unwrap()
    }

    #[test]
    fn duplicate_keys_should_be_reported_with_their_paths_and_the_last_should_win() {
        let found = decoded(r#"{"a":1,"spec":{"list":[{"b":1},{"b":1,"b":2}],"r":1,"r":3},"a":2}"#);
        assert_eq!(found.value, json!({"a": 2, "spec": {"list": [{"b": 1}, {"b": 2}], "r": 3}}));
        assert_eq!(found.duplicates, ["spec.list[1].b", "spec.r", "a"]);
        let same = yaml(b"a: 1\nspec:\n  r: 1\n  r: 3\nl:\n- {x: 1, x: 2}\n", &Limits::default()).unwrap();
        assert_eq!(same.value, json!({"a": 1, "spec": {"r": 3}, "l": [{"x": 2}]}));
        assert_eq!(same.duplicates, ["spec.r", "l[0].x"]);
        assert_eq!(same.duplicate_line, Some(4));
    }

    #[test]
    fn fields_should_be_told_in_the_order_of_the_text() {
        let text = br#"{"b": {"x": [1, {"y": 2}], "x": 3}, "a": null}"#;
        assert_eq!(fields_in_order(text), ["b", "b.x", "b.x[1].y", "b.x", "a"].map(mark));
        assert_eq!(fields_in_order(b"{\"a\": 1, nope"), ["a"].map(mark));
    }

    #[test]
    fn faults_should_be_told_in_few_words_however_many_they_are() {
        let many = |count: usize| vec![r#""b":1"#; count].join(",");
        let text = format!(r#"{{"{}":{{"c":{{{}}},"c":{{{}}}}}}}"#, "a".repeat(5000), many(99), many(99));
        let found = decoded(&text).duplicates;
        assert_eq!((found.len(), found.iter().map(String::len).max()), (100, Some(1000)));
        assert_eq!(decoded(&format!("{{{}}}", many(3))).duplicates, ["b", "b"]);
    }

    #[test]
    fn json_should_be_read_as_such_where_yaml_is_asked_for() {
        let text = r#" {"a": "\ud83d\ude00", "b": [1e3, -1, 18446744073709551615]}"#.replace("\\\\", "\\");
        let expected = json!({"a": "😀", "b": [1000.0, -1, 18446744073709551615_u64]});
        assert_eq!(yaml(text.as_bytes(), &Limits::default()).unwrap().value, expected);
        assert_eq!(yaml(b"{a: 1, b: [x]}", &Limits::default()).unwrap().value, json!({"a": 1, "b": ["x"]}));
    }

    #[test]
    fn what_is_not_json_should_be_refused_with_its_place() {
        let limits = Limits::default();
        let error = json(b"{\n  \"a\": nope\n}", &limits).unwrap_err();
        assert!(matches!(error, DecodeError::Syntax { line: 2, column: 9, .. }), "{error:?}");
        assert!(json(b"{} {}", &limits).unwrap_err().to_string().contains("trailing characters"));
        assert_eq!(json(b"\"a\xff\"", &limits), Err(DecodeError::NotUtf8 { at: 2 }));
        assert_eq!(
            json(b"{\"a\":1}", &Limits { bytes_max: 6, ..limits }),
            Err(DecodeError::TooLarge { bytes_max: 6 })
        );
        let error = yaml(b"a:\n  - b\n c: d\n", &limits).unwrap_err();
        assert!(matches!(error, DecodeError::Syntax { line: 3, .. }), "{error:?}");
    }

    #[test]
    fn deep_nesting_should_be_refused_before_it_exhausts_the_stack() {
        let deep = "[".repeat(5000);
        let limits = Limits::default();
        assert_eq!(json(deep.as_bytes(), &limits), Err(DecodeError::TooDeep { depth_max: 100 }));
        let fits = format!("{}{}", "[".repeat(100), "]".repeat(100));
        assert!(json(fits.as_bytes(), &limits).is_ok());
    }

    #[test]
    fn yaml_scalars_should_become_what_upstream_makes_of_them() {
        let body = b"a: 1\nb: \"1\"\nc: 1.5\nd: true\ne:\nf: text\ng: 0x10\nh: |\n  two\n  lines\n80: port\n";
        let found = yaml(body, &Limits::default()).unwrap();
        assert_eq!(
            found.value,
            json!({"a": 1, "b": "1", "c": 1.5, "d": true, "e": null, "f": "text", "g": 16, "h": "two\nlines\n", "80": "port"})
        );
        assert_eq!(yaml(br#"{"a": [1, "x"]}"#, &Limits::default()).unwrap().value, json!({"a": [1, "x"]}));
    }
}

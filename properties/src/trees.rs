//! JSON trees out of arbitrary bytes: as a text where they are one, else one choice per byte.

use serde_json::{Map, Value};

/// Bytes as choices; when there are no more, every choice is the first.
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// One of so many.
    pub fn below(&mut self, count: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % count
    }

    /// Any tree over a vocabulary.
    pub fn tree(&mut self, words: &[&str], depth: usize) -> Value {
        match self.below(if depth == 0 { 5 } else { 9 }) {
            0 => Value::Null,
            1 => (self.below(2) == 0).into(),
            2 => self.below(4).into(),
            3 | 4 => words[self.below(words.len())].into(),
            5 => (0..self.below(4)).map(|_| self.tree(words, depth - 1)).collect(),
            _ => (0..self.below(4))
                .map(|_| (words[self.below(words.len())].to_string(), self.tree(words, depth - 1)))
                .collect(),
        }
    }

    /// A tree that fits an OpenAPI schema: as much of it as the choices take.
    pub fn shaped(&mut self, schema: &Value) -> Value {
        match schema["type"].as_str() {
            Some("object") => match schema.get("properties").and_then(Value::as_object) {
                Some(properties) => self.fields(schema, properties),
                None => (0..self.below(3))
                    .map(|_| (self.word(), self.shaped(&schema["additionalProperties"])))
                    .collect(),
            },
            Some("array") => self.items(schema),
            Some("integer") => self.below(3).into(),
            _ => self.word().into(),
        }
    }

    fn word(&mut self) -> String {
        ["a", "b", "c"][self.below(3)].to_string()
    }

    fn fields(&mut self, schema: &Value, properties: &Map<String, Value>) -> Value {
        let required =
            |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
        let mut fields = Map::new();
        for (name, below) in properties {
            if required(name) || self.below(2) == 1 {
                fields.insert(name.clone(), self.shaped(below));
            }
        }
        Value::Object(fields)
    }

    /// Items whose keys differ.
    fn items(&mut self, schema: &Value) -> Value {
        let mut items: Vec<Value> = (0..self.below(4)).map(|_| self.shaped(&schema["items"])).collect();
        let keys = schema["x-kubernetes-list-map-keys"].as_array().cloned().unwrap_or_default();
        let key = |item: &Value| match keys.is_empty() {
            true => item.to_string(),
            false => {
                keys.iter().map(|key| item[key.as_str().unwrap()].to_string()).collect::<Vec<_>>().join(" ")
            }
        };
        if schema["x-kubernetes-list-type"] != "atomic" {
            let mut seen = std::collections::HashSet::new();
            items.retain(|item| seen.insert(key(item)));
        }
        Value::Array(items)
    }
}

/// So many trees: those of a JSON list of as many, else what a generator makes of the bytes.
pub fn trees<const N: usize>(data: &[u8], mut generate: impl FnMut(&mut Choices<'_>) -> Value) -> [Value; N] {
    if let Ok(decoded) = schema::decode::json(data, &schema::decode::Limits::default())
        && let Value::Array(given) = decoded.value
        && let Ok(given) = given.try_into()
    {
        return given;
    }
    let mut choices = Choices::new(data);
    std::array::from_fn(|_| generate(&mut choices))
}

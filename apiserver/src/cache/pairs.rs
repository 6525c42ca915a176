//! A few names with their values, as labels and selectable fields are kept: in one piece of memory, for a list with a
//! selector looks into every object there is.

use std::fmt;

use api::selector::Labels;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// What ends names and values. A value that holds one is cut off there: no selector can name it.
const END: char = '\0';

/// Names with their values.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Pairs(Box<str>);

impl Pairs {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut parts = self.0.split_terminator(END);
        std::iter::from_fn(move || Some((parts.next()?, parts.next()?)))
    }

    /// The value of a name.
    pub fn get(&self, wanted: &str) -> Option<&str> {
        self.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value)
    }
}

impl Labels for Pairs {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key)
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Pairs {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut text = String::new();
        for (name, value) in pairs {
            for part in [name.as_ref(), value.as_ref()] {
                text.push_str(part.split(END).next().unwrap_or_default());
                text.push(END);
            }
        }
        Self(text.into())
    }
}

impl fmt::Debug for Pairs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

/// From a map of texts, or null.
impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;

        impl<'de> Visitor<'de> for Texts {
            type Value = Pairs;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map of texts")
            }

            fn visit_unit<E>(self) -> Result<Pairs, E> {
                Ok(Pairs::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry::<String, String>()? {
                    pairs.push(pair);
                }
                Ok(pairs.into_iter().collect())
            }
        }

        deserializer.deserialize_any(Texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_should_be_found_by_their_names() {
        let pairs: Pairs = [("app", "web"), ("empty", ""), ("last", "x")].into_iter().collect();
        assert_eq!(
            (pairs.get("app"), pairs.get("empty"), pairs.get("last")),
            (Some("web"), Some(""), Some("x"))
        );
        // A value is no name, and a part of a name is not the name.
        assert_eq!((pairs.get("web"), pairs.get("ap"), pairs.get("")), (None, None, None));
        assert_eq!(Pairs::default().get(""), None);
        assert_eq!(serde_json::from_str::<Pairs>(r#"{"app":"web","empty":"","last":"x"}"#).unwrap(), pairs);
        assert_eq!(serde_json::from_str::<Pairs>("null").unwrap(), Pairs::default());
    }

    #[test]
    fn what_ends_a_value_should_not_begin_another() {
        let pairs: Pairs = [("reason", "a\0app\0web"), ("app", "real")].into_iter().collect();
        assert_eq!((pairs.get("reason"), pairs.get("app")), (Some("a"), Some("real")));
    }
}

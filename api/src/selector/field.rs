//! Field selectors: conjunctions of `=`, `==` and `!=` over the few fields that a kind offers.

use std::fmt;

use super::SelectorError;

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// `spec.nodeName`
    pub field: String,
    /// With what it is compared.
    pub value: String,
    /// Whether it must be that, or must not.
    pub equal: bool,
}

/// A conjunction of terms; without any it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// The terms.
    pub terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// Reads `spec.nodeName=n1,status.phase!=Failed`. A backslash takes the meaning off `\`, `,` and `=` in values.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in split_unescaped(text) {
            if part.is_empty() {
                continue;
            }
            let not_understood =
                || SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'"));
            let (field, equal, raw) = split_term(part).ok_or_else(not_understood)?;
            terms.push(FieldTerm { field: field.to_string(), value: unescape(raw)?, equal });
        }
        Ok(Self { terms })
    }

    /// Whether it selects every object.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether every term holds; `value_of` yields the object's values, the empty string where it has none.
    pub fn matches<'a>(&self, value_of: impl Fn(&str) -> &'a str) -> bool {
        self.terms.iter().all(|term| (value_of(&term.field) == term.value) == term.equal)
    }

    /// The value that a field must have, where the selector demands one: lists by name or node need not look at
    /// every object.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }

    /// The first field that a kind does not offer.
    pub fn first_unsupported(&self, is_supported: impl Fn(&str) -> bool) -> Option<&str> {
        self.terms.iter().map(|t| t.field.as_str()).find(|field| !is_supported(field))
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let operator = if term.equal { "=" } else { "!=" };
            let value = term.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(out, "{comma}{}{operator}{value}", term.field)?;
        }
        Ok(())
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            ',' => {
                parts.push(text.get(start..at).unwrap_or_default());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

fn split_term(part: &str) -> Option<(&str, bool, &str)> {
    let at = part.char_indices().find_map(|(at, _)| {
        let rest = part.get(at..)?;
        [("!=", false), ("==", true), ("=", true)]
            .into_iter()
            .find(|(operator, _)| rest.starts_with(operator))
            .map(|(operator, equal)| (at, operator.len(), equal))
    });
    let (at, length, equal) = at?;
    Some((part.get(..at)?, equal, part.get(at + length..)?))
}

fn unescape(raw: &str) -> Result<String, SelectorError> {
    let mut value = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => value.push(escaped),
                other => {
                    let sequence: String = std::iter::once('\\').chain(other).collect();
                    let message = format!("invalid field selector: invalid escape sequence: {sequence}");
                    return Err(SelectorError(message));
                }
            },
            ',' | '=' => {
                let message = format!("invalid field selector: unescaped character in value: {c}");
                return Err(SelectorError(message));
            }
            c => value.push(c),
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_should_all_hold() {
        let value_of = |field: &str| match field {
            "spec.nodeName" => "n1",
            "status.phase" => "Running",
            _ => "",
        };
        for (text, selects) in [
            ("", true),
            ("spec.nodeName=n1", true),
            ("spec.nodeName==n1,status.phase!=Failed", true),
            ("spec.nodeName!=n1", false),
            ("spec.nodeName=", false),
            ("other=", true),
        ] {
            assert_eq!(FieldSelector::parse(text).unwrap().matches(value_of), selects, "{text}");
        }
    }

    #[test]
    fn values_should_survive_escaping() {
        let selector = FieldSelector::parse("a=x\\,y\\=z\\\\").unwrap();
        assert_eq!(selector.terms[0].value, "x,y=z\\");
        assert_eq!(FieldSelector::parse(&selector.to_string()).unwrap(), selector);
        assert_eq!(
            FieldSelector::parse("oops").unwrap_err().to_string(),
            "invalid selector: 'oops'; can't understand 'oops'"
        );
        assert!(FieldSelector::parse("a=b=c").is_err());
        assert_eq!(selector.first_unsupported(|f| f == "b"), Some("a"));
    }
}

//! JSONPath as kubectl's users write it: `{.items[*].metadata.name}`, with ranges, filters, slices and quoted text.

use anyhow::{Context, bail};
use serde_json::Value;

use super::table::text_of;

/// A parsed template.
#[derive(Debug, PartialEq)]
pub struct Template(Vec<Node>);

#[derive(Debug, PartialEq)]
enum Node {
    Text(String),
    Path(Path),
    Range(Path, Vec<Node>),
}

type Path = Vec<Step>;

#[derive(Debug, PartialEq)]
enum Step {
    Root,
    Key(String),
    Every,
    Deep(Option<String>),
    Slice { from: Option<i64>, to: Option<i64>, step: i64 },
    Index(i64),
    Keys(Vec<String>),
    Filter(Path, Option<(Comparison, Operand)>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, PartialEq)]
enum Operand {
    Literal(Value),
    Path(Path),
}

impl Template {
    /// Reads a template; without braces the whole is one path.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let wrapped;
        let text = if text.contains('{') {
            text
        } else {
            let dotted =
                if text.starts_with(['.', '[', '$']) { text.to_string() } else { format!(".{text}") };
            wrapped = format!("{{{dotted}}}");
            &wrapped
        };
        let mut parser = Parser { rest: text };
        let nodes = parser.nodes(false).with_context(|| format!("error: the JSONPath {text:?}"))?;
        Ok(Self(nodes))
    }

    /// What it says of an object.
    pub fn render(&self, object: &Value) -> String {
        let mut out = String::new();
        render(&self.0, object, object, &mut out);
        out
    }

    /// The values of a template that is a single path.
    pub fn values<'a>(&self, object: &'a Value) -> Vec<&'a Value> {
        match self.0.as_slice() {
            [Node::Path(path)] => walk(path, object, object),
            _ => Vec::new(),
        }
    }
}

fn render(nodes: &[Node], root: &Value, here: &Value, out: &mut String) {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Path(path) => {
                let found: Vec<String> = walk(path, root, here).into_iter().map(show).collect();
                out.push_str(&found.join(" "));
            }
            Node::Range(path, body) => {
                for item in walk(path, root, here) {
                    render(body, root, item, out);
                }
            }
        }
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        other => text_of(other),
    }
}

fn walk<'a>(path: &[Step], root: &'a Value, here: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![here];
    for step in path {
        found = found.into_iter().flat_map(|value| one_step(step, root, value)).collect();
    }
    found
}

fn one_step<'a>(step: &Step, root: &'a Value, value: &'a Value) -> Vec<&'a Value> {
    match step {
        Step::Root => vec![root],
        Step::Key(key) => value.get(key).into_iter().collect(),
        Step::Every => children(value),
        Step::Deep(key) => {
            let mut all = Vec::new();
            descend(value, &mut all);
            match key {
                Some(key) => all.into_iter().filter_map(|value| value.get(key)).collect(),
                None => all,
            }
        }
        Step::Index(index) => {
            let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
            position(*index, list.len()).and_then(|index| list.get(index)).into_iter().collect()
        }
        Step::Slice { from, to, step } => {
            let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let bound = |wanted: Option<i64>, default: usize| match wanted {
                None => default,
                Some(index) => position(index, list.len()).unwrap_or(if index < 0 { 0 } else { list.len() }),
            };
            let (from, to) = (bound(*from, 0), bound(*to, list.len()));
            let every = usize::try_from(*step).unwrap_or(1).max(1);
            list.get(from..to.max(from)).unwrap_or_default().iter().step_by(every).collect()
        }
        Step::Keys(keys) => keys.iter().filter_map(|key| value.get(key)).collect(),
        Step::Filter(path, comparison) => {
            children(value).into_iter().filter(|item| holds(path, comparison.as_ref(), root, item)).collect()
        }
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(members) => members.values().collect(),
        _ => Vec::new(),
    }
}

fn descend<'a>(value: &'a Value, into: &mut Vec<&'a Value>) {
    into.push(value);
    for child in children(value) {
        descend(child, into);
    }
}

fn position(index: i64, length: usize) -> Option<usize> {
    let absolute = if index < 0 { i64::try_from(length).ok()? + index } else { index };
    usize::try_from(absolute).ok().filter(|position| *position <= length)
}

fn holds(path: &[Step], comparison: Option<&(Comparison, Operand)>, root: &Value, item: &Value) -> bool {
    let found = walk(path, root, item);
    let Some((comparison, operand)) = comparison else { return !found.is_empty() };
    let wanted = match operand {
        Operand::Literal(value) => value,
        Operand::Path(path) => match walk(path, root, item).first() {
            Some(value) => *value,
            None => return false,
        },
    };
    found.first().is_some_and(|value| compare(value, *comparison, wanted))
}

fn compare(one: &Value, comparison: Comparison, other: &Value) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let ordering = match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one.partial_cmp(&other),
        _ => Some(show(one).cmp(&show(other))),
    };
    let Some(ordering) = ordering else { return false };
    match comparison {
        Comparison::Equal => ordering == Equal,
        Comparison::NotEqual => ordering != Equal,
        Comparison::Less => ordering == Less,
        Comparison::LessOrEqual => ordering != Greater,
        Comparison::Greater => ordering == Greater,
        Comparison::GreaterOrEqual => ordering != Less,
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn nodes(&mut self, in_range: bool) -> anyhow::Result<Vec<Node>> {
        let mut nodes = Vec::new();
        while !self.rest.is_empty() {
            let Some((before, after)) = self.rest.split_once('{') else {
                nodes.push(Node::Text(std::mem::take(&mut self.rest).to_string()));
                break;
            };
            if !before.is_empty() {
                nodes.push(Node::Text(before.to_string()));
            }
            self.rest = after;
            let inside = self.until_brace()?;
            let inside = inside.trim();
            if inside == "end" {
                if in_range {
                    return Ok(nodes);
                }
                bail!("{{end}} without {{range}}");
            }
            if let Some(list) = inside.strip_prefix("range ") {
                let path = parse_path(list.trim())?;
                nodes.push(Node::Range(path, self.nodes(true)?));
            } else if let Some(text) = quoted(inside) {
                nodes.push(Node::Text(text));
            } else {
                nodes.push(Node::Path(parse_path(inside)?));
            }
        }
        if in_range {
            bail!("{{range}} without {{end}}");
        }
        Ok(nodes)
    }

    /// The text up to the brace that closes, past those in quotes.
    fn until_brace(&mut self) -> anyhow::Result<String> {
        let mut quote = None;
        let mut escaped = false;
        for (index, letter) in self.rest.char_indices() {
            match (quote, letter) {
                _ if escaped => escaped = false,
                (Some(_), '\\') => escaped = true,
                (Some(open), letter) if letter == open => quote = None,
                (None, '"' | '\'') => quote = Some(letter),
                (None, '}') => {
                    let (inside, rest) = self.rest.split_at(index);
                    let inside = inside.to_string();
                    self.rest = rest.get(1..).unwrap_or_default();
                    return Ok(inside);
                }
                _ => {}
            }
        }
        bail!("a brace is not closed")
    }
}

/// A text in quotes, with its escapes resolved.
fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|first| ['"', '\''].contains(first))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let mut out = String::new();
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next()? {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
    Some(out)
}

fn parse_path(text: &str) -> anyhow::Result<Path> {
    let mut path = Vec::new();
    let mut rest = text;
    if let Some(after) = rest.strip_prefix('$') {
        path.push(Step::Root);
        rest = after;
    } else if let Some(after) = rest.strip_prefix('@') {
        rest = after;
    }
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("..") {
            let (key, after) = take_key(after);
            path.push(Step::Deep(Some(key).filter(|key| !key.is_empty() && key != "*")));
            rest = after;
        } else if let Some(after) = rest.strip_prefix('.') {
            let (key, after) = take_key(after);
            match key.as_str() {
                "" => {}
                "*" => path.push(Step::Every),
                _ => path.push(Step::Key(key)),
            }
            rest = after;
        } else if rest.starts_with('[') {
            let (inside, after) = bracketed(rest)?;
            path.push(bracket_step(inside.trim())?);
            rest = after;
        } else {
            let (key, after) = take_key(rest);
            if key.is_empty() {
                bail!("{rest:?} is not understood");
            }
            path.push(Step::Key(key));
            rest = after;
        }
    }
    Ok(path)
}

/// A key up to a dot or bracket; a backslash takes a dot along.
fn take_key(text: &str) -> (String, &str) {
    let mut key = String::new();
    let mut letters = text.char_indices();
    while let Some((index, letter)) = letters.next() {
        match letter {
            '.' | '[' => return (key, text.get(index..).unwrap_or_default()),
            '\\' => key.extend(letters.next().map(|(_, next)| next)),
            other => key.push(other),
        }
    }
    (key, "")
}

fn bracketed(text: &str) -> anyhow::Result<(&str, &str)> {
    let mut depth = 0;
    let mut quote = None;
    for (index, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(letter),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    let inside = text.get(1..index).unwrap_or_default();
                    return Ok((inside, text.get(index + 1..).unwrap_or_default()));
                }
            }
            _ => {}
        }
    }
    bail!("a bracket is not closed in {text:?}")
}

fn bracket_step(inside: &str) -> anyhow::Result<Step> {
    if inside == "*" {
        return Ok(Step::Every);
    }
    if let Some(condition) = inside.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return filter_step(condition.trim());
    }
    if inside.starts_with(['\'', '"']) {
        let keys: Option<Vec<String>> = inside.split(',').map(|key| quoted(key.trim())).collect();
        return keys.map(Step::Keys).with_context(|| format!("[{inside}] is not a key"));
    }
    let number = |text: &str| -> anyhow::Result<Option<i64>> {
        if text.is_empty() {
            Ok(None)
        } else {
            text.parse().map(Some).with_context(|| format!("[{inside}] is not an index"))
        }
    };
    if inside.contains(':') {
        let mut parts = inside.split(':');
        let mut next = || number(parts.next().unwrap_or_default().trim());
        let (from, to, step) = (next()?, next()?, next()?);
        return Ok(Step::Slice { from, to, step: step.unwrap_or(1) });
    }
    match number(inside)? {
        Some(index) => Ok(Step::Index(index)),
        None => bail!("[] names nothing"),
    }
}

fn filter_step(condition: &str) -> anyhow::Result<Step> {
    const OPERATORS: [(&str, Comparison); 6] = [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    let Some((operator, comparison)) =
        OPERATORS.into_iter().find(|(operator, _)| condition.contains(operator))
    else {
        return Ok(Step::Filter(parse_path(condition)?, None));
    };
    let (left, right) = condition.split_once(operator).unwrap_or((condition, ""));
    let right = right.trim();
    let operand = match quoted(right) {
        Some(text) => Operand::Literal(Value::String(text)),
        None if right.starts_with(['@', '$', '.']) => Operand::Path(parse_path(right)?),
        None => {
            Operand::Literal(serde_json::from_str(right).unwrap_or_else(|_| Value::String(right.to_string())))
        }
    };
    Ok(Step::Filter(parse_path(left.trim())?, Some((comparison, operand))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pods() -> Value {
        json!({"kind": "List", "items": [
            {"metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "x"}}, "status": {"restarts": 2,
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "False"}]}},
            {"metadata": {"name": "b"}, "status": {"restarts": 0, "conditions": [{"type": "Ready", "status": "False"}]}},
        ]})
    }

    #[test]
    fn paths_that_users_write_say_what_kubectl_says() {
        for (template, expected) in [
            ("{.items[*].metadata.name}", "a b"),
            ("{.items[0].metadata.name}", "a"),
            ("{.items[-1:].metadata.name}", "b"),
            ("{.items[0:1].metadata.name}", "a"),
            (".kind", "List"),
            ("kind", "List"),
            ("{.items[0].metadata.labels.app\\.kubernetes\\.io/name}", "x"),
            ("{.items[0].metadata.labels['app.kubernetes.io/name']}", "x"),
            (r#"{.items[0].status.conditions[?(@.type=="Ready")].status}"#, "True"),
            ("{.items[?(@.status.restarts>1)].metadata.name}", "a"),
            ("{..name}", "a b"),
            ("{$.kind} of {.items[*].status.restarts}", "List of 2 0"),
            ("{.missing}", ""),
            ("{.items[0].status.conditions[0]}", r#"{"status":"True","type":"Ready"}"#),
            (r#"{range .items[*]}{.metadata.name}{"\t"}{.status.restarts}{"\n"}{end}"#, "a\t2\nb\t0\n"),
        ] {
            assert_eq!(Template::parse(template).unwrap().render(&pods()), expected, "{template}");
        }
    }

    #[test]
    fn broken_templates_are_refused() {
        for template in ["{.items[*}", "{range .items[*]}x", "{end}", "{.items[x]}"] {
            assert!(Template::parse(template).is_err(), "{template}");
        }
    }
}

//! Regular expressions, of which RE2 defines what they mean.
//!
//! Guarantees: time is linear in the text, a pattern is never large once compiled, and compiling patterns that an
//! expression makes up as it goes is counted as work.
//! Deliberately absent: `\C`, which means half a character.

use regex::{Regex, RegexBuilder};

use crate::functions::{As, Row, cost, row, take};
use crate::meter::{Fault, Meter};
use crate::value::{Text, Value};

/// The most bytes of a compiled pattern.
const COMPILED_MAX: usize = 1 << 20;
/// The same of one that is not a literal: there can be one for every turn of a loop.
const COMPUTED_MAX: usize = 1 << 18;
/// What compiling such a pattern counts as.
const COMPILE_WORK: usize = 1 << 20;

pub(crate) const ROWS: &[Row] = &[
    row("matches", "string.(string) -> bool", &cost::MATCHES, |meter, args| {
        let [text, pattern] = take(args)?;
        let text = text.string()?;
        with(meter, pattern.string()?, |pattern| Value::Bool(pattern.is_match(text)))
    }),
    row("matches", "(string, string) -> bool", &cost::ONE, |meter, args| {
        let [text, pattern] = take(args)?;
        let text = text.string()?;
        with(meter, pattern.string()?, |pattern| Value::Bool(pattern.is_match(text)))
    }),
    row("find", "string.(string) -> string", &cost::FINDS, |meter, args| {
        let [text, pattern] = take(args)?;
        let text = text.string()?;
        with(meter, pattern.string()?, |pattern| {
            Value::text(pattern.find(text).map_or("", |found| found.as_str()))
        })
    }),
    row(
        "findAll",
        "string.(string) -> list(string); string.(string, int) -> list(string)",
        &cost::FINDS,
        |meter, args| {
            let [text, pattern, rest @ ..] = args.as_slice() else { return Err(Fault::NoOverload) };
            let text = text.string()?;
            let limit = rest.first().map(As::int).transpose()?.and_then(|limit| usize::try_from(limit).ok());
            with(meter, pattern.string()?, |pattern| {
                let found = pattern.find_iter(text).take(limit.unwrap_or(usize::MAX));
                Value::list(found.map(|found| Value::text(found.as_str())).collect())
            })
        },
    ),
];

fn with<'v>(
    meter: &Meter<'_>,
    pattern: &Text<'_>,
    of: impl FnOnce(&Regex) -> Value<'v>,
) -> Result<Value<'v>, Fault> {
    if let Some(known) = meter.patterns.get(&**pattern) {
        return Ok(of(known));
    }
    let mut computed = meter.computed.borrow_mut();
    if let Some(known) = computed.get(&**pattern) {
        return Ok(of(known));
    }
    meter.work(COMPILE_WORK)?;
    let compiled = compile_within(pattern, COMPUTED_MAX).map_err(Fault::Failed)?;
    let result = of(&compiled);
    computed.insert((&**pattern).into(), compiled);
    Ok(result)
}

/// A compiled pattern, or what is wrong with it.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    compile_within(pattern, COMPILED_MAX)
}

fn compile_within(pattern: &str, bytes_max: usize) -> Result<Regex, String> {
    RegexBuilder::new(&translated(pattern)?)
        .size_limit(bytes_max)
        .nest_limit(100)
        .build()
        .map_err(|error| format!("error parsing regexp: {error}"))
}

/// The same pattern in the dialect of the crate: RE2's classes are of ASCII, it quotes with `\Q` and `\E`, and knows no
/// operators between classes; a brace that does not count is one, and what is repeated is not repeated again.
fn translated(pattern: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut in_class = false;
    let mut is_repeated = false;
    let mut rest = pattern;
    while let Some(letter) = rest.chars().next() {
        let after = rest.get(letter.len_utf8()..).unwrap_or_default();
        let repeats = if in_class { None } else { repetition(rest) };
        if let Some(operator) = repeats {
            if is_repeated {
                return Err(format!(
                    "error parsing regexp: invalid nested repetition operator: `{operator}`"
                ));
            }
            out.push_str(operator);
            rest = rest.get(operator.len()..).unwrap_or_default();
            is_repeated = true;
            continue;
        }
        is_repeated = false;
        let (text, used) = match (letter, after.chars().next()) {
            ('\\', Some('Q')) => {
                let quoted = after.get(1..).unwrap_or_default();
                let end = quoted.find("\\E");
                let text = regex::escape(quoted.get(..end.unwrap_or(quoted.len())).unwrap_or_default());
                out.push_str(&text);
                rest = end.and_then(|end| quoted.get(end + 2..)).unwrap_or_default();
                continue;
            }
            ('\\', Some('d')) => ("[0-9]", 2),
            ('\\', Some('D')) => ("[^0-9]", 2),
            ('\\', Some('w')) => ("[0-9A-Za-z_]", 2),
            ('\\', Some('W')) => ("[^0-9A-Za-z_]", 2),
            ('\\', Some('s')) => ("[\\t\\n\\x0C\\r ]", 2),
            ('\\', Some('S')) => ("[^\\t\\n\\x0C\\r ]", 2),
            ('\\', Some('b')) if !in_class => ("(?-u:\\b)", 2),
            ('\\', Some(sign @ ('<' | '>'))) => {
                out.push(sign);
                rest = after.get(1..).unwrap_or_default();
                continue;
            }
            ('\\', Some(next)) => {
                out.push('\\');
                out.push(next);
                rest = after.get(next.len_utf8()..).unwrap_or_default();
                continue;
            }
            ('{', _) if !in_class => ("\\{", 1),
            ('[', Some(':')) if in_class => {
                let end = after.find(":]").map_or(0, |end| end + 2);
                out.push('[');
                out.push_str(after.get(..end).unwrap_or_default());
                rest = after.get(end..).unwrap_or_default();
                continue;
            }
            ('[', _) if in_class => ("\\[", 1),
            ('[', _) => {
                in_class = true;
                // A bracket that closes right away is one of the class.
                match after {
                    _ if after.starts_with("^]") => ("[^\\]", 3),
                    _ if after.starts_with('^') => ("[^", 2),
                    _ if after.starts_with(']') => ("[\\]", 2),
                    _ => ("[", 1),
                }
            }
            (']', _) if in_class => {
                in_class = false;
                ("]", 1)
            }
            ('&', Some('&')) if in_class => ("\\&", 1),
            ('~', Some('~')) if in_class => ("\\~", 1),
            ('-', Some('-')) if in_class => ("\\-", 1),
            _ => {
                out.push(letter);
                rest = after;
                continue;
            }
        };
        out.push_str(text);
        rest = rest.get(used..).unwrap_or_default();
    }
    Ok(out)
}

/// The operator that repeats what is before it, if that comes next: `*`, `+?`, `{2,3}`.
fn repetition(text: &str) -> Option<&str> {
    let length = match text.as_bytes().first()? {
        b'*' | b'+' | b'?' => 1,
        b'{' => {
            let end = text.find('}')?;
            let (least, most) = text.get(1..end).map(|count| count.split_once(',').unwrap_or((count, "")))?;
            let counts = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
            (!least.is_empty() && counts(least) && counts(most)).then_some(end + 1)?
        }
        _ => return None,
    };
    let is_lazy = text.get(length..).is_some_and(|after| after.starts_with('?'));
    text.get(..length + usize::from(is_lazy))
}

#[cfg(test)]
mod tests {
    use super::compile;

    #[test]
    fn patterns_should_mean_what_re2_means_by_them() {
        for (pattern, text, matches) in [
            (r"^\d+$", "123", true),
            (r"^\d+$", "١٢٣", false),
            (r"^\w+$", "é", false),
            (r"^[\w-]+$", "a-b", true),
            (r"^[[]$", "[", true),
            (r"^[a&&b]$", "&", true),
            (r"^[]a]+$", "]a", true),
            (r"^[^]a]+$", "b", true),
            (r"^[[:alpha:]]+$", "ab", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"\bfoo\b", "a foo b", true),
            (r"^\pL+$", "é", true),
            (r"^a\/b$", "a/b", true),
            (r"(?i)^ABC$", "abc", true),
            (r"^a{$", "a{", true),
            (r"^a{,2}$", "a{,2}", true),
            (r"^(a{2}){2,}?$", "aaaa", true),
            (r"^\<a\>$", "<a>", true),
            (r"^[+*]+$", "+*", true),
            (r"^a\++$", "a++", true),
        ] {
            assert_eq!(compile(pattern).unwrap().is_match(text), matches, "{pattern} {text}");
        }
        for repeated in ["x++", "x**", "x*?+", "x{2}{3}", "x+??", "[a]*+"] {
            assert!(
                compile(repeated).unwrap_err().contains("invalid nested repetition operator"),
                "{repeated}"
            );
        }
        assert!(compile("(").is_err());
        assert!(compile(r"(\w{1000}){1000}").is_err());
        assert!(compile(&"(".repeat(5000)).is_err());
    }
}

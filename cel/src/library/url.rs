//! `url('https://example.com:80/path?key=value')`: absolute addresses, and paths that begin with a slash.

use std::collections::BTreeMap;

use crate::functions::cost::{self, ONE};
use crate::functions::{As, Row, row, take};
use crate::meter::{Fault, Outcome};
use crate::value::{Key, Map, Opaque, Text, Value};

/// The parts of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Url {
    scheme: String,
    /// With the port.
    host: String,
    path: String,
    query: String,
}

impl Opaque for Url {
    fn type_name(&self) -> &'static str {
        "kubernetes.URL"
    }

    fn is(&self, other: &dyn Opaque) -> bool {
        (other as &dyn std::any::Any).downcast_ref() == Some(self)
    }
}

pub(crate) const ROWS: &[Row] = &[
    row("url", "(string) -> kubernetes.URL", &cost::CHANGES, |_, args| {
        let [text] = take(args)?;
        let text = text.string()?;
        parsed(text).map(Value::opaque).map_err(|why| {
            Fault::failed(format!(
                "URL parse error during conversion from string: parse {:?}: {why}",
                &**text
            ))
        })
    }),
    row("isURL", "(string) -> bool", &ONE, |_, args| {
        take(args).and_then(|[text]| Ok(Value::Bool(parsed(text.string()?).is_ok())))
    }),
    row("getScheme", "kubernetes.URL.() -> string", &ONE, |_, args| part(args, |url| url.scheme.clone())),
    row("getHost", "kubernetes.URL.() -> string", &ONE, |_, args| part(args, |url| url.host.clone())),
    row("getHostname", "kubernetes.URL.() -> string", &ONE, |_, args| {
        part(args, |url| url.host_and_port().0)
    }),
    row("getPort", "kubernetes.URL.() -> string", &ONE, |_, args| part(args, |url| url.host_and_port().1)),
    row("getEscapedPath", "kubernetes.URL.() -> string", &ONE, |_, args| part(args, |url| url.path.clone())),
    row("getQuery", "kubernetes.URL.() -> map(string, list(string))", &ONE, |_, args| {
        let [url] = take(args)?;
        let mut entries: BTreeMap<Key<'_>, Vec<Value<'_>>> = BTreeMap::new();
        let url: &Url = url.downcast()?;
        for pair in url.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let (Some(key), Some(value)) = (unescaped(key, true), unescaped(value, true)) {
                entries.entry(Key::String(Text::Shared(key.into()))).or_default().push(Value::text(value));
            }
        }
        let entries = entries.into_iter().map(|(key, values)| (key, Value::list(values)));
        Ok(Value::Map(Map::Values(std::sync::Arc::new(entries.collect()))))
    }),
];

fn part<'v>(args: Vec<Value<'v>>, of: fn(&Url) -> String) -> Outcome<'v> {
    take(args).and_then(|[url]| Ok(Value::text(of(url.downcast()?))))
}

impl Url {
    fn host_and_port(&self) -> (String, String) {
        let (host, port) = match self.host.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => (&*self.host, ""),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        (host.to_string(), port.to_string())
    }
}

/// What a request could be for: also the check behind the format `uri`.
pub(super) fn check(text: &str) -> Result<(), &'static str> {
    parsed(text).map(drop)
}

fn parsed(text: &str) -> Result<Url, &'static str> {
    if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return Err("net/url: invalid control character in URL");
    }
    if text.is_empty() {
        return Err("empty url");
    }
    let (scheme, rest) = scheme(text)?;
    // What comes after is not sent.
    let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !rest.starts_with('/') {
        // Something like `mailto:someone` is opaque, which is an address too.
        return if scheme.is_empty() {
            Err("invalid URI for request")
        } else {
            Ok(url(scheme, "", "", query))
        };
    }
    let (host, path) = match rest.strip_prefix("//") {
        Some(after) if !scheme.is_empty() && !rest.starts_with("///") => {
            let at = after.find('/').unwrap_or(after.len());
            let (authority, path) = after.split_at_checked(at).unwrap_or((after, ""));
            (authority.rsplit_once('@').map_or(authority, |(_, host)| host), path)
        }
        Some(after) if !scheme.is_empty() => ("", after),
        _ => ("", rest),
    };
    check_host(host)?;
    unescaped(path, false).ok_or("invalid URL escape")?;
    Ok(url(scheme, host, path, query))
}

fn url(scheme: String, host: &str, path: &str, query: &str) -> Url {
    Url { scheme, host: host.to_string(), path: escaped(path), query: query.to_string() }
}

fn scheme(text: &str) -> Result<(String, &str), &'static str> {
    let end = text.find(|letter: char| !letter.is_ascii_alphanumeric() && !"+-.".contains(letter));
    match end.and_then(|end| Some((end, text.get(..end)?, text.get(end..)?.strip_prefix(':')?))) {
        Some((0, ..)) => Err("missing protocol scheme"),
        Some((_, name, _)) if !name.starts_with(|letter: char| letter.is_ascii_alphabetic()) => {
            Err("first path segment in URL cannot contain colon")
        }
        Some((_, name, rest)) => Ok((name.to_ascii_lowercase(), rest)),
        None => Ok((String::new(), text)),
    }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let after = match host.strip_prefix('[') {
        Some(inner) => inner.split_once(']').ok_or("missing ']' in host")?.1,
        None => host.find(':').and_then(|at| host.get(at..)).unwrap_or_default(),
    };
    let is_port = |port: &str| port.bytes().all(|digit| digit.is_ascii_digit());
    if !after.is_empty() && !after.strip_prefix(':').is_some_and(is_port) {
        return Err("invalid port after host");
    }
    if host.contains([' ', '<', '>', '"', '\\', '^', '`', '{', '|', '}']) {
        return Err("invalid character in host name");
    }
    unescaped(host, false).map(drop).ok_or("invalid URL escape")
}

/// Without percent signs; `None` where one is not followed by two digits.
fn unescaped(text: &str, is_query: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            b'+' if is_query => b' ',
            other => other,
        });
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// With percent signs in place of what a path may not hold.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'%' => out.push('%'),
            _ if byte.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:@/[]".contains(&byte) => {
                out.push(byte.into())
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

//! What names, labels and keys may look like, with upstream's complaints. Every check returns one message per fault,
//! none for a good value.
//!
//! Length limits are said in characters where upstream says so and in bytes elsewhere; both count bytes.

use crate::net::AddressRange;

/// The longest label of a DNS name, and the longest value of an object label.
pub const LABEL_LENGTH_MAX: usize = 63;
/// The longest DNS name, and the longest name of most objects.
pub const SUBDOMAIN_LENGTH_MAX: usize = 253;

const LABEL_PATTERN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_PATTERN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL_1035_PATTERN: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED_PATTERN: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// What names a kind admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// A DNS name: most kinds.
    Subdomain,
    /// One label of a DNS name: namespaces, services.
    Label,
    /// One label that starts with a letter.
    Label1035,
    /// Anything that fits into one segment of a URL's path: RBAC.
    PathSegment,
    /// A decimal or hexadecimal address: IPAddress.
    IpAddress,
    /// Whatever the envelope admits: certificate signing requests.
    Any,
}

impl NameRule {
    /// What is wrong with a name.
    pub fn check(self, name: &str) -> Vec<String> {
        match self {
            Self::Subdomain => dns1123_subdomain(name),
            Self::Label => dns1123_label(name),
            Self::Label1035 => dns1035_label(name),
            Self::PathSegment => path_segment(name),
            Self::IpAddress => canonical_ip_address(name),
            Self::Any => Vec::new(),
        }
    }

    /// What is wrong with the beginning of a name, to which letters and digits will be added.
    pub fn check_prefix(self, prefix: &str) -> Vec<String> {
        match self {
            Self::PathSegment => path_segment_prefix(prefix),
            _ => self.check(&with_last_dash_masked(prefix)),
        }
    }
}

fn with_last_dash_masked(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let mut kept: String = rest.to_string();
            kept.pop();
            kept.push('a');
            kept
        }
        _ => prefix.to_string(),
    }
}

/// One label of a DNS name (RFC 1123).
pub fn dns1123_label(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > LABEL_LENGTH_MAX {
        faults.push(too_long(LABEL_LENGTH_MAX));
    }
    if !is_label(value) {
        faults.push(if is_subdomain(value) {
            "must not contain dots".to_string()
        } else {
            mismatch(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
                 start and end with an alphanumeric character",
                LABEL_PATTERN,
                &["my-name", "123-abc"],
            )
        });
    }
    faults
}

/// A DNS name (RFC 1123).
pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > SUBDOMAIN_LENGTH_MAX {
        faults.push(too_long(SUBDOMAIN_LENGTH_MAX));
    }
    if !is_subdomain(value) {
        faults.push(mismatch(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character",
            SUBDOMAIN_PATTERN,
            &["example.com"],
        ));
    }
    faults
}

/// A DNS name in which labels may begin with an underscore and contain some: the search list of resolvers.
pub fn dns1123_subdomain_with_underscore(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > SUBDOMAIN_LENGTH_MAX {
        faults.push(too_long(SUBDOMAIN_LENGTH_MAX));
    }
    let plain = |label: &str| label.strip_prefix('_').unwrap_or(label).replace('_', "-");
    if !value.split('.').all(|label| is_label(&plain(label)) && !label.ends_with('_')) {
        const LABEL: &str = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
        faults.push(mismatch(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and \
             must start and end with an alphanumeric character",
            &format!("{LABEL}(\\.{LABEL})*"),
            &["example.com"],
        ));
    }
    faults
}

/// A DNS name whose first label is `*`.
pub fn wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > SUBDOMAIN_LENGTH_MAX {
        faults.push(too_long(SUBDOMAIN_LENGTH_MAX));
    }
    if !value.strip_prefix("*.").is_some_and(is_subdomain) {
        faults.push(mismatch(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
             consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!("\\*\\.{SUBDOMAIN_PATTERN}"),
            &["*.example.com"],
        ));
    }
    faults
}

/// One label of a DNS name that starts with a letter (RFC 1035).
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > LABEL_LENGTH_MAX {
        faults.push(too_long(LABEL_LENGTH_MAX));
    }
    if !(is_label(value) && value.starts_with(|c: char| c.is_ascii_lowercase())) {
        faults.push(mismatch(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            LABEL_1035_PATTERN,
            &["my-name", "abc-123"],
        ));
    }
    faults
}

/// The name of a kind: one label that starts with a letter, in whatever case.
pub fn mixed_case_label(value: &str) -> Vec<String> {
    let faults = dns1035_label(&value.to_lowercase()).into_iter();
    faults.map(|fault| format!("may have mixed case, but should otherwise match: {fault}")).collect()
}

/// A key of labels, annotations, finalizers, taints, resources: `[prefix/]name`.
pub fn qualified_name(value: &str) -> Vec<String> {
    const RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                        alphanumeric character";
    const EXAMPLES: &[&str] = &["MyName", "my.name", "123-abc"];
    let parts: Vec<&str> = value.split('/').collect();
    let mut faults = Vec::new();
    let name = match parts.as_slice() {
        [name] => *name,
        ["", name] => {
            faults.push("prefix part must be non-empty".to_string());
            *name
        }
        [prefix, name] => {
            faults.extend(dns1123_subdomain_in_bytes(prefix).into_iter().map(|f| format!("prefix part {f}")));
            *name
        }
        _ => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                mismatch(RULE, QUALIFIED_PATTERN, EXAMPLES)
            )];
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".to_string());
    } else if name.len() > LABEL_LENGTH_MAX {
        faults.push(format!("name part {}", too_many_bytes(LABEL_LENGTH_MAX)));
    }
    if !is_qualified_part(name) {
        faults.push(format!("name part {}", mismatch(RULE, QUALIFIED_PATTERN, EXAMPLES)));
    }
    faults
}

fn dns1123_subdomain_in_bytes(value: &str) -> Vec<String> {
    let characters = too_long(SUBDOMAIN_LENGTH_MAX);
    dns1123_subdomain(value)
        .into_iter()
        .map(|fault| if fault == characters { too_many_bytes(SUBDOMAIN_LENGTH_MAX) } else { fault })
        .collect()
}

/// The value of a label.
pub fn label_value(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > LABEL_LENGTH_MAX {
        faults.push(too_many_bytes(LABEL_LENGTH_MAX));
    }
    if !value.is_empty() && !is_qualified_part(value) {
        faults.push(mismatch(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character",
            &format!("({QUALIFIED_PATTERN})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    faults
}

/// A key of a ConfigMap or Secret.
pub fn config_map_key(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > SUBDOMAIN_LENGTH_MAX {
        faults.push(too_long(SUBDOMAIN_LENGTH_MAX));
    }
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        faults.push(mismatch(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    faults.extend(parent_directory(value));
    faults
}

/// The name of an environment variable; upstream takes any printable ASCII but `=` since v1.34.
pub fn environment_name(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.is_empty() {
        faults.push("environment variable name must be non-empty".to_string());
    }
    if !value.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        faults.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='".to_string(),
        );
    }
    faults
}

/// An identifier of the C language.
pub fn c_identifier(value: &str) -> Vec<String> {
    let good = value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if good {
        return Vec::new();
    }
    vec![mismatch(
        "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric \
         characters or '_'",
        "[A-Za-z_][A-Za-z0-9_]*",
        &["my_name", "MY_NAME", "MyName"],
    )]
}

/// The name of a port.
pub fn port_name(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > 15 {
        faults.push(too_long(15));
    }
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        faults.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_string());
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        faults.push("must contain at least one letter (a-z)".to_string());
    }
    if value.contains("--") {
        faults.push("must not contain consecutive hyphens".to_string());
    }
    if value.starts_with('-') || value.ends_with('-') {
        faults.push("must not begin or end with a hyphen".to_string());
    }
    faults
}

/// The number of a port.
pub fn port_number(value: i64) -> Option<String> {
    (!(1..=65535).contains(&value)).then(|| between(1, 65535))
}

/// A percentage.
pub fn percent(value: &str) -> Vec<String> {
    let good =
        value.strip_suffix('%').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    if good {
        return Vec::new();
    }
    vec![mismatch(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// The name of an HTTP header.
pub fn http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    vec![mismatch(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// Anything that fits into one segment of a URL's path.
pub fn path_segment(name: &str) -> Vec<String> {
    if name == "." || name == ".." {
        return vec![format!("may not be '{name}'")];
    }
    path_segment_prefix(name)
}

fn path_segment_prefix(name: &str) -> Vec<String> {
    ["/", "%"].iter().filter(|c| name.contains(*c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// An IPv4 or IPv6 address in its usual form.
pub fn ip_address(value: &str) -> Vec<String> {
    if value.parse::<std::net::IpAddr>().is_ok() {
        return Vec::new();
    }
    vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_string()]
}

/// An IP address in its one way to be written.
pub fn canonical_ip_address(value: &str) -> Vec<String> {
    match value.parse::<std::net::IpAddr>() {
        Ok(address) if address.to_string() != value => {
            vec![format!("must be in canonical form ({:?})", address.to_string())]
        }
        _ => ip_address(value),
    }
}

/// A range of addresses in its one way to be written.
pub fn canonical_cidr(value: &str) -> Vec<String> {
    let Some(range) = AddressRange::parse(value).filter(|_| cidr(value).is_empty()) else {
        return cidr(value);
    };
    let address = value.split('/').next().and_then(|address| address.parse().ok());
    if address != Some(range.nth(0)) {
        vec!["must not have bits set beyond the prefix length".to_string()]
    } else if range.to_string() != value {
        vec![format!("must be in canonical form ({:?})", range.to_string())]
    } else {
        Vec::new()
    }
}

/// A range of addresses: `10.0.0.0/8`.
pub fn cidr(value: &str) -> Vec<String> {
    let good = value.split_once('/').is_some_and(|(address, length)| {
        let Ok(address) = address.parse::<std::net::IpAddr>() else { return false };
        let length_max = if address.is_ipv4() { 32 } else { 128 };
        !length.starts_with('+') && length.parse::<u8>().is_ok_and(|l| l <= length_max)
    });
    if good {
        return Vec::new();
    }
    vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_string()]
}

/// Whether this is one label of a DNS name, whatever its length.
pub fn is_label(value: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    matches!(value.as_bytes(), [first, .., last] if inner(*first) && inner(*last))
        && value.bytes().all(|b| inner(b) || b == b'-')
        || matches!(value.as_bytes(), [only] if inner(*only))
}

/// Whether this is a DNS name, whatever its length.
pub fn is_subdomain(value: &str) -> bool {
    value.split('.').all(is_label)
}

fn is_qualified_part(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

fn parent_directory(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".to_string()),
        ".." => Some("must not be '..'".to_string()),
        other => other.starts_with("..").then(|| "must not start with '..'".to_string()),
    }
}

/// `must be between 1 and 65535, inclusive`
pub fn between(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

fn too_long(length_max: usize) -> String {
    format!("must be no more than {length_max} characters")
}

fn too_many_bytes(length_max: usize) -> String {
    format!("must be no more than {length_max} bytes")
}

fn mismatch(rule: &str, pattern: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{rule} (e.g. {}regex used for validation is '{pattern}')", examples.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_should_be_told_from_subdomains() {
        for good in ["a", "a1", "0", "a--b", &"a".repeat(63)] {
            assert!(dns1123_label(good).is_empty(), "{good}");
        }
        for bad in ["", "A", "a_b", "-a", "a-", "a b", "ä"] {
            assert_eq!(dns1123_label(bad).len(), 1, "{bad}");
        }
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert!(dns1123_subdomain("a.b").is_empty());
        assert_eq!(dns1123_subdomain("a..b").len(), 1);
        assert_eq!(dns1035_label("1a").len(), 1);
        assert_eq!(
            dns1123_label("Web"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
              and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
    }

    #[test]
    fn qualified_names_should_have_at_most_one_prefix() {
        for good in ["a", "A.b_c", "example.com/A", "kubernetes.io/os"] {
            assert!(qualified_name(good).is_empty(), "{good}");
        }
        assert_eq!(qualified_name("/a"), ["prefix part must be non-empty"]);
        assert_eq!(qualified_name("a/b/c").len(), 1);
        assert_eq!(qualified_name("example.com/").len(), 2);
        assert_eq!(qualified_name("Example.com/a").len(), 1);
        assert_eq!(label_value("-").len(), 1);
        assert!(label_value("").is_empty());
    }

    #[test]
    fn generated_names_should_be_checked_by_their_beginning() {
        assert!(NameRule::Subdomain.check_prefix("web-").is_empty());
        assert!(NameRule::Subdomain.check_prefix("-").len() == 1);
        assert!(NameRule::PathSegment.check("system:node").is_empty());
        assert_eq!(NameRule::PathSegment.check("a/b"), ["may not contain '/'"]);
    }

    #[test]
    fn ports_and_percentages_should_be_bounded() {
        assert!(port_name("http-1").is_empty());
        assert_eq!(port_name("80"), ["must contain at least one letter (a-z)"]);
        assert_eq!(port_number(0).as_deref(), Some("must be between 1 and 65535, inclusive"));
        assert!(percent("25%").is_empty());
        assert_eq!(percent("a%").len(), 1);
        assert!(cidr("10.0.0.0/33").len() == 1 && cidr("10.0.0.0/8").is_empty());
    }
}

//! What expressions say, and what is said of those that cannot be used.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use cel::authorizer::{Answer, Authorizer, Check};
use cel::{Environment, Expression, Fault, Type, Value, authorizer, structural};
use schema::Schema;
use serde_json::{Value as Json, json};

fn schema() -> Schema {
    let text = json!({"type": "string"});
    Schema::from_openapi(&json!({"type": "object", "properties": {
        "name": text, "count": {"type": "integer"}, "ratio": {"type": "number"}, "on": {"type": "boolean"},
        "port": {"x-kubernetes-int-or-string": true}, "data": {"type": "string", "format": "byte"},
        "since": {"type": "string", "format": "date-time"}, "grace": {"type": "string", "format": "duration"},
        "maybe": {"type": "string", "nullable": true}, "x-y": text, "a.b/c": text, "namespace": text,
        "list": {"type": "array", "items": {"type": "integer"}},
        "words": {"type": "array", "items": text},
        "set": {"type": "array", "items": text, "x-kubernetes-list-type": "set"},
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": text, "v": {"type": "integer"}}}},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "inner": {"type": "object", "properties": {"a": text, "absent": text}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }}))
    .unwrap()
}

fn object() -> Json {
    json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "thing-1", "labels": {"a": "b"}},
        "name": "Grün-1", "count": 3, "ratio": 2, "on": true, "port": "80%", "data": "QUI=",
        "since": "2024-02-29T12:30:15.5Z", "grace": "1h30m", "maybe": null, "x-y": "dashed", "a.b/c": "spelled",
        "namespace": "reserved", "list": [3, 1, 2], "words": ["b", "a"], "set": ["x", "y"],
        "keyed": [{"k": "a", "v": 1}, {"k": "b", "v": 2}], "map": {"one": 1, "two": 2}, "inner": {"a": "z"},
        "free": {"x": [1]}})
}

/// What an expression over the object says: a truth, or what is wrong.
fn said(source: &str) -> String {
    let shape = structural::shape(&schema(), true).unwrap();
    let object = object();
    let environment = Environment::new()
        .with("self", Type::of(&shape, "selfType"))
        .with("any", Type::Dyn)
        .with("authorizer", Type::Opaque("kubernetes.authorization.Authorizer"));
    let expression = match Expression::compile(source, &environment) {
        Ok(expression) => expression,
        Err(error) => return error.to_string(),
    };
    let variables = |name: &str| match name {
        "self" => Some(Value::view(&object, &shape)),
        "any" => Some(Ok(Value::of_json(&object))),
        "authorizer" => Some(Ok(authorizer::value(Arc::new(Readers), None))),
        _ => None,
    };
    match expression.evaluate(&variables, 1_000_000).outcome {
        Ok(Value::Bool(flag)) => flag.to_string(),
        Ok(other) => format!("{other:?}"),
        Err(fault) => fault.to_string(),
    }
}

/// Lets everybody read, and the service account `ci/builder` do everything.
struct Readers;

impl Authorizer for Readers {
    fn authorize(&self, check: &Check) -> Answer {
        let is_builder = check.service_account == Some(("ci".into(), "builder".into()));
        let error = (check.resource == "broken").then(|| "no answer".to_string());
        Answer {
            allowed: check.verb == "get" || is_builder,
            reason: format!("{}/{}", check.group, check.resource),
            error,
        }
    }
}

#[test]
fn what_is_true_should_be_true() {
    let wrong: Vec<String> = TRUE
        .iter()
        .filter_map(|source| Some((source, said(source))).filter(|(_, said)| said != "true"))
        .map(|(source, said)| format!("{source}: {said}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const TRUE: &[&str] = &[
    // Numbers and text.
    "1 + 2 * 3 == 7 && -7 / 2 == -3 && -7 % 2 == -1 && 2u * 3u == 6u && 1.5 + 1.5 == 3.0",
    "0x1F == 31 && 1e3 == 1000.0 && .5 < 1.0 && 5u > 4u && --1 == 1 && !!true",
    "1 < 1.5 && 2u > 1 && 1.0 == double(1) && dyn(1) == 1.0 && dyn(3u) == 3",
    r#"'a' + "b" == 'ab' && r'\d' == '\\d' && '\x41\u00e9\101' == 'AéA' && '''a'b''' == "a'b""#,
    "b'\\xff' < b'\\xff\\x00' && bytes('é').size() == 2 && string(b'abc') == 'abc'",
    "self.name.size() == 6 && self.name.charAt(2) == 'ü' && self.name.indexOf('n') == 3",
    "self.name.substring(4) == '-1' && self.name.substring(1, 3) == 'rü' && self.name.lastIndexOf('-') == 4",
    "'abcabc'.lastIndexOf('bc', 3) == 1 && 'abc'.indexOf('') == 0 && 'abc'.indexOf('c', 5) == -1",
    "self.name.lowerAscii() == 'grün-1' && self.name.upperAscii() == 'GRüN-1' && ' x\t'.trim() == 'x'",
    "'a,b,c'.split(',', 2) == ['a', 'b,c'] && 'abc'.split('') == ['a', 'b', 'c'] && 'a,b'.split(',', 0) == []",
    "['a', 'b'].join('-') == 'a-b' && 'aaa'.replace('a', 'b', 2) == 'bba' && 'ab'.replace('', '-') == '-a-b-'",
    "strings.quote('a\"b\\n') == '\"a\\\\\"b\\\\n\"'",
    "'%s %d %.2f %x %b %o %%'.format(['a', 5, 1234.5, 255, true, 8]) == 'a 5 1,234.50 ff 1 10 %'",
    "'%s'.format([[1, 'a', {'k': 1.5}]]) == '[1, \"a\", {\"k\":1.500000}]' && '%e'.format([1234.5]) == '1.234500×10⁰³'",
    "self.name.matches('^[A-Z]') && 'abc123def456'.findAll('[0-9]+') == ['123', '456'] && 'abc'.find('z') == ''",
    // Schemas decide what values are.
    "type(self.ratio) == double && type(self.count) == int && type(self.port) == string && type(self.data) == bytes",
    "self.data == b'AB' && self.grace == duration('90m') && self.since.getFullYear() == 2024",
    "self.since.getMonth() == 1 && self.since.getDate() == 29 && self.since.getDayOfMonth() == 28",
    "self.since.getDayOfWeek() == 4 && self.since.getDayOfYear() == 59 && self.since.getMilliseconds() == 500",
    "self.since.getHours('+05:30') == 18 && self.since.getHours('America/New_York') == 7 && self.grace.getMinutes() == 90",
    "self.since + duration('1s') > self.since && self.since - self.since == duration('0s')",
    "string(duration('1m1.5s')) == '61.5s' && string(timestamp('2024-01-01T00:00:00Z')) == '2024-01-01T00:00:00Z'",
    "timestamp('2024-01-01T01:00:00+02:00') == timestamp('2023-12-31T23:00:00Z') && timestamp('2024-01-01T01:00:00+02:00').getHours() == 23",
    "string(timestamp('2024-01-01T01:00:00+02:00') + duration('1h')) == '2024-01-01T02:00:00+02:00' && timestamp('2024-01-01T01:00:00-00:00').getHours('+01:00') == 2",
    "'%s'.format([timestamp('2024-01-01T01:00:00Z')]) == '2024-01-01T01:00:00Z'",
    "int(timestamp('1970-01-01T00:01:00Z')) == 60 && timestamp(60) == timestamp('1970-01-01T00:01:00Z')",
    "self.port == '80%' && self.port != 80 && (type(self.port) == int ? self.port > 1 : self.port.endsWith('%'))",
    "self.x__dash__y == 'dashed' && self.a__dot__b__slash__c == 'spelled'",
    "self.namespace == 'reserved' && self.__namespace__ == 'reserved'",
    "!has(self.maybe) && has(self.inner.a) && !has(self.inner.absent) && has(self.free)",
    "self.kind == 'Thing' && self.apiVersion == 'v1' && self.metadata.name == 'thing-1'",
    // Lists, sets and maps.
    "self.list.sum() == 6 && self.list.max() == 3 && self.list.min() == 1 && !self.list.isSorted()",
    "self.list.sort() == [1, 2, 3] && self.list.reverse() == [2, 1, 3] && self.list.slice(1, 3) == [1, 2]",
    "self.list.sortBy(e, -e) == [3, 2, 1] && [1, 2, 1].distinct() == [1, 2] && [[1], [2]].flatten() == [1, 2]",
    "lists.range(3) == [0, 1, 2] && self.list.indexOf(2) == 2 && [1, 2, 1].lastIndexOf(1) == 2 && [].sum() == 0",
    "self.list.first().value() == 3 && self.list.last() == optional.of(2) && !self.words.first().optMap(w, w == 'a').value()",
    "self.set == ['y', 'x'] && self.set + ['x', 'z'] == ['z', 'y', 'x'] && self.words != ['a', 'b']",
    "self.keyed == [self.keyed[1], self.keyed[0]] && (self.keyed + [self.keyed[0]]).size() == 2",
    "self.keyed.all(e, e.v > 0) && self.keyed.exists(e, e.k == 'b') && self.keyed.exists_one(e, e.v == 1)",
    "self.keyed.map(e, e.v) == [1, 2] && self.keyed.filter(e, e.v > 1).map(e, e.k) == ['b'] && [1, 2].map(x, x > 1, x * 2) == [4]",
    "self.map.all(k, self.map[k] > 0) && 'one' in self.map && !('three' in self.map) && self.map.one == 1",
    "self.map.all(k, v, v > 0) && self.list.exists(i, e, i == 2 && e == 2) && self.map.existsOne(k, v, v == 2)",
    "self.map.transformMap(k, v, v * 2) == {'one': 2, 'two': 4} && self.list.transformList(i, e, i > 0, i + e) == [2, 4]",
    "{'a': 1}.transformMapEntry(k, v, {string(v): k}) == {'1': 'a'} && dyn({1: 'x', 2: 'y'})[2u] == 'y'",
    "sets.contains([1, 2], [2]) && sets.equivalent([1, 1, 2], [2, 1]) && !sets.intersects(['a'], ['b'])",
    // What may be missing, and what may go wrong.
    "self.inner.?absent.orValue('none') == 'none' && self.?inner.a == optional.of('z') && self.map[?'three'] == optional.none()",
    "self.list[?9].or(optional.of(7)).value() == 7 && [?self.map[?'one'], ?self.map[?'no']] == [1] && {?'a': optional.none()} == {}",
    "optional.ofNonZeroValue(0).hasValue() == false && optional.unwrap([optional.of(1), optional.none()]) == [1]",
    "false && 1 / 0 == 1 || true || 1 / 0 == 1",
    "(1 / 0 == 1 || true) && !(1 / 0 == 1 && false) && [1, 0].exists(x, 1 / x == 1)",
    "any.inner.a == 'z' && any.count + 1 == 4 && any.free.x[0] == 1 && has(any.metadata.labels.a) && any.maybe == null",
    "any == any && any.list == self.list && dyn(any.name) + 'x' == 'Grün-1x'",
    // Kubernetes' own.
    "quantity('1.5Gi').isGreaterThan(quantity('1G')) && quantity('500m').add(quantity('500m')) == quantity('1')",
    "quantity('2k').asInteger() == 2000 && !quantity('1m').isInteger() && quantity('-1').sign() == -1 && !isQuantity('1x')",
    "quantity('1500m').asApproximateFloat() == 1.5 && quantity('1').compareTo(quantity('2')) == -1 && quantity('5').sub(2) == quantity('3')",
    "ip('192.168.0.1').family() == 4 && ip('::1').isLoopback() && !isIP('::ffff:1.2.3.4') && ip.isCanonical('2001:db8::1')",
    "ip('169.254.1.1').isLinkLocalUnicast() && ip('8.8.8.8').isGlobalUnicast() && !ip.isCanonical('2001:DB8::1')",
    "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && !isCIDR('10.0.0.0/33')",
    "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && string(cidr('::/0').ip()) == '::' && cidr('::/0').prefixLength() == 0",
    "url('https://u@example.com:80/a%20b?k=1&k=2#f').getHost() == 'example.com:80' && url('https://[::1]:80/').getHostname() == '::1'",
    "url('https://e.com/p?k=1&k=2').getQuery() == {'k': ['1', '2']} && url('/p').getScheme() == '' && !isURL('../p') && !isURL('https://a:b:c/')",
    "!format.dns1123Label().validate('web-1').hasValue() && format.dns1123Label().validate('Web').value().size() == 1",
    "format.named('uuid').value() == format.uuid() && !format.named('other').hasValue() && !format.date().validate('2024-02-29').hasValue()",
    "semver('1.2.3-rc.1').isLessThan(semver('1.2.3')) && semver('1.10.0').isGreaterThan(semver('1.9.9')) && isSemver('v1.2', true)",
    "semver('v01.2', true) == semver('1.2.0') && !isSemver('1.2') && semver('1.2.3+a') == semver('1.2.3+b') && semver('1.2.3').minor() == 2",
    "authorizer.group('apps').resource('deployments').namespace('web').check('get').reason() == 'apps/deployments'",
    "!authorizer.path('/healthz').check('put').allowed() && authorizer.serviceAccount('ci', 'builder').path('/x').check('put').allowed()",
    "authorizer.group('').resource('broken').check('get').errored()",
];

#[test]
fn what_is_wrong_should_be_told_as_upstream_tells_it() {
    let marked = |column: usize, source: &str, message: &str| {
        format!("ERROR: <input>:1:{column}: {message}\n | {source}\n | {}^", ".".repeat(column - 1))
    };
    for (column, source, message) in [
        (5, "self.missing == 1", "undefined field 'missing'"),
        (12, "self.count == 'a'", "found no matching overload for '_==_' applied to '(int, string)'"),
        (5, "self.count && true", "expected type 'bool' but found 'int'"),
        (1, "other == 1", "undeclared reference to 'other' (in container '')"),
        (15, "self.name.nope()", "undeclared reference to 'nope' (in container '')"),
        (
            21,
            "self.name.startsWith(1)",
            "found no matching overload for 'startsWith' applied to 'string.(int)'",
        ),
        (11, "self.count.a == 1", "type 'int' does not support field selection"),
    ] {
        assert_eq!(said(source), marked(column, source, message), "{source}");
    }
    for (source, message) in WRONG {
        assert!(said(source).contains(message), "{source}: {}", said(source));
    }
    assert_eq!(
        said("true &&\n\tself.ü"),
        "ERROR: <input>:2:7: Syntax error: token recognition error at: 'ü'\n |  self.ü\n | ......＾"
    );
}

const WRONG: &[(&str, &str)] = &[
    ("self.count ==", "Syntax error: mismatched input '<EOF>' expecting {'[', '{', '('"),
    ("self.count = 1", "Syntax error: token recognition error at: '='"),
    ("1 1", "Syntax error: mismatched input '1' expecting <EOF>"),
    ("'abc", "Syntax error: token recognition error at: ''abc'"),
    ("self.for == var", "reserved identifier: var"),
    ("9223372036854775808 == 1", "invalid int literal"),
    ("[1, 'a'] == []", "expected type 'int' but found 'string'"),
    ("{'a': 1, 'b': 'c'} == {}", "expected type 'int' but found 'string'"),
    ("self.name.matches('(')", "<input>:1:19: invalid matches argument"),
    ("duration('1d') == self.grace", "<input>:1:10: invalid duration argument"),
    ("timestamp('2024-13-01T00:00:00Z') == self.since", "invalid timestamp argument"),
    ("self.list.all(1, true)", "argument must be a simple name"),
    ("self.list.map(x.y, true)", "argument is not an identifier"),
    ("self.list.all(a, a, true)", "duplicate variable name: a"),
    ("has(self)", "invalid argument to has() macro"),
    ("self.count.all(x, true)", "expression of type 'int' cannot be range of a comprehension"),
    (
        "self.inner == self.inner && self.inner == self.keyed[0]",
        "found no matching overload for '_==_' applied to '(selfType.inner, selfType.keyed.@idx)'",
    ),
    ("self.name == null", "found no matching overload for '_==_' applied to '(string, null)'"),
    ("self.free.x == 1", "undefined field 'x'"),
    ("has(self.metadata.labels)", "undefined field 'labels'"),
    ("math.greatest(1, 2) == 2", "undeclared reference to"),
    ("int('x') == 1", "invalid syntax"),
    ("1 / 0 == 1", "division by zero"),
    ("1 % 0 == 1", "modulus by zero"),
    ("9223372036854775807 + 1 == 0", "integer overflow"),
    ("1u - 2u == 0u", "unsigned integer overflow"),
    ("int(1e20) == 1", "integer overflow"),
    ("self.list[9] == 1", "index out of bounds: 9"),
    ("self.map['no'] == 1", "no such key: no"),
    ("self.inner.absent == 'a'", "no such key: absent"),
    ("any.name + 1 == 2", "no such overload: _+_(string, int)"),
    ("any.count.startsWith('a')", "no such overload: startsWith(int, string)"),
    ("self.list.filter(x, x > 9).min() == 1", "min called on empty list"),
    ("optional.none().value() == 1", "optional.none() dereference"),
    ("[1].all(x, 1 / 0 == x)", "division by zero"),
    ("{'a': 1, 'a': 2} == {}", "Failed with repeated key 'a'"),
    ("quantity('x') == quantity('1')", "quantities must match the regular expression"),
    ("ip('1.2.3') == ip('1.2.3.4')", "unable to parse IP"),
    ("url('../x').getHost() == ''", "URL parse error during conversion from string"),
    ("semver('1') == semver('1.0.0')", "No Major.Minor.Patch elements found"),
    ("authorizer.path('').check('get').allowed()", "path must not be empty"),
    (
        "'%d'.format(['a']) == ''",
        "<input>:1:14: error during formatting: decimal clause can only be used on integers, was given string",
    ),
    ("'%s %s'.format(['a']) == ''", "index 1 out of range"),
    ("'%s'.format(['a', 1]) == ''", "too many arguments supplied to string.format (expected 1, got 2)"),
    ("'%y'.format(['a']) == ''", "unrecognized formatting clause"),
    (
        "'%d'.format([any.name]) == ''",
        "error during formatting: decimal clause can only be used on integers, was given string",
    ),
    ("self.name.matches('x++')", "invalid matches argument"),
    ("'abc'.substring(2, 1) == ''", "invalid substring range. start: 2, end: 1"),
];

#[test]
fn hostile_expressions_should_end_within_their_limits() {
    let nested =
        |count: usize, open: &str, close: &str| format!("{}1{}", open.repeat(count), close.repeat(count));
    let chained = |count: usize, link: &str| format!("optional.of([0]){}.hasValue()", link.repeat(count));
    let mut sources = vec![
        // Text and lists that double, or are multiplied by themselves.
        chained(60, ".optMap(x, x + x)"),
        chained(60, ".optMap(x, [x, x])"),
        chained(60, ".optMap(x, {1: x, 2: x})"),
        "lists.range(100000).map(x, any.name.replace('', any.name)).size() > 0".to_string(),
        format!("optional.of('aaaaaaaa'){}.hasValue()", ".optMap(x, x.replace('', x))".repeat(20)),
        "lists.range(1000000000000).size() > 0".to_string(),
        "lists.range(400).all(a, lists.range(400).all(b, lists.range(400).all(c, true)))".to_string(),
        "lists.range(90000).all(x, 'a'.matches('(' + string(x) + 'a{100}){100}') || true)".to_string(),
        "'x'.matches('(x+x+)+y') || 'x'.matches('((a{100}){100}){100}')".to_string(),
        "'%.1000000000f'.format([1.0]) == ''".to_string(),
        "(9223372036854775807).size() == 1".to_string(),
        "[[[1]]].flatten(9223372036854775807).size() == 1".to_string(),
    ];
    for count in [200, 249, 251, 5000] {
        for (open, close) in [
            ("(", ")"),
            ("[", "]"),
            ("-", ""),
            ("!", ""),
            ("{1:", "}"),
            ("size([", "])"),
            ("[1].map(x,", ")"),
        ] {
            sources.push(nested(count, open, close));
        }
        sources.push(format!("any{}", ".a".repeat(count)));
        sources.push(format!("any{}", "[0]".repeat(count)));
        sources.push(format!("1{}", "+1".repeat(count)));
        sources.push(format!("true{}", "&&true".repeat(count)));
        sources.push(format!("{}true", "true?true:".repeat(count)));
        sources.push(format!("any{}", ".optMap(a, a)".repeat(count)));
    }
    for source in sources {
        // The stack of a worker thread.
        let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(move || said(&source)).unwrap();
        let said = thread.join().unwrap();
        assert!(said.len() < 500_000);
    }
    assert!(said(&nested(5000, "(", ")")).contains("expression recursion limit exceeded: 250"));
    assert!(said(&format!("true{}", "&&true".repeat(4000))).contains("true"));
    assert_eq!(said("lists.range(1000000).all(x, x >= 0)"), Fault::Exceeded.to_string());
    assert!(said(&format!("1{}", " ".repeat(100_001))).contains("code point size exceeds limit"));
}

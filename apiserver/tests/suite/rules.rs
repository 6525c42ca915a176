//! Rules of custom resources in CEL: on objects, on changes, and what they may cost.

use serde_json::{Value, json};

use crate::custom::define;
use crate::server::TestServer;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const RANGES: &str = "/apis/example.com/v1/namespaces/default/ranges";

fn definition(spec: Value) -> Value {
    json!({"metadata": {"name": "ranges.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"kind": "Range", "plural": "ranges"}, "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}]}})
}

fn rules() -> Value {
    json!({"type": "object",
        "x-kubernetes-validations": [
            {"rule": "self.low <= self.high", "message": "low is above high"},
            {"rule": "!has(self.note) || self.note != 'bad'", "messageExpression": "'a note like ' + self.note",
             "fieldPath": ".note", "reason": "FieldValueForbidden"}],
        "properties": {
            "low": {"type": "integer"},
            "high": {"type": "integer"},
            "note": {"type": "string"},
            "owner": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "owners stay"}]},
            "once": {"type": "string", "x-kubernetes-validations": [
                {"rule": "oldSelf.hasValue() || self == 'new'", "optionalOldSelf": true, "message": "begins as new"}]},
            "numbers": {"type": "array", "maxItems": 90, "items": {"type": "integer"}, "x-kubernetes-validations": [
                {"rule": "self.all(a, self.all(b, self.all(c, a + b + c >= 0)))"}]},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"},
                    "number": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}}}}}})
}

fn range(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Range", "metadata": {"name": "r"}, "spec": spec})
}

fn causes(answer: &Value) -> Vec<String> {
    let causes = answer["details"]["causes"].as_array().unwrap().iter();
    causes.map(|c| format!("{}: {}", c["field"].as_str().unwrap(), c["message"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn rules_should_hold_for_objects_and_for_their_changes() {
    let test = TestServer::start().await;
    define(&test, &definition(rules()), "Established", "True").await;
    for (spec, said) in [
        (json!({"low": 2, "high": 1}), vec!["spec: Invalid value: low is above high"]),
        (json!({"low": 1, "high": 2, "note": "bad"}), vec!["spec.note: Forbidden: a note like bad"]),
        (
            json!({"low": 1, "high": 2, "once": "old"}),
            vec!["spec.once: Invalid value: \"old\": begins as new"],
        ),
    ] {
        assert_eq!(causes(&test.post(RANGES, &range(spec)).await.expect(422)), said);
    }
    let missing = test.post(RANGES, &range(json!({"low": 1}))).await.expect(422);
    assert!(causes(&missing)[0].contains("evaluating rule: low is above high"), "{missing}");
    let good =
        json!({"low": 1, "high": 2, "owner": "ann", "once": "new", "ports": [{"name": "a", "number": 1}]});
    test.post(RANGES, &range(good)).await.expect(201);
    let path = format!("{RANGES}/r");
    let refused = test.merge(&path, &json!({"spec": {"owner": "bob"}})).await.expect(422);
    assert_eq!(causes(&refused), ["spec.owner: Invalid value: \"bob\": owners stay"]);
    test.merge(&path, &json!({"spec": {"once": "later"}})).await.expect(200);
    let ports = json!({"spec": {"ports": [{"name": "b", "number": 5}, {"name": "a", "number": 0}]}});
    let refused = test.merge(&path, &ports).await.expect(422);
    assert_eq!(causes(&refused), ["spec.ports[1].number: Invalid value: 0: failed rule: self >= oldSelf"]);
}

#[tokio::test]
async fn rules_should_not_cost_more_than_they_may() {
    let test = TestServer::start().await;
    define(&test, &definition(rules()), "Established", "True").await;
    let spec = |count: usize| json!({"low": 1, "high": 2, "numbers": (0..count).collect::<Vec<_>>()});
    test.post(&format!("{RANGES}?dryRun=All"), &range(spec(10))).await.expect(201);
    let refused = test.post(&format!("{RANGES}?dryRun=All"), &range(spec(90))).await.expect(422);
    assert!(causes(&refused)[0].contains("no further validation rules will be run"), "{refused}");
}

#[tokio::test]
async fn stricter_schemas_should_not_stand_in_the_way_of_other_changes() {
    let test = TestServer::start().await;
    let free =
        json!({"type": "object", "properties": {"size": {"type": "integer"}, "color": {"type": "string"}}});
    let mut made = define(&test, &definition(free), "Established", "True").await;
    test.post(RANGES, &range(json!({"size": 50, "color": "red"}))).await.expect(201);
    made["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = json!({"type": "object",
        "properties": {"size": {"type": "integer", "maximum": 9}, "color": {"type": "string",
            "x-kubernetes-validations": [{"rule": "self != 'red'"}]}}});
    let path = format!("{DEFINITIONS}/ranges.example.com");
    let change = json!({"spec": {"versions": made["spec"]["versions"]}});
    test.merge(&path, &change).await.expect(200);
    // The new schema is in force as soon as a new object is refused by it.
    for attempt in 0.. {
        let mut other = range(json!({"size": 10}));
        other["metadata"]["name"] = "other".into();
        if test.post(&format!("{RANGES}?dryRun=All"), &other).await.code == 422 {
            break;
        }
        assert!(attempt < 500, "the stricter schema does not come into force");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let object = format!("{RANGES}/r");
    test.merge(&object, &json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    let refused = test.merge(&object, &json!({"spec": {"size": 60}})).await.expect(422);
    assert_eq!(refused["details"]["causes"][0]["field"], "spec.size");
    test.merge(&object, &json!({"spec": {"size": 5}})).await.expect(200);
    let refused = test.merge(&object, &json!({"spec": {"size": 50}})).await.expect(422);
    assert_eq!(refused["details"]["causes"][0]["field"], "spec.size");
}

#[tokio::test]
async fn rules_that_cannot_be_used_should_be_refused_with_their_definition() {
    let test = TestServer::start().await;
    for (rule, field, said) in [
        (json!({"rule": "self.a =="}), "rule", "compilation failed"),
        (json!({"rule": "other.a == 1"}), "rule", "undeclared reference to 'other'"),
        (json!({"rule": ""}), "rule", "rule is not specified"),
        (json!({"rule": "true", "reason": "Because"}), "reason", "Unsupported value"),
        (json!({"rule": "true", "message": "a\nb"}), "message", "must not contain line breaks"),
        (json!({"rule": "true", "messageExpression": "self."}), "messageExpression", "compilation failed"),
        (json!({"rule": "true", "optionalOldSelf": true}), "optionalOldSelf", "oldSelf is not used"),
    ] {
        let spec = json!({"type": "object", "x-kubernetes-validations": [rule]});
        let refused = test.post(DEFINITIONS, &definition(spec)).await.expect(422);
        let cause = causes(&refused).remove(0);
        let path = "spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[0]";
        assert!(cause.starts_with(&format!("{path}.{field}: ")) && cause.contains(said), "{cause}");
    }
}

#[tokio::test]
async fn rules_should_be_checked_against_schemas_before_there_is_an_object() {
    let test = TestServer::start().await;
    let unbounded = json!({"type": "array", "items": {"type": "string"}});
    let path = "spec.versions[0].schema.openAPIV3Schema.properties[spec]";
    for (property, rule, said) in [
        (json!({"type": "integer"}), "self.b == 1", "undefined field 'b'\n | self.b == 1\n | ....^"),
        (
            json!({"type": "integer"}),
            "self.a == 'x'",
            "found no matching overload for '_==_' applied to '(int, string)'",
        ),
        (json!({"type": "integer"}), "self.a + 1", "cel expression must evaluate to a bool"),
        (
            unbounded.clone(),
            "self.a.all(x, self.a.all(y, x == y))",
            "estimated rule cost exceeds budget by factor of more than 100x",
        ),
    ] {
        let spec = json!({"type": "object", "properties": {"a": property}, "x-kubernetes-validations": [{"rule": rule}]});
        let refused = test.post(DEFINITIONS, &definition(spec)).await.expect(422);
        let cause = causes(&refused).remove(0);
        assert!(
            cause.starts_with(&format!("{path}.x-kubernetes-validations[0].rule: ")) && cause.contains(said),
            "{cause}"
        );
    }
    let below = |rule: Value| {
        json!({"type": "object", "properties": {"a": {"type": "array", "maxItems": 5,
        "items": {"type": "string", "x-kubernetes-validations": [rule]}}}})
    };
    for (spec, field, said) in [
        (
            below(json!({"rule": "self == oldSelf"})),
            "properties[a].items.x-kubernetes-validations[0].rule",
            "uncorrelatable portion",
        ),
        (
            below(json!({"rule": "true", "messageExpression": "1"})),
            "properties[a].items.x-kubernetes-validations[0].messageExpression",
            "must evaluate to a string",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}},
            "x-kubernetes-validations": [{"rule": "true", "fieldPath": ".b"}]}),
            "x-kubernetes-validations[0].fieldPath",
            "must be a valid path",
        ),
        (
            json!({"type": "object", "anyOf": [{"x-kubernetes-validations": [{"rule": "true"}]}]}),
            "anyOf[0].x-kubernetes-validations",
            "must be empty to be structural",
        ),
    ] {
        let refused = test.post(DEFINITIONS, &definition(spec)).await.expect(422);
        let causes = causes(&refused);
        assert!(
            causes.iter().any(|c| c.starts_with(&format!("{path}.{field}: ")) && c.contains(said)),
            "{causes:?}"
        );
    }
    // Below `allOf`, rules are about what the schema around them describes.
    let spec = json!({"type": "object", "properties": {"low": {"type": "integer"}},
        "allOf": [{"x-kubernetes-validations": [{"rule": "self.low > 0", "message": "too low"}]}]});
    define(&test, &definition(spec), "Established", "True").await;
    let refused = test.post(RANGES, &range(json!({"low": 0}))).await.expect(422);
    assert_eq!(causes(&refused), ["spec: Invalid value: too low"]);
}

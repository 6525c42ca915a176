use std::collections::HashSet;

use serde_json::json;

use super::*;
use crate::ResourceTable;

fn with_table<T>(work: impl FnOnce(&Source<'_>) -> T) -> T {
    let table = ResourceTable::built_in();
    work(&Source { rows: table.rows(), custom_schema: &|_, _| None })
}

fn v3(group: &str, version: &str) -> Value {
    with_table(|source| serde_json::from_slice(&v3_json(source, group, version).unwrap()).unwrap())
}

/// Every reference in a document leads to one of its definitions.
fn check_references(document: &Value, definitions: &Value, prefix: &str) {
    let mut left = vec![document];
    while let Some(node) = left.pop() {
        match node {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    let name = reference.strip_prefix(prefix).expect(reference);
                    assert!(definitions.get(name).is_some(), "{name} is not defined");
                }
                left.extend(map.values());
            }
            Value::Array(list) => left.extend(list),
            _ => {}
        }
    }
}

#[test]
fn every_version_should_have_a_document_whose_references_resolve() {
    with_table(|source| {
        let all = served(source);
        assert!(
            all.contains(&&ServedVersion::new("", "v1")) && all.contains(&&ServedVersion::new("apps", "v1"))
        );
        for served in all {
            let bytes = v3_json(source, &served.group, &served.version).unwrap();
            let document: Value = serde_json::from_slice(&bytes).unwrap();
            check_references(&document, &document["components"]["schemas"], "#/components/schemas/");
        }
        assert!(v3_json(source, "apps", "v9").is_none());
    });
}

#[test]
fn what_kubectl_looks_for_in_v3_should_be_there() {
    let document = v3("apps", "v1");
    let item = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    let patch = &item["patch"];
    let kind = json!({"group": "apps", "kind": "Deployment", "version": "v1"});
    assert_eq!(patch["x-kubernetes-group-version-kind"], kind);
    assert_eq!(patch["x-kubernetes-action"], "patch");
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    let names: Vec<&str> =
        patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"fieldValidation") && names.contains(&"dryRun"));
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"], json!([kind]));
    let spec = &schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"];
    assert_eq!(
        spec["strategy"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.api.apps.v1.DeploymentStrategy"
    );
    assert_eq!(spec["strategy"]["x-kubernetes-patch-strategy"], "retainKeys");
    assert!(spec["replicas"]["description"].as_str().unwrap().contains("desired pods"));
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert!(schemas["io.k8s.api.apps.v1.DeploymentList"]["properties"]["items"].is_object());
}

#[test]
fn the_swagger_document_should_be_whole_in_both_forms() {
    with_table(|source| {
        let document: Value = serde_json::from_slice(&v2_json(source)).unwrap();
        check_references(&document, &document["definitions"], "#/definitions/");
        let pod = &document["definitions"]["io.k8s.api.core.v1.Pod"];
        assert_eq!(
            pod["x-kubernetes-group-version-kind"],
            json!([{"group": "", "kind": "Pod", "version": "v1"}])
        );
        assert_eq!(
            document["definitions"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["type"],
            "string"
        );
        let create = &document["paths"]["/api/v1/namespaces/{namespace}/pods"]["post"];
        assert_eq!(create["parameters"][0]["schema"]["$ref"], "#/definitions/io.k8s.api.core.v1.Pod");
        let ids: Vec<&Value> = document["paths"]
            .as_object()
            .unwrap()
            .values()
            .flat_map(|item| item.as_object().unwrap().values())
            .filter_map(|operation| operation.get("operationId"))
            .collect();
        let unique: HashSet<String> = ids.iter().map(|id| id.to_string()).collect();
        assert_eq!(unique.len(), ids.len());

        let bytes = v2_protobuf(source);
        let fields = top_level(&bytes);
        assert_eq!(fields.iter().map(|(field, _)| *field).collect::<Vec<_>>(), [1, 2, 8, 9]);
        assert_eq!(fields[0].1, b"2.0");
        let definitions = top_level(fields[3].1);
        assert_eq!(definitions.len(), document["definitions"].as_object().unwrap().len());
        let (_, first) = definitions[0];
        assert!(document["definitions"].get(std::str::from_utf8(top_level(first)[0].1).unwrap()).is_some());
    });
}

/// The length-delimited fields of a message.
fn top_level(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let varint = |bytes: &mut &[u8]| {
        let mut number = 0u64;
        for shift in (0..).step_by(7) {
            let (byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    };
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        assert_eq!(key & 7, 2);
        let length = varint(&mut bytes) as usize;
        let (content, rest) = bytes.split_at(length);
        fields.push((key >> 3, content));
        bytes = rest;
    }
    fields
}

#[test]
fn custom_resources_should_be_described_by_their_own_schema() {
    let mut row = (**ResourceTable::built_in().resource("apps", "v1", "deployments").unwrap()).clone();
    row.kind = "CronTab".to_string();
    row.list_kind = "CronTabList".to_string();
    row.plural = "crontabs".to_string();
    row.served = vec![ServedVersion::new("stable.example.com", "v1")];
    row.storage = ServedVersion::new("stable.example.com", "v1");
    row.custom = Some(Arc::new(crate::CustomResource::default()));
    let rows = [Arc::new(row)];
    let schema = json!({"type": "object", "description": "A cron tab.", "properties": {
        "spec": {"type": "object", "properties": {
            "replicas": {"type": "integer", "default": 1, "nullable": true},
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "one": {"type": "string", "oneOf": [{"pattern": "a"}]}}}}});
    let source = Source { rows: &rows, custom_schema: &|_, _| Some(schema.clone()) };

    let document: Value =
        serde_json::from_slice(&v3_json(&source, "stable.example.com", "v1").unwrap()).unwrap();
    check_references(&document, &document["components"]["schemas"], "#/components/schemas/");
    let tab = &document["components"]["schemas"]["com.example.stable.v1.CronTab"];
    assert_eq!(tab["x-kubernetes-group-version-kind"][0]["kind"], "CronTab");
    assert_eq!(tab["properties"]["spec"]["properties"]["replicas"]["default"], 1);
    assert!(tab["properties"]["metadata"]["allOf"].is_array());
    let item = &document["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}"];
    assert_eq!(item["get"]["operationId"], "readStableExampleComV1NamespacedCronTab");
    assert!(item["patch"]["requestBody"]["content"].get("application/strategic-merge-patch+json").is_none());

    let document: Value = serde_json::from_slice(&v2_json(&source)).unwrap();
    check_references(&document, &document["definitions"], "#/definitions/");
    let spec = &document["definitions"]["com.example.stable.v1.CronTab"]["properties"]["spec"]["properties"];
    assert_eq!(spec["one"], json!({"type": "string"}));
    assert_eq!(spec["replicas"], json!({}));
    assert_eq!(spec["any"], json!({"x-kubernetes-preserve-unknown-fields": true}));
}

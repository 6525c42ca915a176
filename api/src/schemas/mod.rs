//! The schemas of the built-in kinds: `k8s-openapi`'s, with our overlay for what they lack.
//!
//! Guarantees: a schema is built when its kind is first used, and shared from then on; a definition that several kinds
//! use exists once. Descriptions are not kept: [`describe`] makes them anew for OpenAPI documents.
//!
//! Defaults in the overlay are those that depend on nothing else. The kinds' strategies set the others: image pull
//! policy, requests from limits, rolling update parameters, a Service's target ports and traffic policies, a Job's
//! parallelism, completions and backoff limit, API groups of RBAC subjects, policy types of a NetworkPolicy, names of a
//! CustomResourceDefinition, `enableServiceLinks` of a Pod (not of templates), the emptyDir of an empty volume.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use schema::{Definitions, MapType, ScalarFormat, Schema, SchemaError, Type};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

mod kinds;
mod overlay;

use kinds::{OBJECT_META, SOURCES, Source};

/// The schema of a built-in kind; `None` when there is no such kind. Kinds of request bodies that are no resources of
/// their own are there as well: `DeleteOptions` and `Status` (in the core group), `Scale`, `Eviction`, `TokenRequest`.
pub fn for_kind(group: &str, version: &str, kind: &str) -> Option<Arc<Schema>> {
    static BUILT: [OnceLock<Option<Arc<Schema>>>; SOURCES.len()] = [const { OnceLock::new() }; SOURCES.len()];
    let at = position(group, version, kind)?;
    let (source, cell) = (SOURCES.get(at)?, BUILT.get(at)?);
    cell.get_or_init(|| build(source, &(source.definition)())).clone()
}

/// The schema of `metadata`, for [`Schema::with_envelope`].
pub fn object_meta() -> Arc<Schema> {
    static BUILT: OnceLock<Option<Arc<Schema>>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build(SOURCES.first()?, OBJECT_META)).clone();
    built.unwrap_or_else(|| Schema::anything().clone())
}

/// The schema of a custom resource, from the `openAPIV3Schema` of one of its versions, with the envelope that every
/// object has.
pub fn custom(openapi: &Value) -> Result<Arc<Schema>, SchemaError> {
    Ok(Arc::new(Schema::from_openapi(openapi)?.with_envelope(&object_meta())))
}

/// The full name of a kind's definition: `io.k8s.api.apps.v1.Deployment`.
pub fn definition_name(group: &str, version: &str, kind: &str) -> Option<String> {
    Some((SOURCES.get(position(group, version, kind)?)?.definition)())
}

/// The definitions of these kinds and all that they refer to, by full name, with descriptions and extensions.
/// References read `#/$defs/<name>`.
pub fn describe<'a>(kinds: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>) -> Map<String, Value> {
    let mut generator = SchemaGenerator::new(SchemaSettings::default());
    for (group, version, kind) in kinds {
        if let Some(source) = position(group, version, kind).and_then(|at| SOURCES.get(at)) {
            (source.generate)(&mut generator);
        }
    }
    let mut definitions = generator.take_definitions(false);
    for (name, definition) in &mut definitions {
        overlay::complete(name, definition);
    }
    definitions
}

fn position(group: &str, version: &str, kind: &str) -> Option<usize> {
    SOURCES.iter().position(|s| s.kind == kind && s.group == group && s.version == version)
}

/// Builds what is still missing, and returns the definition of that name.
fn build(source: &Source, name: &str) -> Option<Arc<Schema>> {
    static DEFINITIONS: OnceLock<Mutex<Definitions>> = OnceLock::new();
    let definitions = DEFINITIONS.get_or_init(|| Mutex::new(by_hand()));
    let mut definitions = definitions.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(built) = definitions.get(name) {
        return Some(built);
    }
    let mut generator = SchemaGenerator::new(SchemaSettings::default());
    (source.generate)(&mut generator);
    for (name, mut definition) in generator.take_definitions(false) {
        if definitions.get(&name).is_none() {
            overlay::complete(&name, &mut definition);
            // The sources are fixed at compile time; a test defines them all.
            definitions.define(&name, &definition).ok()?;
        }
    }
    definitions.get(name)
}

/// The definitions whose source says less than upstream's decoder knows.
fn by_hand() -> Definitions {
    const MACHINERY: &str = "io.k8s.apimachinery.pkg";
    const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";
    let of = |value_type| Schema { value_type, ..Schema::default() };
    let mut definitions = Definitions::default();
    for (name, value_type) in [
        ("api.resource.Quantity", Type::String(ScalarFormat::Quantity)),
        ("apis.meta.v1.Time", Type::String(ScalarFormat::Time)),
        ("apis.meta.v1.MicroTime", Type::String(ScalarFormat::MicroTime)),
        ("util.intstr.IntOrString", Type::IntOrString),
    ] {
        definitions.define_as(&format!("{MACHINERY}.{name}"), of(value_type));
    }
    let raw = Schema { map_type: MapType::Atomic, ..(**Schema::anything()).clone() };
    for name in ["JSON", "JSONSchemaPropsOrArray", "JSONSchemaPropsOrBool", "JSONSchemaPropsOrStringArray"] {
        definitions.define_as(&format!("{EXTENSIONS}.{name}"), raw.clone());
    }
    definitions
}

#[cfg(test)]
mod tests {
    use schema::{ListType, conform, defaults, validate};
    use serde_json::json;

    use super::*;

    #[test]
    fn every_source_should_build_and_the_overlay_should_agree_with_upstreams_definitions() {
        for source in SOURCES {
            assert!(for_kind(source.group, source.version, source.kind).is_some(), "{}", source.kind);
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/spec/definitions-v1.36.json");
        let Ok(text) = std::fs::read(path) else {
            eprintln!("not compared: upstream's definitions are not at {path}");
            return;
        };
        let upstream: Value = serde_json::from_slice(&text).unwrap();
        let ours = describe(SOURCES.iter().map(|s| (s.group, s.version, s.kind)));
        for (name, ours) in &ours {
            let theirs = &upstream["definitions"][name];
            assert_eq!(facts(ours), facts(theirs), "{name}");
            for (field, theirs) in theirs["properties"].as_object().into_iter().flatten() {
                assert_eq!(facts(&ours["properties"][field]), facts(theirs), "{name}.{field}");
            }
        }
    }

    fn facts(node: &Value) -> Value {
        let mut facts: Map<String, Value> = node.as_object().cloned().unwrap_or_default();
        facts.retain(|key, _| {
            key == "required" || (key.starts_with("x-kubernetes-") && !key.ends_with("-kind"))
        });
        facts.remove("x-kubernetes-int-or-string");
        if let Some(Value::Array(required)) = facts.get_mut("required") {
            required.sort_by_key(|name| name.to_string());
        }
        facts.into()
    }

    #[test]
    fn a_deployment_should_come_out_as_upstream_reads_it() {
        let schema = for_kind("apps", "v1", "Deployment").unwrap();
        let mut value = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "creationTimestamp": null, "labels": {"app": "web"}},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web:v1", "imagePullPolice": "Never",
                    "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": 0.5}},
                    "livenessProbe": {"httpGet": {"port": "http"}}}]}}}});
        let found = conform::conform(&schema, &mut value).unwrap();
        assert_eq!(found.unknown, ["spec.template.spec.containers[0].imagePullPolice"]);
        defaults::fill(&schema, &mut value);
        assert_eq!(validate::validate(&schema, &value), []);
        assert_eq!(value["spec"]["replicas"], 1);
        assert_eq!(value["spec"]["strategy"], json!({"type": "RollingUpdate"}));
        let container = &value["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["ports"][0]["protocol"], "TCP");
        assert_eq!(container["resources"]["limits"]["cpu"], "500m");
        assert_eq!(
            container["livenessProbe"]["httpGet"],
            json!({"port": "http", "path": "/", "scheme": "HTTP"})
        );
        let error = conform::conform(&schema, &mut json!({"spec": {"replicas": "two"}})).unwrap_err();
        assert_eq!(
            error.message,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
        let errors = validate::validate(&schema, &json!({"metadata": {}, "spec": {"template": {}}}));
        assert_eq!(errors.first().map(|e| e.field.as_str()), Some("spec.selector"));
    }

    #[test]
    fn definitions_should_be_shared_between_kinds_and_recursion_should_end() {
        let pod = for_kind("", "v1", "Pod").unwrap();
        let job = for_kind("batch", "v1", "Job").unwrap();
        let spec_of = |schema: &Schema, path: &[&str]| {
            let mut at = Arc::new(schema.clone());
            for name in path {
                at = at.property(name).unwrap().schema.share();
            }
            at
        };
        let of_pod = spec_of(&pod, &["spec"]);
        assert!(Arc::ptr_eq(&of_pod, &spec_of(&job, &["spec", "template", "spec"])));
        let containers = of_pod.property("containers").unwrap().schema.share();
        assert_eq!(containers.list_type, ListType::Map);
        assert_eq!(&*containers.list_map_keys, ["name".into()]);
        assert!(Arc::ptr_eq(&object_meta(), &spec_of(&pod, &["metadata"])));
        let mut crd = json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {
            "properties": {"a": {"items": {"x-kubernetes-preserve-unknown-fields": true}, "oops": 1}}}}}]}});
        let schema = for_kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap();
        let found = conform::conform(&schema, &mut crd).unwrap();
        assert_eq!(found.unknown, ["spec.versions[0].schema.openAPIV3Schema.properties.a.oops"]);
    }

    #[test]
    fn custom_resources_should_have_the_metadata_of_every_object() {
        let schema = custom(&json!({"type": "object", "properties": {
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 3}}},
            "spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 1}}}}}))
        .unwrap();
        let mut value = json!({"apiVersion": "x/v1", "kind": "X", "spec": {}, "status": {},
            "metadata": {"name": "long", "labels": {"a": "b"}, "oops": 1, "creationTimestamp": null}});
        let found = conform::conform(&schema, &mut value).unwrap();
        assert_eq!(found.unknown, ["metadata.oops", "status"]);
        defaults::fill(&schema, &mut value);
        assert_eq!(value["spec"]["size"], 1);
        let errors = validate::validate(&schema, &value);
        assert_eq!(errors.first().map(|e| e.field.as_str()), Some("metadata.name"));
        let error = conform::conform(&schema, &mut json!({"metadata": {"labels": {"a": 1}}})).unwrap_err();
        assert_eq!(error.field, "metadata.labels.a");
    }
}

//! The definitions of a document, one after the other.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::Source;
use super::shape::{self, Flavour};
use crate::schemas;
use crate::{Row, ServedVersion, Verb};

pub(super) const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
pub(super) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
pub(super) const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
pub(super) const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// The full name of the definition of a row in a version: upstream's for built-ins, the reversed group for custom
/// resources. Nothing for kinds that have no schema.
pub(super) fn name_of(row: &Row, served: &ServedVersion) -> Option<String> {
    if row.custom.is_none() {
        return schemas::definition_name(&served.group, &served.version, &row.kind);
    }
    let reversed: Vec<&str> = served.group.rsplit('.').collect();
    Some(format!("{}.{}.{}", reversed.join("."), served.version, row.kind))
}

/// Hands over every definition that these versions need, once, ready for the document.
pub(super) fn each(
    source: &Source<'_>,
    versions: &[&ServedVersion],
    flavour: Flavour,
    emit: &mut dyn FnMut(&str, Value),
) {
    let mut writer = Writer { seen: HashSet::new(), kinds: HashMap::new(), versions, flavour, emit };
    let rows = || source.rows.iter().flat_map(|row| row.served.iter().map(move |served| (row, served)));
    let wanted = || rows().filter(|(_, served)| versions.contains(served));
    for (row, served) in wanted() {
        if let Some(name) = name_of(row, served) {
            let kind = (served.group.clone(), served.version.clone(), row.kind.clone());
            let _first = writer.kinds.insert(name, kind);
        }
    }
    for (row, served) in wanted() {
        match (source.custom_schema)(row, served).filter(|_| row.custom.is_some()) {
            Some(schema) => writer.custom(row, served, schema),
            None => writer.built_in(&served.group, &served.version, &row.kind),
        }
        for (group, version, kind) in row.subresources.iter().filter_map(|sub| sub.body) {
            writer.built_in(group, version, kind);
        }
        if row.can(Verb::List) {
            writer.list(row, served);
        }
    }
    writer.built_in("", "v1", "Status");
    writer.built_in("", "v1", "DeleteOptions");
    let patch = "Patch is a change to an object, in the form that the content type names.";
    writer.write(PATCH, json!({"description": patch, "type": "object"}));
}

struct Writer<'a> {
    seen: HashSet<String>,
    /// By definition, the group, version and kind that it is.
    kinds: HashMap<String, (String, String, String)>,
    versions: &'a [&'a ServedVersion],
    flavour: Flavour,
    emit: &'a mut dyn FnMut(&str, Value),
}

impl Writer<'_> {
    fn built_in(&mut self, group: &str, version: &str, kind: &str) {
        let Some(name) = schemas::definition_name(group, version, kind) else { return };
        self.kinds.entry(name.clone()).or_insert((group.into(), version.into(), kind.into()));
        if self.seen.contains(&name) {
            return;
        }
        for (name, definition) in schemas::describe([(group, version, kind)]) {
            self.write(&name, definition);
        }
    }

    fn custom(&mut self, row: &Row, served: &ServedVersion, mut schema: Value) {
        let Some(name) = name_of(row, served) else { return };
        if self.flavour == Flavour::V2 {
            shape::simplify_for_v2(&mut schema);
        }
        if let Value::Object(schema) = &mut schema {
            let properties = schema.entry("properties").or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(properties) = properties {
                properties.extend(envelope(OBJECT_META));
            }
        }
        self.write(&name, schema);
    }

    fn list(&mut self, row: &Row, served: &ServedVersion) {
        let Some(item) = name_of(row, served) else { return };
        let name = format!("{}{}", item.strip_suffix(&row.kind).unwrap_or(&item), row.list_kind);
        let mut properties = Map::from_iter(envelope(LIST_META));
        let items = json!({"type": "array", "items": {"$ref": format!("#/$defs/{item}")},
            "description": format!("The {} of the list.", row.plural)});
        let _absent = properties.insert("items".to_string(), items);
        let kind = (served.group.clone(), served.version.clone(), row.list_kind.clone());
        let _first = self.kinds.insert(name.clone(), kind);
        let description = format!("{} is a list of {}.", row.list_kind, row.plural);
        self.write(
            &name,
            json!({"description": description, "type": "object", "required": ["items"], "properties": properties}),
        );
    }

    fn write(&mut self, name: &str, mut definition: Value) {
        if !self.seen.insert(name.to_string()) {
            return;
        }
        shape::reshape_named(name, &mut definition, self.flavour);
        let kinds: Vec<Value> = match name {
            DELETE_OPTIONS => {
                self.versions.iter().map(|v| gvk(&v.group, &v.version, "DeleteOptions")).collect()
            }
            _ => self
                .kinds
                .get(name)
                .map(|(group, version, kind)| gvk(group, version, kind))
                .into_iter()
                .collect(),
        };
        if let (Value::Object(map), false) = (&mut definition, kinds.is_empty()) {
            let _absent = map.insert("x-kubernetes-group-version-kind".to_string(), kinds.into());
        }
        (self.emit)(name, definition);
    }
}

/// As the extension has it.
pub(super) fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "kind": kind, "version": version})
}

fn envelope(metadata: &str) -> [(String, Value); 3] {
    let version = "The version of the schema that this representation follows. More info: \
        https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
    let kind = "The kind of the object. It cannot be changed. More info: \
        https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
    let about = "Standard metadata. More info: \
        https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
    [
        ("apiVersion".to_string(), json!({"type": "string", "description": version})),
        ("kind".to_string(), json!({"type": "string", "description": kind})),
        ("metadata".to_string(), json!({"$ref": format!("#/$defs/{metadata}"), "description": about})),
    ]
}

//! `explain`: what a kind's fields mean, from the server's OpenAPI documents.

use anyhow::Context;
use clap::Args;
use serde_json::Value;

use crate::resources::Resource;
use crate::session::Session;
use crate::tree::{fields, items, plain, text};

const WIDTH: usize = 80;
const REFERENCE: &str = "#/components/schemas/";

/// The flags of `explain`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A kind, or a field of one: pods.spec.containers
    pub field: String,
    /// Also the fields of fields, without their meaning
    #[arg(long)]
    pub recursive: bool,
    /// In which version
    #[arg(long, value_name = "GROUP/VERSION")]
    pub api_version: Option<String>,
    /// Accepted for compatibility: plaintext
    #[arg(long, hide = true)]
    pub output: Option<String>,
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let (resource, path) = subject(session, options)?;
    let root = if resource.group.is_empty() {
        format!("api/{}", resource.version)
    } else {
        format!("apis/{}/{}", resource.group, resource.version)
    };
    let index = session.api.get("/openapi/v3").await?;
    let url = index["paths"][&root]["serverRelativeURL"].as_str();
    let url = url.with_context(|| format!("error: the server publishes no schemas of {root}"))?;
    let document = session.api.get(url).await?;
    let schemas = Schemas(&document["components"]["schemas"]);
    let schema = schemas
        .of_kind(&resource)
        .with_context(|| format!("error: the server publishes no schema of {}", resource.kind))?;
    print!("{}", explain(&schemas, &resource, schema, &path, options.recursive)?);
    Ok(())
}

/// The kind, and the path to the field below it.
fn subject(session: &Session, options: &Options) -> anyhow::Result<(Resource, Vec<String>)> {
    // A group may stand behind the kind: the longest beginning that is one is meant.
    let words: Vec<&str> = options.field.split('.').collect();
    let mut split = words.len();
    let found = loop {
        let word = words.get(..split).unwrap_or_default().join(".");
        match session.resources.named(&word) {
            Ok(found) if found.len() == 1 => break found.first().map(|resource| (*resource).clone()),
            Err(error) if split <= 1 => return Err(error),
            _ => split -= 1,
        }
        if split == 0 {
            break None;
        }
    };
    let mut resource = found.with_context(|| format!("error: \"{}\" is not a kind", options.field))?;
    if let Some(wanted) = &options.api_version {
        let other = session.resources.of_kind(wanted, &resource.kind);
        resource =
            other.cloned().with_context(|| format!("error: {} is not served in {wanted}", resource.kind))?;
    }
    let path = words.get(split..).unwrap_or_default().iter().map(|word| word.to_string()).collect();
    Ok((resource, path))
}

/// The schemas of one document.
struct Schemas<'a>(&'a Value);

impl<'a> Schemas<'a> {
    fn of_kind(&self, resource: &Resource) -> Option<&'a Value> {
        let named = |schema: &&Value| {
            items(schema, "/x-kubernetes-group-version-kind").any(|kind| {
                text(kind, "/group") == resource.group
                    && text(kind, "/version") == resource.version
                    && text(kind, "/kind") == resource.kind
            })
        };
        self.0.as_object()?.values().find(named)
    }

    /// What a reference stands for; a schema without one stands for itself.
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        match reference(schema) {
            Some(name) => &self.0[name],
            None => schema,
        }
    }

    /// The schema whose fields a field has: of the items of a list, of the values of a map.
    fn inside(&self, schema: &'a Value) -> &'a Value {
        let schema = self.resolve(schema);
        for below in ["items", "additionalProperties"] {
            if schema[below].is_object() {
                return self.inside(&schema[below]);
            }
        }
        schema
    }

    /// `<[]Container>` without the brackets.
    fn type_of(&self, schema: &'a Value) -> String {
        if schema["items"].is_object() {
            return format!("[]{}", self.type_of(&schema["items"]));
        }
        if schema["additionalProperties"].is_object() {
            return format!("map[string]{}", self.type_of(&schema["additionalProperties"]));
        }
        if let Some(name) = reference(schema) {
            // A name for a text or a number is told as what it is.
            let kind = text(&self.0[name], "/type");
            if !["", "object", "array"].contains(&kind) {
                return kind.into();
            }
            return name.rsplit('.').next().unwrap_or(name).to_string();
        }
        match text(schema, "/type") {
            "" => "Object".into(),
            "object" => "Object".into(),
            kind => kind.into(),
        }
    }
}

/// The name that a schema refers to, directly or as the only part.
fn reference(schema: &Value) -> Option<&str> {
    let direct = schema["$ref"].as_str();
    let only =
        schema["allOf"].as_array().filter(|all| all.len() == 1).and_then(|all| all.first()?["$ref"].as_str());
    direct.or(only)?.strip_prefix(REFERENCE)
}

fn explain(
    schemas: &Schemas<'_>,
    resource: &Resource,
    root: &Value,
    path: &[String],
    recursive: bool,
) -> anyhow::Result<String> {
    let mut schema = root;
    for step in path {
        let properties = &schemas.inside(schema)["properties"];
        schema = properties.get(step).with_context(|| unknown(step, properties))?;
    }
    let mut page = String::new();
    if !resource.group.is_empty() {
        page.push_str(&format!("GROUP:      {}\n", resource.group));
    }
    page.push_str(&format!("KIND:       {}\nVERSION:    {}\n\n", resource.kind, resource.version));
    if let Some(last) = path.last() {
        page.push_str(&format!("FIELD: {last} <{}>\n", schemas.type_of(schema)));
        let choices: Vec<String> = items(schema, "/enum").map(plain).collect();
        if choices.is_empty() {
            page.push('\n');
        } else {
            page.push_str("ENUM:\n");
            choices.iter().for_each(|choice| page.push_str(&format!("    {choice}\n")));
        }
        page.push('\n');
    }
    page.push_str("DESCRIPTION:\n");
    let inside = schemas.inside(schema);
    let mut told = vec![text(schema, "/description")];
    if !std::ptr::eq(inside, schema) {
        told.push(text(inside, "/description"));
    }
    told.retain(|description| !description.is_empty());
    if told.is_empty() {
        told.push("<empty>");
    }
    told.iter().for_each(|description| wrap(description, 4, &mut page));
    page.push_str("    \n");
    if inside["properties"].is_object() {
        page.push_str("FIELDS:\n");
        list(schemas, inside, 1, recursive, &mut Vec::new(), &mut page);
    }
    page.push('\n');
    Ok(page)
}

fn unknown(step: &str, properties: &Value) -> String {
    let mut known: Vec<&str> = fields(properties, "").into_iter().map(|(name, _)| name).collect();
    known.truncate(12);
    if known.is_empty() {
        return format!("error: field \"{step}\" does not exist; its parent has no fields");
    }
    format!("error: field \"{step}\" does not exist; there are {}, …", known.join(", "))
}

fn list<'a>(
    schemas: &Schemas<'a>,
    schema: &'a Value,
    depth: usize,
    recursive: bool,
    above: &mut Vec<&'a Value>,
    page: &mut String,
) {
    let indent = "  ".repeat(depth);
    for (name, property) in fields(schema, "/properties") {
        let required = items(schema, "/required").any(|required| required == name);
        let required = if required { " -required-" } else { "" };
        page.push_str(&format!("{indent}{name}\t<{}>{required}\n", schemas.type_of(property)));
        let choices: Vec<String> = items(property, "/enum").map(plain).collect();
        if !choices.is_empty() {
            page.push_str(&format!("{indent}enum: {}\n", choices.join(", ")));
        }
        if !recursive {
            let description = text(property, "/description");
            wrap(if description.is_empty() { "<no description>" } else { description }, depth * 2 + 2, page);
            page.push('\n');
            continue;
        }
        let inside = schemas.inside(property);
        // Some kinds hold themselves; their fields are told once.
        if inside["properties"].is_object() && !above.iter().any(|other| std::ptr::eq(*other, inside)) {
            above.push(inside);
            list(schemas, inside, depth + 1, recursive, above, page);
            above.pop();
        }
    }
}

/// Breaks a text into lines. The lines of a paragraph flow together; one that begins with space begins anew.
fn wrap(description: &str, indent: usize, page: &mut String) {
    let prefix = " ".repeat(indent);
    let mut flowing = String::new();
    for line in description.trim().lines() {
        if line.trim().is_empty() || line.starts_with([' ', '\t']) {
            flow(&mut flowing, &prefix, page);
        }
        if line.trim().is_empty() {
            page.push_str(&format!("{prefix}\n"));
        } else {
            if !flowing.is_empty() {
                flowing.push(' ');
            }
            flowing.push_str(line);
        }
    }
    flow(&mut flowing, &prefix, page);
}

fn flow(text: &mut String, prefix: &str, page: &mut String) {
    let mut line = String::new();
    for (index, word) in std::mem::take(text).split(' ').enumerate() {
        if index > 0 && prefix.len() + line.trim_end().len() + 1 + word.len() > WIDTH && !word.is_empty() {
            page.push_str(&format!("{prefix}{}\n", line.trim_end()));
            line.clear();
        } else if index > 0 {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.trim().is_empty() {
        page.push_str(&format!("{prefix}{}\n", line.trim_end()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resource() -> Resource {
        Resource {
            group: "g".into(),
            version: "v1".into(),
            plural: "things".into(),
            singular: "thing".into(),
            kind: "Thing".into(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced: true,
            verbs: Vec::new(),
            subresources: Vec::new(),
        }
    }

    #[test]
    fn fields_are_told_with_type_need_and_choices() {
        let document = json!({
            "Thing": {"description": "A thing.", "x-kubernetes-group-version-kind": [{"group": "g", "version": "v1", "kind": "Thing"}],
                "properties": {"spec": {"allOf": [{"$ref": "#/components/schemas/a.b.Spec"}], "description": "What it is."}}},
            "a.b.Spec": {"description": "Spec of it.", "required": ["parts"], "properties": {
                "parts": {"type": "array", "items": {"$ref": "#/components/schemas/a.b.Spec"}},
                "mode": {"type": "string", "enum": ["On", "Off"]},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}}}},
        });
        let schemas = Schemas(&document);
        let root = schemas.of_kind(&resource()).unwrap();
        let text = explain(&schemas, &resource(), root, &["spec".to_string()], false).unwrap();
        assert!(
            text.contains("FIELD: spec <Spec>\n\n\nDESCRIPTION:\n    What it is.\n    Spec of it.\n"),
            "{text}"
        );
        assert!(text.contains("  parts\t<[]Spec> -required-\n"), "{text}");
        assert!(text.contains("  mode\t<string>\n  enum: On, Off\n"), "{text}");
        assert!(text.contains("  labels\t<map[string]string>\n"), "{text}");
        let all = explain(&schemas, &resource(), root, &[], true).unwrap();
        assert!(all.contains("  spec\t<Spec>\n    labels\t"), "{all}");
        let error =
            explain(&schemas, &resource(), root, &["spek".to_string()], false).unwrap_err().to_string();
        assert!(error.contains("field \"spek\" does not exist; there are spec"), "{error}");
    }
}

//! `apply`: the manifest's fields are what they say, by server-side apply.
//!
//! Unlike kubectl's client-side apply nothing is kept in an annotation: the server knows which fields the manifest
//! owns and takes away those that it no longer names. As there, the manifest wins over what others have set.

use anyhow::bail;
use serde_json::Value;

use crate::AlreadyTold;
use crate::api::{PatchKind, Refusal, is_not_found};
use crate::cli::ApplyOptions;
use crate::manifest::{self, Document};
use crate::output;
use crate::session::{Session, Target, escape};
use crate::tree::same_but_status;
use crate::verbs::follow;

/// The manager under which this command line owns fields.
pub const MANAGER: &str = "ctl";

/// Runs the verb.
pub async fn run(session: &Session, options: &ApplyOptions) -> anyhow::Result<()> {
    let documents = manifest::read_all(&options.filename, options.recursive)?;
    let mut failures = 0;
    let mut applied: Vec<Target> = Vec::new();
    for document in &documents {
        match apply_one(session, options, document).await {
            Ok(target) => applied.push(target),
            Err(error) => {
                eprintln!("{}", explain(document, &error));
                failures += 1;
            }
        }
    }
    if failures > 0 {
        if documents.len() > 1 {
            eprintln!("{failures} of {} objects were not applied", documents.len());
        }
        return Err(AlreadyTold(1).into());
    }
    if options.wait {
        applied.retain(|target| follow::is_followed(&target.resource.kind));
        follow::all(session, &applied, options.timeout.0).await?;
    }
    Ok(())
}

async fn apply_one(session: &Session, options: &ApplyOptions, document: &Document) -> anyhow::Result<Target> {
    let resource = session.resources.of_object(&document.object)?.clone();
    let namespace = session.namespace_of(&resource, &document.object)?;
    let Some(name) = document.object.pointer("/metadata/name").and_then(Value::as_str) else {
        bail!("the object has no metadata.name; objects with generateName are made with `create`");
    };
    let target = Target { namespace: namespace.clone(), name: name.to_string(), resource };
    let before = match session.api.get(&target.path()).await {
        Ok(object) => Some(object),
        Err(error) if is_not_found(&error) => None,
        Err(error) => return Err(error),
    };
    let manager = escape(&options.field_manager);
    let mut path =
        format!("{}?fieldManager={manager}&fieldValidation={}", target.path(), options.validate.query());
    // As kubectl: without --server-side the manifest wins; with it a conflict is told unless forced.
    if !options.server_side || options.force_conflicts {
        path.push_str("&force=true");
    }
    if options.dry_run.is_server() {
        path.push_str("&dryRun=All");
    }
    if options.dry_run.is_client() {
        let done = if before.is_some() { "configured" } else { "created" };
        println!("{} {done} (dry run)", target.reported());
        return Ok(target);
    }
    let mut object = document.object.clone();
    if let (Some(namespace), Some(metadata)) = (&namespace, object.get_mut("metadata")) {
        metadata["namespace"] = namespace.as_str().into();
    }
    let (after, created) = session.api.patch(&path, PatchKind::Apply, &object).await?;
    let done = match &before {
        _ if options.server_side => "serverside-applied",
        None => "created",
        Some(_) if created => "created",
        Some(before) if same_but_status(before, &after) => "unchanged",
        Some(_) => "configured",
    };
    let suffix = if options.dry_run.is_server() { " (server dry run)" } else { "" };
    match &options.output {
        Some(form) => {
            let mut after = after.clone();
            output::hide_managed_fields(&mut after);
            output::print_object(&after, form)?;
        }
        None => println!("{} {done}{suffix}", target.reported()),
    }
    Ok(target)
}

/// The error with the place in the manifest: file, line, and the field as the server names it.
pub fn explain(document: &Document, error: &anyhow::Error) -> String {
    let Some(refusal) = error.downcast_ref::<Refusal>() else {
        return format!("error: {}: {error:#}", document.place(None));
    };
    let causes = refusal.status.pointer("/details/causes").and_then(Value::as_array);
    let fields: Vec<(&str, &str)> = causes
        .into_iter()
        .flatten()
        .filter_map(|cause| Some((cause["field"].as_str()?, cause["message"].as_str().unwrap_or_default())))
        .filter(|(field, _)| !field.is_empty())
        .collect();
    if refusal.code == 422 && !fields.is_empty() {
        let lines: Vec<String> = fields
            .iter()
            .map(|(field, message)| format!("  {}: {field}: {message}", document.place(Some(field))))
            .collect();
        let name = document.object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let kind = document.object["kind"].as_str().unwrap_or_default();
        return format!("Error from server (Invalid): {kind} \"{name}\" is not valid:\n{}", lines.join("\n"));
    }
    let message = refusal.to_string();
    let fields = quoted_fields(&message);
    if message.contains("strict decoding error") && !fields.is_empty() {
        let lines: Vec<String> = fields
            .iter()
            .map(|(what, field)| format!("  {}: {what} field \"{field}\"", document.place(Some(field))))
            .collect();
        let hint = "--validate=warn applies the rest";
        return format!(
            "Error from server (BadRequest): strict decoding error ({hint}):\n{}",
            lines.join("\n")
        );
    }
    // A wrong type is told as `.spec.replicas: expected numeric`.
    let mistyped = || message.split(' ').find_map(|word| word.strip_prefix('.')?.strip_suffix(':'));
    let field = fields.first().map(|(_, field)| field.as_str()).or_else(mistyped);
    format!("{}: {refusal}", document.place(field))
}

/// The fields that a strict decoding error names, with what is wrong: `unknown field "spec.replcas"`.
fn quoted_fields(message: &str) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let mut rest = message;
    while let Some((before, after)) = rest.split_once(" field \"") {
        let what = before.rsplit([' ', ',']).next().unwrap_or_default().to_string();
        let Some((field, tail)) = after.split_once('"') else { break };
        fields.push((what, field.to_string()));
        rest = tail;
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Document {
        let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: z\nspec:\n  replcas: 3\n  template:\n    spec:\n      containers:\n      - name: a\n        imagee: x\n";
        manifest::split("m.yml", text).unwrap().remove(0)
    }

    #[test]
    fn unknown_fields_are_told_with_file_and_line() {
        let message = "strict decoding error: unknown field \"spec.replcas\", unknown field \"spec.template.spec.containers[0].imagee\"";
        let refusal = Refusal { status: json!({"reason": "BadRequest", "message": message}), code: 400 };
        let text = explain(&document(), &refusal.into());
        assert!(text.contains("  m.yml:6: unknown field \"spec.replcas\""), "{text}");
        assert!(
            text.contains("  m.yml:11: unknown field \"spec.template.spec.containers[0].imagee\""),
            "{text}"
        );
    }

    #[test]
    fn invalid_fields_are_told_with_file_line_and_reason() {
        let cause = json!({"field": "spec.template.spec.containers[0].image", "message": "Required value"});
        let status = json!({"reason": "Invalid", "message": "m", "details": {"causes": [cause]}});
        let text = explain(&document(), &Refusal { status, code: 422 }.into());
        assert!(text.contains("m.yml:10: spec.template.spec.containers[0].image: Required value"), "{text}");
    }
}

//! A request as webhooks and expressions are told of it: the fields of `admission.k8s.io AdmissionRequest`.

use std::borrow::Cow;

use api::{ApiError, ServedVersion};
use serde_json::{Value, json};

use super::matching::{Subject, is_namespace};
use super::{AdmissionRequest, Operation};
use crate::custom;
use crate::objects::Objects;
use crate::reviews::user_info;
use crate::subresource::scale;

/// All but the objects and the review's own id, with the kind and resource in the version of the rule that matched.
pub(super) fn described(request: &AdmissionRequest<'_>, version: &ServedVersion) -> Value {
    let body = request.row.subresource(request.subresource).and_then(|subresource| subresource.body);
    let kind = |version: &ServedVersion| match body {
        Some((group, version, kind)) => json!({"group": group, "version": version, "kind": kind}),
        None => json!({"group": version.group, "version": version.version, "kind": request.row.kind}),
    };
    let resource = |version: &ServedVersion| json!({"group": version.group, "version": version.version, "resource": request.row.plural});
    let mut told = json!({
        "kind": kind(version), "resource": resource(version),
        "requestKind": kind(request.version), "requestResource": resource(request.version),
        "name": request.name, "operation": request.operation.word(), "userInfo": user_info(request.user),
        "dryRun": request.dry_run,
    });
    let mut say = |field: &str, value: Value| crate::tree::set(&mut told, &[field], value);
    let namespace = if is_namespace(request.row) { request.name } else { request.namespace };
    if !namespace.is_empty() {
        say("namespace", namespace.into());
    }
    if !request.subresource.is_empty() {
        say("subResource", request.subresource.into());
        say("requestSubResource", request.subresource.into());
    }
    let options = match request.operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => return told,
    };
    let mut said = json!({"kind": options, "apiVersion": "meta.k8s.io/v1"});
    said.as_object_mut().into_iter().for_each(|said| said.extend(request.options.told()));
    say("options", said);
    told
}

/// The objects of a request that only the converter of their kind can bring into the version of the rule that matched.
pub(super) struct Converted {
    object: Option<Value>,
    old: Option<Value>,
}

impl Converted {
    /// `None` where there is no converter, or nothing for it to do.
    pub async fn of(
        objects: &Objects,
        subject: &Subject<'_>,
        version: &ServedVersion,
    ) -> Result<Option<Self>, ApiError> {
        let Subject { request, object, .. } = *subject;
        let has_converter = request.row.custom.as_ref().is_some_and(|custom| custom.converter.is_some());
        if !has_converter || *version == request.row.storage || request.subresource == "scale" {
            return Ok(None);
        }
        let both = [object, request.old].into_iter().flatten().cloned().collect();
        let mut converted = custom::convert(objects, request.row, both, version).await?.into_iter();
        let object = object.and_then(|_| converted.next());
        Ok(Some(Self { object, old: request.old.and_then(|_| converted.next()) }))
    }

    /// The request with these objects.
    pub fn request<'a>(&'a self, request: &AdmissionRequest<'a>) -> AdmissionRequest<'a> {
        AdmissionRequest { old: self.old.as_ref(), ..*request }
    }

    /// The object as it is to become.
    pub fn object(&self) -> Option<&Value> {
        self.object.as_ref()
    }
}

/// An object of the request as its subresource shows it, in the version of the rule that matched.
pub(super) fn shown<'a>(
    request: &AdmissionRequest<'_>,
    version: &ServedVersion,
    object: Option<&'a Value>,
) -> Cow<'a, Value> {
    let Some(object) = object else { return Cow::Owned(Value::Null) };
    let storage = &request.row.storage;
    let is_other = request.row.subresource(request.subresource).is_some_and(|it| it.body.is_some());
    if request.subresource == "scale" {
        Cow::Owned(scale::of(object, request.row).unwrap_or_default())
    } else if is_other || version == storage {
        Cow::Borrowed(object)
    } else {
        let mut object = object.clone();
        api::convert::convert(request.row, &mut object, storage, version);
        Cow::Owned(object)
    }
}

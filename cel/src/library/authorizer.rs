//! `authorizer.group('apps').resource('deployments').namespace('web').check('create').allowed()`

use std::sync::Arc;

use api::names;

use crate::functions::cost::{self, ONE};
use crate::functions::{As, Row, row, take};
use crate::meter::{Fault, Outcome};
use crate::value::{Opaque, Value};

/// Who says what somebody may do.
pub trait Authorizer: Send + Sync {
    /// Whether it is allowed. Must not wait for anything.
    fn authorize(&self, check: &Check) -> Answer;
}

/// A question to an authorizer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// A service account, as (namespace, name), that is asked for instead of who makes the request.
    pub service_account: Option<(String, String)>,
    /// What is to be done.
    pub verb: String,
    /// A path; empty where it is a resource.
    pub path: String,
    /// The group of the resource.
    pub group: String,
    /// The resource.
    pub resource: String,
    /// Its subresource.
    pub subresource: String,
    /// The namespace.
    pub namespace: String,
    /// The name of the object.
    pub name: String,
    /// Which objects by their fields, as text that nobody has read yet.
    pub field_selector: String,
    /// Which objects by their labels.
    pub label_selector: String,
}

/// What an authorizer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// What kept the authorizer from finding out.
    pub error: Option<String>,
}

/// The value of the variable `authorizer`, and with a resource filled in that of `authorizer.requestResource`.
pub fn value(authorizer: Arc<dyn Authorizer>, request: Option<Check>) -> Value<'static> {
    let stage = if request.is_some() { RESOURCE } else { AUTHORIZER };
    Value::opaque(Asking { authorizer, stage, check: request.unwrap_or_default() })
}

const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
const PATH: &str = "kubernetes.authorization.PathCheck";
const GROUP: &str = "kubernetes.authorization.GroupCheck";
const RESOURCE: &str = "kubernetes.authorization.ResourceCheck";
const DECISION: &str = "kubernetes.authorization.Decision";

/// A question that is being put together; which part is next says its type.
#[derive(Clone)]
struct Asking {
    authorizer: Arc<dyn Authorizer>,
    stage: &'static str,
    check: Check,
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {:?}", self.stage, self.check)
    }
}

impl Opaque for Asking {
    fn type_name(&self) -> &'static str {
        self.stage
    }

    fn is(&self, other: &dyn Opaque) -> bool {
        let other = (other as &dyn std::any::Any).downcast_ref::<Self>();
        other.is_some_and(|other| self.stage == other.stage && self.check == other.check)
    }
}

impl Opaque for Answer {
    fn type_name(&self) -> &'static str {
        DECISION
    }

    fn is(&self, other: &dyn Opaque) -> bool {
        (other as &dyn std::any::Any).downcast_ref() == Some(self)
    }
}

pub(crate) const ROWS: &[Row] = &[
    row(
        "path",
        "kubernetes.authorization.Authorizer.(string) -> kubernetes.authorization.PathCheck",
        &ONE,
        |_, args| {
            asked(args, AUTHORIZER, PATH, |check, path| {
                required("path", &path)?;
                check.path = path;
                Ok(())
            })
        },
    ),
    row(
        "group",
        "kubernetes.authorization.Authorizer.(string) -> kubernetes.authorization.GroupCheck",
        &ONE,
        |_, args| {
            asked(args, AUTHORIZER, GROUP, |check, group| {
                check.group = group;
                Ok(())
            })
        },
    ),
    row("serviceAccount", "#.(string, string) -> #", &ONE, |_, args| {
        let [asking, namespace, name] = take(args)?;
        let (namespace, name) = (namespace.string()?, name.string()?);
        if !names::dns1123_subdomain(name).is_empty() {
            return Err(Fault::failed("Invalid service account name"));
        }
        if !names::dns1123_label(namespace).is_empty() {
            return Err(Fault::failed("Invalid service account namespace"));
        }
        let mut asking = asking.downcast::<Asking>()?.clone();
        asking.check.service_account = Some((namespace.to_string(), name.to_string()));
        Ok(Value::opaque(asking))
    })
    .each(AUTHORIZER),
    row(
        "resource",
        "kubernetes.authorization.GroupCheck.(string) -> kubernetes.authorization.ResourceCheck",
        &ONE,
        |_, args| {
            asked(args, GROUP, RESOURCE, |check, resource| {
                required("resource", &resource)?;
                check.resource = resource;
                Ok(())
            })
        },
    ),
    row("subresource", "#.(string) -> #", &ONE, |_, args| refined(args, |check| &mut check.subresource))
        .each(RESOURCE),
    row("namespace", "#.(string) -> #", &ONE, |_, args| refined(args, |check| &mut check.namespace))
        .each(RESOURCE),
    row("name", "#.(string) -> #", &ONE, |_, args| refined(args, |check| &mut check.name)).each(RESOURCE),
    row("fieldSelector", "#.(string) -> #", &cost::SELECTOR, |_, args| {
        refined(args, |check| &mut check.field_selector)
    })
    .each(RESOURCE),
    row("labelSelector", "#.(string) -> #", &cost::SELECTOR, |_, args| {
        refined(args, |check| &mut check.label_selector)
    })
    .each(RESOURCE),
    row("check", "#.(string) -> kubernetes.authorization.Decision", &cost::CHECK, |_, args| {
        let [asking, verb] = take(args)?;
        let mut asking = asking.downcast::<Asking>()?.clone();
        asking.check.verb = verb.string()?.to_string();
        Ok(Value::opaque(asking.authorizer.authorize(&asking.check)))
    })
    .each("kubernetes.authorization.PathCheck kubernetes.authorization.ResourceCheck"),
    row("allowed", "#.() -> bool", &ONE, |_, args| answered(args, |answer| Value::Bool(answer.allowed)))
        .each(DECISION),
    row("reason", "#.() -> string", &ONE, |_, args| answered(args, |answer| Value::text(&*answer.reason)))
        .each(DECISION),
    row("errored", "#.() -> bool", &ONE, |_, args| {
        answered(args, |answer| Value::Bool(answer.error.is_some()))
    })
    .each(DECISION),
    row("error", "#.() -> string", &ONE, |_, args| {
        answered(args, |answer| Value::text(answer.error.as_deref().unwrap_or_default()))
    })
    .each(DECISION),
];

fn required(what: &str, text: &str) -> Result<(), Fault> {
    if text.trim().is_empty() { Err(Fault::failed(format!("{what} must not be empty"))) } else { Ok(()) }
}

fn asked<'v>(
    args: Vec<Value<'v>>,
    from: &str,
    to: &'static str,
    change: fn(&mut Check, String) -> Result<(), Fault>,
) -> Outcome<'v> {
    let [asking, text] = take(args)?;
    let mut asking = asking.downcast::<Asking>()?.clone();
    if asking.stage != from {
        return Err(Fault::NoOverload);
    }
    change(&mut asking.check, text.string()?.to_string())?;
    asking.stage = to;
    Ok(Value::opaque(asking))
}

fn refined<'v>(args: Vec<Value<'v>>, field: fn(&mut Check) -> &mut String) -> Outcome<'v> {
    let [asking, text] = take(args)?;
    let mut asking = asking.downcast::<Asking>()?.clone();
    *field(&mut asking.check) = text.string()?.to_string();
    Ok(Value::opaque(asking))
}

fn answered<'v>(args: Vec<Value<'v>>, of: fn(&Answer) -> Value<'static>) -> Outcome<'v> {
    take(args).and_then(|[answer]| Ok(of(answer.downcast()?)))
}

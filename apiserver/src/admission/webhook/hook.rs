//! What a webhook configuration says, read once, and which requests it concerns.

use std::time::Duration;

use api::field::Look;
use api::selector::LabelSelector;
use api::{Row, Scope, ServedVersion};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::admission::{AdmissionRequest, Operation};

/// One webhook.
#[derive(Debug)]
pub(super) struct Hook {
    pub name: String,
    /// The name of the object that it stands in.
    pub configuration: String,
    rules: Vec<Rule>,
    /// `None` where it cannot be read: then the webhook concerns nothing.
    namespaces: Option<LabelSelector>,
    objects: Option<LabelSelector>,
    /// Whether other versions of the same kind are left alone.
    is_exact: bool,
    /// Whether a request goes on when the webhook cannot be asked.
    pub is_optional: bool,
    /// Whether it wants to see again what others change after it.
    pub is_reinvoked: bool,
    /// Whether it can be asked without consequences.
    pub is_harmless: bool,
    pub timeout: Duration,
    /// The version of `AdmissionReview` that it reads; `None` when it is none that there is.
    pub review_version: Option<&'static str>,
    pub place: Place,
    /// Who vouches for it, PEM; empty for those whom the machine trusts.
    pub authority_pem: Vec<u8>,
    /// Conditions in CEL.
    pub has_conditions: bool,
}

/// Where a webhook is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Url(String),
    Service { namespace: String, name: String, port: u16, path: String },
}

#[derive(Debug)]
struct Rule {
    groups: Vec<String>,
    versions: Vec<String>,
    operations: Vec<String>,
    resources: Vec<String>,
    scope: String,
}

impl Hook {
    /// The webhooks of a configuration, in their order.
    pub fn read_all(configuration: &Value) -> Vec<Self> {
        let name = api::object::name(configuration);
        configuration.items("webhooks").iter().map(|hook| Self::read(hook, name)).collect()
    }

    fn read(hook: &Value, configuration: &str) -> Self {
        let selector = |field: &str| match hook.at(field) {
            None => Some(LabelSelector::everything()),
            Some(selector) => LabelSelector::from_object(Some(selector)).ok(),
        };
        let client = hook.get("clientConfig").unwrap_or(&Value::Null);
        let reviews = hook.items("admissionReviewVersions").iter().filter_map(Value::as_str);
        let seconds =
            hook.int("timeoutSeconds").and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(10);
        Self {
            name: hook.text("name").to_string(),
            configuration: configuration.to_string(),
            rules: hook.items("rules").iter().map(Rule::read).collect(),
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
            is_exact: hook.text("matchPolicy") == "Exact",
            is_optional: hook.text("failurePolicy") == "Ignore",
            is_reinvoked: hook.text("reinvocationPolicy") == "IfNeeded",
            is_harmless: ["None", "NoneOnDryRun"].contains(&hook.text("sideEffects")),
            timeout: Duration::from_secs(seconds.clamp(1, 30)),
            review_version: reviews
                .filter_map(|v| ["v1", "v1beta1"].into_iter().find(|known| *known == v))
                .next(),
            place: place(client),
            authority_pem: STANDARD.decode(client.text("caBundle")).unwrap_or_default(),
            has_conditions: !hook.items("matchConditions").is_empty(),
        }
    }

    /// The version in which the webhook wants to see the object; `None` when the request is none of its business.
    /// `labels` are those of the request's namespace.
    pub fn concerns(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&Value>,
        namespace: Option<&Value>,
    ) -> Option<ServedVersion> {
        let version = self.version(request)?;
        let namespaces = self.namespaces.as_ref()?;
        if !namespaces.is_everything() {
            // A namespace is judged by its own labels; what lives in none is always chosen.
            let judged = if is_namespace(request.row) { object.or(request.old) } else { namespace };
            if judged.is_some_and(|namespace| !namespaces.matches_object(namespace)) {
                return None;
            }
        }
        let objects = self.objects.as_ref()?;
        let chosen = [object, request.old].into_iter().flatten().any(|object| objects.matches_object(object));
        (objects.is_everything() || chosen).then_some(version)
    }

    fn version(&self, request: &AdmissionRequest<'_>) -> Option<ServedVersion> {
        let matches = |version: &&ServedVersion| self.rules.iter().any(|rule| rule.matches(request, version));
        let asked = Some(request.version);
        let others = request.row.served.iter().filter(|_| !self.is_exact);
        asked.into_iter().chain(others).find(matches).cloned()
    }
}

fn place(client: &Value) -> Place {
    match client.at("service") {
        None => Place::Url(client.text("url").to_string()),
        Some(service) => Place::Service {
            namespace: service.text("namespace").to_string(),
            name: service.text("name").to_string(),
            port: service.int("port").and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
            path: service.text("path").to_string(),
        },
    }
}

fn is_namespace(row: &Row) -> bool {
    row.plural == "namespaces" && row.storage.group.is_empty()
}

impl Rule {
    fn read(rule: &Value) -> Self {
        let list = |field: &str| -> Vec<String> {
            rule.items(field).iter().filter_map(|item| item.as_str().map(str::to_string)).collect()
        };
        Self {
            groups: list("apiGroups"),
            versions: list("apiVersions"),
            operations: list("operations"),
            resources: list("resources"),
            scope: rule.text("scope").to_string(),
        }
    }

    fn matches(&self, request: &AdmissionRequest<'_>, version: &ServedVersion) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|item| item == "*" || item == wanted);
        let operation = match request.operation {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        };
        let in_scope = match self.scope.as_str() {
            "Namespaced" => request.row.scope == Scope::Namespaced,
            "Cluster" => request.row.scope == Scope::Cluster,
            _ => true,
        };
        let resource = |pattern: &String| {
            let (resource, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
            (resource == "*" || resource == request.row.plural)
                && (subresource == "*" || subresource == request.subresource)
        };
        in_scope
            && has(&self.operations, operation)
            && has(&self.groups, &version.group)
            && has(&self.versions, &version.version)
            && self.resources.iter().any(resource)
    }
}

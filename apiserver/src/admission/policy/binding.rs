//! A binding: for which requests a policy is in force, with which parameters, and what becomes of those it fails.

use api::field::Look;
use api::selector::LabelSelector;
use api::{Row, ServedVersion};
use serde_json::Value;

use crate::admission::matching::{Matching, Subject};
use crate::custom;
use crate::objects::Objects;
use crate::pipeline::row_name;

/// A binding.
pub(super) struct Binding {
    pub name: String,
    pub policy: String,
    pub parameters: Option<Parameters>,
    /// `Deny`, `Warn` and `Audit`.
    pub actions: Vec<String>,
    matching: Option<Matching>,
}

/// Which objects are the parameters.
pub(super) struct Parameters {
    name: String,
    namespace: String,
    selector: Option<Value>,
    is_required: bool,
}

impl Binding {
    pub fn read(binding: &Value) -> Self {
        let spec = binding.get("spec").unwrap_or(&Value::Null);
        let actions = spec.items("validationActions").iter();
        Self {
            name: api::object::name(binding).to_string(),
            policy: spec.text("policyName").to_string(),
            parameters: spec.at("paramRef").map(Parameters::read),
            actions: actions.filter_map(|action| action.as_str().map(str::to_string)).collect(),
            matching: spec.at("matchResources").map(Matching::of_policy),
        }
    }

    pub fn covers(&self, subject: &Subject<'_>) -> bool {
        self.matching.as_ref().is_none_or(|matching| matching.version(subject).is_some())
    }
}

impl Parameters {
    fn read(reference: &Value) -> Self {
        Self {
            name: reference.text("name").to_string(),
            namespace: reference.text("namespace").to_string(),
            selector: reference.at("selector").cloned(),
            is_required: reference.text("parameterNotFoundAction") == "Deny",
        }
    }

    /// The parameters, in the version that the policy speaks of, for a request in a namespace.
    pub async fn find(
        &self,
        objects: &Objects,
        row: &Row,
        version: &ServedVersion,
        request_namespace: &str,
    ) -> Result<Vec<Value>, String> {
        let namespace = match (row.is_namespaced(), self.namespace.as_str()) {
            (false, "") => "",
            (false, _) => {
                return Err(
                    "paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_string()
                );
            }
            (true, "") if request_namespace.is_empty() => {
                return Err(
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                        .to_string(),
                );
            }
            (true, "") => request_namespace,
            (true, own) => own,
        };
        let row_name = row_name(row);
        let mut found: Vec<Value> = match (self.name.as_str(), &self.selector) {
            ("", None) => return Err("one of name or selector must be provided".to_string()),
            ("", Some(selector)) => {
                let selector =
                    LabelSelector::from_object(Some(selector)).map_err(|error| error.to_string())?;
                let all = objects.list(&row_name, namespace).into_iter();
                all.filter(|object| selector.matches_object(object)).collect()
            }
            (name, _) => objects.get(&row_name, namespace, name).into_iter().collect(),
        };
        if found.is_empty() && self.is_required {
            return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_string());
        }
        if row.custom.is_some() {
            return custom::convert(objects, row, found, version).await.map_err(|error| error.to_string());
        }
        found.iter_mut().for_each(|object| api::convert::convert(row, object, &row.storage, version));
        Ok(found)
    }
}

//! A pod's priority comes from the class that it names, or from the default class, of which there is one.

use std::sync::Arc;

use api::ApiError;
use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Admission, AdmissionRequest, Operation};
use crate::objects::Objects;

const CLASSES: &str = "scheduling.k8s.io/priorityclasses";

/// The plugin.
pub struct Priority {
    objects: Objects,
}

impl Priority {
    /// Looks classes up in the cache.
    pub fn new(objects: Objects) -> Self {
        Self { objects }
    }

    /// The class that a pod without one gets: of those marked as default the lowest.
    fn default_class(&self) -> Option<Arc<Value>> {
        let classes = self.objects.look_up_all(CLASSES, "").into_iter();
        classes.filter(|class| class["globalDefault"] == true).min_by_key(|class| class["value"].as_i64())
    }
}

#[async_trait]
impl Admission for Priority {
    async fn mutate(&self, request: &AdmissionRequest<'_>, pod: &mut Value) -> Result<(), ApiError> {
        if !request.is("", "pods") {
            return Ok(());
        }
        let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
        if let (Operation::Update, Some(old)) = (request.operation, request.old) {
            // Who replaces a pod need not know what was filled in here, which may never change.
            for field in ["priority", "preemptionPolicy"] {
                if let (None, Some(known)) = (spec.get(field), old["spec"].get(field)) {
                    spec.insert(field.into(), known.clone());
                }
            }
        }
        if request.operation != Operation::Create {
            return Ok(());
        }
        let named = spec.get("priorityClassName").and_then(Value::as_str).unwrap_or_default().to_string();
        let class =
            match named.as_str() {
                "" => self.default_class(),
                name => Some(self.objects.look_up(CLASSES, "", name).ok_or_else(|| {
                    request.forbidden(&format!("no PriorityClass with name {name} was found"))
                })?),
            };
        let value = class.as_ref().and_then(|class| class["value"].as_i64()).unwrap_or_default();
        let asked = spec.get("priority").and_then(Value::as_i64);
        if asked.is_some_and(|asked| asked != value) {
            let why = format!(
                "the integer value of priority ({}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name",
                asked.unwrap_or_default()
            );
            return Err(request.forbidden(&why));
        }
        spec.insert("priority".into(), json!(value));
        if let Some(class) = &class {
            spec.insert("priorityClassName".into(), api::object::name(class).into());
        }
        let policy = class.as_ref().and_then(|class| class["preemptionPolicy"].as_str());
        spec.entry("preemptionPolicy").or_insert_with(|| policy.unwrap_or("PreemptLowerPriority").into());
        Ok(())
    }
    async fn validate(&self, request: &AdmissionRequest<'_>, class: Option<&Value>) -> Result<(), ApiError> {
        let Some(class) = class.filter(|class| class["globalDefault"] == true) else { return Ok(()) };
        if !request.is("scheduling.k8s.io", "priorityclasses") {
            return Ok(());
        }
        self.objects.catch_up().await;
        let others = self.objects.look_up_all(CLASSES, "").into_iter();
        let mut others = others.filter(|other| api::object::name(other) != api::object::name(class));
        match others.find(|other| other["globalDefault"] == true) {
            Some(other) => Err(request.forbidden(&format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                api::object::name(&other)
            ))),
            None => Ok(()),
        }
    }
}

//! What is special about all custom resources alike.

use api::field::{FieldError, Touch};
use api::{Strategy, WriteContext};
use serde_json::Value;

use super::rules::Rules;

/// The strategy of custom resources.
pub(super) struct Custom {
    /// Whether status is a subresource.
    pub has_status: bool,
    /// The rules of the stored version's schema.
    pub rules: Option<Rules>,
}

impl Strategy for Custom {
    fn generation_grows(&self, new: &Value, old: &Value) -> bool {
        desired(new, self.has_status) != desired(old, self.has_status)
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        self.rules.as_ref().map(|rules| rules.check(object, None)).unwrap_or_default()
    }

    fn validate_update(&self, new: &Value, old: &Value, _context: &WriteContext) -> Vec<FieldError> {
        self.rules.as_ref().map(|rules| rules.check(new, Some(old))).unwrap_or_default()
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        if self.has_status {
            object.drop_field("status");
        }
    }
}

/// Everything but metadata and, where it is reported apart, status.
fn desired(object: &Value, has_status: bool) -> Vec<(&String, &Value)> {
    let fields = object.as_object().into_iter().flatten();
    fields.filter(|(name, _)| *name != "metadata" && !(has_status && *name == "status")).collect()
}

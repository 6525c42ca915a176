//! What is wrong with the expressions of a policy or of webhooks, when it is written.

use api::FieldError;
use api::field::{Errors, Look, Path, PathExt};
use cel::Type;
use serde_json::Value;

use super::conditions::Conditions;
use super::expressions::{Compiled, Offered};
use super::{policy, webhook};

/// The expressions of an object of a row that do not compile; none where they have not changed.
pub(crate) fn faults(row: &str, new: &Value, live: Option<&Value>) -> Vec<FieldError> {
    let is_changed = |field: &str| live.is_none_or(|live| live.get(field) != new.get(field));
    match row {
        policy::POLICIES if is_changed("spec") => of(policy::Policy::read(new).expressions()),
        webhook::MUTATING | webhook::VALIDATING if is_changed("webhooks") => {
            let offered = Offered::new(Type::Dyn, None).with_authorizer();
            let read = |(index, hook)| Conditions::read(hook, &format!("webhooks[{index}]."), &offered);
            let hooks = new.items("webhooks").iter().enumerate();
            hooks.flat_map(|hook| of(read(hook).expressions())).collect()
        }
        _ => Vec::new(),
    }
}

fn of<'a>(expressions: impl Iterator<Item = &'a Compiled>) -> Vec<FieldError> {
    let mut errors = Errors::new();
    // That there has to be one is said elsewhere.
    for expression in expressions.filter(|expression| !expression.source.trim().is_empty()) {
        if let Some(fault) = expression.fault() {
            errors.invalid(&Path::ROOT.field(&expression.place), expression.source.as_str(), fault);
        }
    }
    errors.into_vec()
}

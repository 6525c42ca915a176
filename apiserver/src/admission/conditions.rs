//! `matchConditions`: whether a webhook or a policy cares about a request that its rules cover.

use api::field::Look;
use cel::Type;
use serde_json::Value;

use super::expressions::{BUDGET_OF_CONDITIONS, Compiled, Evaluation, Fault, Found, Inputs, Offered};

/// Conditions, all of which have to hold.
#[derive(Debug)]
pub(super) struct Conditions(Vec<Compiled>);

impl Conditions {
    /// Those of a webhook or of a policy's specification, whose fields stand behind `place`.
    pub fn read(parent: &Value, place: &str, offered: &Offered) -> Self {
        let read = |(index, condition): (usize, &Value)| {
            Compiled::read(
                condition,
                &format!("{place}matchConditions[{index}]"),
                "expression",
                offered,
                &[Type::Bool],
            )
        };
        Self(parent.items("matchConditions").iter().enumerate().map(read).collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their expressions.
    pub fn expressions(&self) -> impl Iterator<Item = &Compiled> {
        self.0.iter()
    }

    /// Whether all hold. One that does not hold settles it, whatever has gone wrong with others; else the error tells
    /// what has.
    pub fn hold(&self, inputs: &Inputs<'_>) -> Result<bool, String> {
        let evaluation = Evaluation::new(inputs, None, BUDGET_OF_CONDITIONS);
        let mut faults = Vec::new();
        for condition in &self.0 {
            match evaluation.of(condition) {
                Ok(Found::Bool(false)) => return Ok(false),
                Ok(_) => {}
                Err(fault @ Fault::OutOfBudget) => return Err(fault.to_string()),
                Err(fault) => faults.push(fault.to_string()),
            }
        }
        match faults.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}

//! Values that are either a number or text: ports by name, amounts in percent.

use serde_json::Value;

use crate::{at::At, names};

/// The number before the percent sign.
pub fn as_percent(value: &Value) -> Option<i64> {
    let digits = value.as_str()?.strip_suffix('%')?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Whether the amount is nothing, as a number or in percent.
pub fn is_zero(value: &Value) -> bool {
    as_percent(value).or(value.as_i64()).unwrap_or_default() == 0
}

/// An amount that has to be a number from 0 or a percentage.
pub fn check_amount(amount: &At) {
    if amount.is_string() {
        amount.form(names::percent);
    }
    amount.within(0.., "must be greater than or equal to 0");
}

/// An amount of which a percentage may be at most 100.
pub fn check_not_above_all(amount: &At) {
    if as_percent(amount).is_some_and(|percent| percent > 100) {
        amount.invalid("must not be greater than 100%");
    }
}

/// A port by number or by name.
pub fn check_port(port: &At) {
    if port.is_string() { port.form(names::port_name) } else { port.port_number() }
}

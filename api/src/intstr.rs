//! Values that are either a number or text: ports by name, amounts in percent.

use serde_json::Value;

use crate::{
    field::{Errors, Path},
    names,
};

/// Why a value stands for no amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value for IntOrString: invalid type: {0}")]
pub struct AmountError(String);

/// The amount that a number or percentage of `total` stands for. Percentages are rounded as asked.
pub fn scaled_value(value: &Value, total: i64, round_up: bool) -> Result<i64, AmountError> {
    if let Some(number) = value.as_i64() {
        return Ok(number);
    }
    let Some(percent) = as_percent(value) else {
        return Err(AmountError(if value.is_string() {
            "string is not a percentage".to_string()
        } else {
            value.to_string()
        }));
    };
    let product = percent.saturating_mul(total);
    Ok(if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) })
}

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
pub fn validate_amount(errors: &mut Errors, path: &Path, value: &Value) {
    match value {
        Value::String(text) => errors.invalid_each(path, text, names::percent(text)),
        Value::Number(number) if number.as_i64().is_some_and(|n| n < 0) => {
            errors.invalid(path, value.clone(), "must be greater than or equal to 0");
        }
        _ => {}
    }
}

/// An amount of which a percentage may be at most 100.
pub fn validate_not_above_all(errors: &mut Errors, path: &Path, value: &Value) {
    if as_percent(value).is_some_and(|percent| percent > 100) {
        errors.invalid(path, value.clone(), "must not be greater than 100%");
    }
}

/// A port by number or by name.
pub fn validate_port(errors: &mut Errors, path: &Path, value: &Value) {
    match value {
        Value::String(name) => errors.invalid_each(path, name, names::port_name(name)),
        other => {
            if let Some(fault) = names::port_number(other.as_i64().unwrap_or_default()) {
                errors.invalid(path, other.clone(), fault);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn percentages_should_be_rounded_as_asked() {
        assert_eq!(scaled_value(&json!("25%"), 10, true), Ok(3));
        assert_eq!(scaled_value(&json!("25%"), 10, false), Ok(2));
        assert_eq!(scaled_value(&json!(4), 10, false), Ok(4));
        assert!(scaled_value(&json!("4"), 10, false).is_err());
    }
}

//! Values that are either a number or text: ports by name, amounts in percent.

use serde_json::Value;

use crate::{at::At, names};

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

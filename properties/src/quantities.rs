//! Quantities: writing and reading again gives the same amount, and amounts are ordered and added as numbers are.

use schema::quantity::{Quantity, canonicalize};
use serde_json::Value;

/// Quantities, separated by spaces.
pub fn all(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read: Vec<Quantity> = text.split(' ').filter_map(|word| word.parse().ok()).collect();
    for quantity in &read {
        one(*quantity);
    }
    for pair in read.windows(2) {
        two(pair[0], pair[1]);
    }
}

fn one(quantity: Quantity) {
    let text = quantity.to_string();
    let again: Quantity = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(again, quantity, "{text}");
    assert_eq!(again.to_string(), text, "canonical");
    let mut value = Value::from(text.as_str());
    canonicalize(&mut value);
    assert_eq!(value, *text, "what is canonical stays");
    assert_eq!(quantity.is_zero(), text == "0");
    assert_eq!(quantity.is_negative(), text.starts_with('-'), "{text}");
    let milli = i128::from(quantity.milli_value());
    if quantity.is_whole() && milli.abs() < i128::from(i64::MAX) {
        assert_eq!(milli, i128::from(quantity.value()) * 1000, "{text}");
    }
    // Rounding goes away from zero.
    assert!(
        i128::from(quantity.value()).abs() * 1000 >= milli.abs()
            || quantity.value().unsigned_abs() >= i64::MAX as u64
    );
}

fn two(left: Quantity, right: Quantity) {
    assert_eq!(left.cmp(&right), right.cmp(&left).reverse());
    assert_eq!(left < right, (right - left) > Quantity::default(), "{left} {right}");
    // Beyond what is kept sums are capped.
    let small = |quantity: Quantity| quantity.milli_value().unsigned_abs() < 1 << 61;
    if small(left) && small(right) {
        assert_eq!((left + right) - right, left, "{left} {right}");
        assert_eq!(left + right, right + left);
    }
}

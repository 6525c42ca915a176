//! Amounts as the API writes them, as whole numbers. Rounded up, as upstream does.
//!
//! Values that do not parse count as zero: the API server has refused them before they come here.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Whole units: bytes, pods.
pub fn units(quantity: &Quantity) -> i64 {
    i64::try_from(scaled(&quantity.0, 1).unwrap_or(0)).unwrap_or(i64::MAX)
}

/// Thousandths: CPU.
pub fn millis(quantity: &Quantity) -> i64 {
    i64::try_from(scaled(&quantity.0, 1000).unwrap_or(0)).unwrap_or(i64::MAX)
}

/// Whole units of what a user typed; None for nonsense.
pub fn parse(text: &str) -> Option<i128> {
    scaled(text, 1)
}

fn scaled(text: &str, factor: i128) -> Option<i128> {
    let text = text.trim();
    let split =
        text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (numerator, denominator) = decimal(number)?;
    let (times, over) = multiplier(suffix)?;
    let numerator = numerator.saturating_mul(times).saturating_mul(factor);
    let denominator = denominator.saturating_mul(over);
    let quotient = numerator.div_euclid(denominator);
    Some(if numerator.rem_euclid(denominator) == 0 { quotient } else { quotient + 1 })
}

fn decimal(number: &str) -> Option<(i128, i128)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let denominator = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let digits = format!("{whole}{fraction}");
    Some((digits.parse().ok()?, denominator))
}

fn multiplier(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1024_i128.pow(power), 1));
    let thousands = |power: u32| Some((1000_i128.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => thousands(1),
        "M" => thousands(2),
        "G" => thousands(3),
        "T" => thousands(4),
        "P" => thousands(5),
        "E" => thousands(6),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let size = 10_i128.checked_pow(power.unsigned_abs())?;
            Some(if power < 0 { (1, size) } else { (size, 1) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suffix_is_read_and_rounded_up() {
        let units = |text: &str| units(&Quantity(text.to_string()));
        let millis = |text: &str| millis(&Quantity(text.to_string()));
        assert_eq!(units("128Mi"), 128 << 20);
        assert_eq!(units("1.5Gi"), 3 << 29);
        assert_eq!(units("1e3"), 1000);
        assert_eq!(units("100m"), 1);
        assert_eq!(millis("250m"), 250);
        assert_eq!(millis("0.1"), 100);
        assert_eq!(millis("2"), 2000);
        assert_eq!(millis("1u"), 1);
        assert_eq!(units("rubbish"), 0);
    }
}

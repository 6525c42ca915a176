//! Amounts of resources: `500m`, `1.5Gi`, `2e3`.
//!
//! Guarantees: parsing, canonical text, comparison and rounding are upstream's `resource.Quantity`: nothing is finer
//! than a billionth, and what is asked for more finely is rounded up.
//! Assumes that amounts stay below 10^29; larger ones are capped there (upstream caps binary ones at 2^63-1, as this
//! does, and leaves decimal ones unbounded).

use std::{cmp::Ordering, fmt, str::FromStr};

use serde_json::Value;

const NANOS_PER_UNIT: i128 = 1_000_000_000;
const MILLI_IN_NANOS: i128 = 1_000_000;
const BINARY_MAX: i128 = (i64::MAX as i128) * NANOS_PER_UNIT;

/// How an amount is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySi,
    /// `12M`
    #[default]
    DecimalSi,
}

/// An amount of something.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// It does not look like one.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The digits are no number.
    #[error("unable to parse numeric part of quantity")]
    Number,
    /// The unit is unknown.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// So many whole units.
    pub fn new(value: i64, format: Format) -> Self {
        Self { nanos: i128::from(value) * NANOS_PER_UNIT, format }
    }

    /// So many thousandths.
    pub fn from_milli(value: i64) -> Self {
        Self { nanos: i128::from(value) * MILLI_IN_NANOS, format: Format::DecimalSi }
    }

    /// Reads a JSON value: text, or a number as YAML writers like it.
    pub fn from_json(value: &Value) -> Result<Self, QuantityError> {
        match value {
            Value::String(text) => text.parse(),
            Value::Number(number) => number.to_string().parse(),
            _ => Err(QuantityError::Format),
        }
    }

    /// Whole units, rounded up (away from zero).
    pub fn value(&self) -> i64 {
        clamp(divide_away(self.nanos, NANOS_PER_UNIT))
    }

    /// Thousandths, rounded up (away from zero).
    pub fn milli_value(&self) -> i64 {
        clamp(divide_away(self.nanos, MILLI_IN_NANOS))
    }

    /// How it is written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether it is less than nothing.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Whether it is a whole number of units.
    pub fn is_whole(&self) -> bool {
        self.nanos % NANOS_PER_UNIT == 0
    }

    /// Whether it is a whole number of thousandths.
    pub fn is_whole_milli(&self) -> bool {
        self.nanos % MILLI_IN_NANOS == 0
    }
}

/// Makes the text of a quantity canonical where it stands, as storing it upstream would; leaves what is no quantity.
pub fn canonicalize(value: &mut Value) {
    if let Ok(quantity) = Quantity::from_json(value) {
        let text = quantity.to_string();
        if value.as_str() != Some(&text) {
            *value = Value::String(text);
        }
    }
}

fn divide_away(value: i128, divisor: i128) -> i128 {
    let quotient = value / divisor;
    if value % divisor == 0 { quotient } else { quotient + value.signum() }
}

/// As much can be taken away as can be asked for.
fn capped(nanos: i128) -> i128 {
    nanos.max(-i128::MAX)
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (is_negative, unsigned) = match text.as_bytes() {
            [b'-', ..] => (true, text.get(1..).unwrap_or_default()),
            [b'+', ..] => (false, text.get(1..).unwrap_or_default()),
            _ => (false, text),
        };
        let number_length =
            unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(number_length);
        if number.is_empty() || !is_suffix_shaped(suffix) {
            return Err(QuantityError::Format);
        }
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') {
            return Err(QuantityError::Format);
        }
        if whole.is_empty() && fraction.is_empty() {
            return Err(QuantityError::Number);
        }
        let (base, exponent, mut format) = unit(suffix).ok_or(QuantityError::Suffix)?;
        let digits = || whole.bytes().chain(fraction.bytes());
        let mut nanos = scaled(digits(), fraction.len(), base, exponent);
        if format == Format::BinarySi {
            nanos = nanos.min(BINARY_MAX);
            if nanos > 0 && nanos < NANOS_PER_UNIT {
                // Less than one is never written in binary units.
                format = Format::DecimalSi;
            }
        }
        Ok(Self { nanos: if is_negative { -nanos } else { nanos }, format })
    }
}

/// Whether the text behind the digits can be a unit: letters, a sign, digits.
fn is_suffix_shaped(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    rest.bytes().all(|b| b.is_ascii_digit())
}

fn unit(suffix: &str) -> Option<(u32, i32, Format)> {
    let decimal = |exponent| Some((10, exponent, Format::DecimalSi));
    let binary = |exponent| Some((2, exponent, Format::BinarySi));
    match suffix {
        "" => decimal(0),
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?;
            Some((10, exponent, Format::DecimalExponent))
        }
    }
}

/// `digits / 10^fraction_length * base^exponent` in billionths, rounded up and capped.
fn scaled(digits: impl Iterator<Item = u8>, fraction_length: usize, base: u32, exponent: i32) -> i128 {
    let mut mantissa: i128 = 0;
    // Digits beyond what fits are counted, and whether any of them was not zero.
    let (mut dropped, mut has_rest) = (0_i32, false);
    for digit in digits {
        let grown = mantissa.checked_mul(10).and_then(|m| m.checked_add(i128::from(digit - b'0')));
        match grown {
            Some(value) if dropped == 0 => mantissa = value,
            _ => {
                dropped += 1;
                has_rest |= digit != b'0';
            }
        }
    }
    if mantissa == 0 {
        return 0;
    }
    let mut power_of_ten = 9 + dropped - i32::try_from(fraction_length).unwrap_or(i32::MAX / 2);
    if base == 2 {
        let factor = 1_i128 << exponent.clamp(0, 60);
        let Some(value) = mantissa.checked_mul(factor) else { return i128::MAX };
        mantissa = value;
    } else {
        power_of_ten = power_of_ten.saturating_add(exponent);
    }
    let factor = 10_i128.checked_pow(power_of_ten.unsigned_abs());
    match (power_of_ten >= 0, factor) {
        (true, Some(factor)) => mantissa.checked_mul(factor).unwrap_or(i128::MAX),
        (true, None) => i128::MAX,
        (false, Some(factor)) => {
            divide_away(mantissa, factor) + i128::from(has_rest && mantissa % factor == 0)
        }
        (false, None) => 1,
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return out.write_str("0");
        }
        let small = self.nanos.unsigned_abs() < 1024 * NANOS_PER_UNIT.unsigned_abs();
        if self.format == Format::BinarySi && !small && self.is_whole() {
            let mut value = self.nanos / NANOS_PER_UNIT;
            let mut step = 0;
            while value % 1024 == 0 && step < 6 {
                value /= 1024;
                step += 1;
            }
            let unit = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].get(step).copied().unwrap_or_default();
            return write!(out, "{value}{unit}");
        }
        let (mut value, mut exponent) = (self.nanos, -9_i32);
        while value % 1000 == 0 && exponent < 18 {
            value /= 1000;
            exponent += 3;
        }
        match (self.format, exponent) {
            (_, 0) => write!(out, "{value}"),
            (Format::DecimalExponent, exponent) => write!(out, "{value}e{exponent}"),
            (_, exponent) => {
                let index = usize::try_from((exponent + 9) / 3).unwrap_or_default();
                let unit = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"].get(index).copied();
                write!(out, "{value}{}", unit.unwrap_or_default())
            }
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl std::ops::Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: capped(self.nanos.saturating_add(other.nanos)), format }
    }
}

impl std::ops::Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: capped(self.nanos.saturating_sub(other.nanos)), format }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_should_become_canonical() {
        for (text, canonical) in [
            ("0", "0"),
            ("0m", "0"),
            ("1", "1"),
            ("0.5", "500m"),
            ("1500m", "1500m"),
            ("1.0", "1"),
            ("1000m", "1"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("100Mi", "100Mi"),
            ("1Ki", "1Ki"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("1.1Gi", "1181116006400m"),
            ("1048576Ki", "1Gi"),
            ("2.5M", "2500k"),
            ("1234567890", "1234567890"),
            ("-1.5", "-1500m"),
            ("12e6", "12e6"),
            ("12e5", "1200e3"),
            ("1e3", "1e3"),
            ("2E", "2E"),
            ("100k", "100k"),
            ("1.5k", "1500"),
            ("0.0000000001", "1n"),
            ("-0.5", "-500m"),
            ("+5", "5"),
            (".5", "500m"),
            ("5.", "5"),
            ("100Ei", "9223372036854775807"),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn bad_text_should_be_refused() {
        for (text, error) in [
            ("", QuantityError::Format),
            ("abc", QuantityError::Format),
            ("1.2.3", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            (".", QuantityError::Number),
            ("1Kib", QuantityError::Format),
            ("1mm", QuantityError::Suffix),
            ("1K", QuantityError::Suffix),
            ("1ki", QuantityError::Suffix),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn amounts_should_compare_and_add_across_formats() {
        let quantity = |text: &str| text.parse::<Quantity>().unwrap();
        assert_eq!(quantity("1000m"), quantity("1"));
        assert!(quantity("1Gi") > quantity("1G"));
        assert_eq!((quantity("0") + quantity("1Mi")).to_string(), "1Mi");
        assert_eq!((quantity("1500m") + quantity("500m")).to_string(), "2");
        assert_eq!((quantity("1Gi") - quantity("512Mi")).to_string(), "512Mi");
        assert_eq!((quantity("1500m").value(), quantity("1500m").milli_value()), (2, 1500));
        assert_eq!((quantity("-1500m").value(), quantity("1u").milli_value()), (-2, 1));
    }

    #[test]
    fn json_numbers_should_be_taken() {
        let mut value = serde_json::json!(0.5);
        canonicalize(&mut value);
        assert_eq!(value, "500m");
        let mut nonsense = serde_json::json!("soon");
        canonicalize(&mut nonsense);
        assert_eq!(nonsense, "soon");
    }
}

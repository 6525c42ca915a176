//! The texts that upstream's decoder reads as more than text: base64, times, quantities.
//!
//! Each function returns the canonical form, or nothing when the text is canonical already.

/// Standard base64 with padding, as Go reads it: line breaks are skipped.
pub(crate) fn canonical_base64(text: &str) -> Result<Option<String>, String> {
    let has_breaks = text.contains(['\r', '\n']);
    let joined;
    let clean = if has_breaks {
        joined = text.replace(['\r', '\n'], "");
        joined.as_str()
    } else {
        text
    };
    let corrupt = |at: usize| Err(format!("illegal base64 data at input byte {at}"));
    let digits = clean.trim_end_matches('=');
    let padding = clean.len() - digits.len();
    let is_digit = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
    if let Some(at) = digits.bytes().position(|b| !is_digit(b)) {
        return corrupt(at);
    }
    match (digits.len() % 4, padding) {
        (0, 0) | (2, 2) | (3, 1) => Ok(has_breaks.then(|| clean.to_string())),
        _ => corrupt(digits.len()),
    }
}

/// RFC 3339, in UTC, with that many digits after the second.
pub(crate) fn canonical_time(text: &str, digits: usize) -> Result<Option<String>, String> {
    let unreadable = || {
        format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\"")
    };
    let has_time = text.as_bytes().get(10) == Some(&b'T');
    let time: jiff::Timestamp = text.parse().ok().filter(|_| has_time).ok_or_else(unreadable)?;
    let whole = time.strftime("%Y-%m-%dT%H:%M:%S");
    let better =
        if digits == 0 { format!("{whole}Z") } else { format!("{whole}.{:06}Z", time.subsec_microsecond()) };
    Ok((better != text).then_some(better))
}

const QUANTITY_RULE: &str = "quantities must match the regular expression \
    '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// A quantity in upstream's canonical form: `0.5` is `500m`, `1024Mi` is `1Gi`, `1000` is `1k`.
pub(crate) fn canonical_quantity(text: &str) -> Result<Option<String>, String> {
    // Small whole numbers and the usual suffixed ones are most of what there is.
    let better = Quantity::parse(text).ok_or_else(|| QUANTITY_RULE.to_string())?.to_canonical();
    Ok((better != text).then_some(better))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Notation {
    Binary(u32),
    Suffix(i32),
    Exponent(i32),
}

/// `mantissa * 10^exponent`, times 1024 to the power of a binary suffix.
struct Quantity {
    mantissa: i128,
    exponent: i32,
    notation: Notation,
}

impl Quantity {
    fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, text.get(1..)?),
            b'+' => (false, text.get(1..)?),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let notation = notation(suffix)?;
        let mut mantissa: i128 = 0;
        for digit in whole.bytes().chain(fraction.bytes()) {
            mantissa = mantissa.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
        }
        let exponent = match notation {
            Notation::Suffix(e) | Notation::Exponent(e) => e,
            Notation::Binary(_) => 0,
        };
        let exponent = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
        Some(Self { mantissa: if negative { -mantissa } else { mantissa }, exponent, notation })
    }

    fn to_canonical(&self) -> String {
        if self.mantissa == 0 {
            return "0".to_string();
        }
        if let Notation::Binary(power) = self.notation
            && let Some(binary) = self.to_binary(power)
        {
            return binary;
        }
        self.to_decimal()
    }

    /// Nothing when it is too small to be written so.
    fn to_binary(&self, power: u32) -> Option<String> {
        let scaled = self.mantissa.checked_mul(1024_i128.checked_pow(power)?)?;
        let mut whole = match self.exponent {
            0 => scaled,
            negative => div_away(scaled, 10_i128.checked_pow(negative.unsigned_abs())?),
        };
        if whole.abs() < 1024 {
            return Some(whole.to_string());
        }
        let mut suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].into_iter().peekable();
        let mut suffix = suffixes.next().unwrap_or_default();
        while whole % 1024 == 0 && suffixes.peek().is_some() {
            whole /= 1024;
            suffix = suffixes.next().unwrap_or_default();
        }
        Some(format!("{whole}{suffix}"))
    }

    fn to_decimal(&self) -> String {
        let (mut mantissa, mut exponent) = (self.mantissa, self.exponent);
        while exponent < -9 {
            mantissa = div_away(mantissa, 10);
            exponent += 1;
        }
        while mantissa % 10 == 0 && mantissa != 0 {
            mantissa /= 10;
            exponent += 1;
        }
        while exponent.rem_euclid(3) != 0 || exponent > 18 {
            mantissa = mantissa.saturating_mul(10);
            exponent -= 1;
        }
        if let (Notation::Exponent(_), true) = (self.notation, exponent != 0) {
            return format!("{mantissa}e{exponent}");
        }
        let suffix = match exponent {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            18 => "E",
            _ => "",
        };
        format!("{mantissa}{suffix}")
    }
}

/// Division that rounds away from zero, as quantities do.
fn div_away(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by == 0 { quotient } else { quotient + value.signum() }
}

fn notation(suffix: &str) -> Option<Notation> {
    Some(match suffix {
        "" => Notation::Suffix(0),
        "n" => Notation::Suffix(-9),
        "u" => Notation::Suffix(-6),
        "m" => Notation::Suffix(-3),
        "k" => Notation::Suffix(3),
        "M" => Notation::Suffix(6),
        "G" => Notation::Suffix(9),
        "T" => Notation::Suffix(12),
        "P" => Notation::Suffix(15),
        "E" => Notation::Suffix(18),
        "Ki" => Notation::Binary(1),
        "Mi" => Notation::Binary(2),
        "Gi" => Notation::Binary(3),
        "Ti" => Notation::Binary(4),
        "Pi" => Notation::Binary(5),
        "Ei" => Notation::Binary(6),
        other => {
            let power: i32 = other.strip_prefix(['e', 'E'])?.parse().ok()?;
            Notation::Exponent(Some(power).filter(|p| p.abs() <= 36)?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_should_be_written_as_upstream_writes_them() {
        for (given, canonical) in [
            ("0.5", "500m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1000m", "1"),
            ("10000", "10k"),
            ("100m", "100m"),
            ("1500m", "1500m"),
            ("128Mi", "128Mi"),
            ("0", "0"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("12e6", "12e6"),
            ("1234567890", "1234567890"),
            ("0.0000000001", "1n"),
            ("-1.5", "-1500m"),
            ("+2", "2"),
            ("2.5M", "2500k"),
        ] {
            assert_eq!(Quantity::parse(given).unwrap().to_canonical(), canonical, "{given}");
        }
        for wrong in ["", "lots", "1.2.3", "1 Gi", "Gi", "1gi", "--1", "1e", "."] {
            assert!(canonical_quantity(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_should_be_in_utc_with_the_digits_of_their_kind() {
        assert_eq!(canonical_time("2026-01-02T03:04:05Z", 0), Ok(None));
        let better = canonical_time("2026-01-02T03:04:05.678+02:00", 0).unwrap();
        assert_eq!(better.as_deref(), Some("2026-01-02T01:04:05Z"));
        let better = canonical_time("2026-01-02T03:04:05.678Z", 6).unwrap();
        assert_eq!(better.as_deref(), Some("2026-01-02T03:04:05.678000Z"));
        assert_eq!(canonical_time("2026-01-02T03:04:05.678009Z", 6), Ok(None));
        assert!(canonical_time("yesterday", 0).is_err());
        assert!(canonical_time("", 0).is_err());
    }

    #[test]
    fn base64_should_be_checked_without_decoding() {
        assert_eq!(canonical_base64("YWJj"), Ok(None));
        assert_eq!(canonical_base64(""), Ok(None));
        assert_eq!(canonical_base64("YW\nI="), Ok(Some("YWI=".to_string())));
        assert_eq!(canonical_base64("not base64"), Err("illegal base64 data at input byte 3".to_string()));
        assert!(canonical_base64("YWJ").is_err());
    }
}

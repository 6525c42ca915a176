//! The texts that upstream's decoder reads as more than text: base64, times, quantities.
//!
//! Each function returns the canonical form, or nothing when the text is canonical already.

use crate::quantity::Quantity;

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

/// A quantity in upstream's canonical form: `0.5` is `500m`, `1024Mi` is `1Gi`, `1000` is `1k`.
pub(crate) fn canonical_quantity(text: &str) -> Result<Option<String>, String> {
    let better = text.parse::<Quantity>().map_err(|error| error.to_string())?.to_string();
    Ok((better != text).then_some(better))
}

#[cfg(test)]
mod tests {
    use super::*;

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

//! The little of DER that a certificate needs. Lengths are always definite and shortest, as DER demands.

use jiff::Timestamp;

/// What an element is.
#[derive(Clone, Copy)]
pub(crate) enum Tag {
    Boolean,
    Integer,
    BitString,
    OctetString,
    Oid,
    UtcTime,
    GeneralizedTime,
    Sequence,
    /// `[n]` around other elements.
    Context(u8),
    /// `[n]` around plain bytes.
    ContextPlain(u8),
}

impl Tag {
    fn byte(self) -> u8 {
        match self {
            Self::Boolean => 0x01,
            Self::Integer => 0x02,
            Self::BitString => 0x03,
            Self::OctetString => 0x04,
            Self::Oid => 0x06,
            Self::UtcTime => 0x17,
            Self::GeneralizedTime => 0x18,
            Self::Sequence => 0x30,
            Self::Context(number) => 0xa0 | number,
            Self::ContextPlain(number) => 0x80 | number,
        }
    }
}

/// An element with its contents.
pub(crate) fn wrap(tag: Tag, contents: &[u8]) -> Vec<u8> {
    let mut out = vec![tag.byte()];
    let length = contents.len().to_be_bytes();
    let significant: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    match significant.as_slice() {
        [] => out.push(0),
        [short] if *short < 0x80 => out.push(*short),
        long => {
            // At most eight bytes of length.
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(8));
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(contents);
    out
}

/// A time as certificates write it: with two digits of the year up to 2049, with four from then on.
pub(crate) fn time(at: Timestamp) -> Vec<u8> {
    let at = at.to_zoned(jiff::tz::TimeZone::UTC);
    if at.year() < 2050 {
        wrap(Tag::UtcTime, at.strftime("%y%m%d%H%M%SZ").to_string().as_bytes())
    } else {
        wrap(Tag::GeneralizedTime, at.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes())
    }
}

/// An extension of a certificate.
pub(crate) fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let mut parts = wrap(Tag::Oid, oid);
    if critical {
        parts.extend(wrap(Tag::Boolean, &[0xff]));
    }
    parts.extend(wrap(Tag::OctetString, value));
    wrap(Tag::Sequence, &parts)
}

/// Bytes as a PEM block.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in encoded.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_as_few_bytes_as_they_need() {
        assert_eq!(wrap(Tag::Sequence, &[]), [0x30, 0]);
        assert_eq!(wrap(Tag::OctetString, &[0; 127])[..2], [4, 127]);
        assert_eq!(wrap(Tag::OctetString, &[0; 128])[..3], [4, 0x81, 128]);
        assert_eq!(wrap(Tag::OctetString, &[0; 300])[..4], [4, 0x82, 1, 44]);
    }

    #[test]
    fn years_from_2050_on_are_written_in_full() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(&time(at("2026-01-02T03:04:05Z"))[2..], b"260102030405Z");
        assert_eq!(&time(at("2050-01-02T03:04:05Z"))[2..], b"20500102030405Z");
    }
}

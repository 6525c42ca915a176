//! Bodies: what is decoded is within the limits, and is the same when it is written and read again.

use schema::decode::{self, DecodeError, Decoded, Limits, depth};
use serde_json::Value;

use crate::protobuf;

/// Small ones, so that short inputs reach them.
const LIMITS: Limits = Limits { bytes_max: 1 << 16, depth_max: 20 };

pub fn json(data: &[u8]) {
    let decoded = decode::json(data, &LIMITS);
    check(data, &decoded);
    // Walking the fields takes whatever decoding takes.
    let fields = decode::fields_in_order(data);
    let Ok(Decoded { value, duplicates, .. }) = decoded else { return };
    assert_eq!(decode::json(value.to_string().as_bytes(), &LIMITS).unwrap().value, value);
    let known = serde_json::from_slice::<Value>(data).expect("whatever is decoded is JSON");
    assert_eq!(known, value, "of duplicate keys the last wins");
    if value.is_object() {
        assert!(fields.len() >= value.as_object().map_or(0, serde_json::Map::len) + duplicates.len().min(1));
    }
}

pub fn yaml(data: &[u8]) {
    let decoded = decode::yaml(data, &LIMITS);
    check(data, &decoded);
    if let Ok(Decoded { value, .. }) = decoded {
        // Aliases make more of little, within the parser's own bounds.
        let limits = Limits { bytes_max: 1 << 24, ..LIMITS };
        assert_eq!(decode::json(value.to_string().as_bytes(), &limits).unwrap().value, value);
    }
}

pub fn protobuf(data: &[u8]) {
    // The prefix is not for chance to find.
    let framed = [b"k8s\0", data].concat();
    for bytes in [data, &framed] {
        if let Ok(object) = protobuf::decode(bytes) {
            assert!(depth(&object) <= 100, "deeper than any other body may be");
            let read = serde_json::from_str::<Value>(&object.to_string()).unwrap();
            assert_eq!(read, object);
        }
    }
}

fn check(data: &[u8], decoded: &Result<Decoded, DecodeError>) {
    match decoded {
        Ok(decoded) => {
            assert!(depth(&decoded.value) <= LIMITS.depth_max);
            assert!(data.len() <= LIMITS.bytes_max && std::str::from_utf8(data).is_ok());
        }
        Err(DecodeError::NotUtf8 { at }) => assert!(*at < data.len()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

//! Kubernetes' protobuf bodies, as typed Go clients send them (`kubectl create serviceaccount`, `kubectl drain`, …), to
//! the JSON trees that the pipeline works on.
//!
//! One decoder walks a table of field numbers; there are no generated types. What comes out is what the Go client
//! would have sent as JSON: zero values of optional scalars are left out, inlined structures are merged into their
//! parents, quantities, times and int-or-strings have their text forms.
//!
//! Guarantees: no deeper trees than other bodies make, no panic on any input. Deliberately absent: answers in protobuf (clients that send it
//! accept JSON as well).

mod table;
mod wire;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schema::decode::{self, Limits};
use serde_json::{Map, Value};

use table::{Field, Message, Shape};
use wire::{Reader, Wire};

/// The media type.
pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";
/// Messages within each other, while they are read.
const DEPTH_MAX: usize = 100;

/// Bytes that are no object. The request has to change: 400.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtobufError {
    #[error("provided data does not appear to be a protobuf message, expected prefix {MAGIC:?}")]
    NoMagic,
    #[error("the message is cut off or malformed")]
    Malformed,
    #[error("the message is nested too deep")]
    TooDeep,
    #[error("no kind {kind:?} is registered for version {api_version:?} in protobuf")]
    UnknownKind { api_version: String, kind: String },
    #[error("the JSON in the message is malformed: {0}")]
    Json(String),
}

/// Decodes an object in its envelope.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let content = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::NoMagic)?;
    let envelope = Envelope::read(content)?;
    if envelope.content_type == "application/json" {
        return json(envelope.raw);
    }
    let unknown = || ProtobufError::UnknownKind {
        api_version: envelope.api_version.to_string(),
        kind: envelope.kind.to_string(),
    };
    let message = table::of_kind(envelope.api_version, envelope.kind).ok_or_else(unknown)?;
    let mut object = structure(message, envelope.raw, 0)?;
    object.insert("apiVersion".to_string(), envelope.api_version.into());
    object.insert("kind".to_string(), envelope.kind.into());
    let object = Value::Object(object);
    // A message can take more than one level of the tree.
    if decode::depth(&object) <= Limits::default().depth_max {
        Ok(object)
    } else {
        Err(ProtobufError::TooDeep)
    }
}

/// What is JSON within a message.
fn json(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let decoded = decode::json(bytes, &Limits::default());
    decoded.map(|decoded| decoded.value).map_err(|error| ProtobufError::Json(error.to_string()))
}

/// `runtime.Unknown`
#[derive(Default)]
struct Envelope<'a> {
    api_version: &'a str,
    kind: &'a str,
    raw: &'a [u8],
    content_type: &'a str,
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, ProtobufError> {
        let mut envelope = Self::default();
        let mut reader = Reader::new(bytes);
        while let Some((number, wire)) = reader.next()? {
            match (number, wire) {
                (1, Wire::Bytes(meta)) => {
                    let mut meta = Reader::new(meta);
                    while let Some((number, wire)) = meta.next()? {
                        match (number, wire) {
                            (1, Wire::Bytes(text)) => envelope.api_version = utf8(text)?,
                            (2, Wire::Bytes(text)) => envelope.kind = utf8(text)?,
                            _ => {}
                        }
                    }
                }
                (2, Wire::Bytes(raw)) => envelope.raw = raw,
                (4, Wire::Bytes(text)) => envelope.content_type = utf8(text)?,
                _ => {}
            }
        }
        Ok(envelope)
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, ProtobufError> {
    std::str::from_utf8(bytes).map_err(|_| ProtobufError::Malformed)
}

fn structure(message: &Message, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, ProtobufError> {
    if depth > DEPTH_MAX {
        return Err(ProtobufError::TooDeep);
    }
    let mut object = Map::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        let Some(field) = message.field(number) else { continue };
        read_field(field, &wire, &mut object, depth)?;
    }
    Ok(object)
}

fn read_field(
    field: &Field,
    wire: &Wire<'_>,
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let name = || field.name.to_string();
    match field.shape {
        Shape::One => {
            if let Some(value) = value(field, wire, depth)? {
                object.insert(name(), value);
            }
        }
        Shape::List => {
            let list = object.entry(name()).or_insert_with(|| Value::Array(Vec::new()));
            if let Some(list) = list.as_array_mut() {
                match (wire, field.is_number()) {
                    // Numbers may come packed.
                    (Wire::Bytes(packed), true) => {
                        let mut reader = Reader::new(packed);
                        while let Some(number) = reader.varint()? {
                            list.extend(value(field, &Wire::Varint(number), depth)?);
                        }
                    }
                    _ => list.extend(element(field, wire, depth)?),
                }
            }
        }
        Shape::Map => {
            let Wire::Bytes(entry) = wire else { return Err(ProtobufError::Malformed) };
            let (mut key, mut found) = ("", None);
            let mut reader = Reader::new(entry);
            while let Some((number, wire)) = reader.next()? {
                match (number, &wire) {
                    (1, Wire::Bytes(text)) => key = utf8(text)?,
                    (2, _) => found = element(field, &wire, depth)?,
                    _ => {}
                }
            }
            let map = object.entry(name()).or_insert_with(|| Value::Object(Map::new()));
            if let Some(map) = map.as_object_mut() {
                map.insert(key.to_string(), found.unwrap_or_else(|| field.zero()));
            }
        }
        Shape::Inline => {
            let (Wire::Bytes(bytes), Some(message)) = (wire, field.message()) else {
                return Err(ProtobufError::Malformed);
            };
            object.extend(structure(message, bytes, depth + 1)?);
        }
    }
    Ok(())
}

/// An element of a list or map: zero values count.
fn element(field: &Field, wire: &Wire<'_>, depth: usize) -> Result<Option<Value>, ProtobufError> {
    Ok(value(field, wire, depth)?.or_else(|| Some(field.zero())))
}

/// A single value; `None` where Go would leave it out.
fn value(field: &Field, wire: &Wire<'_>, depth: usize) -> Result<Option<Value>, ProtobufError> {
    let kept = |value: Value, is_zero: bool| (field.keeps_zero || !is_zero).then_some(value);
    Ok(match (field.kind.as_str(), wire) {
        ("s", Wire::Bytes(text)) => kept(utf8(text)?.into(), text.is_empty()),
        ("y", Wire::Bytes(bytes)) => kept(STANDARD.encode(bytes).into(), bytes.is_empty()),
        ("b", Wire::Varint(number)) => kept((*number != 0).into(), *number == 0),
        // Two's complement, as protobuf writes int32 and int64.
        ("i", Wire::Varint(number)) => kept((*number as i64).into(), *number == 0),
        ("d", Wire::Fixed64(bits)) => {
            let number = f64::from_bits(*bits);
            kept(serde_json::Number::from_f64(number).map_or(Value::Null, Value::Number), number == 0.0)
        }
        (_, Wire::Bytes(bytes)) => special(field, bytes, depth)?,
        _ => return Err(ProtobufError::Malformed),
    })
}

/// A message: those with a text form of their own, and all others.
fn special(field: &Field, bytes: &[u8], depth: usize) -> Result<Option<Value>, ProtobufError> {
    let message = field.message().ok_or(ProtobufError::Malformed)?;
    let inner = structure(message, bytes, depth + 1)?;
    let integer = |name: &str| inner.get(name).and_then(Value::as_i64).unwrap_or(0);
    let raw = || -> Result<Option<Value>, ProtobufError> {
        let Some(text) = inner.get("raw").and_then(Value::as_str) else { return Ok(None) };
        json(&STANDARD.decode(text).map_err(|_| ProtobufError::Malformed)?).map(Some)
    };
    Ok(match message.name.as_str() {
        "resource.Quantity" => Some(inner.get("string").cloned().unwrap_or_else(|| "0".into())),
        "meta.v1.Time" if bytes.is_empty() => None,
        "meta.v1.MicroTime" if bytes.is_empty() => None,
        "meta.v1.Time" => Some(time(integer("seconds"), 0, "%Y-%m-%dT%H:%M:%SZ")?),
        "meta.v1.MicroTime" => Some(time(integer("seconds"), integer("nanos"), "%Y-%m-%dT%H:%M:%S.%6fZ")?),
        "intstr.IntOrString" if integer("type") == 1 => {
            Some(inner.get("strVal").cloned().unwrap_or_else(|| "".into()))
        }
        "intstr.IntOrString" => Some(integer("intVal").into()),
        "runtime.RawExtension" | "meta.v1.FieldsV1" | "apiextensions.v1.JSON" => raw()?,
        "apiextensions.v1.JSONSchemaPropsOrBool" => match inner.get("schema") {
            Some(schema) => Some(schema.clone()),
            None => Some(inner.get("allows").cloned().unwrap_or(Value::Bool(false))),
        },
        "apiextensions.v1.JSONSchemaPropsOrArray" => {
            inner.get("schema").or_else(|| inner.get("jSONSchemas")).cloned()
        }
        "apiextensions.v1.JSONSchemaPropsOrStringArray" => {
            inner.get("schema").or_else(|| inner.get("property")).cloned()
        }
        "authentication.v1.ExtraValue"
        | "authorization.v1.ExtraValue"
        | "certificates.v1.ExtraValue"
        | "meta.v1.Verbs" => Some(inner.get("items").cloned().unwrap_or_else(|| Value::Array(Vec::new()))),
        _ => Some(Value::Object(inner)),
    })
}

fn time(seconds: i64, nanos: i64, format: &str) -> Result<Value, ProtobufError> {
    let nanos = i32::try_from(nanos).map_err(|_| ProtobufError::Malformed)?;
    let at = jiff::Timestamp::new(seconds, nanos).map_err(|_| ProtobufError::Malformed)?;
    Ok(at.strftime(format).to_string().into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bytes(number: u64, content: &[u8]) -> Vec<u8> {
        let mut out = vec![(number << 3 | 2) as u8, content.len() as u8];
        out.extend_from_slice(content);
        out
    }

    fn varint(number: u64, value: u8) -> Vec<u8> {
        vec![(number << 3) as u8, value]
    }

    fn enveloped(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), bytes(1, &meta), bytes(2, raw)].concat()
    }

    #[test]
    fn a_body_should_become_what_the_client_would_have_sent_as_json() {
        // A service with a name, empty text that Go leaves out, a port with an int-or-string, and a label.
        let metadata =
            [bytes(1, b"web"), bytes(2, b""), bytes(11, &[bytes(1, b"app"), bytes(2, b"x")].concat())];
        let port = [varint(3, 80), bytes(4, &[varint(1, 1), bytes(3, b"http")].concat()), varint(5, 0)];
        let raw = [bytes(1, &metadata.concat()), bytes(2, &bytes(1, &port.concat()))].concat();
        assert_eq!(
            decode(&enveloped("v1", "Service", &raw)).unwrap(),
            json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "web", "labels": {"app": "x"}},
                "spec": {"ports": [{"port": 80, "targetPort": "http"}]}})
        );
    }

    #[test]
    fn inlined_structures_should_be_part_of_their_parents() {
        let volume = [bytes(1, b"v"), bytes(2, &bytes(2, b""))].concat();
        let raw = bytes(2, &bytes(1, &volume));
        let pod = decode(&enveloped("v1", "Pod", &raw)).unwrap();
        assert_eq!(pod["spec"]["volumes"], json!([{"name": "v", "emptyDir": {}}]));
    }

    #[test]
    fn broken_bodies_should_be_refused() {
        assert_eq!(decode(b"{}"), Err(ProtobufError::NoMagic));
        assert_eq!(decode(b"k8s\0\x0a\xff"), Err(ProtobufError::Malformed));
        assert!(matches!(decode(&enveloped("v1", "Nothing", b"")), Err(ProtobufError::UnknownKind { .. })));
    }
}

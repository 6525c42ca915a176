//! Bytes to trees: content types, syntax, and whether the object is of the kind that the path says.

use api::{ApiError, Reason};
use http::HeaderMap;
use schema::conform;
use schema::decode::{self, DecodeError, Decoded, Limits};
use serde_json::Value;

use super::content_type;
use crate::protobuf::{self, PROTOBUF};

/// Decodes the object of a write.
pub(crate) fn object(headers: &HeaderMap, bytes: &[u8]) -> Result<Decoded, ApiError> {
    let decoded = match content_type(headers) {
        "" | "application/json" | "*/*" => decode::json(bytes, &Limits::default()),
        "application/yaml" => decode::yaml(bytes, &Limits::default()),
        PROTOBUF => {
            let value = protobuf::decode(bytes).map_err(|error| ApiError::bad_request(error.to_string()))?;
            return Ok(Decoded { value, ..Decoded::default() });
        }
        _ => return Err(unsupported(&format!("application/json, application/yaml, {PROTOBUF}"))),
    };
    let decoded = decoded.map_err(|error| decode_error(&error))?;
    if decoded.value.is_object() {
        Ok(decoded)
    } else {
        Err(ApiError::bad_request(
            "the object provided is unrecognized (must be an object with apiVersion and kind)",
        ))
    }
}

/// Decodes the options of a deletion, which may be absent. Every group has a kind of that name, all of them the same.
pub(crate) fn deletion(headers: &HeaderMap, bytes: &[u8]) -> Result<Option<Value>, ApiError> {
    const KIND: &str = "DeleteOptions";
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let mut options = object(headers, bytes)?.value;
    let api_version = options.get("apiVersion").and_then(Value::as_str).unwrap_or("v1").to_string();
    check_kind(&mut options, &api_version, KIND)?;
    if let Some(schema) = api::schemas::for_kind("", "v1", KIND) {
        conform::conform(&schema, &mut options).map_err(|error| {
            ApiError::bad_request(format!("{KIND} in version \"v1\" cannot be handled as a {KIND}: {error}"))
        })?;
    }
    Ok(Some(options))
}

/// Decodes a JSON patch or merge patch.
pub(crate) fn patch(bytes: &[u8]) -> Result<Decoded, ApiError> {
    decode::json(bytes, &Limits::default()).map_err(|error| decode_error(&error))
}

/// Decodes what is applied: YAML, of which JSON is a part.
pub(crate) fn applied(bytes: &[u8]) -> Result<Decoded, ApiError> {
    let decoded = decode::yaml(bytes, &Limits::default()).map_err(|error| match error {
        DecodeError::Syntax { .. } => ApiError::bad_request(format!("error decoding YAML: {error}")),
        other => decode_error(&other),
    })?;
    if decoded.value.is_object() {
        return Ok(decoded);
    }
    Err(ApiError::bad_request("error decoding YAML: the patch is not an object"))
}

/// 415 in upstream's words.
pub(crate) fn unsupported(accepted: &str) -> ApiError {
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {accepted}"
    );
    ApiError::new(Reason::UnsupportedMediaType, message)
}

fn decode_error(error: &DecodeError) -> ApiError {
    match error {
        DecodeError::TooLarge { .. } => {
            ApiError::new(Reason::RequestEntityTooLarge, format!("Request entity too large: {error}"))
        }
        other => ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type JSON or YAML): {other}"
        )),
    }
}

/// Checks that an object is of the kind the path says; what it leaves out is filled in.
pub(crate) fn check_kind(object: &mut Value, api_version: &str, kind: &str) -> Result<(), ApiError> {
    for (field, expected) in [("apiVersion", api_version), ("kind", kind)] {
        match object.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if text.is_empty() || text == expected => {}
            Some(Value::String(text)) if field == "apiVersion" => {
                return Err(ApiError::bad_request(format!(
                    "the API version in the data ({text}) does not match the expected API version ({expected})"
                )));
            }
            Some(Value::String(text)) => {
                return Err(ApiError::bad_request(format!(
                    "the kind in the data ({text}) does not match the expected kind ({expected})"
                )));
            }
            Some(_) => {
                return Err(ApiError::bad_request(format!(
                    "couldn't get version/kind; {field} must be a string"
                )));
            }
        }
        if let Some(map) = object.as_object_mut() {
            map.insert(field.to_string(), expected.into());
        }
    }
    Ok(())
}

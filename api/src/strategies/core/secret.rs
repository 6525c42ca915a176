//! Secrets. Messages never hold their contents.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{
    super::common::immutable,
    config_map::{BYTES_MAX, decoded_length, frozen},
};
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt, Touch},
    names,
};

const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const REDACTED: &str = "<secret contents redacted>";

/// What is special about secrets.
pub struct Secret;

impl Strategy for Secret {
    fn set_defaults(&self, object: &mut Value) {
        object.default_text("type", "Opaque");
        // What was written as text is kept as bytes, and overrules.
        let Some(Value::Object(texts)) = object.get_mut("stringData").map(Value::take) else {
            object.drop_field("stringData");
            return;
        };
        object.drop_field("stringData");
        if texts.is_empty() {
            return;
        }
        let Some(data) = object.object_mut("data") else { return };
        for (key, text) in texts {
            data.put(&key, STANDARD.encode(text.as_str().unwrap_or_default()));
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("data");
        let mut bytes = 0;
        for (key, value) in object.entries("data") {
            errors.invalid_each(&path.key(key), key, names::config_map_key(key));
            bytes += decoded_length(value);
        }
        if bytes > BYTES_MAX {
            errors.too_long(&path, BYTES_MAX);
        }
        contents(&mut errors, &path, object);
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, _context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        immutable(&mut errors, &Path::ROOT, new, old, &["type"]);
        frozen(&mut errors, new, old, &["data"]);
        errors.into_vec()
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(Cow<'static, str>, String)> {
        vec![("type".into(), object.text("type").to_string())]
    }
}

/// What the type of a secret says must be in it.
fn contents(errors: &mut Errors, path: &Path, object: &Value) {
    let data = object.get("data").unwrap_or(&Value::Null);
    let has = |key: &str| data.get(key).is_some();
    match object.text("type") {
        "kubernetes.io/service-account-token" => {
            let account = object.dig(&["metadata", "annotations", ACCOUNT_NAME]).and_then(Value::as_str);
            if account.is_none_or(str::is_empty) {
                errors.required(&Path::ROOT.field("metadata.annotations").key(ACCOUNT_NAME), "");
            }
        }
        "kubernetes.io/dockercfg" => json_object(errors, path, data, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => json_object(errors, path, data, ".dockerconfigjson"),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            errors.required(&path.key("username"), "");
            errors.required(&path.key("password"), "");
        }
        "kubernetes.io/ssh-auth" if data.text("ssh-privatekey").is_empty() => {
            errors.required(&path.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"].into_iter().filter(|key| !has(key)) {
                errors.required(&path.key(key), "");
            }
        }
        _ => {}
    }
}

fn json_object(errors: &mut Errors, path: &Path, data: &Value, key: &str) {
    let Some(encoded) = data.get(key).and_then(Value::as_str) else {
        return errors.required(&path.key(key), "");
    };
    let bytes = STANDARD.decode(encoded).unwrap_or_default();
    if let Err(why) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes) {
        // The position is safe to tell, the text around it is not.
        let detail = format!("invalid JSON at line {} column {}", why.line(), why.column());
        errors.invalid(&path.key(key), REDACTED, detail);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_should_become_bytes_and_overrule() {
        let mut secret = json!({"data": {"a": "eA==", "b": "eQ=="}, "stringData": {"a": "new"}});
        Secret.set_defaults(&mut secret);
        assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "bmV3", "b": "eQ=="}}));
    }

    #[test]
    fn contents_should_not_be_told() {
        let secret = json!({"type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": STANDARD.encode("{\"password\": hunter2}")}});
        let errors = Secret.validate(&secret);
        assert_eq!(errors.len(), 1);
        assert!(!errors[0].message.contains("hunter2"), "{}", errors[0].message);
    }
}

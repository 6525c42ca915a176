//! Secrets. Messages never hold their contents.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::config_map::{BYTES_MAX, check_bytes, frozen};
use crate::{
    Strategy, WriteContext,
    at::At,
    field::{Look, Touch},
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

    fn check(&self, object: &At) {
        let data = object.field("data");
        if check_bytes(&data) > BYTES_MAX {
            data.too_long(BYTES_MAX);
        }
        check_contents(object, &data);
    }

    fn check_update(&self, new: &At, old: &Value, _context: &WriteContext) {
        new.fixed(old, &["type"]);
        frozen(new, old, &["data"]);
    }
}

/// What the type of a secret says must be in it.
fn check_contents(object: &At, data: &At) {
    let has = |key: &str| data.get(key).is_some();
    match object.text("type") {
        "kubernetes.io/service-account-token" => {
            object.field("metadata.annotations").key(ACCOUNT_NAME).filled("");
        }
        "kubernetes.io/dockercfg" => check_json(&data.key(".dockercfg")),
        "kubernetes.io/dockerconfigjson" => check_json(&data.key(".dockerconfigjson")),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            data.key("username").required("");
            data.key("password").required("");
        }
        "kubernetes.io/ssh-auth" => data.key("ssh-privatekey").filled(""),
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"].into_iter().filter(|key| !has(key)) {
                data.key(key).required("");
            }
        }
        _ => {}
    }
}

fn check_json(encoded: &At) {
    if !encoded.is_string() {
        return encoded.required("");
    }
    let bytes = STANDARD.decode(encoded.str()).unwrap_or_default();
    if let Err(why) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes) {
        // The position is safe to tell, the text around it is not.
        let detail = format!("invalid JSON at line {} column {}", why.line(), why.column());
        encoded.invalid_value(REDACTED, detail);
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

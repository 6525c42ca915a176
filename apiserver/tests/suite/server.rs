//! Objects that tests make, and what they look at in them.

use serde_json::{Value, json};
pub use testbed::{Answer, TestServer};

pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub fn config_map(name: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"key": "value"}})
}

/// Makes config maps with these names.
pub async fn make_config_maps(test: &TestServer, names: impl IntoIterator<Item = &str>) {
    for name in names {
        test.post(CONFIG_MAPS, &config_map(name)).await.expect(201);
    }
}

pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

pub fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

pub fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(name).collect()
}

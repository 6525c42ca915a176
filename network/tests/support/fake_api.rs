//! An API server in memory, just enough for informers: list and watch of a few kinds.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;

type Frame = http_body::Frame<bytes::Bytes>;
type AnyBody = UnsyncBoxBody<bytes::Bytes, Infallible>;

/// Objects by resource (such as `nodes`) and then by namespace and name. Shared between hosts and threads.
#[derive(Clone)]
pub struct FakeApi {
    inner: Arc<Inner>,
}

struct Inner {
    objects: Mutex<Objects>,
    events: broadcast::Sender<(String, Value)>,
}

#[derive(Default)]
struct Objects {
    version: u64,
    by_resource: BTreeMap<String, BTreeMap<String, Value>>,
}

impl FakeApi {
    pub fn new() -> Self {
        let events = broadcast::channel(100_000).0;
        Self { inner: Arc::new(Inner { objects: Mutex::default(), events }) }
    }

    /// Creates or updates an object.
    pub fn put(&self, resource: &str, object: &impl serde::Serialize) {
        let mut object = serde_json::to_value(object).unwrap();
        let mut objects = self.inner.objects.lock();
        objects.version += 1;
        object["metadata"]["resourceVersion"] = json!(objects.version.to_string());
        let name = key(&object);
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(name);
        }
        let old = objects.by_resource.entry(resource.to_owned()).or_default().insert(name, object.clone());
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        let event = (resource.to_owned(), json!({ "type": kind, "object": object }));
        let _nobody_listens = self.inner.events.send(event);
    }

    /// Deletes an object.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) {
        let mut objects = self.inner.objects.lock();
        objects.version += 1;
        let gone =
            objects.by_resource.get_mut(resource).and_then(|o| o.remove(&format!("{namespace}/{name}")));
        if let Some(object) = gone {
            let event = (resource.to_owned(), json!({ "type": "DELETED", "object": object }));
            let _nobody_listens = self.inner.events.send(event);
        }
    }

    /// A client for it, to be made in the runtime that uses it.
    pub fn client(&self) -> kube::Client {
        let inner = self.inner.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let inner = inner.clone();
            async move { Ok::<_, Infallible>(answer(&inner, request.uri())) }
        });
        kube::Client::new(service, "default")
    }
}

fn key(object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text("namespace"), text("name"))
}

fn answer(inner: &Inner, uri: &http::Uri) -> http::Response<AnyBody> {
    let resource = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    let is_watch = uri.query().unwrap_or_default().contains("watch=true");
    let objects = inner.objects.lock();
    let body = if is_watch {
        let since =
            uri.query().unwrap_or_default().split('&').find_map(|p| p.strip_prefix("resourceVersion="));
        let since: u64 = since.and_then(|v| v.parse().ok()).unwrap_or(0);
        let missed: Vec<Value> =
            objects.by_resource.get(&resource).into_iter().flat_map(BTreeMap::values).cloned().collect();
        let newer = move |o: &Value| {
            o["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok()).unwrap_or(0) > since
        };
        let missed =
            missed.into_iter().filter(newer).map(|object| json!({ "type": "ADDED", "object": object }));
        let missed: Vec<Value> = missed.collect();
        StreamBody::new(events(missed, inner.events.subscribe(), resource)).boxed_unsync()
    } else {
        let items: Vec<&Value> =
            objects.by_resource.get(&resource).into_iter().flat_map(BTreeMap::values).collect();
        let version = objects.version.to_string();
        let list = json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": version }, "items": items });
        Full::from(list.to_string()).boxed_unsync()
    };
    http::Response::builder().header("content-type", "application/json").body(body).unwrap()
}

fn events(
    missed: Vec<Value>,
    receiver: broadcast::Receiver<(String, Value)>,
    resource: String,
) -> impl Stream<Item = Result<Frame, Infallible>> {
    let live = futures::stream::unfold((receiver, resource), |(mut receiver, resource)| async move {
        loop {
            let (of, event) = receiver.recv().await.ok()?;
            if of == resource {
                return Some((event, (receiver, resource)));
            }
        }
    });
    futures::stream::iter(missed).chain(live).map(|event| Ok(Frame::data(format!("{event}\n").into())))
}

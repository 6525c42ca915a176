//! Somebody who sends requests to an API server, and what they hear.

use std::time::Duration;

use futures::io::{AsyncBufReadExt, Lines};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

/// Somebody who sends requests.
#[derive(Clone)]
pub struct Caller {
    /// How they reach the server.
    pub client: kube::Client,
    headers: Vec<(String, String)>,
}

/// What a request answered.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// The body: as JSON where it is, else as a text.
    pub body: Value,
    /// What the server said though it did as it was told.
    pub warnings: Vec<String>,
    /// All headers.
    pub headers: http::HeaderMap,
}

impl Answer {
    /// The body of an answer that must have this code.
    #[track_caller]
    pub fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{:#}", self.body);
        self.body
    }

    /// The message of a refusal.
    #[track_caller]
    pub fn refused(self) -> String {
        self.expect(403)["message"].as_str().unwrap().to_string()
    }
}

impl Caller {
    /// Somebody who sends through this client.
    pub fn new(client: kube::Client) -> Self {
        Self { client, headers: Vec::new() }
    }

    /// The same caller with one more header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_string(), value.to_string()));
        self
    }

    /// Sends a request and hears its answer.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        let mut request =
            http::Request::builder().method(method).uri(path).header("content-type", content_type);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(kube::client::Body::from(body.into())).unwrap();
        let response = self.client.send(request).await.unwrap();
        let code = response.status().as_u16();
        let headers = response.headers().clone();
        let warnings = headers.get_all("warning").iter();
        let warnings = warnings.map(|value| value.to_str().unwrap().to_string()).collect();
        let bytes = response.into_body().collect_bytes().await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into());
        Answer { code, body, warnings, headers }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "application/json", "").await
    }

    /// POST.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, "application/json", body.to_string()).await
    }

    /// PUT.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, "application/json", body.to_string()).await
    }

    /// A merge patch.
    pub async fn merge(&self, path: &str, body: &Value) -> Answer {
        self.send("PATCH", path, "application/merge-patch+json", body.to_string()).await
    }

    /// Server-side apply as a manager.
    pub async fn apply(&self, path: &str, manager: &str, body: &Value) -> Answer {
        let path = format!("{path}{}fieldManager={manager}", if path.contains('?') { '&' } else { '?' });
        self.send("PATCH", &path, "application/apply-patch+yaml", body.to_string()).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, "application/json", "").await
    }

    /// The status of a GET, of whose body nothing is read.
    pub async fn status(&self, path: &str) -> u16 {
        let request = http::Request::get(path).body(kube::client::Body::empty()).unwrap();
        self.client.send(request).await.unwrap().status().as_u16()
    }

    /// Whether the caller may do something, asked as kubectl asks: `get pods/log -n team` is `("get", "pods/log", "team")`,
    /// a group goes before the resource as in `apps:deployments`, a name behind it as in `pods=web`.
    pub async fn may(&self, verb: &str, what: &str, namespace: &str) -> bool {
        let (group, rest) = what.split_once(':').unwrap_or(("", what));
        let (resource, name) = rest.split_once('=').unwrap_or((rest, ""));
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let review = json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": {
            "resourceAttributes": {"verb": verb, "group": group, "resource": resource, "subresource": subresource,
                "namespace": namespace, "name": name}}});
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        self.post(path, &review).await.expect(201)["status"]["allowed"] == true
    }

    /// Starts a watch.
    pub async fn watch(&self, path: &str) -> Watch {
        let request = http::Request::get(path).body(kube::client::Body::empty()).unwrap();
        let response = self.client.send(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let stream = http_body_util::BodyDataStream::new(response.into_body()).map_err(std::io::Error::other);
        let reader: Reader = Box::pin(stream.into_async_read());
        Watch { lines: futures::io::BufReader::new(reader).lines() }
    }
}

type Reader = std::pin::Pin<Box<dyn futures::io::AsyncRead + Send>>;

/// A watch that goes on.
pub struct Watch {
    lines: Lines<futures::io::BufReader<Reader>>,
}

impl Watch {
    /// The next event as its type and object; `None` at the end.
    pub async fn next(&mut self) -> Option<(String, Value)> {
        let line = tokio::time::timeout(Duration::from_secs(60), self.lines.next()).await;
        let line = line.expect("an event within a minute")?.unwrap();
        let mut event: Value = serde_json::from_str(&line).unwrap();
        Some((event["type"].as_str().unwrap().to_string(), event["object"].take()))
    }

    /// The next event as its type and the object's name.
    pub async fn next_name(&mut self) -> (String, String) {
        let (kind, object) = self.next().await.expect("an event");
        (kind, object["metadata"]["name"].as_str().unwrap().to_string())
    }
}

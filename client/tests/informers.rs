//! Informers against a scripted server: every request is answered by the next step of its script.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use client::{Change, Changes, Informers, Scope};
use futures::channel::mpsc;
use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

enum Step {
    /// A list, as JSON.
    List(Value),
    /// A watch: these lines, then open for ever or closed.
    Watch {
        lines: Vec<Value>,
        open: bool,
    },
    Fail(u16),
}

#[derive(Clone, Default)]
struct Script {
    steps: Arc<Mutex<VecDeque<Step>>>,
    requests: Arc<Mutex<Vec<String>>>,
    /// Watches left open; dropping the client ends them.
    open: Arc<Mutex<Vec<mpsc::UnboundedSender<Bytes>>>>,
}

impl Script {
    fn new(steps: Vec<Step>) -> Self {
        Self { steps: Arc::new(Mutex::new(steps.into())), ..Self::default() }
    }

    fn client(&self) -> kube::Client {
        let script = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let answer = script.answer(&request);
            async move { Ok::<_, Infallible>(answer) }
        });
        kube::Client::new(service, "default")
    }

    fn answer(&self, request: &Request<Body>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        self.requests.lock().unwrap().push(request.uri().to_string());
        let step = self.steps.lock().unwrap().pop_front();
        let (code, body) = match step {
            Some(Step::List(list)) => (200, whole(&list)),
            Some(Step::Watch { lines, open }) => (200, self.watch(lines, open)),
            Some(Step::Fail(code)) => {
                let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": "X", "message": "no"});
                (code, whole(&status))
            }
            None => (200, self.watch(Vec::new(), true)),
        };
        Response::builder().status(code).body(body).unwrap()
    }

    fn watch(&self, lines: Vec<Value>, open: bool) -> UnsyncBoxBody<Bytes, Infallible> {
        let (sender, receiver) = mpsc::unbounded();
        if open {
            self.open.lock().unwrap().push(sender);
        }
        let first = lines.into_iter().map(|line| Bytes::from(format!("{line}\n")));
        let all = stream::iter(first.collect::<Vec<_>>()).chain(receiver);
        StreamBody::new(all.map(|bytes| Ok(Frame::data(bytes)))).boxed_unsync()
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn whole(value: &Value) -> UnsyncBoxBody<Bytes, Infallible> {
    http_body_util::Full::new(Bytes::from(value.to_string())).boxed_unsync()
}

fn object(name: &str, version: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "name": name, "namespace": "default", "uid": name, "resourceVersion": version, "managedFields": [{"manager": "m"}]}})
}

fn list(objects: &[Value], version: &str, next: Option<&str>) -> Step {
    Step::List(json!({"apiVersion": "v1", "kind": "ConfigMapList", "items": objects,
        "metadata": {"resourceVersion": version, "continue": next}}))
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

async fn next(changes: &mut Changes<ConfigMap>) -> String {
    describe(&tokio::time::timeout(Duration::from_secs(60), changes.next()).await.unwrap().unwrap())
}

fn describe(change: &Change<ConfigMap>) -> String {
    let kind = match change {
        Change::Added(_) => "added",
        Change::Modified { .. } => "modified",
        Change::Deleted(_) => "deleted",
    };
    format!("{kind} {}", change.object().metadata.name.as_deref().unwrap())
}

fn informers(script: &Script) -> Informers {
    Informers::new(script.client(), CancellationToken::new())
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_while_nobody_watched_is_reported_after_the_next_list() {
    let gone = json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"});
    let script = Script::new(vec![
        list(&[object("a", "1"), object("b", "2")], "10", None),
        Step::Watch { lines: vec![event("ADDED", object("c", "11")), event("ERROR", gone)], open: true },
        list(&[object("a", "15"), object("c", "11")], "20", None),
    ]);
    let informer = informers(&script).get::<ConfigMap>(Scope::all());
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let record = seen.clone();
    informer.on_change(move |change| record.lock().unwrap().push(describe(change)));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(*seen.lock().unwrap(), ["added a", "added b", "added c", "deleted b", "modified a"]);
    assert_eq!(informer.len(), 2);
    let kept = informer.get("default", "a").unwrap();
    assert!(kept.metadata.managed_fields.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_resumes_at_its_last_bookmark() {
    let bookmark = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion": "15"}});
    let script = Script::new(vec![
        list(&[object("a", "1")], "10", None),
        Step::Watch { lines: vec![event("BOOKMARK", bookmark)], open: false },
        Step::Fail(503),
        Step::Watch { lines: vec![event("MODIFIED", object("a", "16"))], open: true },
    ]);
    let informer = informers(&script).get::<ConfigMap>(Scope::namespace("default").labels("x=y"));
    let mut changes = informer.subscribe();
    assert_eq!(next(&mut changes).await, "added a");
    assert_eq!(next(&mut changes).await, "modified a");
    let requests = script.requests();
    assert!(requests[0].starts_with("/api/v1/namespaces/default/configmaps?"), "{}", requests[0]);
    assert!(requests.iter().all(|request| request.contains("labelSelector=x%3Dy")));
    assert!(requests[1].contains("resourceVersion=10") && requests[1].contains("allowWatchBookmarks=true"));
    assert!(requests[2].contains("resourceVersion=15") && requests[3].contains("resourceVersion=15"));
}

#[tokio::test(start_paused = true)]
async fn long_lists_are_read_page_by_page_and_taken_over_as_one() {
    let script = Script::new(vec![
        list(&[object("a", "1")], "10", Some("next")),
        Step::Fail(500),
        list(&[object("a", "1")], "12", Some("next")),
        list(&[object("b", "2")], "12", None),
    ]);
    let informer = informers(&script).get::<ConfigMap>(Scope::all());
    assert!(!informer.is_synced());
    assert!(informer.synced().await);
    assert_eq!(informer.len(), 2);
    assert!(script.requests()[3].contains("continue=next"));
}

#[tokio::test(start_paused = true)]
async fn readers_of_one_scope_share_one_watch_which_ends_with_the_last_of_them() {
    let script = Script::new(vec![list(&[object("a", "1")], "10", None)]);
    let informers = informers(&script);
    let (first, second) =
        (informers.get::<ConfigMap>(Scope::all()), informers.get::<ConfigMap>(Scope::all()));
    assert!(first.synced().await && second.synced().await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(script.requests().len(), 2, "one list and one watch");
    assert!(!script.open.lock().unwrap()[0].is_closed());
    drop(first);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!script.open.lock().unwrap()[0].is_closed());
    drop(second);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(script.open.lock().unwrap()[0].is_closed(), "nobody reads any longer");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_does_not_decode_is_skipped() {
    let broken = json!({"type": "ADDED", "object": {"metadata": {"name": 7}}});
    let script = Script::new(vec![
        list(&[], "10", None),
        Step::Watch { lines: vec![broken, event("ADDED", object("fine", "12"))], open: true },
    ]);
    let informer = informers(&script).get::<ConfigMap>(Scope::all());
    let mut changes = informer.subscribe();
    assert_eq!(next(&mut changes).await, "added fine");
}

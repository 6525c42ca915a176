//! Records what happened to objects, as core/v1 Events, where `kubectl describe` and `kubectl get events` show it.
//!
//! Recording never blocks and never fails for the caller: events go through a bounded queue to one task; when it is
//! full they are dropped and counted in the log. Repetitions raise the count of one event; more than ten different
//! messages of one kind about one object within ten minutes become one combined event; and one object gets at most
//! 25 events in a burst, then one in five minutes per source (upstream's figures). Deliberately absent: events.k8s.io series.

use std::fmt::Write as _;
use std::num::NonZeroUsize;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use rand::Rng;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::patch::ErrorExt;

mod correlator;
use correlator::{Correlator, Verdict};

const QUEUE_CAPACITY: usize = 512;
const MESSAGE_BYTES_MAX: usize = 1024;

/// How serious an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Part of the normal course.
    Normal,
    /// Somebody may have to look.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// One thing that happened, before it is matched with earlier ones.
#[derive(Clone, Debug)]
struct Happening {
    about: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Records events of one component. Cheap to clone.
#[derive(Clone)]
pub struct EventRecorder {
    sender: mpsc::Sender<Happening>,
}

impl EventRecorder {
    /// A recorder for `component` (and the node it runs on, if that matters). Must be called within a tokio runtime.
    pub fn new(client: Client, component: &str, host: Option<&str>, shutdown: CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_CAPACITY);
        let source = EventSource { component: Some(component.into()), host: host.map(Into::into) };
        tokio::spawn(write_events(client, source, receiver, shutdown));
        Self { sender }
    }

    /// Records that something happened to an object of a kind known at compile time.
    pub fn record<K: Resource>(&self, object: &K, kind: EventType, reason: &str, message: impl Into<String>)
    where
        K::DynamicType: Default,
    {
        self.record_about(reference_to(object), kind, reason, message);
    }

    /// Records that something happened to the referenced object (or to a part of it, by `fieldPath`).
    pub fn record_about(
        &self,
        about: ObjectReference,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let happening = Happening {
            about,
            kind,
            reason: reason.into(),
            message: shorten(message.into()),
            at: Timestamp::now(),
        };
        if let Err(error) = self.sender.try_send(happening) {
            debug!(%error, reason, "event dropped");
        }
    }
}

/// The reference by which events and other objects point to `object`.
pub fn reference_to<K: Resource>(object: &K) -> ObjectReference
where
    K::DynamicType: Default,
{
    let kind = K::DynamicType::default();
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&kind).into_owned()),
        kind: Some(K::kind(&kind).into_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

fn shorten(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        let mut end = MESSAGE_BYTES_MAX - 3;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push_str("...");
    }
    message
}

async fn write_events(
    client: Client,
    source: EventSource,
    mut receiver: mpsc::Receiver<Happening>,
    shutdown: CancellationToken,
) {
    let capacity = NonZeroUsize::new(4096).unwrap_or(NonZeroUsize::MIN);
    let mut correlator = Correlator::new(capacity);
    loop {
        let happening = tokio::select! {
            received = receiver.recv() => match received {
                Some(happening) => happening,
                None => return,
            },
            () = shutdown.cancelled() => return,
        };
        let verdict = correlator.judge(&happening);
        match write_one(&client, &source, &happening, &verdict).await {
            Ok(Some(name)) => correlator.written(&happening, &verdict, name),
            Ok(None) => {}
            Err(error) if error.is_namespace_terminating() || error.is_not_found() => {}
            Err(error) => warn!(%error, reason = %happening.reason, "cannot record an event"),
        }
    }
}

/// Writes or updates the event; its name when it is new.
async fn write_one(
    client: &Client,
    source: &EventSource,
    happening: &Happening,
    verdict: &Verdict,
) -> Result<Option<String>, kube::Error> {
    let namespace = happening.about.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let (message, count) = match verdict {
        Verdict::Drop => return Ok(None),
        Verdict::Repeat { name, message, count } => {
            let patch = json!({ "count": count, "lastTimestamp": Time(happening.at), "message": message });
            match api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(_) => return Ok(None),
                // It expired on the server: write it anew.
                Err(error) if error.is_not_found() => (message, *count),
                Err(error) => return Err(error),
            }
        }
        Verdict::New { message } => (message, 1),
    };
    let event = new_event(source, happening, namespace, message, count);
    let name = event.metadata.name.clone();
    api.create(&PostParams::default(), &event).await?;
    Ok(name)
}

fn new_event(
    source: &EventSource,
    happening: &Happening,
    namespace: &str,
    message: &str,
    count: i32,
) -> Event {
    let mut name = happening.about.name.clone().unwrap_or_default();
    name.truncate(200);
    let suffix: u64 = rand::rng().random();
    if write!(name, ".{suffix:016x}").is_err() {
        name.push_str(".0");
    }
    let mut event = Event {
        involved_object: happening.about.clone(),
        type_: Some(happening.kind.as_str().into()),
        reason: Some(happening.reason.clone()),
        message: Some(message.into()),
        source: Some(source.clone()),
        reporting_component: source.component.clone(),
        reporting_instance: source.host.clone(),
        first_timestamp: Some(Time(happening.at)),
        last_timestamp: Some(Time(happening.at)),
        count: Some(count),
        ..Event::default()
    };
    event.metadata.name = Some(name);
    event.metadata.namespace = Some(namespace.into());
    event
}

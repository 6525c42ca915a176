//! What others tell a pod's worker. Nothing queues: each kind of news replaces its elder.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::room::Wish;
use super::spec::PodExt;
use super::status::Verdict;
use crate::probe::Report;

/// News for a worker.
#[derive(Debug, Default)]
pub struct News {
    /// The newest version of the object.
    pub pod: Option<Arc<Pod>>,
    /// The object is gone.
    pub gone: bool,
    /// The node wants the pod to end.
    pub verdict: Option<Verdict>,
    /// A config map or secret changed.
    pub references_changed: bool,
    /// Probes that changed their mind.
    pub reports: Vec<Report>,
    /// Something happened to the pod's containers.
    pub woken: bool,
}

/// A worker's mailbox.
pub struct Mailbox {
    news: Mutex<News>,
    notify: Notify,
    /// The grace period, as soon as the pod is to end; it only shrinks.
    grace: watch::Sender<Option<i64>>,
    latest: watch::Sender<Arc<Pod>>,
    /// What the pod waits for the node to have room for.
    wish: Mutex<Option<Wish>>,
}

impl Mailbox {
    /// For a worker that starts with this version.
    pub fn new(pod: Arc<Pod>) -> Self {
        let mailbox = Self {
            news: Mutex::default(),
            notify: Notify::new(),
            grace: watch::Sender::new(None),
            latest: watch::Sender::new(pod.clone()),
            wish: Mutex::default(),
        };
        mailbox.put(pod);
        mailbox
    }

    /// A newer version of the object.
    pub fn put(&self, pod: Arc<Pod>) {
        if pod.is_deleted() {
            self.shrink_grace(pod.grace_s());
        }
        self.news.lock().pod = Some(pod);
        self.notify.notify_one();
    }

    /// The object is gone: the pod ends at once.
    pub fn gone(&self) {
        self.news.lock().gone = true;
        self.shrink_grace(1);
        self.notify.notify_one();
    }

    /// The node wants the pod to end.
    pub fn condemn(&self, verdict: Verdict, grace_s: i64) {
        self.news.lock().verdict = Some(verdict);
        self.shrink_grace(grace_s);
        self.notify.notify_one();
    }

    /// A config map or secret of the pod changed.
    pub fn references_changed(&self) {
        self.news.lock().references_changed = true;
        self.notify.notify_one();
    }

    /// A probe changed its mind.
    pub fn report(&self, report: Report) {
        self.news.lock().reports.push(report);
        self.notify.notify_one();
    }

    /// Something happened to the pod's containers.
    pub fn wake(&self) {
        self.news.lock().woken = true;
        self.notify.notify_one();
    }

    /// All news since the last time.
    pub fn take(&self) -> News {
        std::mem::take(&mut self.news.lock())
    }

    /// Waits for news.
    pub async fn notified(&self) {
        self.notify.notified().await;
    }

    /// The newest version of the object, with the status that the worker made and the resources that the pod was granted.
    pub fn latest(&self) -> Arc<Pod> {
        self.latest.borrow().clone()
    }

    /// Notes the worker's newest version, for readers.
    pub fn set_latest(&self, pod: Arc<Pod>) {
        self.latest.send_replace(pod);
    }

    /// What the pod waits for.
    pub fn wish(&self) -> Option<Wish> {
        self.wish.lock().clone()
    }

    /// Notes what the pod waits for.
    pub fn set_wish(&self, wish: Option<Wish>) {
        *self.wish.lock() = wish;
    }

    /// The worker's versions as they come.
    pub fn versions(&self) -> watch::Receiver<Arc<Pod>> {
        self.latest.subscribe()
    }

    /// The grace period, once the pod is to end.
    pub fn grace_s(&self) -> Option<i64> {
        *self.grace.borrow()
    }

    /// Waits until the pod is to end sooner than `known` says (None: at all).
    pub async fn ends_sooner(&self, known: Option<i64>) {
        let mut grace = self.grace.subscribe();
        let sooner = |grace: &Option<i64>| grace.is_some_and(|grace| known.is_none_or(|known| grace < known));
        if grace.wait_for(sooner).await.is_err() {
            // The sender lives as long as this mailbox: this cannot be.
            std::future::pending::<()>().await;
        }
    }

    fn shrink_grace(&self, grace_s: i64) {
        self.grace.send_if_modified(|known| {
            let shrinks = known.is_none_or(|known| grace_s < known);
            if shrinks {
                *known = Some(grace_s);
            }
            shrinks
        });
    }
}

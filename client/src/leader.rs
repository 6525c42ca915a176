//! Leader election over a Lease object.
//!
//! At most one process acts at a time as long as clocks run at about the same speed: a candidate takes a lease over
//! only when it has itself watched it unchanged for the whole lease duration (times written by others are never
//! compared with its own clock), and a leader that could not renew within the renew deadline, which is shorter, stops.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::patch::ErrorExt;

/// Which lease, and how fast.
#[derive(Clone, Debug)]
pub struct LeaderConfig {
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the lease.
    pub name: String,
    /// Who this candidate is; unique among candidates.
    pub identity: String,
    /// How long a candidate waits before it takes an unrenewed lease.
    pub lease_duration: Duration,
    /// How long a leader goes on without having renewed.
    pub renew_deadline: Duration,
    /// How often it tries.
    pub retry_period: Duration,
}

impl LeaderConfig {
    /// Upstream's timing: 15 s, 10 s and 2 s, in `kube-system`.
    pub fn new(name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: "kube-system".into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// The lease as last seen, and since when it has looked like that on our clock.
#[derive(Clone, Debug)]
struct Observed {
    record: LeaseSpec,
    since: Instant,
}

/// What a candidate should do about a lease.
#[derive(Debug, PartialEq)]
enum Decision {
    /// Somebody else holds it and may still be alive.
    Wait,
    /// Write this.
    Write(Box<LeaseSpec>),
}

/// Waits for leadership, runs `lead` with a token that fires when leadership is lost or `shutdown` fires, waits until
/// it returns and gives the lease back. Returns true when leadership was lost, false after a shutdown.
pub async fn run_as_leader<F, Fut>(
    client: Client,
    config: LeaderConfig,
    shutdown: CancellationToken,
    lead: F,
) -> bool
where
    F: FnOnce(CancellationToken) -> Fut,
    Fut: Future<Output = ()>,
{
    let api: Api<Lease> = Api::namespaced(client, &config.namespace);
    let mut elector = Elector { api, config, observed: None };
    loop {
        if elector.attempt().await {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(elector.config.retry_period) => {}
            () = shutdown.cancelled() => return false,
        }
    }
    info!(lease = %elector.config.name, identity = %elector.config.identity, "became leader");
    let term = shutdown.child_token();
    let mut work = std::pin::pin!(lead(term.clone()));
    let lost = tokio::select! {
        () = &mut work => false,
        lost = elector.keep(&term) => {
            term.cancel();
            work.await;
            lost
        }
    };
    if !lost {
        elector.release().await;
    }
    lost
}

struct Elector {
    api: Api<Lease>,
    config: LeaderConfig,
    observed: Option<Observed>,
}

impl Elector {
    /// Renews until the term ends (false) or renewing failed for too long (true).
    async fn keep(&mut self, term: &CancellationToken) -> bool {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.config.retry_period) => {}
                () = term.cancelled() => return false,
            }
            let left = self.config.renew_deadline.saturating_sub(renewed.elapsed());
            let started = Instant::now();
            if matches!(tokio::time::timeout(left, self.attempt()).await, Ok(true)) {
                renewed = started;
            } else if renewed.elapsed() >= self.config.renew_deadline {
                warn!(lease = %self.config.name, "lost leadership: could not renew in time");
                return true;
            }
        }
    }

    /// One try to get or renew the lease; whether we hold it now.
    async fn attempt(&mut self) -> bool {
        match self.try_once().await {
            Ok(held) => held,
            Err(error) if error.is_conflict() || error.is_already_exists() => false,
            Err(error) => {
                warn!(lease = %self.config.name, %error, "cannot read or write the lease");
                false
            }
        }
    }

    async fn try_once(&mut self) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.config.name).await? else {
            let Decision::Write(spec) = decide(None, &self.config, Instant::now(), Timestamp::now()) else {
                return Ok(false);
            };
            let mut lease = Lease { spec: Some(*spec), ..Lease::default() };
            lease.metadata.name = Some(self.config.name.clone());
            self.api.create(&PostParams::default(), &lease).await?;
            return Ok(true);
        };
        let record = lease.spec.clone().unwrap_or_default();
        if self.observed.as_ref().is_none_or(|observed| observed.record != record) {
            self.observed = Some(Observed { record, since: Instant::now() });
        }
        match decide(self.observed.as_ref(), &self.config, Instant::now(), Timestamp::now()) {
            Decision::Wait => Ok(false),
            Decision::Write(spec) => {
                lease.spec = Some((*spec).clone());
                self.api.replace(&self.config.name, &PostParams::default(), &lease).await?;
                self.observed = Some(Observed { record: *spec, since: Instant::now() });
                Ok(true)
            }
        }
    }

    async fn release(&mut self) {
        let Some(observed) = self.observed.take() else { return };
        if observed.record.holder_identity.as_deref() != Some(self.config.identity.as_str()) {
            return;
        }
        let attempt = async {
            let mut lease = self.api.get(&self.config.name).await?;
            if let Some(spec) = &mut lease.spec {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
            }
            self.api.replace(&self.config.name, &PostParams::default(), &lease).await
        };
        if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(2), attempt).await {
            warn!(lease = %self.config.name, %error, "could not give the lease back; others wait it out");
        }
    }
}

fn decide(observed: Option<&Observed>, config: &LeaderConfig, now: Instant, wall: Timestamp) -> Decision {
    let old = observed.map(|observed| &observed.record);
    let holder = old.and_then(|record| record.holder_identity.as_deref()).unwrap_or_default();
    let ours = holder == config.identity;
    if let Some(observed) = observed
        && !holder.is_empty()
        && !ours
        && now.saturating_duration_since(observed.since) < config.lease_duration
    {
        return Decision::Wait;
    }
    let transitions = old.and_then(|record| record.lease_transitions).unwrap_or(0);
    let acquired = old.and_then(|record| record.acquire_time.clone()).filter(|_| ours);
    Decision::Write(Box::new(LeaseSpec {
        holder_identity: Some(config.identity.clone()),
        lease_duration_seconds: i32::try_from(config.lease_duration.as_secs()).ok(),
        acquire_time: Some(acquired.unwrap_or(MicroTime(wall))),
        renew_time: Some(MicroTime(wall)),
        lease_transitions: Some(if ours || old.is_none() { transitions } else { transitions + 1 }),
        ..old.cloned().unwrap_or_default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(identity: &str, since: Instant) -> Observed {
        let record = LeaseSpec {
            holder_identity: Some(identity.into()),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        };
        Observed { record, since }
    }

    #[test]
    fn a_lease_of_another_is_taken_only_after_it_stood_still_for_its_whole_duration() {
        let (config, start) = (LeaderConfig::new("x", "me"), Instant::now());
        let observed = held_by("other", start);
        let early = decide(Some(&observed), &config, start + Duration::from_secs(14), Timestamp::UNIX_EPOCH);
        assert_eq!(early, Decision::Wait);
        let Decision::Write(spec) =
            decide(Some(&observed), &config, start + Duration::from_secs(15), Timestamp::UNIX_EPOCH)
        else {
            panic!("takes it over")
        };
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("me"), Some(4)));
    }

    #[test]
    fn a_released_lease_is_taken_at_once_and_our_own_is_renewed() {
        let (config, start) = (LeaderConfig::new("x", "me"), Instant::now());
        assert!(matches!(
            decide(Some(&held_by("", start)), &config, start, Timestamp::UNIX_EPOCH),
            Decision::Write(_)
        ));
        let Decision::Write(spec) =
            decide(Some(&held_by("me", start)), &config, start, Timestamp::UNIX_EPOCH)
        else {
            panic!("renews")
        };
        assert_eq!(spec.lease_transitions, Some(3));
    }
}

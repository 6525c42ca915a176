//! Approves and signs the certificates of kubelets, signs client certificates that people approved, and clears old requests.
//!
//! Approved without asking anybody:
//! - `kubernetes.io/kube-apiserver-client-kubelet`: for `system:node:<name>` in `system:nodes` without further names, when a
//!   bootstrap token asks (group `system:bootstrappers`), or the node itself, to renew;
//! - `kubernetes.io/kubelet-serving`: when the node itself asks, for its own name and for addresses that belong to no other node,
//!   are no service's and not the API server's. An agent that shares its address with an API server of another process is for a
//!   person to approve: whoever holds such a certificate could pass for the API server.
//!
//! Everything else waits for `kubectl certificate approve`. Only requests of the three signers of clients and kubelets are signed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::net::AddressRange;
use client::patch::only_unchanged;
use client::{Informer, Outcome, Scope, queue};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use pki::{Authority, CertificateRequest, Usage};
use serde_json::json;
use tracing::{error, info};

use crate::common::conditions::until;
use crate::common::{Context, ReconcileError, Reconciled};

const CLIENT_KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const SERVING: &str = "kubernetes.io/kubelet-serving";
const NODES_GROUP: &str = "system:nodes";
const BOOTSTRAPPERS_GROUP: &str = "system:bootstrappers";
const NODE_PREFIX: &str = "system:node:";
const SETTLED_KEPT: SignedDuration = SignedDuration::from_hours(1);
const PENDING_KEPT: SignedDuration = SignedDuration::from_hours(24);
const LIFETIME_MIN: Duration = Duration::from_secs(600);

#[derive(Debug, PartialEq)]
enum Action {
    Approve(&'static str),
    Sign(Usage, Duration),
    Fail(String),
    Delete,
    WaitUntil(Timestamp),
}

/// Runs the controller until shutdown.
pub(crate) async fn run(context: Context) {
    let authority = context.config.signing_authority.as_ref().and_then(|pair| {
        Authority::load(&pair.certificate_pem, &pair.key_pem)
            .inspect_err(
                |problem| error!(error = %problem, "cannot sign certificates: the authority does not load"),
            )
            .ok()
    });
    let requests = context.all::<CertificateSigningRequest>();
    let nodes = context.all::<Node>();
    let servers: Informer<EndpointSlice> =
        context.informers.get(Scope::namespace("default").fields("metadata.name=kubernetes"));
    let queue = context.queue("certificates");
    if !(requests.synced().await && nodes.synced().await && servers.synced().await) {
        return;
    }
    requests.feed(&queue, ResourceExt::name_any);
    let shell = Arc::new(Shell { context, authority });
    queue::run(queue, 1, move |name: String| {
        let (shell, request, nodes) = (shell.clone(), requests.get("", &name), nodes.list());
        let servers = servers.list();
        async move {
            match request {
                Some(request) => shell.reconcile(&request, &nodes, &servers).await,
                None => Ok(Outcome::Done),
            }
        }
    })
    .await;
}

struct Shell {
    context: Context,
    authority: Option<Authority>,
}

impl Shell {
    async fn reconcile(
        &self,
        request: &CertificateSigningRequest,
        nodes: &[Arc<Node>],
        servers: &[Arc<EndpointSlice>],
    ) -> Reconciled {
        let now = self.context.now();
        let taken = Taken { nodes, servers, service_range: self.context.config.service_cidr.as_deref() };
        let action =
            decide(request, &taken, self.authority.is_some(), self.context.config.certificate_duration, now);
        let api: Api<CertificateSigningRequest> = self.context.cluster_api();
        let name = request.name_any();
        match action {
            Action::WaitUntil(at) => {
                return Ok(Outcome::RequeueAfter(until(at, now) + Duration::from_secs(1)));
            }
            Action::Delete => {
                api.delete(&name, &only_unchanged(request, DeleteParams::default())).await?;
            }
            Action::Approve(message) => {
                let condition = condition("Approved", "AutoApproved", message, now);
                write(&api, request, "approval", Some(condition), None).await?;
                info!(request = %name, user = ?request.spec.username, "approved a certificate request");
            }
            Action::Fail(message) => {
                let condition = condition("Failed", "SignerValidationFailure", &message, now);
                write(&api, request, "status", Some(condition), None).await?;
            }
            Action::Sign(usage, lifetime) => {
                let Some(authority) = &self.authority else { return Ok(Outcome::Done) };
                let certificate = parsed(request)
                    .and_then(|asked| authority.sign_request(&asked, &[usage], lifetime, now))
                    .map_err(|problem| ReconcileError::Unusable(problem.to_string()))?;
                write(&api, request, "status", None, Some(certificate)).await?;
                info!(request = %name, signer = %request.spec.signer_name, "signed a certificate");
            }
        }
        Ok(Outcome::Done)
    }
}

async fn write(
    api: &Api<CertificateSigningRequest>,
    request: &CertificateSigningRequest,
    subresource: &str,
    condition: Option<CertificateSigningRequestCondition>,
    certificate: Option<String>,
) -> Result<(), kube::Error> {
    let mut status = request.status.clone().unwrap_or_default();
    status.conditions.get_or_insert_default().extend(condition);
    if let Some(pem) = certificate {
        status.certificate = Some(ByteString(pem.into_bytes()));
    }
    let patch = json!({ "metadata": { "resourceVersion": request.resource_version() }, "status": status });
    let params = PatchParams::default();
    api.patch_subresource(subresource, &request.name_any(), &params, &Patch::Merge(&patch)).await.map(|_| ())
}

fn condition(type_: &str, reason: &str, message: &str, now: Timestamp) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: type_.into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

fn has_condition(request: &CertificateSigningRequest, type_: &str) -> bool {
    let conditions = request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == type_)
}

fn parsed(request: &CertificateSigningRequest) -> Result<CertificateRequest, pki::PkiError> {
    CertificateRequest::parse(&String::from_utf8_lossy(&request.spec.request.0))
}

/// Addresses that a node may not claim as its own.
struct Taken<'a> {
    nodes: &'a [Arc<Node>],
    /// Where the API servers are.
    servers: &'a [Arc<EndpointSlice>],
    service_range: Option<&'a str>,
}

fn decide(
    request: &CertificateSigningRequest,
    taken: &Taken<'_>,
    can_sign: bool,
    lifetime_max: Duration,
    now: Timestamp,
) -> Action {
    let issued = request.status.as_ref().is_some_and(|status| status.certificate.is_some());
    let approved = has_condition(request, "Approved");
    let refused = has_condition(request, "Denied") || has_condition(request, "Failed");
    let created = request.creation_timestamp().map_or(now, |time| time.0);
    let kept = if issued || refused { SETTLED_KEPT } else { PENDING_KEPT };
    if now.duration_since(created) > kept {
        return Action::Delete;
    }
    let wait = Action::WaitUntil(created + kept);
    if issued || refused {
        return wait;
    }
    let subject = parsed(request);
    if !approved {
        return match subject.ok().and_then(|subject| recognize(request, &subject, taken)) {
            Some(message) => Action::Approve(message),
            None => wait,
        };
    }
    let usage = match request.spec.signer_name.as_str() {
        CLIENT_KUBELET | CLIENT => Usage::Client,
        SERVING => Usage::Server,
        _ => return wait,
    };
    if !can_sign {
        return wait;
    }
    match subject {
        Err(problem) => Action::Fail(problem.to_string()),
        Ok(subject) => match check_for_signer(request, &subject) {
            Err(problem) => Action::Fail(problem.into()),
            Ok(()) => Action::Sign(usage, lifetime(request, lifetime_max)),
        },
    }
}

fn lifetime(request: &CertificateSigningRequest, longest: Duration) -> Duration {
    let asked = request.spec.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    asked.map_or(longest, |seconds| {
        Duration::from_secs(seconds).clamp(LIFETIME_MIN, longest.max(LIFETIME_MIN))
    })
}

/// What a signer demands of every request, whoever approved it.
fn check_for_signer(
    request: &CertificateSigningRequest,
    subject: &CertificateRequest,
) -> Result<(), &'static str> {
    let is_node = subject.organizations == [NODES_GROUP] && subject.common_name.starts_with(NODE_PREFIX);
    let has_names = !(subject.dns_names.is_empty() && subject.addresses.is_empty());
    let usages: Vec<&str> = request.spec.usages.iter().flatten().map(String::as_str).collect();
    let only = |allowed: &str| {
        usages.contains(&allowed)
            && usages.iter().all(|usage| [allowed, "digital signature", "key encipherment"].contains(usage))
    };
    let only_for_kubelets = |allowed: &str| only(allowed) && usages.contains(&"digital signature");
    match request.spec.signer_name.as_str() {
        CLIENT_KUBELET if !is_node => Err("subject must be system:node:<name> in organization system:nodes"),
        CLIENT_KUBELET if has_names || subject.has_other_names => Err("alternative names are not allowed"),
        CLIENT_KUBELET if !only_for_kubelets("client auth") => {
            Err("usages must be client auth, digital signature, key encipherment")
        }
        SERVING if !is_node => Err("subject must be system:node:<name> in organization system:nodes"),
        SERVING if !has_names => Err("at least one DNS name or address is required"),
        SERVING if subject.has_other_names => {
            Err("alternative names other than DNS names and addresses are not allowed")
        }
        SERVING if !only_for_kubelets("server auth") => {
            Err("usages must be server auth, digital signature, key encipherment")
        }
        // Nobody becomes an administrator by an approval that overlooked the organization.
        CLIENT if subject.organizations.iter().any(|group| group == "system:masters") => {
            Err("organization system:masters is not allowed")
        }
        CLIENT if !only("client auth") => {
            Err("usages must be client auth, and of others only digital signature and key encipherment")
        }
        _ => Ok(()),
    }
}

/// The reason to approve, if there is one.
fn recognize(
    request: &CertificateSigningRequest,
    subject: &CertificateRequest,
    taken: &Taken<'_>,
) -> Option<&'static str> {
    let signer = request.spec.signer_name.as_str();
    if !matches!(signer, CLIENT_KUBELET | SERVING) || check_for_signer(request, subject).is_err() {
        return None;
    }
    let in_group = |name: &str| request.spec.groups.iter().flatten().any(|group| group == name);
    let is_self = request.spec.username.as_deref() == Some(&subject.common_name) && in_group(NODES_GROUP);
    match signer {
        CLIENT_KUBELET if is_self => Some("Auto approving self kubelet client certificate."),
        CLIENT_KUBELET if in_group(BOOTSTRAPPERS_GROUP) => Some("Auto approving kubelet client certificate."),
        SERVING if is_self && names_are_free(subject, taken) => {
            Some("Auto approving kubelet serving certificate for the node's own name and addresses.")
        }
        _ => None,
    }
}

fn names_are_free(subject: &CertificateRequest, taken: &Taken<'_>) -> bool {
    let name = subject.common_name.strip_prefix(NODE_PREFIX).unwrap_or_default();
    let of_the_api_server = |dns: &str| {
        ["localhost", "kubernetes", "kubernetes.default"].contains(&dns)
            || dns.starts_with("kubernetes.default.")
    };
    let of_other_nodes = taken
        .nodes
        .iter()
        .filter(|node| node.name_any() != name)
        .flat_map(|node| node.status.iter().flat_map(|status| status.addresses.iter().flatten()))
        .map(|address| address.address.as_str());
    let of_servers =
        taken.servers.iter().flat_map(|slice| slice.endpoints.iter().flatten()).flat_map(|e| &e.addresses);
    let others: Vec<IpAddr> =
        of_other_nodes.chain(of_servers.map(String::as_str)).filter_map(|text| text.parse().ok()).collect();
    let is_free = |address: &IpAddr| {
        let mut services = taken.service_range.iter().flat_map(|ranges| ranges.split(','));
        let of_a_service = services
            .any(|range| AddressRange::parse(range).is_some_and(|range| range.offset(*address).is_some()));
        let of_everybody = address.is_loopback() || address.is_unspecified() || address.is_multicast();
        !others.contains(address) && !of_a_service && !of_everybody
    };
    !name.is_empty()
        && !of_the_api_server(name)
        && subject.dns_names.iter().all(|dns| dns == name)
        && subject.addresses.iter().all(is_free)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NodeAddress;
    use k8s_openapi::api::discovery::v1::Endpoint;
    use pki::Leaf;

    use super::*;
    use crate::testing::at;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    fn request(leaf: &Leaf, signer: &str, user: &str, group: &str) -> CertificateSigningRequest {
        let pem = pki::certificate_request(leaf, at(0)).unwrap().certificate_pem;
        let usage = if leaf.usage == Usage::Client { "client auth" } else { "server auth" };
        let mut request = CertificateSigningRequest::default();
        request.metadata.creation_timestamp = Some(Time(at(0)));
        request.spec.request = ByteString(pem.into_bytes());
        request.spec.signer_name = signer.into();
        request.spec.username = Some(user.into());
        request.spec.groups = Some(vec![group.into()]);
        request.spec.usages = Some(vec!["digital signature".into(), usage.into()]);
        request
    }

    fn node_leaf(usage: Usage, address: &str) -> Leaf {
        let mut leaf = Leaf::client("system:node:n1", Some(NODES_GROUP));
        leaf.usage = usage;
        if usage == Usage::Server {
            leaf.dns_names = vec!["n1".into()];
            leaf.addresses = vec![address.parse().unwrap()];
        }
        leaf
    }

    fn decide_now(request: &CertificateSigningRequest) -> Action {
        let mut other = Node::default();
        other.metadata.name = Some("n2".into());
        let address = NodeAddress { address: "192.0.2.2".into(), type_: "InternalIP".into() };
        other.status.get_or_insert_default().addresses = Some(vec![address]);
        let nodes = [Arc::new(other)];
        let server = Endpoint { addresses: vec!["192.0.2.9".into()], ..Endpoint::default() };
        let servers = [Arc::new(EndpointSlice { endpoints: Some(vec![server]), ..EndpointSlice::default() })];
        let taken = Taken { nodes: &nodes, servers: &servers, service_range: Some("10.96.0.0/16") };
        decide(request, &taken, true, YEAR, at(10))
    }

    #[test]
    fn kubelets_are_approved_when_a_token_or_the_node_itself_asks() {
        let leaf = node_leaf(Usage::Client, "");
        let token = request(&leaf, CLIENT_KUBELET, "system:bootstrap:abc", BOOTSTRAPPERS_GROUP);
        assert!(matches!(decide_now(&token), Action::Approve(_)));
        let renewal = request(&leaf, CLIENT_KUBELET, "system:node:n1", NODES_GROUP);
        assert!(matches!(decide_now(&renewal), Action::Approve(_)));
        let other = request(&leaf, CLIENT_KUBELET, "system:node:n2", NODES_GROUP);
        assert!(matches!(decide_now(&other), Action::WaitUntil(_)));
    }

    #[test]
    fn a_token_cannot_become_an_administrator_or_a_server() {
        let admin = Leaf::client("admin", Some("system:masters"));
        let asked = request(&admin, CLIENT_KUBELET, "system:bootstrap:abc", BOOTSTRAPPERS_GROUP);
        assert!(matches!(decide_now(&asked), Action::WaitUntil(_)));
        let serving = request(
            &node_leaf(Usage::Server, "192.0.2.1"),
            SERVING,
            "system:bootstrap:abc",
            BOOTSTRAPPERS_GROUP,
        );
        assert!(matches!(decide_now(&serving), Action::WaitUntil(_)));
    }

    #[test]
    fn a_node_serves_only_under_its_own_name_and_addresses() {
        let ask =
            |address| request(&node_leaf(Usage::Server, address), SERVING, "system:node:n1", NODES_GROUP);
        assert!(matches!(decide_now(&ask("192.0.2.1")), Action::Approve(_)));
        assert!(matches!(decide_now(&ask("192.0.2.2")), Action::WaitUntil(_)), "another node's");
        assert!(matches!(decide_now(&ask("10.96.0.1")), Action::WaitUntil(_)), "a service's");
        assert!(matches!(decide_now(&ask("192.0.2.9")), Action::WaitUntil(_)), "the API server's");
        assert!(matches!(decide_now(&ask("127.0.0.1")), Action::WaitUntil(_)), "everybody's");
        let mut posing = Leaf::client("system:node:kubernetes", Some(NODES_GROUP));
        posing.usage = Usage::Server;
        posing.dns_names = vec!["kubernetes".into()];
        let posing = request(&posing, SERVING, "system:node:kubernetes", NODES_GROUP);
        assert!(matches!(decide_now(&posing), Action::WaitUntil(_)), "a node that poses as the API server");
        let mut leaf = node_leaf(Usage::Server, "192.0.2.1");
        leaf.dns_names = vec!["kubernetes.default.svc".into()];
        let foreign = request(&leaf, SERVING, "system:node:n1", NODES_GROUP);
        assert!(matches!(decide_now(&foreign), Action::WaitUntil(_)));
    }

    #[test]
    fn approved_requests_are_signed_and_old_ones_cleared() {
        let mut approved = request(&node_leaf(Usage::Client, ""), CLIENT_KUBELET, "u", "g");
        let condition = condition("Approved", "x", "x", at(0));
        approved.status.get_or_insert_default().conditions = Some(vec![condition]);
        approved.spec.expiration_seconds = Some(3600);
        assert_eq!(decide_now(&approved), Action::Sign(Usage::Client, Duration::from_secs(3600)));
        let nobody = Taken { nodes: &[], servers: &[], service_range: None };
        let later = at(25 * 3600);
        assert_eq!(decide(&approved, &nobody, true, YEAR, later), Action::Delete);
    }
}

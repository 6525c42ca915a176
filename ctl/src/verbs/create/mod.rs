//! `create`: objects from files, or from flags for the kinds that are often made by hand.
//!
//! Deliberately absent: `--edit`, `--append-hash`, and `--save-config`, since `apply` here keeps nothing in annotations.

mod config;
mod rbac;
mod service;
mod token;
mod workload;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::Validate;
use crate::manifest;
use crate::session::Session;
use crate::verbs::apply::explain;
use crate::writing::Writing;
use crate::{AlreadyTold, cli};

/// The manager under which fields are owned.
const MANAGER: &str = "ctl-create";

/// The flags of `create`.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = false, subcommand_negates_reqs = true)]
pub struct Options {
    #[command(subcommand)]
    pub kind: Option<Kind>,
    /// Files and directories with manifests; `-` is standard input
    #[arg(short, long, value_delimiter = ',', value_name = "FILE")]
    pub filename: Vec<String>,
    /// Directories with everything below them
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// What becomes of unknown fields
    #[arg(long, global = true, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "strict", require_equals = true)]
    pub validate: cli::Validate,
    /// Accepted for compatibility
    #[arg(long, global = true, hide = true)]
    pub save_config: bool,
    #[command(flatten)]
    pub writing: Writing,
}

/// What can be made from flags.
#[derive(Subcommand, Clone, Debug)]
pub enum Kind {
    /// Texts and files for pods
    #[command(name = "configmap", visible_alias = "cm")]
    ConfigMap(config::ConfigMapOptions),
    /// Texts and files that are kept secret
    #[command(subcommand)]
    Secret(config::Secret),
    /// A namespace
    #[command(visible_alias = "ns")]
    Namespace(Named),
    /// Pods that are kept running and replaced step by step
    #[command(visible_alias = "deploy")]
    Deployment(workload::DeploymentOptions),
    /// One address for several pods
    #[command(subcommand, visible_alias = "svc")]
    Service(service::Service),
    /// An identity for pods
    #[command(name = "serviceaccount", visible_alias = "sa")]
    ServiceAccount(Named),
    /// Rights in a namespace
    Role(rbac::RoleOptions),
    /// Rights in the whole cluster
    #[command(name = "clusterrole")]
    ClusterRole(rbac::RoleOptions),
    /// Who has a role in a namespace
    #[command(name = "rolebinding")]
    RoleBinding(rbac::BindingOptions),
    /// Who has a role in the whole cluster
    #[command(name = "clusterrolebinding")]
    ClusterRoleBinding(rbac::BindingOptions),
    /// Pods that run to their end
    Job(workload::JobOptions),
    /// Jobs by the clock
    #[command(name = "cronjob", visible_alias = "cj")]
    CronJob(workload::CronJobOptions),
    /// A token of a service account
    Token(token::Options),
    /// Limits for a namespace
    #[command(visible_alias = "resourcequota")]
    Quota(config::QuotaOptions),
    /// A name for an importance
    #[command(name = "priorityclass", visible_alias = "pc")]
    PriorityClass(config::PriorityClassOptions),
    /// How many pods may be missing
    #[command(name = "poddisruptionbudget", visible_alias = "pdb")]
    PodDisruptionBudget(workload::DisruptionBudgetOptions),
    /// Ways from outside to services
    #[command(visible_alias = "ing")]
    Ingress(service::IngressOptions),
}

impl Options {
    /// Whether the server's kinds have to be known.
    pub fn needs_kinds(&self) -> bool {
        matches!(self.kind, None | Some(Kind::Role(_) | Kind::ClusterRole(_)))
    }
}

/// A kind that needs a name only.
#[derive(Args, Clone, Debug)]
pub struct Named {
    /// The name
    pub name: String,
}

/// What flags made: an object, and where it goes.
pub struct Made {
    /// `/api/v1` or `/apis/apps/v1`
    root: &'static str,
    plural: &'static str,
    namespaced: bool,
    object: Value,
}

impl Made {
    /// An object in a namespace.
    fn namespaced(root: &'static str, plural: &'static str, object: Value) -> Self {
        Self { root, plural, namespaced: true, object }
    }

    /// One of the whole cluster.
    fn of_cluster(root: &'static str, plural: &'static str, object: Value) -> Self {
        Self { root, plural, namespaced: false, object }
    }

    fn reported(&self) -> String {
        let kind = self.object["kind"].as_str().unwrap_or_default().to_ascii_lowercase();
        let name = self.object["metadata"]["name"].as_str().unwrap_or_default();
        match self.object["apiVersion"].as_str().and_then(|version| version.split_once('/')) {
            Some((group, _)) => format!("{kind}.{group}/{name}"),
            None => format!("{kind}/{name}"),
        }
    }
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let made = match &options.kind {
        None => return from_files(session, options).await,
        Some(Kind::Token(token)) => return token::run(session, token, &options.writing).await,
        Some(Kind::ConfigMap(kind)) => kind.make()?,
        Some(Kind::Secret(kind)) => kind.make()?,
        Some(Kind::Namespace(named)) => {
            Made::of_cluster("/api/v1", "namespaces", bare("v1", "Namespace", &named.name))
        }
        Some(Kind::ServiceAccount(named)) => {
            Made::namespaced("/api/v1", "serviceaccounts", bare("v1", "ServiceAccount", &named.name))
        }
        Some(Kind::Deployment(kind)) => kind.make()?,
        Some(Kind::Service(kind)) => kind.make()?,
        Some(Kind::Role(kind)) => kind.make(session, false)?,
        Some(Kind::ClusterRole(kind)) => kind.make(session, true)?,
        Some(Kind::RoleBinding(kind)) => kind.make(false)?,
        Some(Kind::ClusterRoleBinding(kind)) => kind.make(true)?,
        Some(Kind::Job(kind)) => kind.make(session).await?,
        Some(Kind::CronJob(kind)) => kind.make()?,
        Some(Kind::Quota(kind)) => kind.make()?,
        Some(Kind::PriorityClass(kind)) => kind.make()?,
        Some(Kind::PodDisruptionBudget(kind)) => kind.make()?,
        Some(Kind::Ingress(kind)) => kind.make()?,
    };
    send(session, options, made).await
}

async fn send(session: &Session, options: &Options, mut made: Made) -> anyhow::Result<()> {
    let writing = &options.writing;
    let reported = made.reported();
    if made.namespaced && (session.namespace_given || !writing.dry_run.is_client()) {
        made.object["metadata"]["namespace"] = session.namespace.as_str().into();
    }
    if writing.dry_run.is_client() {
        return writing.tell(&made.object, &reported, "created");
    }
    let collection = if made.namespaced {
        format!("{}/namespaces/{}/{}", made.root, session.namespace, made.plural)
    } else {
        format!("{}/{}", made.root, made.plural)
    };
    let path =
        format!("{collection}?{}&fieldValidation={}", writing.query(MANAGER), options.validate.query());
    let failed = || format!("error: failed to create {}", reported.split('/').next().unwrap_or_default());
    let created = session.api.create(&path, &made.object).await.with_context(failed)?;
    writing.tell(&created, &reported, "created")
}

async fn from_files(session: &Session, options: &Options) -> anyhow::Result<()> {
    if options.filename.is_empty() {
        bail!("error: must specify one of -f and a kind, such as `create deployment`; see `create --help`");
    }
    let documents = manifest::read_all(&options.filename, options.recursive)?;
    let mut failed = false;
    for document in &documents {
        if let Err(error) = create_document(session, options, document).await {
            eprintln!("{}", explain(document, &error));
            failed = true;
        }
    }
    if failed { Err(AlreadyTold(1).into()) } else { Ok(()) }
}

async fn create_document(
    session: &Session,
    options: &Options,
    document: &manifest::Document,
) -> anyhow::Result<()> {
    let resource = session.resources.of_object(&document.object)?;
    let namespace = session.namespace_of(resource, &document.object)?;
    let name = document.object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    if options.writing.dry_run.is_client() {
        return options.writing.tell(&document.object, &resource.reported(name), "created");
    }
    let path = format!(
        "{}?{}&fieldValidation={}",
        resource.collection(namespace.as_deref()),
        options.writing.query(MANAGER),
        Validate::query(options.validate)
    );
    let created = session.api.create(&path, &document.object).await?;
    let name = created.pointer("/metadata/name").and_then(Value::as_str).unwrap_or(name);
    options.writing.tell(&created, &resource.reported(name), "created")
}

/// An object with nothing but a name.
fn bare(api_version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}})
}

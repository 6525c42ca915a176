//! `delete`: objects by name, selector or file; waits until they are gone.

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::AlreadyTold;
use crate::api::is_not_found;
use crate::cli::{DryRun, Selection, Span};
use crate::session::{Session, Target};

const POLL: Duration = Duration::from_millis(200);

/// What becomes of what the object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Cascade {
    /// It is deleted afterwards.
    #[value(alias = "true")]
    Background,
    /// It is deleted first.
    Foreground,
    /// It stays.
    #[value(alias = "false")]
    Orphan,
}

impl Cascade {
    fn policy(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

/// The flags of `delete`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Kinds and names
    pub what: Vec<String>,
    #[command(flatten)]
    pub selection: Selection,
    /// Every object of the kind in the namespace
    #[arg(long)]
    pub all: bool,
    /// What becomes of what the objects own
    #[arg(long, value_enum, default_value = "background", num_args = 0..=1, default_missing_value = "background", require_equals = true)]
    pub cascade: Cascade,
    /// How long the objects get to end by themselves, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = -1, allow_negative_numbers = true)]
    pub grace_period: i64,
    /// With --force: at once
    #[arg(long)]
    pub now: bool,
    /// At once, without waiting for the node to say that it is done
    #[arg(long)]
    pub force: bool,
    /// No error for what is not there
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Wait until the objects are gone
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    pub wait: bool,
    /// How long to wait; 0 is as long as it takes
    #[arg(long, default_value = "0", value_name = "TIME")]
    pub timeout: Span,
    /// Only try: `client` sends nothing, `server` checks and deletes nothing
    #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    pub dry_run: DryRun,
    /// Only the names
    #[arg(short, long, value_name = "FORM")]
    pub output: Option<String>,
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let by_selector = options.selection.selector.is_some() || options.selection.field_selector.is_some();
    let only_kind = options.selection.filename.is_empty()
        && options.what.len() == 1
        && options.what.first().is_some_and(|word| !word.contains('/'));
    if only_kind && !by_selector && !options.all {
        bail!("error: resource(s) were provided, but no name was specified");
    }
    let targets = session.targets(&options.what, &options.selection).await?;
    if targets.is_empty() {
        println!("No resources found");
        return Ok(());
    }
    let mut gone_later: Vec<(Target, String)> = Vec::new();
    let mut failed = false;
    for target in targets {
        match delete_one(session, options, &target).await {
            Ok(Some(uid)) => gone_later.push((target, uid)),
            Ok(None) => {}
            Err(error) if options.ignore_not_found && is_not_found(&error) => {}
            Err(error) => {
                eprintln!("{error:#}");
                failed = true;
            }
        }
    }
    if options.wait {
        wait_until_gone(session, options, gone_later).await?;
    }
    if failed { Err(AlreadyTold(1).into()) } else { Ok(()) }
}

/// Answers the uid of what goes away later.
async fn delete_one(session: &Session, options: &Options, target: &Target) -> anyhow::Result<Option<String>> {
    let mut body =
        json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": options.cascade.policy()});
    let grace = match (options.force, options.now, options.grace_period) {
        (_, true, _) => Some(1),
        (true, _, -1) => Some(0),
        (_, _, seconds) if seconds >= 0 => Some(seconds),
        _ => None,
    };
    if let Some(seconds) = grace {
        body["gracePeriodSeconds"] = seconds.into();
    }
    if options.force && grace == Some(0) {
        eprintln!(
            "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may continue to run on the cluster indefinitely."
        );
    }
    if options.dry_run.is_server() {
        body["dryRun"] = json!(["All"]);
    }
    let answer = if options.dry_run.is_client() {
        session.api.get(&target.path()).await?
    } else {
        session.api.delete(&target.path(), &body).await?
    };
    if options.output.as_deref() == Some("name") {
        println!("{}", target.reported());
    } else {
        let forced = if options.force { " force" } else { "" };
        let place = target
            .namespace
            .as_ref()
            .map(|namespace| format!(" from {namespace} namespace"))
            .unwrap_or_default();
        let tried = match options.dry_run {
            DryRun::None => "",
            DryRun::Client => " (dry run)",
            DryRun::Server => " (server dry run)",
        };
        println!("{}{forced} deleted{place}{tried}", quoted(target));
    }
    if options.dry_run != DryRun::None {
        return Ok(None);
    }
    // What is gone at once is answered with a Status, what goes later with the object.
    let uid = answer.pointer("/metadata/uid").or(answer.pointer("/details/uid"));
    Ok(uid.and_then(|uid| uid.as_str()).map(str::to_string))
}

/// `pod "web-1"`, as deletions are reported.
pub fn quoted(target: &Target) -> String {
    let reported = target.reported();
    let kind = reported.split_once('/').map_or(reported.as_str(), |(kind, _)| kind);
    format!("{kind} \"{}\"", target.name)
}

async fn wait_until_gone(
    session: &Session,
    options: &Options,
    targets: Vec<(Target, String)>,
) -> anyhow::Result<()> {
    let deadline = (!options.timeout.0.is_zero()).then(|| Instant::now() + options.timeout.0);
    for (target, uid) in targets {
        until_gone(session, &target, &uid, deadline).await?;
    }
    Ok(())
}

/// Waits until an object, known by its uid, is gone.
pub async fn until_gone(
    session: &Session,
    target: &Target,
    uid: &str,
    deadline: Option<Instant>,
) -> anyhow::Result<()> {
    loop {
        match session.api.get(&target.path()).await {
            Err(error) if is_not_found(&error) => return Ok(()),
            Err(error) => return Err(error),
            // Another object by the same name.
            Ok(object) if object.pointer("/metadata/uid").and_then(|u| u.as_str()) != Some(uid) => {
                return Ok(());
            }
            Ok(_) => {}
        }
        if deadline.is_some_and(|deadline| Instant::now() > deadline) {
            bail!(
                "error: timed out waiting for {} to go; its finalizers or its node hold it",
                target.reported()
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

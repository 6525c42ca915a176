//! `patch`: parts of objects, in three forms.

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::api::PatchKind;
use crate::cli::Selection;
use crate::session::Session;
use crate::tree::same_but_status;
use crate::writing::Writing;

/// How the patch is to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Kubernetes' own: lists are merged by their items' keys.
    #[default]
    Strategic,
    /// RFC 7386: lists are replaced.
    Merge,
    /// RFC 6902: a list of operations.
    Json,
}

/// The flags of `patch`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Kinds and names
    pub what: Vec<String>,
    #[command(flatten)]
    pub selection: Selection,
    /// The patch, as JSON or YAML
    #[arg(
        short,
        long,
        value_name = "PATCH",
        required_unless_present = "patch_file",
        conflicts_with = "patch_file"
    )]
    pub patch: Option<String>,
    /// A file with the patch
    #[arg(long, value_name = "FILE")]
    pub patch_file: Option<String>,
    /// How the patch is to be read
    #[arg(long = "type", value_enum, default_value_t, value_name = "FORM")]
    pub form: Form,
    /// A part of the object with a path of its own: status, scale, …
    #[arg(long, value_name = "NAME")]
    pub subresource: Option<String>,
    #[command(flatten)]
    pub writing: Writing,
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let patch = read(options)?;
    if options.form == Form::Json && !patch.is_array() {
        bail!(
            "error: a JSON patch is a list of operations, such as [{{\"op\": \"remove\", \"path\": \"/spec/paused\"}}]"
        );
    }
    let kind = match options.form {
        Form::Strategic => PatchKind::Strategic,
        Form::Merge => PatchKind::Merge,
        Form::Json => PatchKind::Json,
    };
    let targets = session.chosen(&options.what, &options.selection, false).await?;
    if targets.is_empty() {
        bail!("error: no objects to patch");
    }
    for target in targets {
        let below = options.subresource.as_ref().map(|name| format!("/{name}")).unwrap_or_default();
        let path = format!("{}{below}", target.path());
        let before = session.api.get(&path).await?;
        if options.writing.dry_run.is_client() {
            options.writing.tell(&before, &target.reported(), "patched")?;
            continue;
        }
        let (after, _) = session
            .api
            .patch(&format!("{path}?{}", options.writing.query("ctl-patch")), kind, &patch)
            .await?;
        let is_same =
            if options.subresource.is_some() { before == after } else { same_but_status(&before, &after) };
        let done = if is_same { "patched (no change)" } else { "patched" };
        options.writing.tell(&after, &target.reported(), done)?;
    }
    Ok(())
}

fn read(options: &Options) -> anyhow::Result<Value> {
    let (text, from) = match (&options.patch, &options.patch_file) {
        (Some(text), _) => (text.clone(), "--patch".to_string()),
        (None, Some(path)) => (
            std::fs::read_to_string(path).with_context(|| format!("error: cannot read {path}"))?,
            path.clone(),
        ),
        (None, None) => {
            bail!("error: must specify --patch or --patch-file containing the contents of the patch")
        }
    };
    crate::yaml::read(&text)
        .map_err(|error| anyhow::anyhow!("error: unable to parse {from}: {}", error.without_snippet()))
}

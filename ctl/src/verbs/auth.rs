//! `auth`: who one is, and what one may do.

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::AlreadyTold;
use crate::output;
use crate::output::table::Layout;
use crate::session::Session;
use crate::tree::{fields, flag, items, listed, rule_kinds, text};

/// What is asked.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Whether something is allowed: `auth can-i create pods`; the exit code is 1 if not
    CanI(CanIOptions),
    /// As whom the server sees this command line
    Whoami(WhoamiOptions),
}

/// The flags of `auth can-i`.
#[derive(Args, Clone, Debug)]
pub struct CanIOptions {
    /// The verb
    #[arg(required_unless_present = "list")]
    pub verb: Option<String>,
    /// The kind, KIND/NAME, or a path such as /healthz
    #[arg(required_unless_present = "list")]
    pub what: Option<String>,
    /// The name
    pub name: Option<String>,
    /// A part of the object with a path of its own: status, log, …
    #[arg(long, value_name = "NAME")]
    pub subresource: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Everything that is allowed
    #[arg(long)]
    pub list: bool,
    /// No heading
    #[arg(long)]
    pub no_headers: bool,
    /// Only the exit code
    #[arg(short, long)]
    pub quiet: bool,
}

/// The flags of `auth whoami`.
#[derive(Args, Clone, Debug)]
pub struct WhoamiOptions {
    /// json or yaml
    #[arg(short, long, value_name = "FORM")]
    pub output: Option<String>,
}

impl Command {
    /// Whether the server's kinds have to be known.
    pub fn needs_kinds(&self) -> bool {
        matches!(self, Self::CanI(options) if !options.list && !options.what.as_deref().unwrap_or("/").starts_with('/'))
    }
}

/// Runs the verb.
pub async fn run(session: &Session, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::CanI(options) if options.list => list(session, options).await,
        Command::CanI(options) => can_i(session, options).await,
        Command::Whoami(options) => whoami(session, options).await,
    }
}

async fn can_i(session: &Session, options: &CanIOptions) -> anyhow::Result<()> {
    let (Some(verb), Some(what)) = (&options.verb, &options.what) else {
        bail!("error: you must specify two arguments: verb resource or verb resource/resourceName");
    };
    let mut spec = json!({});
    if what.starts_with('/') {
        spec["nonResourceAttributes"] = json!({"verb": verb, "path": what});
    } else {
        let (kind, name) =
            what.split_once('/').map_or((what.as_str(), None), |(kind, name)| (kind, Some(name)));
        let name = options.name.as_deref().or(name);
        let mut attributes = json!({"verb": verb});
        // `pods/log` as people write it: a subresource rather than a name.
        let (name, mut subresource) = match name {
            Some(part) if options.name.is_none() && is_subresource(session, kind, part) => (None, Some(part)),
            other => (other, None),
        };
        subresource = options.subresource.as_deref().or(subresource);
        let namespaced = if kind == "*" {
            attributes["resource"] = "*".into();
            attributes["group"] = "*".into();
            true
        } else {
            match session.one_resource(kind) {
                Ok(resource) => {
                    attributes["resource"] = resource.plural.into();
                    attributes["group"] = resource.group.into();
                    attributes["version"] = resource.version.into();
                    resource.namespaced
                }
                Err(_) => {
                    eprintln!("Warning: the server doesn't have a resource type '{kind}'\n");
                    attributes["resource"] = kind.into();
                    true
                }
            }
        };
        if !namespaced && !options.all_namespaces {
            eprintln!("Warning: resource '{kind}' is not namespace scoped\n");
        } else if !options.all_namespaces {
            attributes["namespace"] = session.namespace.as_str().into();
        }
        if let Some(name) = name {
            attributes["name"] = name.into();
        }
        if let Some(subresource) = subresource {
            attributes["subresource"] = subresource.into();
        }
        spec["resourceAttributes"] = attributes;
    }
    let review =
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec});
    let answer =
        session.api.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review).await?;
    let allowed = flag(&answer, "/status/allowed");
    if !options.quiet {
        let reason = text(&answer, "/status/reason");
        let error = text(&answer, "/status/evaluationError");
        let mut said = if allowed { "yes".to_string() } else { "no".to_string() };
        if !reason.is_empty() && !allowed {
            said.push_str(&format!(" - {reason}"));
        }
        if !error.is_empty() {
            said.push_str(&format!(" - {error}"));
        }
        println!("{said}");
    }
    if allowed { Ok(()) } else { Err(AlreadyTold(1).into()) }
}

fn is_subresource(session: &Session, kind: &str, part: &str) -> bool {
    session.one_resource(kind).is_ok_and(|resource| resource.subresources.iter().any(|name| name == part))
}

async fn list(session: &Session, options: &CanIOptions) -> anyhow::Result<()> {
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": session.namespace}});
    let answer = session.api.create("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &review).await?;
    if flag(&answer, "/status/incomplete") {
        eprintln!("Warning: the list may be incomplete: {}", text(&answer, "/status/evaluationError"));
    }
    let mut layout = Layout::new(&["Resources", "Non-Resource URLs", "Resource Names", "Verbs"]);
    for rule in items(&answer, "/status/resourceRules") {
        for (_, _, name) in rule_kinds(rule) {
            layout.row(vec![name, "[]".into(), listed(rule, "/resourceNames"), listed(rule, "/verbs")]);
        }
    }
    for rule in items(&answer, "/status/nonResourceRules") {
        for url in items(rule, "/nonResourceURLs").filter_map(Value::as_str) {
            layout.row(vec![String::new(), format!("[{url}]"), "[]".into(), listed(rule, "/verbs")]);
        }
    }
    print!("{}", layout.render(options.no_headers));
    Ok(())
}

async fn whoami(session: &Session, options: &WhoamiOptions) -> anyhow::Result<()> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = session.api.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review).await?;
    if let Some(form) = options.output.as_deref().filter(|form| !form.is_empty()) {
        return output::print_object(&answer, form);
    }
    let user = &answer["status"]["userInfo"];
    let mut layout = Layout::new(&["ATTRIBUTE", "VALUE"]);
    layout.row(vec!["Username".into(), text(user, "/username").into()]);
    if !text(user, "/uid").is_empty() {
        layout.row(vec!["UID".into(), text(user, "/uid").into()]);
    }
    if items(user, "/groups").next().is_some() {
        layout.row(vec!["Groups".into(), listed(user, "/groups")]);
    }
    for (key, values) in fields(user, "/extra") {
        layout.row(vec![format!("Extra: {key}"), listed(values, "")]);
    }
    print!("{}", layout.render(false));
    Ok(())
}

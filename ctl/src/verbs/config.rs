//! `config`: the kubeconfig itself. Nothing is asked of a server.
//!
//! Changes keep what else the file holds. With several files in `$KUBECONFIG` all are shown as one; a change goes to the
//! file that has what is changed, what is new to the first.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use base64::Engine;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::GlobalOptions;
use crate::connect::files;
use crate::output;
use crate::output::table::Layout;
use crate::tree::{items, text};

/// What is done with the kubeconfig.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Show it, without what is secret
    View(ViewOptions),
    /// List the contexts
    GetContexts(ListOptions),
    /// List the clusters
    GetClusters,
    /// List the users
    GetUsers,
    /// Name the context in use
    CurrentContext,
    /// Use another context
    #[command(visible_alias = "use")]
    UseContext {
        /// The context
        name: String,
    },
    /// Make or change a context
    SetContext(SetContext),
    /// Make or change a cluster
    SetCluster(SetCluster),
    /// Make or change a user
    SetCredentials(SetCredentials),
    /// Give a context another name
    RenameContext {
        /// The name it has
        from: String,
        /// The name it gets
        to: String,
    },
    /// Take a context out
    DeleteContext {
        /// The context
        name: String,
    },
    /// Take a cluster out
    DeleteCluster {
        /// The cluster
        name: String,
    },
    /// Take a user out
    DeleteUser {
        /// The user
        name: String,
    },
}

/// The flags of `config view`.
#[derive(Args, Clone, Debug)]
pub struct ViewOptions {
    /// Also what is secret
    #[arg(long)]
    raw: bool,
    /// Only what the context in use needs
    #[arg(long)]
    minify: bool,
    /// With the contents of files in place of their names
    #[arg(long)]
    flatten: bool,
    /// json, yaml, jsonpath=TEMPLATE
    #[arg(short, long, default_value = "yaml", value_name = "FORM")]
    output: String,
}

/// The flags of `config get-contexts`.
#[derive(Args, Clone, Debug)]
pub struct ListOptions {
    /// One context
    name: Option<String>,
    /// name
    #[arg(short, long, value_name = "FORM")]
    output: Option<String>,
    /// No heading
    #[arg(long)]
    no_headers: bool,
}

/// The flags of `config set-context`; --cluster, --user and --namespace are those that every verb takes.
#[derive(Args, Clone, Debug)]
pub struct SetContext {
    /// The context
    #[arg(required_unless_present = "current")]
    name: Option<String>,
    /// The context in use
    #[arg(long)]
    current: bool,
}

/// The flags of `config set-cluster`; --server and --insecure-skip-tls-verify are those that every verb takes.
#[derive(Args, Clone, Debug)]
pub struct SetCluster {
    /// The cluster
    name: String,
    /// The certificate of the authority that vouches for the server
    #[arg(long, value_name = "FILE")]
    certificate_authority: Option<String>,
    /// Keep contents of files rather than their names
    #[arg(long)]
    embed_certs: bool,
    /// The name that the server's certificate has to carry
    #[arg(long, value_name = "NAME")]
    tls_server_name: Option<String>,
}

/// The flags of `config set-credentials`; --token is the one that every verb takes.
#[derive(Args, Clone, Debug)]
pub struct SetCredentials {
    /// The user
    name: String,
    /// The user's certificate
    #[arg(long, value_name = "FILE")]
    client_certificate: Option<String>,
    /// Its key
    #[arg(long, value_name = "FILE")]
    client_key: Option<String>,
    /// Keep contents of files rather than their names
    #[arg(long)]
    embed_certs: bool,
}

/// Runs the verb.
pub fn run(global: &GlobalOptions, command: &Command) -> anyhow::Result<()> {
    let paths = files(global);
    let mut configs = paths.iter().map(|path| read(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let config = merged(&configs);
    match command {
        Command::View(options) => view(&config, options, global),
        Command::GetContexts(options) => contexts(&config, options),
        Command::GetClusters => {
            print!("{}", names(&config, "clusters"));
            Ok(())
        }
        Command::GetUsers => {
            print!("{}", names(&config, "users"));
            Ok(())
        }
        Command::CurrentContext => {
            match current(&config) {
                "" => bail!("error: current-context is not set"),
                name => println!("{name}"),
            }
            Ok(())
        }
        change => {
            let place =
                configs.iter().position(|one| is_in(one, change, current(&config))).unwrap_or_default();
            let (Some(path), Some(own)) = (paths.get(place), configs.get_mut(place)) else { return Ok(()) };
            println!("{}", apply(own, &config, change, global, path)?);
            write(path, own)
        }
    }
}

/// What several files say together: of each name, and of each field, what comes first.
fn merged(configs: &[Value]) -> Value {
    let mut all = configs.first().cloned().unwrap_or_default();
    for config in configs.iter().skip(1) {
        for list in ["clusters", "contexts", "users"] {
            for one in items(config, &format!("/{list}")) {
                if entry(&all, list, text(one, "/name")).is_none() {
                    push(&mut all, list, one.clone());
                }
            }
        }
        if current(&all).is_empty() {
            all["current-context"] = current(config).into();
        }
    }
    all
}

/// Whether a file has what a command changes.
fn is_in(config: &Value, change: &Command, current: &str) -> bool {
    let (list, name) = match change {
        Command::SetContext(options) => ("contexts", options.name.as_deref().unwrap_or(current)),
        Command::SetCluster(options) => ("clusters", &*options.name),
        Command::SetCredentials(options) => ("users", &*options.name),
        Command::RenameContext { from, .. } => ("contexts", &**from),
        Command::DeleteContext { name } => ("contexts", &**name),
        Command::DeleteCluster { name } => ("clusters", &**name),
        Command::DeleteUser { name } => ("users", &**name),
        _ => return false,
    };
    entry(config, list, name).is_some()
}

/// Changes the configuration and answers what is to be said about it.
fn apply(
    config: &mut Value,
    all: &Value,
    change: &Command,
    global: &GlobalOptions,
    path: &Path,
) -> anyhow::Result<String> {
    let deleted = |kind: &str, name: &str| format!("deleted {kind} {name} from {}", path.display());
    match change {
        Command::UseContext { name } => {
            entry(all, "contexts", name)
                .with_context(|| format!("error: no context exists with the name: \"{name}\""))?;
            config["current-context"] = name.as_str().into();
            Ok(format!("Switched to context \"{name}\"."))
        }
        Command::SetContext(options) => set_context(config, current(all), options, global),
        Command::SetCluster(options) => set_cluster(config, options, global),
        Command::SetCredentials(options) => set_credentials(config, options, global),
        Command::RenameContext { from, to } => rename_context(config, from, to),
        Command::DeleteContext { name } => {
            remove(config, "contexts", name)?;
            if current(all) == name {
                eprintln!(
                    "warning: this removed your active context, use \"config use-context\" to select a different one"
                );
            }
            Ok(deleted("context", name))
        }
        Command::DeleteCluster { name } => {
            remove(config, "clusters", name).map(|()| deleted("cluster", name))
        }
        Command::DeleteUser { name } => remove(config, "users", name).map(|()| deleted("user", name)),
        _ => Ok(String::new()),
    }
}

fn set_context(
    config: &mut Value,
    current: &str,
    options: &SetContext,
    global: &GlobalOptions,
) -> anyhow::Result<String> {
    let name = if options.current { current } else { options.name.as_deref().unwrap_or_default() };
    if name.is_empty() {
        bail!("error: no current context is set");
    }
    let fields = [("cluster", &global.cluster), ("user", &global.user), ("namespace", &global.namespace)];
    let fields = fields.into_iter().filter_map(|(field, value)| Some((field, json!(value.as_ref()?))));
    let done = put(config, "contexts", "context", name, fields.collect());
    Ok(format!("Context \"{name}\" {done}."))
}

fn set_cluster(config: &mut Value, options: &SetCluster, global: &GlobalOptions) -> anyhow::Result<String> {
    let mut fields = Vec::new();
    fields.extend(global.server.as_ref().map(|server| ("server", json!(server))));
    fields.extend(global.insecure_skip_tls_verify.then_some(("insecure-skip-tls-verify", json!(true))));
    fields.extend(options.tls_server_name.as_ref().map(|name| ("tls-server-name", json!(name))));
    let authority = options.certificate_authority.as_ref();
    file(&mut fields, "certificate-authority", authority, options.embed_certs)?;
    put(config, "clusters", "cluster", &options.name, fields);
    Ok(format!("Cluster \"{}\" set.", options.name))
}

fn set_credentials(
    config: &mut Value,
    options: &SetCredentials,
    global: &GlobalOptions,
) -> anyhow::Result<String> {
    let mut fields = Vec::new();
    fields.extend(global.token.as_ref().map(|token| ("token", json!(token))));
    let (certificate, key) = (options.client_certificate.as_ref(), options.client_key.as_ref());
    file(&mut fields, "client-certificate", certificate, options.embed_certs)?;
    file(&mut fields, "client-key", key, options.embed_certs)?;
    put(config, "users", "user", &options.name, fields);
    Ok(format!("User \"{}\" set.", options.name))
}

fn rename_context(config: &mut Value, from: &str, to: &str) -> anyhow::Result<String> {
    if entry(config, "contexts", to).is_some() {
        bail!("error: cannot rename the context \"{from}\", the context \"{to}\" already exists");
    }
    let found = config["contexts"].as_array_mut().into_iter().flatten().find(|one| one["name"] == from);
    let found =
        found.with_context(|| format!("error: cannot rename the context \"{from}\", it is not there"))?;
    found["name"] = to.into();
    if current(config) == from {
        config["current-context"] = to.into();
    }
    Ok(format!("Context \"{from}\" renamed to \"{to}\"."))
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("error: cannot read {}", path.display())),
    };
    if text.trim().is_empty() {
        return Ok(
            json!({"apiVersion": "v1", "kind": "Config", "clusters": [], "contexts": [], "current-context": "", "users": []}),
        );
    }
    crate::yaml::read(&text)
        .map_err(|error| anyhow::anyhow!("error: {}: {}", path.display(), error.without_snippet()))
}

/// Replaces the file in one step, readable by its owner only.
fn write(path: &Path, config: &Value) -> anyhow::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = || format!("error: cannot write {}", path.display());
    std::fs::create_dir_all(directory).with_context(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(directory).with_context(failed)?;
    file.write_all(output::to_yaml(config)?.as_bytes()).with_context(failed)?;
    file.as_file().sync_all().with_context(failed)?;
    file.persist(path).with_context(failed)?;
    Ok(())
}

fn current(config: &Value) -> &str {
    text(config, "/current-context")
}

fn entry<'a>(config: &'a Value, list: &str, name: &str) -> Option<&'a Value> {
    items(config, &format!("/{list}")).find(|one| text(one, "/name") == name)
}

fn push(config: &mut Value, list: &str, one: Value) {
    match config[list].as_array_mut() {
        Some(all) => all.push(one),
        None => config[list] = json!([one]),
    }
}

fn put(config: &mut Value, list: &str, field: &str, name: &str, fields: Vec<(&str, Value)>) -> &'static str {
    let known = entry(config, list, name).is_some();
    if !known {
        push(config, list, json!({"name": name, field: {}}));
    }
    let all = config[list].as_array_mut().into_iter().flatten();
    for one in all.filter(|one| one["name"] == name) {
        for (key, value) in &fields {
            one[field][*key] = value.clone();
        }
    }
    if known { "modified" } else { "created" }
}

fn file(
    fields: &mut Vec<(&'static str, Value)>,
    key: &'static str,
    path: Option<&String>,
    embed: bool,
) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    if !embed {
        let absolute = std::path::absolute(path).with_context(|| format!("error: {path}"))?;
        fields.push((key, json!(absolute.display().to_string())));
        return Ok(());
    }
    let bytes = std::fs::read(path).with_context(|| format!("error: cannot read {path}"))?;
    let data = match key {
        "certificate-authority" => "certificate-authority-data",
        "client-certificate" => "client-certificate-data",
        _ => "client-key-data",
    };
    fields.push((data, json!(base64::engine::general_purpose::STANDARD.encode(bytes))));
    Ok(())
}

fn remove(config: &mut Value, list: &str, name: &str) -> anyhow::Result<()> {
    let kind = list.trim_end_matches('s');
    if entry(config, list, name).is_none() {
        bail!("error: cannot delete {kind} {name}, not in the kubeconfig");
    }
    if let Some(all) = config[list].as_array_mut() {
        all.retain(|one| one["name"] != name);
    }
    Ok(())
}

fn view(config: &Value, options: &ViewOptions, global: &GlobalOptions) -> anyhow::Result<()> {
    let mut shown = config.clone();
    if options.minify {
        minify(&mut shown, global.context.as_deref())?;
    }
    if options.flatten {
        flatten(&mut shown)?;
    }
    if !options.raw {
        hide(&mut shown);
    }
    output::print_object(&shown, &options.output)
}

/// Leaves the context in use and what it names.
fn minify(config: &mut Value, context: Option<&str>) -> anyhow::Result<()> {
    let name = context.unwrap_or(current(config)).to_string();
    let found =
        entry(config, "contexts", &name).with_context(|| format!("error: there is no context {name:?}"))?;
    let (cluster, user) =
        (text(found, "/context/cluster").to_string(), text(found, "/context/user").to_string());
    for (list, name) in [("contexts", &name), ("clusters", &cluster), ("users", &user)] {
        if let Some(all) = config[list].as_array_mut() {
            all.retain(|one| one["name"] == name.as_str());
        }
    }
    config["current-context"] = name.into();
    Ok(())
}

fn flatten(config: &mut Value) -> anyhow::Result<()> {
    for (list, field, keys) in [
        ("clusters", "cluster", ["certificate-authority", "certificate-authority"]),
        ("users", "user", ["client-certificate", "client-key"]),
    ] {
        for one in config[list].as_array_mut().into_iter().flatten() {
            for key in keys {
                let Some(path) = one[field][key].as_str().map(str::to_string) else { continue };
                let bytes = std::fs::read(&path).with_context(|| format!("error: cannot read {path}"))?;
                one[field][format!("{key}-data")] =
                    base64::engine::general_purpose::STANDARD.encode(bytes).into();
                if let Some(map) = one[field].as_object_mut() {
                    map.remove(key);
                }
            }
        }
    }
    Ok(())
}

fn hide(config: &mut Value) {
    for (list, field) in [("clusters", "cluster"), ("users", "user")] {
        for one in config[list].as_array_mut().into_iter().flatten() {
            for (key, value) in one[field].as_object_mut().into_iter().flatten() {
                if key.ends_with("-data") {
                    *value = "DATA+OMITTED".into();
                } else if key == "token" || key == "password" {
                    *value = "REDACTED".into();
                }
            }
        }
    }
}

fn contexts(config: &Value, options: &ListOptions) -> anyhow::Result<()> {
    let mut shown: Vec<&Value> = items(config, "/contexts").collect();
    if let Some(name) = &options.name {
        shown.retain(|context| text(context, "/name") == name);
        if shown.is_empty() {
            bail!("error: context {name} not found");
        }
    }
    shown.sort_by_key(|context| text(context, "/name"));
    if options.output.as_deref() == Some("name") {
        shown.iter().for_each(|context| println!("{}", text(context, "/name")));
        return Ok(());
    }
    let mut layout = Layout::new(&["CURRENT", "NAME", "CLUSTER", "AUTHINFO", "NAMESPACE"]);
    for context in shown {
        let name = text(context, "/name");
        let mark = if name == current(config) { "*" } else { "" };
        let of = |field: &str| text(context, &format!("/context/{field}")).to_string();
        layout.row(vec![mark.into(), name.into(), of("cluster"), of("user"), of("namespace")]);
    }
    print!("{}", layout.render(options.no_headers));
    Ok(())
}

fn names(config: &Value, list: &str) -> String {
    let mut layout = Layout::new(&["NAME"]);
    items(config, &format!("/{list}")).for_each(|one| layout.row(vec![text(one, "/name").to_string()]));
    layout.render(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Value {
        json!({"current-context": "a", "contexts": [
                {"name": "a", "context": {"cluster": "c1", "user": "u1"}},
                {"name": "b", "context": {"cluster": "c2", "user": "u2"}}],
            "clusters": [{"name": "c1", "cluster": {"certificate-authority-data": "x"}}, {"name": "c2", "cluster": {}}],
            "users": [{"name": "u1", "user": {"token": "t"}}]})
    }

    #[test]
    fn contexts_are_chosen_changed_renamed_and_removed() {
        let mut config = two();
        let global = GlobalOptions { namespace: Some("blue".into()), ..GlobalOptions::default() };
        let mut run = |command: Command| {
            let all = config.clone();
            apply(&mut config, &all, &command, &global, Path::new("k"))
        };
        assert_eq!(run(Command::UseContext { name: "b".into() }).unwrap(), "Switched to context \"b\".");
        assert!(
            run(Command::UseContext { name: "x".into() }).unwrap_err().to_string().contains("no context")
        );
        let set = Command::SetContext(SetContext { name: None, current: true });
        assert_eq!(run(set).unwrap(), "Context \"b\" modified.");
        run(Command::RenameContext { from: "b".into(), to: "d".into() }).unwrap();
        run(Command::DeleteContext { name: "a".into() }).unwrap();
        assert_eq!(
            config["contexts"],
            json!([{"name": "d", "context": {"cluster": "c2", "user": "u2", "namespace": "blue"}}])
        );
        assert_eq!(config["current-context"], "d");
    }

    #[test]
    fn what_is_secret_is_not_shown() {
        let mut config = two();
        minify(&mut config, None).unwrap();
        hide(&mut config);
        assert_eq!(config["users"][0]["user"]["token"], "REDACTED");
        assert_eq!(
            config["clusters"],
            json!([{"name": "c1", "cluster": {"certificate-authority-data": "DATA+OMITTED"}}])
        );
    }
}

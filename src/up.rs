//! `gantry up`: the server as a service, a Ready node, and how to go on.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Node;
use kube::Api;

use crate::cli::UpOptions;
use crate::service::{self, Started};
use crate::settings::Settings;
use crate::{identities, preflight};

const POLL: Duration = Duration::from_millis(20);

pub fn run(options: UpOptions) -> anyhow::Result<()> {
    let settings = Settings::resolve(&options.server.common)?;
    if !options.server.no_agent {
        preflight::check_node()?;
    }
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs(options.wait_seconds);
    let running = running_process(&settings);
    let mut started = match running {
        Some(process) => {
            println!("gantry is already running here as process {process}.");
            None
        }
        None => {
            preflight::check_port((settings.bind_address, settings.secure_port).into(), "--secure-port")?;
            // A kubeconfig of an earlier run would be used before the new one is there.
            Some(service::start(&settings, &server_arguments())?)
        }
    };
    step(&format!("started the server, data in {}", settings.data_dir.display()));
    let workers = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    workers.block_on(wait_until_ready(&settings, &mut started, deadline, options.server.no_agent))?;
    if options.server.no_agent {
        step(&format!(
            "the API server answers at {} ({:.1} s)",
            settings.local_url(),
            begun.elapsed().as_secs_f32()
        ));
    } else {
        step(&format!("node {} is Ready ({:.1} s)", settings.node_name, begun.elapsed().as_secs_f32()));
    }
    tell_how_to_go_on(&settings)
}

/// The arguments of this process, as the server takes them.
fn server_arguments() -> Vec<String> {
    let mut arguments = vec!["server".to_string()];
    let mut skip_value = false;
    for argument in std::env::args().skip(2) {
        if skip_value {
            skip_value = false;
        } else if argument == "--wait-seconds" {
            skip_value = true;
        } else if !argument.starts_with("--wait-seconds=") {
            arguments.push(argument);
        }
    }
    arguments
}

/// The process that holds the data directory, if one does.
pub fn running_process(settings: &Settings) -> Option<i32> {
    let process: i32 = std::fs::read_to_string(settings.pid_file()).ok()?.trim().parse().ok()?;
    let command = std::fs::read(format!("/proc/{process}/cmdline")).ok()?;
    // The id may have been given to another program since.
    String::from_utf8_lossy(&command).contains("gantry").then_some(process)
}

async fn wait_until_ready(
    settings: &Settings,
    started: &mut Option<Started>,
    deadline: Instant,
    no_agent: bool,
) -> anyhow::Result<()> {
    loop {
        if let Some(started) = started
            && let Some(why) = started.failure(settings)?
        {
            bail!("the server ended while starting: {why}");
        }
        let last_problem = match is_ready(settings, no_agent).await {
            Ok(None) => return Ok(()),
            Ok(Some(problem)) => problem,
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() > deadline {
            bail!(
                "the node was not Ready in time: {last_problem}; look into {} and run `gantry up` again",
                service::log_file(settings).display()
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Nothing when all is well, else what is missing.
async fn is_ready(settings: &Settings, no_agent: bool) -> anyhow::Result<Option<String>> {
    let path = settings.admin_kubeconfig();
    if !path.exists() {
        return Ok(Some("the server has not made its certificates yet".into()));
    }
    let client = identities::client_of_kubeconfig(&path, "gantry").await?;
    if no_agent {
        client.apiserver_version().await?;
        return Ok(None);
    }
    let Some(node) = Api::<Node>::all(client).get_opt(&settings.node_name).await? else {
        return Ok(Some(format!("node {} has not registered yet", settings.node_name)));
    };
    let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
    let Some(ready) = conditions.into_iter().find(|condition| condition.type_ == "Ready") else {
        return Ok(Some("the node has not reported yet".into()));
    };
    // A kubeconfig's data may be older than this run, and so may the Ready condition.
    let heartbeat_is_new = ready.last_heartbeat_time.is_some();
    match ready.status.as_str() {
        "True" if heartbeat_is_new => Ok(None),
        _ => Ok(Some(ready.message.unwrap_or_else(|| "the node is not Ready".into()))),
    }
}

fn step(text: &str) {
    println!("✔ {text}");
    if let Err(error) = std::io::stdout().flush() {
        eprintln!("gantry: {error}");
    }
}

fn tell_how_to_go_on(settings: &Settings) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot tell where the gantry binary is")?;
    let program = program.display();
    println!(
        "\nUse the cluster:\n  {program} ctl get nodes\n  export KUBECONFIG={}   # then any kubectl works\n\n\
         Add a node:\n  {program} token create     # prints the command to run there\n\n\
         Stop:\n  {program} down             # keeps the data; `up` brings everything back",
        settings.admin_kubeconfig().display()
    );
    Ok(())
}

//! Clusters of real `gantry` processes, one per machine.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::command::{gantry, image_archive};
use crate::{Lan, Machine, Output, Tool, eventually, leaks, run};

/// What differs between nodes.
#[derive(Default)]
pub struct NodeOptions {
    /// More arguments for the process.
    pub arguments: Vec<String>,
}

/// A machine with a `gantry` process on it.
pub struct Node {
    /// The node's name in the API.
    pub name: String,
    /// The machine it is.
    pub machine: Machine,
    data_dir: PathBuf,
    arguments: Vec<String>,
    process: Option<Child>,
}

/// A server and the nodes that joined it. Dropping it stops everything and checks that nothing stays.
pub struct Cluster {
    // In the order of the drop: the nodes' machines before their switch.
    /// The nodes; the first is the server.
    pub nodes: Vec<Node>,
    lan: Lan,
    directory: TempDir,
    finished: bool,
}

impl Cluster {
    /// A cluster of one node, Ready.
    pub fn start() -> Self {
        Self::start_with(NodeOptions::default())
    }

    /// A cluster of one node, Ready, with more arguments for the server.
    pub fn start_with(options: NodeOptions) -> Self {
        Self::start_after(options, |_| ())
    }

    /// The same, after something has been prepared on the server's machine.
    pub fn start_after(options: NodeOptions, prepare: impl FnOnce(&Machine)) -> Self {
        let mut cluster = Self {
            nodes: Vec::new(),
            lan: Lan::new(),
            directory: tempfile::Builder::new().prefix("gantry-test").tempdir().unwrap(),
            finished: false,
        };
        let no_agent = options.arguments.iter().any(|argument| argument == "--no-agent");
        let node = cluster.prepare("n1", 11, vec!["server".to_string()], options);
        prepare(&node.machine);
        cluster.nodes.push(node);
        cluster.nodes[0].spawn();
        if no_agent {
            eventually(60, "the API server answers", || cluster.get(&["namespace", "default"]).map(|_| ()));
        } else {
            cluster.wait_ready("n1");
        }
        cluster
    }

    /// One more node, Ready.
    pub fn join(&mut self, options: NodeOptions) -> &Node {
        let number = self.nodes.len() + 1;
        let name = format!("n{number}");
        let token = self.server().gantry(&["token", "create"]).ok();
        let server = format!("https://{}:6443", self.server().machine.address());
        let arguments = ["agent", "--server", &server, "--token", token.trim()].map(str::to_string).to_vec();
        let node = self.prepare(&name, 10 + number as u8, arguments, options);
        self.nodes.push(node);
        self.nodes[number - 1].spawn();
        self.wait_ready(&name);
        &self.nodes[number - 1]
    }

    /// A host on the same switch that is no node.
    pub fn outside_host(&self) -> Machine {
        self.lan.machine(200)
    }

    /// The first node.
    pub fn server(&self) -> &Node {
        &self.nodes[0]
    }

    /// Runs ctl on the server.
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        self.tool(Tool::Ctl, arguments)
    }

    /// Runs the real kubectl on the server.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        self.tool(Tool::Kubectl, arguments)
    }

    /// Runs a command line on the server.
    pub fn tool(&self, tool: Tool, arguments: &[&str]) -> Output {
        run(&mut self.tool_command(tool, arguments))
    }

    /// A command line on the server, not yet run.
    pub fn tool_command(&self, tool: Tool, arguments: &[&str]) -> Command {
        let (program, first) = tool.command();
        let mut words = vec![program.to_str().unwrap()];
        words.extend(first);
        words.extend(arguments);
        let mut command = self.server().machine.command(&words);
        command.env("KUBECONFIG", self.server().kubeconfig()).env("HOME", self.directory.path());
        command
    }

    /// An object as JSON, through ctl.
    pub fn get(&self, arguments: &[&str]) -> Result<Value, String> {
        let mut words = vec!["get", "-o", "json"];
        words.extend(arguments);
        let output = self.ctl(&words);
        if !output.success {
            return Err(output.all());
        }
        serde_json::from_str(&output.stdout).map_err(|error| format!("{error}: {}", output.stdout))
    }

    /// Writes a manifest and returns its path.
    pub fn manifest(&self, name: &str, contents: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_string()
    }

    /// Loads images into every node.
    pub fn load_images(&self, names: &[&str]) {
        for name in names {
            self.ctl(&["image", "load", image_archive(name).to_str().unwrap()]).ok();
        }
    }

    /// Waits for the pods that a selector names to be Ready, all `count` of them.
    pub fn wait_pods_ready(&self, selector: &str, count: usize, seconds: u64) -> Vec<Value> {
        eventually(seconds, &format!("{count} ready pods of {selector}"), || {
            let pods = self.get(&["pods", "-l", selector])?;
            let pods = pods["items"].as_array().cloned().unwrap_or_default();
            let live: Vec<Value> =
                pods.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect();
            let ready = live.iter().filter(|pod| condition(pod, "Ready") == "True").count();
            if ready == count && live.len() == count { Ok(live) } else { Err(summary(&live)) }
        })
    }

    fn wait_ready(&self, name: &str) {
        eventually(60, &format!("node {name} is Ready"), || {
            let log = || self.nodes.last().unwrap().log_tail();
            let node = self.get(&["node", name]).map_err(|why| format!("{why}\n{}", log()))?;
            match condition(&node, "Ready").as_str() {
                "True" => Ok(()),
                _ => Err(format!("{}\n{}", node["status"]["conditions"], log())),
            }
        });
    }

    fn prepare(&self, name: &str, host: u8, mut arguments: Vec<String>, options: NodeOptions) -> Node {
        let machine = self.lan.machine(host);
        let data_dir = self.directory.path().join(name);
        std::fs::create_dir_all(&data_dir).unwrap();
        arguments.extend(["--data-dir", data_dir.to_str().unwrap(), "--node-name", name].map(str::to_string));
        arguments.extend(["--node-ip".to_string(), machine.address().to_string()]);
        // How full the disk of the machine that runs the tests is does not matter.
        arguments.extend(["--eviction-hard".to_string(), "memory.available<100Mi".to_string()]);
        arguments.extend(options.arguments);
        Node { name: name.to_string(), machine, data_dir, arguments, process: None }
    }

    /// Stops everything as a user would and fails if anything stays behind.
    pub fn finish(mut self) {
        self.stop_nodes();
        self.finished = true;
        leaks::check(&self.nodes);
    }

    fn stop_nodes(&mut self) {
        for node in self.nodes.iter_mut().rev() {
            node.down();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.finished {
            if std::thread::panicking() {
                for node in &self.nodes {
                    eprintln!("--- the log of {}:\n{}", node.name, node.log_tail());
                }
            }
            self.stop_nodes();
        }
    }
}

impl Node {
    /// Where the node keeps its data.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The administrator's kubeconfig; only the server has one.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("admin.kubeconfig")
    }

    /// Starts the process.
    pub fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let program = gantry();
        let mut words = vec![program.to_str().unwrap()];
        words.extend(self.arguments.iter().map(String::as_str));
        let mut command = self.machine.command(&words);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
    }

    /// The process id.
    pub fn process_id(&self) -> u32 {
        self.process.as_ref().expect("the node's process was started").id()
    }

    /// Kills the process as a power cut would, and leaves its containers running.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Asks the process to stop and waits for it.
    pub fn terminate(&mut self) {
        if let Some(mut process) = self.process.take() {
            run(Command::new("kill").args(["-TERM", &process.id().to_string()])).ok();
            eventually(20, "the process ends", || match process.try_wait().unwrap() {
                Some(_) => Ok(()),
                None => Err("it still runs".to_string()),
            });
        }
    }

    /// Runs `gantry` on the node's machine with the node's data directory.
    pub fn gantry(&self, arguments: &[&str]) -> Output {
        let program = gantry();
        let mut words = vec![program.to_str().unwrap()];
        words.extend(arguments);
        let data_dir = self.data_dir.to_str().unwrap();
        words.extend([
            "--data-dir",
            data_dir,
            "--node-name",
            &self.name,
            "--node-ip",
            self.machine.address(),
        ]);
        self.machine.inside(&words)
    }

    /// `gantry down`, and the process is reaped.
    pub fn down(&mut self) {
        let output = self.gantry(&["down"]);
        if !output.success {
            eprintln!("gantry down on {}: {}", self.name, output.all());
        }
        if let Some(mut process) = self.process.take() {
            for _ in 0..100 {
                if matches!(process.try_wait(), Ok(Some(_))) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            eprintln!("gantry down left the process of {} running", self.name);
            let _killed = process.kill();
            let _reaped = process.wait();
        }
    }

    fn log_path(&self) -> PathBuf {
        self.data_dir.join("test.log")
    }

    /// The last lines that the process logged.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// The status of a condition, or the empty string.
pub fn condition(object: &Value, kind: &str) -> String {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == kind);
    found.and_then(|condition| condition["status"].as_str()).unwrap_or_default().to_string()
}

fn summary(pods: &[Value]) -> String {
    let lines: Vec<String> = pods
        .iter()
        .map(|pod| {
            let statuses = &pod["status"]["containerStatuses"];
            format!(
                "{} {} on {}: {statuses}",
                pod["metadata"]["name"], pod["status"]["phase"], pod["spec"]["nodeName"]
            )
        })
        .collect();
    format!("{} pods\n{}", pods.len(), lines.join("\n"))
}

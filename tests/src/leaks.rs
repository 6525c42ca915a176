//! What a stopped node must not leave behind: processes, mounts, namespaces, control groups, links, rules.

use std::collections::BTreeSet;
use std::path::Path;

use crate::Node;

/// The state of the machine before a test.
pub struct LeakCheck {
    before: Traces,
}

/// Everything that a test could leave.
#[derive(Default)]
struct Traces {
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    run_directories: BTreeSet<String>,
}

impl LeakCheck {
    /// Remembers what is there.
    pub fn begin() -> Self {
        Self { before: Traces::collect() }
    }

    /// Fails with a list when stopped nodes left anything.
    #[track_caller]
    pub fn check(&self, nodes: &[&Node]) {
        let now = Traces::collect();
        let mut left: Vec<String> = Vec::new();
        left.extend(now.mounts.difference(&self.before.mounts).map(|mount| format!("mount {mount}")));
        left.extend(now.cgroups.difference(&self.before.cgroups).map(|group| format!("cgroup {group}")));
        let directories = now.run_directories.difference(&self.before.run_directories);
        left.extend(directories.map(|directory| format!("directory {directory}")));
        for node in nodes {
            left.extend(processes_of(node.data_dir()));
            left.extend(links_of(node));
            left.extend(rules_of(node));
        }
        assert!(left.is_empty(), "left behind after `gantry down`:\n  {}", left.join("\n  "));
    }
}

impl Traces {
    fn collect() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        // The switch and the machines of the tests themselves are mounts under /run/netns.
        let mounts = points.filter(|point| !point.starts_with("/run/netns")).map(str::to_string).collect();
        let mut cgroups = BTreeSet::new();
        collect_directories(Path::new("/sys/fs/cgroup"), 5, &mut cgroups);
        let mut run_directories = BTreeSet::new();
        collect_directories(Path::new("/run"), 1, &mut run_directories);
        Self { mounts, cgroups, run_directories }
    }
}

fn collect_directories(directory: &Path, depth: usize, into: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            into.insert(entry.path().display().to_string());
            if depth > 1 {
                collect_directories(&entry.path(), depth - 1, into);
            }
        }
    }
}

fn processes_of(data_dir: &Path) -> Vec<String> {
    let needle = data_dir.display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| {
            let id: u32 = entry.file_name().to_str()?.parse().ok()?;
            let command = std::fs::read(entry.path().join("cmdline")).ok()?;
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            (id != std::process::id() && command.contains(&needle))
                .then(|| format!("process {id}: {command}"))
        })
        .collect()
}

fn links_of(node: &Node) -> Vec<String> {
    let links = node.machine.inside(&["ip", "-o", "link"]).ok();
    let names = links.lines().filter_map(|line| line.split(": ").nth(1));
    names
        .filter(|name| !name.starts_with("lo") && !name.starts_with("eth0"))
        .map(|name| format!("link {name} on {}", node.name))
        .collect()
}

fn rules_of(node: &Node) -> Vec<String> {
    let tables = node.machine.inside(&["nft", "list", "tables"]).ok();
    tables.lines().map(|table| format!("nftables {table} on {}", node.name)).collect()
}

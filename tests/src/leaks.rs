//! What a stopped node must not leave behind: processes, mounts, namespaces, control groups, links, rules.
//!
//! Only what carries the node's own names counts: other programs on the machine come and go as they like.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::Node;

/// Fails with a list when stopped nodes left anything.
#[track_caller]
pub fn check(nodes: &[Node]) {
    let mut left: Vec<String> = Vec::new();
    for node in nodes {
        let instance = instance_of(node.data_dir());
        left.extend(processes_naming(node.data_dir()));
        left.extend(mounts_of(node.data_dir(), &instance));
        collect_cgroups(Path::new("/sys/fs/cgroup"), 3, &instance, &mut left);
        let run = Path::new("/run").join(&instance);
        left.extend(run.exists().then(|| format!("directory {}", run.display())));
        left.extend(links_of(node));
        left.extend(rules_of(node));
    }
    assert!(left.is_empty(), "left behind after `gantry down`:\n  {}", left.join("\n  "));
}

/// The name that everything of an instance on the host carries: a short hash of its data directory.
fn instance_of(data_dir: &Path) -> String {
    let hash = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
    let digits: String = hash.iter().take(3).map(|byte| format!("{byte:02x}")).collect();
    format!("g{digits}")
}

fn mounts_of(data_dir: &Path, instance: &str) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    let run = Path::new("/run").join(instance);
    let ours = points.filter(|point| point.starts_with(data_dir) || point.starts_with(&run));
    ours.map(|point| format!("mount {}", point.display())).collect()
}

fn collect_cgroups(directory: &Path, depth: usize, instance: &str, into: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if entry.file_name().to_string_lossy().starts_with(instance) {
            into.push(format!("cgroup {}", entry.path().display()));
        } else if depth > 1 {
            collect_cgroups(&entry.path(), depth - 1, instance, into);
        }
    }
}

/// The processes whose command line names a directory.
pub fn processes_naming(data_dir: &Path) -> Vec<String> {
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

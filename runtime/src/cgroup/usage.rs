//! What a group has used.

use std::{fs, path::Path};

use super::{Cgroups, keyed};

/// Readings of one moment. What a kernel does not tell is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub cpu_ns: u64,
    pub memory_bytes: u64,
    pub working_set_bytes: u64,
    pub rss_bytes: u64,
    pub memory_limit_bytes: Option<u64>,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub processes: u64,
}

impl Cgroups {
    /// Reads the usage of a group; nothing when the group does not exist.
    pub(crate) fn usage(&self, group: &str) -> Option<Usage> {
        match self {
            Self::V1(_) => self.usage_v1(group),
            Self::V2(mount) => usage_v2(&mount.join(group.trim_start_matches('/'))),
        }
    }

    fn usage_v1(&self, group: &str) -> Option<Usage> {
        let cpu = self.controller("cpuacct", group)?;
        let memory = self.controller("memory", group)?;
        let stat = fs::read_to_string(memory.join("memory.stat")).ok()?;
        let memory_bytes = number(&memory, "memory.usage_in_bytes").unwrap_or_default();
        let processes = self.controller("pids", group).and_then(|pids| number(&pids, "pids.current"));
        Some(Usage {
            cpu_ns: number(&cpu, "cpuacct.usage").unwrap_or_default(),
            memory_bytes,
            working_set_bytes: memory_bytes.saturating_sub(keyed(&stat, "total_inactive_file")),
            rss_bytes: keyed(&stat, "total_rss"),
            // Without a limit the kernel reports the largest multiple of a page.
            memory_limit_bytes: number(&memory, "memory.limit_in_bytes").filter(|limit| *limit < 1 << 62),
            page_faults: keyed(&stat, "total_pgfault"),
            major_page_faults: keyed(&stat, "total_pgmajfault"),
            processes: processes.unwrap_or_default(),
        })
    }
}

fn usage_v2(directory: &Path) -> Option<Usage> {
    let stat = fs::read_to_string(directory.join("memory.stat")).ok()?;
    let cpu = fs::read_to_string(directory.join("cpu.stat")).unwrap_or_default();
    let memory_bytes = number(directory, "memory.current").unwrap_or_default();
    Some(Usage {
        cpu_ns: keyed(&cpu, "usage_usec") * 1000,
        memory_bytes,
        working_set_bytes: memory_bytes.saturating_sub(keyed(&stat, "inactive_file")),
        rss_bytes: keyed(&stat, "anon"),
        memory_limit_bytes: number(directory, "memory.max"),
        page_faults: keyed(&stat, "pgfault"),
        major_page_faults: keyed(&stat, "pgmajfault"),
        processes: number(directory, "pids.current").unwrap_or_default(),
    })
}

fn number(directory: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok()
}

//! Limits as they are changed while a container runs.

use std::{fs, path::Path};

use super::{CgroupError, Cgroups};

/// What may be changed; zero or empty leaves a limit as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub cpu_shares: u64,
    pub cpu_quota: i64,
    pub cpu_period: u64,
    pub memory_bytes: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    /// Files of version 2 that are set as they are.
    pub unified: Vec<(String, String)>,
}

impl Cgroups {
    /// Changes the limits of a group.
    pub(crate) fn set_limits(&self, group: &str, limits: &Limits) -> Result<(), CgroupError> {
        match self {
            Self::V1(_) => self.set_v1(group, limits),
            Self::V2(mount) => set_v2(&mount.join(group.trim_start_matches('/')), limits),
        }
    }

    fn set_v1(&self, group: &str, limits: &Limits) -> Result<(), CgroupError> {
        let write = |controller: &str, file: &str, value: String| match self.controller(controller, group) {
            Some(directory) => write(&directory, file, &value),
            None => Ok(()),
        };
        if limits.cpu_shares > 0 {
            write("cpu", "cpu.shares", limits.cpu_shares.to_string())?;
        }
        if limits.cpu_period > 0 {
            write("cpu", "cpu.cfs_period_us", limits.cpu_period.to_string())?;
        }
        if limits.cpu_quota != 0 {
            write("cpu", "cpu.cfs_quota_us", limits.cpu_quota.to_string())?;
        }
        if limits.memory_bytes != 0 {
            write("memory", "memory.limit_in_bytes", limits.memory_bytes.to_string())?;
        }
        if !limits.cpuset_cpus.is_empty() {
            write("cpuset", "cpuset.cpus", limits.cpuset_cpus.clone())?;
        }
        if !limits.cpuset_mems.is_empty() {
            write("cpuset", "cpuset.mems", limits.cpuset_mems.clone())?;
        }
        Ok(())
    }
}

fn set_v2(directory: &Path, limits: &Limits) -> Result<(), CgroupError> {
    if limits.cpu_shares > 0 {
        write(directory, "cpu.weight", &weight(limits.cpu_shares).to_string())?;
    }
    if limits.cpu_quota != 0 || limits.cpu_period > 0 {
        let quota = if limits.cpu_quota > 0 { limits.cpu_quota.to_string() } else { "max".into() };
        let period = if limits.cpu_period > 0 { limits.cpu_period } else { 100_000 };
        write(directory, "cpu.max", &format!("{quota} {period}"))?;
    }
    if limits.memory_bytes != 0 {
        let value = if limits.memory_bytes > 0 { limits.memory_bytes.to_string() } else { "max".into() };
        write(directory, "memory.max", &value)?;
    }
    if !limits.cpuset_cpus.is_empty() {
        write(directory, "cpuset.cpus", &limits.cpuset_cpus)?;
    }
    if !limits.cpuset_mems.is_empty() {
        write(directory, "cpuset.mems", &limits.cpuset_mems)?;
    }
    for (file, value) in limits.unified.iter().filter(|(file, _)| !file.contains('/')) {
        write(directory, file, value)?;
    }
    Ok(())
}

/// Shares (2 to 262144) as a weight (1 to 10000), by the formula that all runtimes use.
fn weight(shares: u64) -> u64 {
    1 + ((shares.clamp(2, 262_144) - 2) * 9999) / 262_142
}

fn write(directory: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
    let path = directory.join(file);
    fs::write(&path, value).map_err(|error| CgroupError::Io(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_should_become_weights_at_both_ends_of_the_scale() {
        assert_eq!((weight(2), weight(1024), weight(262_144), weight(0)), (1, 39, 10_000, 1));
    }
}

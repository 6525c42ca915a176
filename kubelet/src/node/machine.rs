//! What the machine is and has, read once at the start.

use std::path::Path;

use crate::config::Config;

/// The machine.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Cores.
    pub cpus: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Huge pages that are set aside, by size in bytes: bytes.
    pub huge_pages: Vec<(i64, i64)>,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// The firmware's name for it.
    pub system_uuid: String,
    /// Another one after each boot.
    pub boot_id: String,
    /// As `uname -r`.
    pub kernel_version: String,
    /// The distribution, as it calls itself.
    pub os_image: String,
    /// As Go names it.
    pub architecture: String,
}

/// CPU and memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Thousandths of a core.
    pub cpu_millis: i64,
    /// Bytes.
    pub memory_bytes: i64,
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(path)).unwrap_or_default().trim().to_string()
}

impl Machine {
    /// Looks.
    pub fn look() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |n| i64::try_from(n.get()).unwrap_or(1));
        let uname = nix::sys::utsname::uname().ok();
        let text = |value: Option<&std::ffi::OsStr>| value.map(|v| v.to_string_lossy().into_owned());
        Self {
            cpus,
            memory_bytes: memory_total(&read("/proc/meminfo")),
            huge_pages: huge_pages(),
            machine_id: read("/etc/machine-id"),
            system_uuid: Some(read("/sys/class/dmi/id/product_uuid"))
                .filter(|id| !id.is_empty())
                .unwrap_or_else(|| read("/etc/machine-id")),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            kernel_version: text(uname.as_ref().map(|u| u.release())).unwrap_or_default(),
            os_image: os_image(&read("/etc/os-release")),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            }
            .to_string(),
        }
    }

    /// What pods may ask for.
    pub fn allocatable(&self, config: &Config) -> Share {
        let kept = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let memory = self.memory_bytes
            - kept(config.reserved.memory_bytes)
            - kept(config.eviction.thresholds.memory.of(self.memory_bytes.unsigned_abs()))
            - self.huge_pages.iter().map(|(_, bytes)| bytes).sum::<i64>();
        let cpu = self.cpus * 1000 - kept(config.reserved.cpu_millis);
        Share { cpu_millis: cpu.max(0), memory_bytes: memory.max(0) }
    }
}

fn memory_total(meminfo: &str) -> i64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|n| n.parse::<i64>().ok());
    kib.unwrap_or(0) * 1024
}

fn huge_pages() -> Vec<(i64, i64)> {
    let dir = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut found: Vec<(i64, i64)> = dir
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let kib: i64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let count = std::fs::read_to_string(entry.path().join("nr_hugepages")).ok()?;
            Some((kib * 1024, kib * 1024 * count.trim().parse::<i64>().ok()?))
        })
        .collect();
    found.sort_unstable();
    found
}

fn os_image(os_release: &str) -> String {
    let line = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.map_or("Linux".to_string(), |name| name.trim_matches('"').to_string())
}

//! Images for the test, made of Debian's static busybox, in the form of `docker save`.

use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

const APPLETS: [&str; 10] = ["sh", "sleep", "cat", "echo", "env", "true", "false", "ls", "rm", "touch"];

fn header(size: usize, mode: u32, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(size as u64);
    header.set_mode(mode);
    header.set_entry_type(kind);
    header
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn layer() -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (directory, mode) in [("bin/", 0o755), ("tmp/", 0o1777), ("etc/", 0o755)] {
        tar.append_data(&mut header(0, mode, EntryType::Directory), directory, &[][..]).unwrap();
    }
    let busybox = std::fs::read("/bin/busybox").unwrap();
    tar.append_data(&mut header(busybox.len(), 0o755, EntryType::Regular), "bin/busybox", &busybox[..])
        .unwrap();
    for applet in APPLETS {
        let mut link = header(0, 0o777, EntryType::Symlink);
        tar.append_link(&mut link, format!("bin/{applet}"), "busybox").unwrap();
    }
    tar.into_inner().unwrap()
}

/// An image of this name that runs this command.
pub fn image(name: &str, command: &[&str]) -> Vec<u8> {
    let layer = layer();
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))]},
    })
    .to_string();
    let config_name = format!("{}.json", digest(config.as_bytes()));
    let manifest =
        serde_json::json!([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).to_string();
    let mut tar = Builder::new(Vec::new());
    let parts = [
        ("layer.tar", layer.as_slice()),
        (&config_name, config.as_bytes()),
        ("manifest.json", manifest.as_bytes()),
    ];
    for (path, content) in parts {
        tar.append_data(&mut header(content.len(), 0o644, EntryType::Regular), path, content).unwrap();
    }
    tar.into_inner().unwrap()
}

//! A real registry on a machine of the tests, filled from the archives that `images/build.sh` made.

use std::process::{Child, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::image_archive;
use crate::{Machine, eventually, run};

/// Where it listens, on its machine.
pub const REGISTRY: &str = "127.0.0.1:5000";

/// A running registry. Dropping it ends it.
pub struct Registry {
    process: Child,
    _directory: TempDir,
}

impl Registry {
    /// Starts one and pushes images into it.
    pub fn start(machine: &Machine, images: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{REGISTRY}'}}\n",
            root.join("data").display()
        );
        std::fs::write(root.join("config.yml"), config).unwrap();
        let process = machine
            .command(&["docker-registry", "serve", root.join("config.yml").to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { process, _directory: directory };
        eventually(15, "the registry answers", || {
            let answer = machine.inside(&["curl", "-sf", &format!("http://{REGISTRY}/v2/")]);
            if answer.success { Ok(()) } else { Err(answer.all()) }
        });
        for image in images {
            push(machine, image);
        }
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _killed = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// Pushes an archive by the registry's own protocol.
fn push(machine: &Machine, image: &str) {
    let unpacked = tempfile::tempdir().unwrap();
    let directory = unpacked.path().to_str().unwrap();
    run(std::process::Command::new("tar").args([
        "-xf",
        image_archive(image).to_str().unwrap(),
        "-C",
        directory,
    ]))
    .ok();
    let read = |name: &str| std::fs::read(unpacked.path().join(name)).unwrap();
    let manifest: Value = serde_json::from_slice(&read("manifest.json")).unwrap();
    let (repository, tag) = image.split_once(':').unwrap();
    let blob = |name: &str, kind: &str| {
        let path = unpacked.path().join(name);
        let sum = run(std::process::Command::new("sha256sum").arg(&path)).ok();
        let digest = format!("sha256:{}", sum.split(' ').next().unwrap());
        upload(machine, repository, path.to_str().unwrap(), &digest);
        json!({"mediaType": kind, "digest": digest, "size": std::fs::metadata(&path).unwrap().len()})
    };
    let config =
        blob(manifest[0]["Config"].as_str().unwrap(), "application/vnd.docker.container.image.v1+json");
    let layers: Vec<Value> = manifest[0]["Layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| blob(layer.as_str().unwrap(), "application/vnd.docker.image.rootfs.diff.tar"))
        .collect();
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let document = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers});
    let file = unpacked.path().join("document.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let url = format!("http://{REGISTRY}/v2/{repository}/manifests/{tag}");
    let header = format!("Content-Type: {kind}");
    let data = format!("@{}", file.display());
    machine.inside(&["curl", "-sf", "-X", "PUT", "-H", &header, "--data-binary", &data, &url]).ok();
}

fn upload(machine: &Machine, repository: &str, path: &str, digest: &str) {
    let begin = format!("http://{REGISTRY}/v2/{repository}/blobs/uploads/");
    let headers = machine.inside(&["curl", "-sf", "-i", "-X", "POST", &begin]).ok();
    let location = headers
        .lines()
        .find_map(|line| line.strip_prefix("Location: ").or_else(|| line.strip_prefix("location: ")))
        .unwrap()
        .trim();
    let separator = if location.contains('?') { '&' } else { '?' };
    let url = format!("{location}{separator}digest={digest}");
    let kind = "Content-Type: application/octet-stream";
    machine
        .inside(&["curl", "-sf", "-X", "PUT", "-H", kind, "--data-binary", &format!("@{path}"), &url])
        .ok();
}

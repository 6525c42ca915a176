//! `cp`: files and directories to and from containers, by `tar` in the container.
//!
//! Symbolic links out of a container are not followed and not made, and no entry is written outside of the
//! destination: what comes out of a container is not trusted.

use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use kube::api::AttachParams;
use tokio::io::AsyncReadExt;
use tokio_util::io::SyncIoBridge;

use crate::session::Session;
use crate::verbs::exec;

const PIPE_BYTES: usize = 256 * 1024;

/// The flags of `cp`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What to copy: a local path, or POD:PATH, or NAMESPACE/POD:PATH
    pub source: String,
    /// Where to
    pub destination: String,
    /// The container
    #[arg(short, long, value_name = "NAME")]
    pub container: Option<String>,
    /// Do not keep owners and permissions
    #[arg(long)]
    pub no_preserve: bool,
    /// How often to go on after the connection broke off; not supported beyond 0
    #[arg(long, default_value_t = 0, hide = true)]
    pub retries: i64,
}

/// One side of the copy.
#[derive(Debug, PartialEq, Eq)]
enum Side {
    Local(PathBuf),
    Remote { namespace: Option<String>, pod: String, path: String },
}

impl Side {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let Some((pod, path)) = text.split_once(':').filter(|_| !text.starts_with(['/', '.'])) else {
            return Ok(Self::Local(PathBuf::from(text)));
        };
        let (namespace, pod) = match pod.split_once('/') {
            Some((namespace, pod)) => (Some(namespace.to_string()), pod),
            None => (None, pod),
        };
        if pod.is_empty() || pod.contains('/') || path.is_empty() {
            bail!("error: {text:?} is not of the form POD:PATH or NAMESPACE/POD:PATH");
        }
        Ok(Self::Remote { namespace, pod: pod.to_string(), path: path.to_string() })
    }
}

/// The container on the other side.
struct Container<'a> {
    session: &'a Session,
    namespace: String,
    pod: String,
    name: Option<&'a str>,
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let container = |namespace: Option<String>, pod: String| Container {
        session,
        namespace: namespace.unwrap_or_else(|| session.namespace.clone()),
        pod,
        name: options.container.as_deref(),
    };
    match (Side::parse(&options.source)?, Side::parse(&options.destination)?) {
        (Side::Local(source), Side::Remote { namespace, pod, path }) => {
            upload(&container(namespace, pod), &source, &path, options.no_preserve).await
        }
        (Side::Remote { namespace, pod, path }, Side::Local(destination)) => {
            download(&container(namespace, pod), &path, &destination).await
        }
        (Side::Local(_), Side::Local(_)) => {
            bail!("error: one of source and destination must be in a pod, as POD:PATH")
        }
        _ => bail!("error: one of source and destination must be a local path"),
    }
}

impl Container<'_> {
    fn parameters(&self) -> AttachParams {
        let parameters = AttachParams::default().stdin(false).stdout(true).stderr(true);
        match self.name {
            Some(name) => parameters.container(name),
            None => parameters,
        }
    }

    async fn start(
        &self,
        command: &[&str],
        parameters: &AttachParams,
    ) -> anyhow::Result<kube::api::AttachedProcess> {
        exec::start(self.session, &self.namespace, &self.pod, command, parameters).await
    }

    /// Whether a path is a directory in the container.
    async fn is_directory(&self, path: &str) -> anyhow::Result<bool> {
        let mut process = self.start(&["test", "-d", path], &self.parameters()).await?;
        let status = process.take_status();
        let status = match status {
            Some(status) => status.await,
            None => None,
        };
        Ok(exec::outcome(status).is_ok())
    }
}

async fn upload(container: &Container<'_>, source: &Path, path: &str, plain: bool) -> anyhow::Result<()> {
    if !source.exists() {
        bail!("error: {} doesn't exist in local filesystem", source.display());
    }
    let own_name = source
        .canonicalize()?
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .with_context(|| format!("error: {} has no name of its own", source.display()))?;
    let (directory, name) = if path.ends_with('/') || container.is_directory(path).await? {
        (path.to_string(), own_name)
    } else {
        let path = path.trim_end_matches('/');
        match path.rsplit_once('/') {
            Some(("", name)) => ("/".to_string(), name.to_string()),
            Some((directory, name)) => (directory.to_string(), name.to_string()),
            None => (".".to_string(), path.to_string()),
        }
    };
    let mut command = vec!["tar"];
    if plain {
        command.extend(["--no-same-permissions", "--no-same-owner"]);
    }
    command.extend(["-xmf", "-", "-C", &directory]);
    let mut process =
        container.start(&command, &container.parameters().stdin(true).max_stdin_buf_size(PIPE_BYTES)).await?;
    let stdin = process.stdin().context("the server opened no stream for the archive")?;
    let source = source.to_path_buf();
    let packed = tokio::task::spawn_blocking(move || pack(&source, &name, SyncIoBridge::new(stdin)));
    let told = complaints(&mut process);
    let status = process.take_status();
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    let told = told.await;
    exec::outcome(status).with_context(|| failed("tar in the container", &told))?;
    packed.await.context("the archive was not made")?
}

/// What the command writes to its standard error.
fn complaints(process: &mut kube::api::AttachedProcess) -> impl Future<Output = String> + use<> {
    let stdout = process.stdout();
    let stderr = process.stderr();
    let reading = tokio::spawn(async move {
        let mut text = Vec::new();
        if let Some(mut stderr) = stderr {
            let _end = stderr.read_to_end(&mut text).await;
        }
        String::from_utf8_lossy(&text).trim().to_string()
    });
    async move {
        drop(stdout);
        reading.await.unwrap_or_default()
    }
}

fn failed(what: &str, told: &str) -> String {
    if told.is_empty() {
        format!("error: {what} failed; the image must have the tar program")
    } else {
        format!("error: {what}: {told}")
    }
}

/// Writes an archive with the source under one name.
fn pack(
    source: &Path,
    name: &str,
    mut pipe: SyncIoBridge<impl tokio::io::AsyncWrite + Unpin>,
) -> anyhow::Result<()> {
    {
        let mut archive = tar::Builder::new(&mut pipe);
        archive.follow_symlinks(false);
        if std::fs::metadata(source)?.is_dir() {
            archive.append_dir_all(name, source)
        } else {
            archive.follow_symlinks(true);
            archive.append_path_with_name(source, name)
        }
        .with_context(|| format!("error: cannot read {}", source.display()))?;
        archive.finish()?;
    }
    pipe.flush()?;
    pipe.shutdown()?;
    Ok(())
}

async fn download(container: &Container<'_>, path: &str, destination: &Path) -> anyhow::Result<()> {
    let mut process = container
        .start(&["tar", "cf", "-", path], &container.parameters().max_stdout_buf_size(PIPE_BYTES))
        .await?;
    let stdout = process.stdout().context("the server opened no stream for the archive")?;
    let told = complaints(&mut process);
    let status = process.take_status();
    let prefix = prefix_of(path);
    let destination = destination.to_path_buf();
    let unpacked =
        tokio::task::spawn_blocking(move || unpack(SyncIoBridge::new(stdout), &prefix, &destination));
    let unpacked = unpacked.await.context("the archive was not read")?;
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    let told = told.await;
    exec::outcome(status).with_context(|| failed("tar in the container", &told))?;
    if !told.is_empty() {
        eprintln!("{told}");
    }
    unpacked
}

/// What tar puts in front of every name: the path without what leads to its beginning.
fn prefix_of(path: &str) -> PathBuf {
    let parts = Path::new(path).components().filter(|part| matches!(part, Component::Normal(_)));
    parts.collect()
}

/// Writes the entries of an archive below a destination.
fn unpack(pipe: impl Read, prefix: &Path, destination: &Path) -> anyhow::Result<()> {
    let mut archive = tar::Archive::new(pipe);
    for entry in archive.entries()? {
        let mut entry = entry.context("error: the archive from the container broke off")?;
        let name: PathBuf =
            entry.path()?.components().filter(|part| !matches!(part, Component::CurDir)).collect();
        let name = name.strip_prefix("/").unwrap_or(&name).to_path_buf();
        let Ok(below) = name.strip_prefix(prefix) else {
            bail!("error: tar contents corrupted: {} is not below {}", name.display(), prefix.display());
        };
        if !below.components().all(|part| matches!(part, Component::Normal(_))) {
            eprintln!("warning: file {} is outside target destination, skipping", name.display());
            continue;
        }
        let kind = entry.header().entry_type();
        let to = target_of(destination, below, prefix, kind.is_dir());
        if kind.is_dir() {
            std::fs::create_dir_all(&to).with_context(|| format!("error: cannot make {}", to.display()))?;
        } else if kind.is_file() {
            if let Some(parent) = to.parent() {
                std::fs::create_dir_all(parent)
                    .with_context(|| format!("error: cannot make {}", parent.display()))?;
            }
            refuse_links(destination, &to)?;
            let mut file = std::fs::File::create(&to)
                .with_context(|| format!("error: cannot write {}", to.display()))?;
            std::io::copy(&mut entry, &mut file)
                .with_context(|| format!("error: cannot write {}", to.display()))?;
            set_mode(&file, entry.header().mode().unwrap_or(0o644))?;
        } else {
            eprintln!("warning: skipping {}: only files and directories are copied", name.display());
        }
    }
    Ok(())
}

/// A single file goes into a destination that is a directory; else the source takes the destination's name.
fn target_of(destination: &Path, below: &Path, prefix: &Path, is_directory: bool) -> PathBuf {
    let single_file = below.as_os_str().is_empty() && !is_directory;
    if single_file && destination.is_dir() {
        return prefix.file_name().map_or_else(|| destination.to_path_buf(), |name| destination.join(name));
    }
    if below.as_os_str().is_empty() { destination.to_path_buf() } else { destination.join(below) }
}

/// A link on the way would lead out of the destination.
fn refuse_links(destination: &Path, to: &Path) -> anyhow::Result<()> {
    for path in to.ancestors().take_while(|path| *path != destination) {
        if path.starts_with(destination) && path.is_symlink() {
            bail!("error: {} is a symbolic link; nothing is written through it", path.display());
        }
    }
    Ok(())
}

fn set_mode(file: &std::fs::File, mode: u32) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(file.set_permissions(std::fs::Permissions::from_mode(mode & 0o777))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_read_as_users_write_them() {
        let remote = |namespace: Option<&str>, pod: &str, path: &str| Side::Remote {
            namespace: namespace.map(str::to_string),
            pod: pod.into(),
            path: path.into(),
        };
        assert_eq!(Side::parse("web:/tmp/x").unwrap(), remote(None, "web", "/tmp/x"));
        assert_eq!(Side::parse("blue/web:x").unwrap(), remote(Some("blue"), "web", "x"));
        assert_eq!(Side::parse("./a:b").unwrap(), Side::Local("./a:b".into()));
        assert_eq!(Side::parse("file").unwrap(), Side::Local("file".into()));
        assert!(Side::parse("web:").is_err());
    }

    fn archive(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, contents) in entries {
            let mut header = tar::Header::new_gnu();
            // Written by hand, because the builder itself refuses names that lead out.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(contents.len() as u64);
            header.set_mode(0o640);
            header.set_cksum();
            builder.append(&header, contents.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn a_file_lands_under_the_destinations_name_or_in_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let bytes = archive(&[("etc/hostname", "one")]);
        unpack(bytes.as_slice(), &prefix_of("/etc/hostname"), &directory.path().join("new")).unwrap();
        unpack(bytes.as_slice(), &prefix_of("/etc/hostname"), directory.path()).unwrap();
        for name in ["new", "hostname"] {
            assert_eq!(std::fs::read_to_string(directory.path().join(name)).unwrap(), "one");
        }
    }

    #[test]
    fn nothing_is_written_outside_of_the_destination() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("inside");
        let bytes = archive(&[("data/../../evil", "x"), ("data/good", "y")]);
        unpack(bytes.as_slice(), &prefix_of("/data"), &inside).unwrap();
        assert!(!directory.path().join("evil").exists());
        assert!(inside.join("good").exists());
        let foreign = archive(&[("elsewhere/file", "x")]);
        assert!(unpack(foreign.as_slice(), &prefix_of("/data"), &inside).is_err());
        std::os::unix::fs::symlink(directory.path(), inside.join("link")).unwrap();
        let through = archive(&[("data/link/evil", "x")]);
        assert!(unpack(through.as_slice(), &prefix_of("/data"), &inside).is_err());
        assert!(!directory.path().join("evil").exists());
    }
}

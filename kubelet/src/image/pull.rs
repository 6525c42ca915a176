//! Brings the images that containers need to the node, by their pull policies.

use std::collections::BTreeMap;

use client::EventType;
use jiff::Timestamp;
use k8s_cri::v1::{Image, ImageSpec, PodSandboxConfig};
use k8s_openapi::api::core::v1::Pod;

use super::credentials;
use crate::agent_state::Agent;
use crate::pod::{Backoff, Failure};

/// An image on the node.
#[derive(Clone, Debug)]
pub struct Present {
    /// The runtime's name for it.
    pub id: String,
    /// Whom it runs as, by number.
    pub uid: Option<i64>,
    /// Whom it runs as, by name.
    pub username: String,
}

impl From<Image> for Present {
    fn from(image: Image) -> Self {
        Self { id: image.id, uid: image.uid.map(|uid| uid.value), username: image.username }
    }
}

/// An image that a container needs: to run, or to see as a volume.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The container's name.
    pub container: String,
    /// The image, as the pod names it.
    pub image: String,
    /// When to pull it.
    pub policy: Option<String>,
}

/// Brings an image. `backoff` is the wait for this image in this pod; a failure says how the container waits.
pub async fn ensure(
    agent: &Agent,
    pod: &Pod,
    wanted: &Wanted,
    backoff: Option<Backoff>,
    secrets: &[BTreeMap<String, Vec<u8>>],
    sandbox: &PodSandboxConfig,
) -> Result<Present, Failure> {
    let (asked, name) = (wanted.image.as_str(), wanted.container.as_str());
    let tell = |kind, reason: &str, message: String| agent.tell(pod, Some(name), kind, reason, message);
    let image = with_tag(asked).ok_or_else(|| {
        let message = format!(
            "Failed to apply default image tag \"{asked}\": couldn't parse image name \"{asked}\": invalid reference format"
        );
        tell(EventType::Warning, "InspectFailed", message.clone());
        Failure::new("InvalidImageName", message)
    })?;
    let spec = ImageSpec {
        image: image.clone(),
        user_specified_image: asked.to_string(),
        annotations: sandbox.annotations.clone(),
        ..ImageSpec::default()
    };
    let policy = wanted.policy.as_deref().unwrap_or(if image.ends_with(":latest") {
        "Always"
    } else {
        "IfNotPresent"
    });
    if policy != "Always" {
        let present = agent.cri.image_status(spec.clone()).await.map_err(|error| {
            let message = format!("Failed to inspect image \"{image}\": {error}");
            tell(EventType::Warning, "InspectFailed", message.clone());
            Failure::new("ImageInspectError", message)
        })?;
        if let Some(present) = present {
            let message = format!(
                "Container image \"{asked}\" already present on machine and can be accessed by the pod"
            );
            tell(EventType::Normal, "Pulled", message);
            return Ok(present.into());
        }
        if policy == "Never" {
            let message = format!("Container image \"{asked}\" is not present with pull policy of Never");
            tell(EventType::Warning, "ErrImageNeverPull", message.clone());
            return Err(Failure::new("ErrImageNeverPull", message));
        }
    }
    tell(EventType::Normal, "Pulling", format!("Pulling image \"{asked}\""));
    let began = std::time::Instant::now();
    match pull(agent, &image, &spec, secrets, sandbox).await {
        Ok(pulled) => {
            let took = began.elapsed();
            let message = format!(
                "Successfully pulled image \"{asked}\" in {:.3}s ({:.3}s including waiting). Image size: {} bytes.",
                took.as_secs_f64(),
                took.as_secs_f64(),
                pulled.size
            );
            tell(EventType::Normal, "Pulled", message);
            agent.node_changed.notify_one();
            Ok(pulled.into())
        }
        Err(error) => {
            tell(EventType::Warning, "Failed", format!("Failed to pull image \"{asked}\": {error}"));
            let now = Timestamp::now();
            Err(Failure::pull(asked, error, Backoff::next(backoff, now, now)))
        }
    }
}

async fn pull(
    agent: &Agent,
    image: &str,
    spec: &ImageSpec,
    secrets: &[BTreeMap<String, Vec<u8>>],
    sandbox: &PodSandboxConfig,
) -> Result<Image, String> {
    let found = credentials::matching(image, secrets);
    let mut attempts: Vec<_> = found.into_iter().map(Some).collect();
    if attempts.is_empty() {
        attempts.push(None);
    }
    let mut last = String::new();
    for auth in attempts {
        match agent.cri.pull_image(spec.clone(), auth, Some(sandbox.clone())).await {
            Ok(reference) => {
                let found = agent.cri.image_status(spec.clone()).await.map_err(|error| error.to_string())?;
                return Ok(found.unwrap_or(Image { id: reference, ..Image::default() }));
            }
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

/// The image's name with the tag that Docker assumes. None when it is no name.
fn with_tag(image: &str) -> Option<String> {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return None;
    }
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (name, None),
    };
    let allowed_in_tag = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if tag.is_some_and(|tag| tag.is_empty() || tag.len() > 128 || !tag.chars().all(allowed_in_tag)) {
        return None;
    }
    let (host, rest) = match path.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (Some(host), rest),
        _ => (None, path),
    };
    let host_is_good = host.is_none_or(|host| {
        !host.is_empty()
            && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '[' | ']'))
    });
    let part_is_good = |part: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        edge(part.chars().next())
            && edge(part.chars().last())
            && part
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-'))
    };
    if !host_is_good || rest.is_empty() || !rest.split('/').all(part_is_good) {
        return None;
    }
    Some(if tag.is_some() || digest.is_some() { image.to_string() } else { format!("{image}:latest") })
}

fn is_digest(digest: &str) -> bool {
    let hex = digest.strip_prefix("sha256:").or_else(|| digest.strip_prefix("sha512:"));
    hex.is_some_and(|hex| matches!(hex.len(), 64 | 128) && hex.chars().all(|c| c.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_tag_get_latest_and_what_is_no_name_is_refused() {
        assert_eq!(with_tag("web").as_deref(), Some("web:latest"));
        assert_eq!(with_tag("localhost:5000/a/web").as_deref(), Some("localhost:5000/a/web:latest"));
        assert_eq!(with_tag("reg.io/web:v1").as_deref(), Some("reg.io/web:v1"));
        let digest = format!("web@sha256:{}", "0".repeat(64));
        assert_eq!(with_tag(&digest), Some(digest.clone()));
        for bad in ["", "Web", "web:", "web:a b", "-web", "a//b", "web@sha256:12", "reg.io/"] {
            assert_eq!(with_tag(bad), None, "{bad}");
        }
    }
}

//! The configuration that an image carries.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::ImageError;

/// The parts of an image's configuration that the runtime uses.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ImageConfig {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub config: ProcessDefaults,
    pub rootfs: RootFs,
}

/// What a container of the image runs if nothing else is said.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ProcessDefaults {
    pub user: String,
    pub env: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub working_dir: String,
    pub stop_signal: Option<String>,
}

/// The layers, by the digests of their unpacked archives.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default)]
    pub diff_ids: Vec<String>,
}

impl ImageConfig {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, ImageError> {
        serde_json::from_slice(json)
            .map_err(|error| ImageError::Malformed(format!("image configuration: {error}")))
    }

    /// The identifier of each layer together with all below it.
    pub(crate) fn chain_ids(&self) -> Vec<String> {
        let mut chains: Vec<String> = Vec::with_capacity(self.rootfs.diff_ids.len());
        for diff in &self.rootfs.diff_ids {
            let chain = match chains.last() {
                None => diff.clone(),
                Some(parent) => digest(format!("{parent} {diff}").as_bytes()),
            };
            chains.push(chain);
        }
        chains
    }
}

/// The digest of some bytes, as manifests write it.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_should_depend_on_all_layers_below() {
        let config = |diffs: &[&str]| ImageConfig {
            rootfs: RootFs { diff_ids: diffs.iter().map(|diff| (*diff).to_owned()).collect() },
            ..ImageConfig::default()
        };
        let one = config(&["sha256:a", "sha256:b"]).chain_ids();
        let other = config(&["sha256:c", "sha256:b"]).chain_ids();
        assert_eq!(one[0], "sha256:a");
        assert_eq!(one[1], digest(b"sha256:a sha256:b"));
        assert_ne!(one[1], other[1]);
    }
}

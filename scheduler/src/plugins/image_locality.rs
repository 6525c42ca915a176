//! ImageLocality: nodes that have the pod's images already are better, the more so the larger the images are and the
//! more nodes have them (so that one node does not attract everything).

use super::{SCORE_MAX, Score};
use crate::model::{Cluster, NodeInfo, PodInfo};

const MIB: i64 = 1024 * 1024;
const BYTES_MIN: i64 = 23 * MIB;
const BYTES_MAX_PER_CONTAINER: i64 = 1000 * MIB;

struct ImageLocality<'a> {
    cluster: &'a Cluster,
    images: &'a [String],
    node_count: usize,
}

pub(super) fn score<'a>(cluster: &'a Cluster, pod: &'a PodInfo) -> Option<Box<dyn Score + 'a>> {
    let images = pod.images.as_slice();
    let known = images.iter().any(|image| cluster.image_nodes(image) > 0);
    known.then(|| {
        Box::new(ImageLocality { cluster, images, node_count: cluster.nodes().count() }) as Box<dyn Score>
    })
}

impl Score for ImageLocality<'_> {
    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, node: &NodeInfo) -> i64 {
        let present =
            self.images.iter().filter_map(|image| node.images.get(image).map(|bytes| (image, *bytes)));
        let bytes: i64 = present
            .map(|(image, bytes)| {
                let having = self.cluster.image_nodes(image) as i128;
                let scaled = i128::from(bytes) * having / (self.node_count.max(1) as i128);
                i64::try_from(scaled).unwrap_or(i64::MAX)
            })
            .fold(0, i64::saturating_add);
        let containers = i64::try_from(self.images.len()).unwrap_or(1).max(1);
        let bytes_max = BYTES_MAX_PER_CONTAINER * containers;
        SCORE_MAX * (bytes.clamp(BYTES_MIN, bytes_max) - BYTES_MIN) / (bytes_max - BYTES_MIN)
    }
}

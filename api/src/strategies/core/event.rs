//! Events. Stored as core/v1, whichever of its two groups they are written in.

use crate::{Strategy, at::At, names};

/// What is special about events.
pub struct Event;

impl Strategy for Event {
    fn check(&self, object: &At) {
        let involved = object.field("involvedObject.namespace");
        let own = object.field("metadata.namespace").str();
        // Events about objects without a namespace are kept in `default`; only the node lease's writer may differ.
        let fits = match involved.str() {
            "" => ["default", "kube-system", ""].contains(&own),
            namespace => namespace == own,
        };
        if !fits {
            involved.invalid_text("does not match event.namespace");
        }
        if !own.is_empty() {
            object.field("namespace").invalid_each(own, names::dns1123_subdomain(own));
        }
    }
}

//! What is made of the objects of a row, and kept: made anew only of objects that have changed, and looked up by
//! requests that pay for no more than a glance at the row's revision.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::Value;
use store::Revision;

use crate::objects::{Objects, prefix_of};

/// One `T` per object of a row.
pub(super) struct Kept<T> {
    objects: Objects,
    row: &'static str,
    make: fn(&Value) -> T,
    made: RwLock<Made<T>>,
}

struct Made<T> {
    /// The row's revision that it was made at.
    revision: Revision,
    by_key: HashMap<Arc<str>, (Revision, Arc<T>)>,
    in_order: Arc<[Arc<T>]>,
}

impl<T> Kept<T> {
    /// What `make` makes of every object of a row.
    pub fn new(objects: Objects, row: &'static str, make: fn(&Value) -> T) -> Self {
        let made = Made { revision: 0, by_key: HashMap::new(), in_order: Arc::new([]) };
        Self { objects, row, make, made: RwLock::new(made) }
    }

    /// All of them as of now, in the order of their names.
    pub fn all(&self) -> Arc<[Arc<T>]> {
        let now = self.objects.revision_of(self.row);
        {
            let made = self.made.read();
            if made.revision == now {
                return made.in_order.clone();
            }
        }
        let mut made = self.made.write();
        let mut before = std::mem::take(&mut made.by_key);
        let (prefix, snapshot) = (prefix_of(self.row, ""), self.objects.snapshot(self.row));
        let mut in_order = Vec::new();
        for object in snapshot.under(&prefix, None) {
            let known = before.remove(&object.key).filter(|(revision, _)| *revision == object.revision);
            let item = known.map_or_else(|| Arc::new((self.make)(&object.tree())), |(_, item)| item);
            in_order.push(item.clone());
            made.by_key.insert(object.key.clone(), (object.revision, item));
        }
        made.in_order = in_order.into();
        made.revision = now;
        made.in_order.clone()
    }
}

//! The watch cache: every stored object once, as encoded bytes, with the history from which watches are served.
//!
//! Guarantees:
//! - one store watch feeds all rows in commit order; what a row shows at a revision is exactly what was committed;
//! - a snapshot is consistent and costs nothing but a reference count;
//! - a list, the watch that follows it and the bookmarks agree to the last revision;
//! - a watcher that does not keep up is ended and never holds up the feed, other watchers or a write: it has no queue,
//!   it reads the row's bounded history at its own pace.
//!
//! Assumes that the stored value is the object's JSON as [`encode`] writes it: kind, apiVersion and metadata first,
//! no resourceVersion. Deliberately absent: history from before the process started (such a watch gets 410).

mod encode;
mod feed;
mod filter;
mod follower;
mod history;
mod object;
mod outline;
mod pairs;
mod row;
mod watcher;

pub(crate) use encode::encode;
pub(crate) use feed::Cache;
pub(crate) use filter::Filter;
pub(crate) use follower::{Follower, Step};
pub(crate) use history::{History, RowEvent};
pub(crate) use object::Cached;
pub(crate) use row::{RowCache, Snapshot};
pub(crate) use watcher::{WatchOptions, Watcher};

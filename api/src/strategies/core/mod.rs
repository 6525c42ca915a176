//! Kinds of `core/v1` other than pods and what runs them.

mod config_map;
mod endpoints;
mod event;
mod limit_range;
mod namespace;
mod node;
mod persistent_volume;
pub(super) mod persistent_volume_claim;
mod pod_template;
mod resource_quota;
mod secret;
mod service;
mod service_account;
pub mod service_addresses;

pub use config_map::ConfigMap;
pub use endpoints::Endpoints;
pub(super) use endpoints::endpoint_ip;
pub use event::Event;
pub use limit_range::LimitRange;
pub use namespace::Namespace;
pub use node::Node;
pub use persistent_volume::PersistentVolume;
pub use persistent_volume_claim::PersistentVolumeClaim;
pub use pod_template::PodTemplate;
pub use resource_quota::ResourceQuota;
pub use secret::Secret;
pub use service::Service;
pub use service_account::ServiceAccount;

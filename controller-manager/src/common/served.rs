//! Which kinds the server has.

use kube::Client;
use kube::core::ApiResource;
use kube::discovery::{Discovery, Scope};

/// A kind that objects of can be listed and deleted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Served {
    pub resource: ApiResource,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

impl Served {
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

/// Every kind once, in its preferred version.
pub(crate) async fn deletable(client: &Client) -> Result<Vec<Served>, kube::Error> {
    let discovery = match Discovery::new(client.clone()).run_aggregated().await {
        Ok(discovery) => discovery,
        Err(_) => Discovery::new(client.clone()).run().await?,
    };
    let mut served = Vec::new();
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            let namespaced = capabilities.scope == Scope::Namespaced;
            let kind = Served { resource, namespaced, verbs: capabilities.operations };
            if kind.can("delete") && kind.can("list") {
                served.push(kind);
            }
        }
    }
    Ok(served)
}

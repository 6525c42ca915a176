//! Clients that others wrote doing their everyday work, over the embedded store and over a real etcd, with controllers
//! and with nodes that are played. Those of the command line are in `ctl/tests`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is test"
)]

mod kube_rs;
mod python;

use testbed::{Backend, Controllers, Hollow, Listening, TestServer};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A server over the network, with what makes pods run.
struct Cluster {
    test: TestServer,
    listening: Listening,
    life: (Controllers, DropGuard),
}

impl Cluster {
    async fn start(backend: Backend) -> Self {
        let test = TestServer::start_over(backend).await;
        let listening = test.listen().await;
        let stop = CancellationToken::new();
        tokio::spawn(Hollow::new(test.client.clone(), 1).run(stop.clone()));
        let controllers = Controllers::start(&test, Controllers::config(&test));
        Self { test, listening, life: (controllers, stop.drop_guard()) }
    }

    /// The same after a restart. What makes pods run goes on.
    async fn restarted(self) -> Self {
        let (test, listening) = self.test.restarted(self.listening).await;
        Self { test, listening, life: self.life }
    }

    fn kubeconfig(&self) -> String {
        let admin = pki::User::Certificate(&self.test.pki.admin);
        self.test.kubeconfig(&self.listening, "kubernetes-admin", admin)
    }
}

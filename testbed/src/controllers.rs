//! The controllers, in this process.

use apiserver::auth::UserInfo;
use controller_manager::{Config, SigningAuthority};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::TestServer;

/// The controllers of a server, under their own identity, until this is dropped.
pub struct Controllers {
    _stop: DropGuard,
    task: JoinHandle<()>,
}

impl Controllers {
    /// What they are told that sign with the server's authority.
    pub fn config(test: &TestServer) -> Config {
        let certificate_pem = test.pki.authority.certificate_pem().to_string();
        let key_pem = test.pki.authority.key_pem().to_string();
        Config {
            root_ca_pem: Some(certificate_pem.clone()),
            signing_authority: Some(SigningAuthority { certificate_pem, key_pem }),
            ..Config::default()
        }
    }

    /// Starts them.
    pub fn start(test: &TestServer, config: Config) -> Self {
        let stop = CancellationToken::new();
        let client = test.server.client(UserInfo::new("system:kube-controller-manager", &[]));
        let run = controller_manager::run(config, client, stop.clone());
        Self { task: tokio::spawn(async move { run.await.unwrap() }), _stop: stop.drop_guard() }
    }

    /// Ends them in the middle of whatever they are doing.
    pub fn kill(self) {
        self.task.abort();
    }
}

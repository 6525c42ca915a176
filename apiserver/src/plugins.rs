//! The lists that the pipeline goes through: authenticators, authorizers, admission plugins, in their order.

use std::sync::Arc;

use api::ResourceTable;
use parking_lot::RwLock;

use crate::admission::{
    Admission, AdmissionChain, Certificates, DefaultStorageClass, DefaultTolerations, LimitRanger,
    NamespaceLifecycle, NodeRestriction, NotReadyTaint, PodResize, PodSecurity, PolicyChecks, Priority,
    RightsEscalation, RuntimeClass, ServiceAccount, ValidatingPolicies,
};
use crate::auth::service_account::ServiceAccountTokens;
use crate::auth::{Authenticator, BootstrapTokens, ClientCertificate, Oidc};
use crate::authz::node::NodeAuthorizer;
use crate::authz::rbac::Rbac;
use crate::authz::{AuthorizerChain, Masters};
use crate::config::Config;
use crate::objects::Objects;
use crate::reviews::Reviewers;

/// The table of the moment.
type Table = Arc<RwLock<Arc<ResourceTable>>>;

/// The lists.
pub(crate) struct Plugins {
    pub authenticators: Vec<Arc<dyn Authenticator>>,
    pub authorizers: AuthorizerChain,
    pub admission: AdmissionChain,
    pub reviewers: Reviewers,
    pub tokens: Arc<ServiceAccountTokens>,
    pub policy_checks: Arc<PolicyChecks>,
}

impl Plugins {
    /// What a server runs with.
    pub fn new(config: &Config, objects: &Objects, table: &Table) -> Result<Self, String> {
        let tokens = Arc::new(ServiceAccountTokens::new(objects.clone(), &config.service_account)?);
        let rbac = Arc::new(Rbac::new(objects.clone()));
        let authorizers = AuthorizerChain::new(vec![
            Arc::new(Masters),
            Arc::new(NodeAuthorizer::new(objects.clone())),
            rbac.clone(),
        ]);
        let policy_checks = Arc::<PolicyChecks>::default();
        let plugins: Vec<Arc<dyn Admission>> = vec![
            Arc::new(NamespaceLifecycle::new(objects.clone())),
            Arc::new(LimitRanger::new(objects.clone())),
            Arc::new(ServiceAccount::new(objects.clone())),
            Arc::new(NodeRestriction::new(objects.clone(), authorizers.clone())),
            Arc::new(NotReadyTaint),
            Arc::new(PodSecurity::new(objects.clone(), config.security.pod_security.clone())),
            Arc::new(Priority::new(objects.clone())),
            Arc::new(DefaultTolerations),
            Arc::new(DefaultStorageClass::new(objects.clone())),
            Arc::new(RuntimeClass::new(objects.clone())),
            Arc::new(RightsEscalation::new(authorizers.clone(), rbac.clone())),
            Arc::new(Certificates::new(authorizers.clone())),
            Arc::new(PodResize::new(objects.clone())),
            Arc::new(ValidatingPolicies::new(
                objects.clone(),
                table.clone(),
                authorizers.clone(),
                policy_checks.clone(),
            )),
        ];
        let admission = AdmissionChain::new(plugins, objects, &authorizers);
        let bootstrap = Arc::new(BootstrapTokens::new(objects.clone()));
        let mut authenticators: Vec<Arc<dyn Authenticator>> =
            vec![Arc::new(ClientCertificate::new(&config.client_ca_pem)?), tokens.clone(), bootstrap.clone()];
        let oidc = config.security.oidc.clone().map(Oidc::new).transpose()?.map(Arc::new);
        authenticators.extend(oidc.clone().map(|oidc| oidc as Arc<dyn Authenticator>));
        Ok(Self {
            authenticators,
            reviewers: Reviewers {
                authorizers: authorizers.clone(),
                rbac,
                tokens: tokens.clone(),
                bootstrap,
                oidc,
            },
            authorizers,
            admission,
            tokens,
            policy_checks,
        })
    }
}

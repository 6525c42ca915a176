//! Gives every namespace its `default` service account.

use client::{Change, ErrorExt, Forgive, Informer, Outcome, Scope, queue};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::Api;
use kube::ResourceExt;
use kube::api::PostParams;

use crate::common::{Context, Reconciled};

const DEFAULT: &str = "default";

/// Runs the controller until shutdown.
pub(crate) async fn run(context: Context) {
    let namespaces = context.all::<Namespace>();
    let accounts: Informer<ServiceAccount> =
        context.informers.get(Scope::all().fields(format!("metadata.name={DEFAULT}")));
    let queue = context.queue("serviceaccount");
    if !(namespaces.synced().await && accounts.synced().await) {
        return;
    }
    namespaces.feed(&queue, ResourceExt::name_any);
    let enqueue = queue.clone();
    accounts.on_change(move |change| {
        if let Change::Deleted(account) = change {
            enqueue.add(account.namespace().unwrap_or_default());
        }
    });
    queue::run(queue, 1, move |name: String| {
        let (context, namespaces, accounts) = (context.clone(), namespaces.clone(), accounts.clone());
        async move {
            let namespace = namespaces.get("", &name);
            if decide(namespace.as_deref(), accounts.get(&name, DEFAULT).as_deref()) {
                create(context.api(&name)).await
            } else {
                Ok(Outcome::Done)
            }
        }
    })
    .await;
}

/// Whether the account must be created.
fn decide(namespace: Option<&Namespace>, account: Option<&ServiceAccount>) -> bool {
    account.is_none() && namespace.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_none())
}

async fn create(api: Api<ServiceAccount>) -> Reconciled {
    let mut account = ServiceAccount::default();
    account.metadata.name = Some(DEFAULT.into());
    let needless = |error: &kube::Error| error.is_already_exists() || error.is_namespace_terminating();
    api.create(&PostParams::default(), &account).await.forgive(needless)?;
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::testing::at;

    #[test]
    fn only_living_namespaces_get_an_account() {
        let mut namespace = Namespace::default();
        assert!(decide(Some(&namespace), None));
        assert!(!decide(Some(&namespace), Some(&ServiceAccount::default())));
        namespace.metadata.deletion_timestamp = Some(Time(at(0)));
        assert!(!decide(Some(&namespace), None));
        assert!(!decide(None, None));
    }
}

//! Publishes the cluster's root certificates as the config map `kube-root-ca.crt` in every namespace.

use std::sync::Arc;

use client::patch::update;
use client::{ErrorExt, Informer, Outcome, Scope, queue};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::ResourceExt;
use kube::api::PostParams;

use crate::common::{Context, Reconciled};

const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
     endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
     distributions of Kubernetes clusters.";

#[derive(Debug, PartialEq)]
enum Action {
    Create,
    Repair(Arc<ConfigMap>),
    Nothing,
}

/// Runs the controller until shutdown; does nothing when there are no certificates to publish.
pub(crate) async fn run(context: Context) {
    let Some(bundle) = context.config.root_ca_pem.clone() else { return };
    let bundle: Arc<str> = bundle.into();
    let namespaces = context.all::<Namespace>();
    let maps: Informer<ConfigMap> =
        context.informers.get(Scope::all().fields(format!("metadata.name={NAME}")));
    let queue = context.queue("root-ca");
    if !(namespaces.synced().await && maps.synced().await) {
        return;
    }
    namespaces.feed(&queue, ResourceExt::name_any);
    maps.feed(&queue, |map| map.namespace().unwrap_or_default());
    queue::run(queue, 1, move |name: String| {
        let (context, bundle) = (context.clone(), bundle.clone());
        let (namespace, map) = (namespaces.get("", &name), maps.get(&name, NAME));
        async move {
            let action = decide(namespace.as_deref(), map.as_ref(), &bundle);
            apply(&context, &name, action, &bundle).await
        }
    })
    .await;
}

fn decide(namespace: Option<&Namespace>, map: Option<&Arc<ConfigMap>>, bundle: &str) -> Action {
    if namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()) {
        return Action::Nothing;
    }
    match map {
        None => Action::Create,
        Some(map) => {
            let data = map.data.as_ref();
            let right =
                data.is_some_and(|data| data.len() == 1 && data.get(KEY).is_some_and(|pem| pem == bundle));
            if right { Action::Nothing } else { Action::Repair(map.clone()) }
        }
    }
}

async fn apply(context: &Context, namespace: &str, action: Action, bundle: &str) -> Reconciled {
    let api = context.api::<ConfigMap>(namespace);
    let result = match action {
        Action::Nothing => return Ok(Outcome::Done),
        Action::Create => {
            let mut map = ConfigMap::default();
            map.metadata.name = Some(NAME.into());
            map.metadata.annotations =
                Some([("kubernetes.io/description".into(), DESCRIPTION.into())].into());
            map.data = Some([(KEY.to_string(), bundle.to_string())].into());
            api.create(&PostParams::default(), &map).await
        }
        Action::Repair(old) => {
            let mut map = old.as_ref().clone();
            map.data = Some([(KEY.to_string(), bundle.to_string())].into());
            update(&api, old.as_ref(), &map).await.map(|_| map)
        }
    };
    match result {
        Ok(_) => Ok(Outcome::Done),
        Err(error) if error.is_already_exists() || error.is_namespace_terminating() => Ok(Outcome::Done),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_is_published_once_and_repaired_when_changed() {
        let namespace = Namespace::default();
        assert_eq!(decide(Some(&namespace), None, "pem"), Action::Create);
        let mut map =
            ConfigMap { data: Some([(KEY.to_string(), "pem".to_string())].into()), ..ConfigMap::default() };
        let right = Arc::new(map.clone());
        assert_eq!(decide(Some(&namespace), Some(&right), "pem"), Action::Nothing);
        assert_eq!(decide(Some(&namespace), Some(&right), "new"), Action::Repair(right.clone()));
        map.data.as_mut().unwrap().insert("extra".into(), String::new());
        let more = Arc::new(map);
        assert_eq!(decide(Some(&namespace), Some(&more), "pem"), Action::Repair(more.clone()));
    }
}

//! Who may do what, as expressions ask it (`authorizer`).
//!
//! Expressions cannot wait for an answer. What they ask is noted and answered with no for the time being; when they are
//! done, it is asked, and they are evaluated once more. Every round brings at least one answer, each of which costs, so
//! that there is an end to it.

use std::sync::Arc;

use api::field::Look;
use cel::authorizer::{self, Answer, Authorizer, Check};
use parking_lot::Mutex;
use serde_json::Value;

use crate::auth::UserInfo;
use crate::authz::{Attributes, AuthorizerChain, Decision};
use crate::http::request_info::RequestInfo;

/// What has been asked while one request is judged.
#[derive(Default)]
pub(super) struct Rights {
    /// `None` while there is no answer.
    asked: Mutex<Vec<(Check, Option<Answer>)>>,
}

impl Authorizer for Rights {
    fn authorize(&self, check: &Check) -> Answer {
        let mut asked = self.asked.lock();
        match asked.iter().find(|(known, _)| known == check) {
            Some((_, answer)) => answer.clone().unwrap_or_default(),
            None => {
                asked.push((check.clone(), None));
                Answer::default()
            }
        }
    }
}

impl Rights {
    /// The value of `authorizer`, or with a request that of `authorizer.requestResource`.
    pub fn authorizer(self: Arc<Self>, request: Option<&Value>) -> cel::Value<'static> {
        let about = |request: &Value| Check {
            group: request
                .dig(&["resource", "group"])
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_string(),
            resource: request
                .dig(&["resource", "resource"])
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_string(),
            subresource: request.text("subResource").to_string(),
            namespace: request.text("namespace").to_string(),
            name: request.text("name").to_string(),
            ..Check::default()
        };
        authorizer::value(self, request.map(about))
    }

    /// What comes of judging when everything that it asks has an answer.
    pub async fn settled<T>(
        &self,
        authorizers: &AuthorizerChain,
        user: &UserInfo,
        judge: impl Fn() -> T,
    ) -> T {
        loop {
            let judged = judge();
            if !self.answer(authorizers, user).await {
                return judged;
            }
        }
    }

    /// Finds the answers to what has been asked since; false when nothing has.
    async fn answer(&self, authorizers: &AuthorizerChain, user: &UserInfo) -> bool {
        let open: Vec<Check> = {
            let asked = self.asked.lock();
            asked.iter().filter(|(_, answer)| answer.is_none()).map(|(check, _)| check.clone()).collect()
        };
        for check in &open {
            let answer = decide(authorizers, user, check).await;
            let mut asked = self.asked.lock();
            asked
                .iter_mut()
                .filter(|(known, _)| known == check)
                .for_each(|(_, it)| *it = Some(answer.clone()));
        }
        !open.is_empty()
    }
}

async fn decide(authorizers: &AuthorizerChain, user: &UserInfo, check: &Check) -> Answer {
    let account = check.service_account.as_ref().map(|(namespace, name)| UserInfo {
        name: format!("system:serviceaccount:{namespace}:{name}"),
        groups: vec![
            "system:serviceaccounts".to_string(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_string(),
        ],
        ..UserInfo::default()
    });
    let info = RequestInfo {
        is_resource: check.path.is_empty(),
        path: check.path.clone(),
        special_verb: check.verb.clone(),
        group: check.group.clone(),
        version: "*".to_string(),
        namespace: check.namespace.clone(),
        resource: check.resource.clone(),
        subresource: check.subresource.clone(),
        name: check.name.clone(),
        ..RequestInfo::default()
    };
    let attributes = Attributes { user: account.as_ref().unwrap_or(user), info: &info };
    let (allowed, reason) = match authorizers.decide(&attributes).await {
        Decision::Allow(reason) => (true, reason),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => (false, reason),
    };
    Answer { allowed, reason, error: None }
}

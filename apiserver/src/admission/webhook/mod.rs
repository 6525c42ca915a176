//! Admission webhooks: programs elsewhere that change or refuse what is written.
//!
//! As upstream: mutating ones are asked one after another, in the order of their configurations' names; when one has
//! changed the object the other plugins go over it again, and those that ask for it are asked again, once. Validating
//! ones are asked all at once. What a webhook cannot be asked about fails or goes on by its failure policy; a dry run
//! fails when a webhook could not keep it from having consequences. Webhook configurations themselves are nobody's
//! business, so that a broken one can be removed, and neither is what the API server writes by itself. Deletions and
//! streams have nothing to change: mutating webhooks are asked about them as validating ones are.

mod hook;
mod review;

use std::collections::HashSet;
use std::sync::Arc;

use api::{ApiError, Reason, Row, ServedVersion};
use futures::future::join_all;
use schema::patch::json::JsonPatch;
use schema::{conform, defaults};
use serde_json::Value;

use self::hook::Hook;
use self::review::Verdict;
use super::AdmissionRequest;
use super::described::{Converted, shown};
use super::expressions::Inputs;
use super::kept::Kept;
use super::matching::{NamespaceOf, Subject};
use super::rights::Rights;
use crate::authz::AuthorizerChain;
use crate::custom;
use crate::objects::Objects;
use crate::pipeline::schema_of;
use crate::subresource::scale;

const GROUP: &str = "admissionregistration.k8s.io";
pub(super) const MUTATING: &str = "admissionregistration.k8s.io/mutatingwebhookconfigurations";
pub(super) const VALIDATING: &str = "admissionregistration.k8s.io/validatingwebhookconfigurations";

/// The webhooks of one of the two kinds.
pub(super) struct Webhooks {
    objects: Objects,
    authorizers: AuthorizerChain,
    may_patch: bool,
    /// Those of every configuration.
    hooks: Kept<Vec<Hook>>,
}

/// What a round of mutating webhooks has done.
#[derive(Default)]
pub(super) struct Round {
    pub has_changed: bool,
    /// Those that others have changed the object after.
    again: HashSet<HookId>,
    /// The others that want to hear of changes.
    seen: HashSet<HookId>,
}

/// A configuration and a webhook in it.
type HookId = (String, String);

impl Round {
    /// Those that are to be asked again; all that want to when plugins have changed the object since.
    pub fn again(mut self, by_plugins: bool) -> HashSet<HookId> {
        if by_plugins {
            self.again.extend(self.seen);
        }
        self.again
    }
}

/// Why a webhook gave no verdict, or which.
enum Refused {
    /// It could not be asked, or its answer makes no sense.
    Failed(String),
    /// Something that no policy excuses.
    Always(ApiError),
}

impl Webhooks {
    pub fn mutating(objects: &Objects, authorizers: &AuthorizerChain) -> Self {
        Self::new(objects, authorizers, MUTATING, true)
    }

    pub fn validating(objects: &Objects, authorizers: &AuthorizerChain) -> Self {
        Self::new(objects, authorizers, VALIDATING, false)
    }

    fn new(objects: &Objects, authorizers: &AuthorizerChain, row: &'static str, may_patch: bool) -> Self {
        let hooks = Kept::new(objects.clone(), row, Hook::read_all);
        Self { objects: objects.clone(), authorizers: authorizers.clone(), may_patch, hooks }
    }

    /// Those that may have something to say, in the order of their configurations' names.
    fn concerned(&self, request: &AdmissionRequest<'_>) -> Arc<[Arc<Vec<Hook>>]> {
        if request.row.storage.group == GROUP || request.is_own() { Arc::new([]) } else { self.hooks.all() }
    }

    /// Asks the mutating webhooks, in a second round only some.
    pub async fn mutate(
        &self,
        request: &AdmissionRequest<'_>,
        object: &mut Value,
        only: Option<&HashSet<HookId>>,
    ) -> Result<Round, ApiError> {
        let configurations = self.concerned(request);
        let mut round = Round::default();
        let namespace = NamespaceOf::new(&self.objects, request);
        for hook in configurations.iter().flat_map(|hooks| hooks.iter()) {
            let id = (hook.configuration.clone(), hook.name.clone());
            if only.is_some_and(|only| !only.contains(&id)) {
                continue;
            }
            let subject = Subject { request, object: Some(object), namespace: &namespace };
            let Some((version, verdict)) = self.consult(hook, &subject).await? else { continue };
            if let Some(patch) = &verdict.patch {
                let before = object.clone();
                self.patch(request, &version, hook, patch, object).await?;
                if *object != before {
                    round.has_changed = true;
                    round.again.extend(round.seen.drain());
                }
            }
            if hook.is_reinvoked {
                round.seen.insert(id);
            }
        }
        Ok(round)
    }

    /// Asks the validating webhooks.
    pub async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&Value>,
    ) -> Result<(), ApiError> {
        let configurations = self.concerned(request);
        let subject = Subject { request, object, namespace: &NamespaceOf::new(&self.objects, request) };
        let hooks = configurations.iter().flat_map(|hooks| hooks.iter());
        let asked = hooks.map(|hook| async move {
            match self.consult(hook, &subject).await? {
                Some((_, Verdict { patch: Some(_), .. })) => Err(ApiError::internal(format!(
                    "Internal error occurred: admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                    hook.name
                ))),
                _ => Ok(()),
            }
        });
        join_all(asked).await.into_iter().find_map(Result::err).map_or(Ok(()), Err)
    }

    /// What a webhook says, and the version in which it wants to see the object; `None` when the request is none of its
    /// business, or it cannot be asked and need not be.
    async fn consult(
        &self,
        hook: &Hook,
        subject: &Subject<'_>,
    ) -> Result<Option<(ServedVersion, Verdict)>, ApiError> {
        let Some(version) = hook.matching.version(subject) else { return Ok(None) };
        let converted = Converted::of(&self.objects, subject, &version).await?;
        let request = converted.as_ref().map(|converted| converted.request(subject.request));
        let seen = match (&request, &converted) {
            (Some(request), Some(converted)) => Subject { request, object: converted.object(), ..*subject },
            _ => *subject,
        };
        if !self.cares(hook, &seen, &version).await? {
            return Ok(None);
        }
        let verdict = self.verdict(hook, seen.request, seen.object, &version).await?;
        Ok(verdict.map(|verdict| (version, verdict)))
    }

    /// Whether a webhook's conditions hold. Those that cannot be evaluated refuse the request or leave the webhook out,
    /// as its failure policy says.
    async fn cares(
        &self,
        hook: &Hook,
        subject: &Subject<'_>,
        version: &ServedVersion,
    ) -> Result<bool, ApiError> {
        if hook.conditions.is_empty() {
            return Ok(true);
        }
        let rights = Arc::<Rights>::default();
        let inputs = Inputs::of(subject, version, &rights);
        let user = subject.request.user;
        match rights.settled(&self.authorizers, user, || hook.conditions.hold(&inputs)).await {
            Err(_) if hook.is_optional => Ok(false),
            held => held.map_err(|why| subject.request.forbidden(&why)),
        }
    }

    /// What a webhook says; `None` when it cannot be asked and need not be.
    async fn verdict(
        &self,
        hook: &Hook,
        request: &AdmissionRequest<'_>,
        object: Option<&Value>,
        version: &ServedVersion,
    ) -> Result<Option<Verdict>, ApiError> {
        let verdict = match self.ask(hook, request, object, version).await {
            Ok(verdict) => verdict,
            Err(Refused::Always(error)) => return Err(error),
            Err(Refused::Failed(why)) if hook.is_optional => {
                tracing::warn!(webhook = hook.name, why, "a webhook could not be asked and is passed over");
                let kind = if self.may_patch { "mutation" } else { "validating" };
                request
                    .note(&format!("failed-open.{kind}.webhook.admission.k8s.io/{}", hook.name), &hook.name);
                return Ok(None);
            }
            Err(Refused::Failed(why)) => {
                let message =
                    format!("Internal error occurred: failed calling webhook {:?}: {why}", hook.name);
                return Err(ApiError::new(Reason::InternalError, message));
            }
        };
        request.warnings.lock().extend(verdict.warnings.iter().cloned());
        for (key, value) in &verdict.annotations {
            request.note(key, value);
        }
        match verdict.refusal {
            Some(error) => Err(error),
            None => Ok(Some(verdict)),
        }
    }

    async fn ask(
        &self,
        hook: &Hook,
        request: &AdmissionRequest<'_>,
        object: Option<&Value>,
        version: &ServedVersion,
    ) -> Result<Verdict, Refused> {
        if request.dry_run && !hook.is_harmless {
            let message = format!("admission webhook {:?} does not support dry run", hook.name);
            return Err(Refused::Always(ApiError::bad_request(message)));
        }
        let reviews = hook.review_version.ok_or_else(|| {
            Refused::Failed(
                "webhook does not accept known AdmissionReview versions (v1, v1beta1)".to_string(),
            )
        })?;
        let uid = uuid::Uuid::new_v4().to_string();
        let question = review::question(&uid, reviews, request, object, version);
        let answer = hook.client.ask(&self.objects, hook.timeout, &question).await;
        let answer = answer.map_err(|why| Refused::Failed(format!("failed to call webhook: {why}")))?;
        review::verdict(&hook.name, &uid, reviews, self.may_patch, &answer).map_err(Refused::Failed)
    }

    /// Applies a webhook's patch to the object as the webhook has seen it; what the schema does not know falls away, what
    /// is left out gets its default.
    async fn patch(
        &self,
        request: &AdmissionRequest<'_>,
        version: &ServedVersion,
        hook: &Hook,
        patch: &JsonPatch,
        object: &mut Value,
    ) -> Result<(), ApiError> {
        let row = request.row;
        let internal = |why: String| {
            let what = format!("Internal error occurred: the patch of webhook {:?}: {why}", hook.name);
            ApiError::internal(what)
        };
        let is_custom = row.custom.is_some() && request.subresource != "scale";
        let mut new = match is_custom {
            true => self.in_version(row, object.clone(), version).await?,
            false => shown(request, version, Some(object)).into_owned(),
        };
        patch.apply(&mut new).map_err(|error| internal(error.to_string()))?;
        if request.subresource == "scale" {
            new = scale::written(object, &new, row)?;
        } else if is_custom {
            new = self.in_version(row, new, &row.storage).await?;
        } else if *version != row.storage {
            api::convert::convert(row, &mut new, version, &row.storage);
        }
        let schema = schema_of(row);
        conform::conform(&schema, &mut new).map_err(|error| internal(error.to_string()))?;
        defaults::fill(&schema, &mut new);
        row.strategy.set_defaults(&mut new);
        *object = new;
        Ok(())
    }

    /// A custom resource in a version.
    async fn in_version(&self, row: &Row, object: Value, version: &ServedVersion) -> Result<Value, ApiError> {
        let converted = custom::convert(&self.objects, row, vec![object], version).await?;
        Ok(converted.into_iter().next().unwrap_or_default())
    }
}

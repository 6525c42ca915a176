//! Get and list, from the watch cache.

use std::sync::Arc;
use std::time::Duration;

use api::selector::{FieldSelector, FieldTerm, LabelSelector};
use api::{ApiError, Reason, ServedVersion};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::{Value, json};
use store::Revision;

use super::call::{Call, Target};
use super::endpoint::Endpoint;
use super::revisions::{self, parse_revision};
use super::{Core, commit};
use crate::cache::{Cached, Filter, Snapshot};
use crate::custom;
use crate::http::Response;
use crate::http::respond::Failure;
use crate::present::{IncludeObject, ListMeta, Presenter};

/// How long the pages of a list stay consistent, as long as upstream keeps old revisions.
const CONTINUE_LIFETIME_SECONDS: i64 = 300;

/// How long a read waits for the cache to reach the revision it needs.
const FRESHNESS_WAIT: Duration = Duration::from_secs(3);

/// What the resource version of a read means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Everything that was committed before the request.
    MostRecent,
    /// Whatever is at hand.
    Any,
    /// At least this.
    NotOlderThan(Revision),
    /// Exactly this.
    Exact(Revision),
}

/// The options of a list.
pub(crate) struct ListOptions {
    pub filter: Filter,
    pub limit: usize,
    pub freshness: Freshness,
    pub after: Option<String>,
    /// When the first page was asked for, in seconds since 1970.
    pub since: i64,
}

/// A page of a list.
pub(crate) struct Page {
    pub objects: Vec<Arc<Cached>>,
    pub meta: ListMeta,
}

impl Core {
    /// GET of one object, or of a view of it.
    pub(crate) async fn get(&self, call: &Call, target: &Target) -> Result<Response, Failure> {
        match call.query.get_nonempty("resourceVersion") {
            None => self.reach(Freshness::MostRecent).await?,
            Some(text) => match parse_revision(text)? {
                0 => self.reach(Freshness::Any).await?,
                revision => self.reach(Freshness::NotOlderThan(revision)).await?,
            },
        };
        let object = self.objects.cached(&target.row_name, &target.namespace, &target.name);
        let object = object.ok_or_else(|| target.not_found(&target.name))?;
        self.show(call, target, StatusCode::OK, object).await
    }

    /// The answer that shows an object as its endpoint does.
    pub(crate) async fn show(
        &self,
        call: &Call,
        target: &Target,
        code: StatusCode,
        object: Arc<Cached>,
    ) -> Result<Response, Failure> {
        let include = IncludeObject::parse(call.query.get("includeObject"))?;
        let presenter = Presenter::new(target, call.form, include);
        let object = self.in_version(target, &target.version, object).await?;
        match Endpoint::of(target) {
            Some(Endpoint::Scale) => Ok(presenter.tree(code, &Endpoint::Scale.view(&object.tree(), target)?)),
            _ => Ok(presenter.object(code, &object)),
        }
    }

    /// GET of many objects.
    pub(crate) async fn list(&self, call: &Call, target: &Target) -> Result<Response, Failure> {
        let include = IncludeObject::parse(call.query.get("includeObject"))?;
        let options = list_options(call, target)?;
        let page = self.page(target, &options).await?;
        let objects = custom::shown(&self.objects, &target.row, &target.version, page.objects).await?;
        Ok(Presenter::new(target, call.form, include).list(objects, &page.meta))
    }

    /// An object as a version of its kind shows it.
    pub(crate) async fn in_version(
        &self,
        target: &Target,
        version: &ServedVersion,
        object: Arc<Cached>,
    ) -> Result<Arc<Cached>, ApiError> {
        if target.row.custom.is_none() {
            return Ok(object);
        }
        let shown = custom::shown(&self.objects, &target.row, version, vec![object.clone()]).await?;
        Ok(shown.into_iter().next().unwrap_or(object))
    }

    /// One page of a list.
    pub(crate) async fn page(&self, target: &Target, options: &ListOptions) -> Result<Page, Failure> {
        let snapshot = self.snapshot(target, options).await?;
        // A client that says it takes whatever is at hand wants all of it, as upstream has it.
        let limit = if options.freshness == Freshness::Any { 0 } else { options.limit };
        let from = options.after.as_deref();
        let filter = &options.filter;
        let mut matching: Box<dyn Iterator<Item = Arc<Cached>> + Send> = if filter.looks_inside() {
            Box::new(self.matching_inside(target, &snapshot, filter, from).await?.into_iter())
        } else {
            Box::new(snapshot.under(&filter.prefix, from).filter(|o| filter.matches(o)).cloned())
        };
        if limit == 0 {
            let meta = ListMeta { revision: snapshot.revision, ..ListMeta::default() };
            return Ok(Page { objects: matching.collect(), meta });
        }
        let objects: Vec<Arc<Cached>> = matching.by_ref().take(limit).collect();
        let mut meta = ListMeta { revision: snapshot.revision, ..ListMeta::default() };
        if let Some(next) = matching.next() {
            let key = next.key.strip_prefix(options.filter.prefix.as_str()).unwrap_or_default();
            meta.continue_token = Some(continue_token(snapshot.revision, key, options.since));
            if options.filter.is_prefix_only() {
                meta.remaining = Some(1 + matching.count());
            }
        }
        Ok(Page { objects, meta })
    }

    /// The objects that fields of custom resources select: as the version asked for shows them.
    pub(super) async fn matching_inside(
        &self,
        target: &Target,
        snapshot: &Snapshot,
        filter: &Filter,
        after: Option<&str>,
    ) -> Result<Vec<Arc<Cached>>, ApiError> {
        let held = snapshot.under(&filter.prefix, after).filter(|o| filter.may_match(o)).cloned().collect();
        let mut shown = custom::shown(&self.objects, &target.row, &target.version, held).await?;
        shown.retain(|object| filter.matches(object));
        Ok(shown)
    }

    async fn snapshot(&self, target: &Target, options: &ListOptions) -> Result<Snapshot, Failure> {
        let row = self.cache.row(&target.row_name);
        match options.freshness {
            Freshness::Exact(revision) => {
                if options.after.is_some() && options.since + CONTINUE_LIFETIME_SECONDS < now_seconds() {
                    return Err(self.expired(options, revision));
                }
                self.reach(options.freshness).await?;
                row.snapshot_at(revision).map_err(|_| self.expired(options, revision))
            }
            freshness => {
                let reached = self.reach(freshness).await?;
                Ok(row.snapshot(reached))
            }
        }
    }

    /// 410 for a page of a list that is no longer remembered, with a token that goes on with what is there now.
    fn expired(&self, options: &ListOptions, revision: Revision) -> Failure {
        let Some(after) = &options.after else {
            let message = format!("The resourceVersion for the provided list is too old. ({revision})");
            return ApiError::new(Reason::Expired, message).into();
        };
        let message = "The provided continue parameter is too old to display a consistent list result. You can start \
                       a new list without the continue parameter, or use the continue token in this response to \
                       retrieve the remainder of the results. Continuing with the provided token results in an \
                       inconsistent list - objects that were created, modified, or deleted between the time the first \
                       chunk was returned and now may show up in the list.";
        let mut failure = Failure::from(ApiError::new(Reason::Expired, message));
        let key = after.strip_prefix(options.filter.prefix.as_str()).unwrap_or_default();
        failure.continue_token = Some(encode_token(&json!({"v": "meta.k8s.io/v1", "rv": -1, "start": key})));
        failure
    }

    /// Waits until the cache is fresh enough. Answers what it has reached.
    pub(crate) async fn reach(&self, freshness: Freshness) -> Result<Revision, Failure> {
        let wanted = match freshness {
            Freshness::Any => return Ok(self.cache.revision()),
            Freshness::MostRecent => {
                self.store.current_revision().await.map_err(|error| commit::failure(&error))?
            }
            Freshness::NotOlderThan(revision) | Freshness::Exact(revision) => revision,
        };
        if self.cache.wait_for(wanted, FRESHNESS_WAIT).await {
            return Ok(self.cache.revision());
        }
        if freshness == Freshness::MostRecent {
            let message = "the watch cache has not caught up with the store; please try again";
            return Err(Failure::from(ApiError::new(Reason::ServiceUnavailable, message)).retry_after(1));
        }
        Err(too_large(wanted, self.cache.revision()))
    }
}

/// 504 for a resource version from the future.
pub(crate) fn too_large(wanted: Revision, current: Revision) -> Failure {
    let message = format!("Timeout: Too large resource version: {wanted}, current: {current}");
    let mut error = ApiError::new(Reason::Timeout, message);
    error.details = Some(Box::new(json!({
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
    })));
    Failure::from(error).retry_after(1)
}

/// Reads the options of a list.
pub(crate) fn list_options(call: &Call, target: &Target) -> Result<ListOptions, ApiError> {
    let filter = filter(call, target)?;
    let limit = match call.query.get_nonempty("limit") {
        None => 0,
        Some(text) => {
            let limit: i64 = text
                .parse()
                .map_err(|_| ApiError::bad_request(format!("limit: {text:?} is not a number")))?;
            usize::try_from(limit).unwrap_or(0)
        }
    };
    let token = call.query.get_nonempty("continue");
    let version = call.query.get_nonempty("resourceVersion");
    let matching = call.query.get_nonempty("resourceVersionMatch");
    revisions::check_list(&call.query)?;
    if let Some(token) = token {
        if version.is_some_and(|v| v != "0") {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let Continue { revision, start, since } = parse_token(token)?;
        let after = Some(format!("{}{start}", filter.prefix));
        let freshness = revision.map_or(Freshness::MostRecent, Freshness::Exact);
        return Ok(ListOptions { filter, limit, freshness, after, since });
    }
    let freshness = match (version.map(parse_revision).transpose()?, matching) {
        (None, _) => Freshness::MostRecent,
        (Some(revision), Some("Exact")) => Freshness::Exact(revision),
        (Some(0), _) => Freshness::Any,
        (Some(revision), Some(_)) => Freshness::NotOlderThan(revision),
        (Some(revision), None) if limit > 0 => Freshness::Exact(revision),
        (Some(revision), None) => Freshness::NotOlderThan(revision),
    };
    Ok(ListOptions { filter, limit, freshness, after: None, since: now_seconds() })
}

/// The selection that the path and the query name.
pub(crate) fn filter(call: &Call, target: &Target) -> Result<Filter, ApiError> {
    let labels = LabelSelector::parse(call.query.get("labelSelector").unwrap_or_default())
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let mut fields = FieldSelector::parse(call.query.get("fieldSelector").unwrap_or_default())
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let custom = target.row.custom.as_ref();
    let described = custom.and_then(|custom| custom.versions.get(&target.version.version));
    let is_known = |field: &str| {
        matches!(field, "metadata.name" | "metadata.namespace")
            || target.row.selectable.iter().any(|known| known.label == field)
            || described.is_some_and(|version| version.selectable.iter().any(|name| name == field))
    };
    let stored = |field: &str| api::convert::stored_field(&target.version, field).filter(|f| is_known(f));
    if let Some(field) = fields.first_unsupported(|field| stored(field).is_some()) {
        return Err(ApiError::bad_request(format!("field label not supported: {field}")));
    }
    for term in &mut fields.terms {
        term.field = stored(&term.field).unwrap_or_default();
    }
    if !target.name.is_empty() {
        let field = "metadata.name".to_string();
        fields.terms.push(FieldTerm { field, value: target.name.clone(), equal: true });
    }
    Ok(Filter { prefix: target.prefix(), labels, fields, by_path: custom.is_some() })
}

fn now_seconds() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Where the next page of a list begins.
#[derive(Debug, PartialEq, Eq)]
struct Continue {
    /// None for an inconsistent continue.
    revision: Option<Revision>,
    /// The key to go on with.
    start: String,
    /// When the first page was asked for. A revision can be at hand for much longer, but clients rely on hearing 410
    /// some time, as they do from upstream.
    since: i64,
}

fn continue_token(revision: Revision, start: &str, since: i64) -> String {
    encode_token(&json!({"v": "meta.k8s.io/v1", "rv": revision, "start": start, "since": since}))
}

fn encode_token(token: &Value) -> String {
    URL_SAFE_NO_PAD.encode(token.to_string())
}

fn parse_token(token: &str) -> Result<Continue, ApiError> {
    let invalid = |why: &str| ApiError::bad_request(format!("continue key is not valid: {why}"));
    let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|e| invalid(&e.to_string()))?;
    let token: Value = serde_json::from_slice(&bytes).map_err(|e| invalid(&e.to_string()))?;
    if token.get("v").and_then(Value::as_str) != Some("meta.k8s.io/v1") {
        return Err(invalid("server does not recognize this encoded version"));
    }
    let start = token.get("start").and_then(Value::as_str).unwrap_or_default();
    if start.is_empty() || start.split('/').any(|part| part == "..") {
        return Err(invalid("encoded start key is not valid"));
    }
    let revision = match token.get("rv").and_then(Value::as_i64) {
        Some(-1) => None,
        Some(revision) if revision > 0 => Some(revision.unsigned_abs()),
        _ => return Err(invalid("incorrect encoded start resourceVersion")),
    };
    let since = token.get("since").and_then(Value::as_i64).unwrap_or_else(now_seconds);
    Ok(Continue { revision, start: start.to_string(), since })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_should_survive_the_way_to_the_client_and_back() {
        let expected = Continue { revision: Some(42), start: "ns/web".to_string(), since: 7 };
        assert_eq!(parse_token(&continue_token(42, "ns/web", 7)).unwrap(), expected);
        let inconsistent = encode_token(&json!({"v": "meta.k8s.io/v1", "rv": -1, "start": "a"}));
        assert_eq!(parse_token(&inconsistent).unwrap().revision, None);
        for bad in ["", "xxx", &encode_token(&json!({"v": "v0"})), &continue_token(1, "../x", 7)] {
            assert!(parse_token(bad).is_err(), "{bad}");
        }
    }
}

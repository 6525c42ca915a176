//! What a list or watch may say of revisions: which options go together, in upstream's words.

use api::ApiError;
use api::field::{Errors, Path, PathExt};
use store::Revision;

use crate::http::query::Query;

const EXACT: &str = "Exact";
const NOT_OLDER_THAN: &str = "NotOlderThan";

/// Checks the options of a list.
pub(super) fn check_list(query: &Query) -> Result<(), ApiError> {
    let mut errors = Errors::new();
    let path = Path::ROOT.field("resourceVersionMatch");
    let version = query.get_nonempty("resourceVersion");
    if let Some(matching) = query.get_nonempty("resourceVersionMatch") {
        if version.is_none() {
            errors.forbidden(&path, "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        refuse_continue(&mut errors, &path, query);
        if ![EXACT, NOT_OLDER_THAN].contains(&matching) {
            errors.not_supported(&path, matching, &[EXACT, NOT_OLDER_THAN, ""]);
        }
        if matching == EXACT && version == Some("0") {
            let detail = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.forbidden(&path, detail);
        }
    }
    if query.get_nonempty("sendInitialEvents").is_some() {
        let path = Path::ROOT.field("sendInitialEvents");
        errors.forbidden(&path, "sendInitialEvents is forbidden for list");
    }
    refused(errors)
}

/// Checks the options of a watch. Answers whether it is to begin with what there is: that has to be said together with
/// `resourceVersionMatch=NotOlderThan`.
pub(super) fn check_watch(query: &Query) -> Result<Option<bool>, ApiError> {
    let mut errors = Errors::new();
    let path = Path::ROOT.field("resourceVersionMatch");
    let initial_events = query.get_nonempty("sendInitialEvents").map(|_| query.flag("sendInitialEvents"));
    let matching = query.get_nonempty("resourceVersionMatch");
    if initial_events.is_some() && matching != Some(NOT_OLDER_THAN) {
        let detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.forbidden(&path, detail);
    }
    if let Some(matching) = matching {
        if initial_events.is_none() {
            let detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.forbidden(&path, detail);
        }
        if matching != NOT_OLDER_THAN {
            errors.not_supported(&path, matching, &[NOT_OLDER_THAN]);
        }
        refuse_continue(&mut errors, &path, query);
    }
    refused(errors).map(|()| initial_events)
}

/// Reads a resource version.
pub(super) fn parse_revision(text: &str) -> Result<Revision, ApiError> {
    text.parse().map_err(|_| {
        let mut errors = Errors::new();
        let detail = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        errors.invalid(&Path::ROOT.field("resourceVersion"), text, detail);
        ApiError::invalid("meta.k8s.io", "ListOptions", "", &errors.into_vec())
    })
}

fn refuse_continue(errors: &mut Errors, path: &Path, query: &Query) {
    if query.get_nonempty("continue").is_some() {
        errors.forbidden(path, "resourceVersionMatch is forbidden when continue is provided");
    }
}

fn refused(errors: Errors) -> Result<(), ApiError> {
    match errors.into_vec().as_slice() {
        [] => Ok(()),
        errors => Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", errors)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every combination that matters, and what is said of it.
    #[test]
    fn options_should_go_together_as_upstream_has_it() {
        for (query, lists, watches) in [
            ("", 0, 0),
            ("resourceVersion=0", 0, 0),
            ("resourceVersion=5", 0, 0),
            ("resourceVersionMatch=Exact", 1, 2),
            ("resourceVersionMatch=NotOlderThan", 1, 1),
            ("resourceVersionMatch=Newer&resourceVersion=5", 1, 2),
            ("resourceVersionMatch=Exact&resourceVersion=0", 1, 2),
            ("resourceVersionMatch=Exact&resourceVersion=5", 0, 2),
            ("resourceVersionMatch=NotOlderThan&resourceVersion=0", 0, 1),
            ("resourceVersionMatch=NotOlderThan&resourceVersion=5&continue=x", 1, 2),
            ("sendInitialEvents=true", 1, 1),
            ("sendInitialEvents=false", 1, 1),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", 2, 0),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=5", 1, 0),
            ("sendInitialEvents=true&resourceVersionMatch=Exact&resourceVersion=5", 1, 2),
        ] {
            let causes = |error: Option<ApiError>| {
                let details = error.and_then(|e| e.details).unwrap_or_default();
                details["causes"].as_array().map_or(0, Vec::len)
            };
            let parsed = Query::parse(query);
            assert_eq!(causes(check_list(&parsed).err()), lists, "list {query}");
            assert_eq!(causes(check_watch(&parsed).err()), watches, "watch {query}");
        }
    }
}

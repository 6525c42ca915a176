//! Impersonation: the `Impersonate-*` headers, and the rights that they need.

use api::ApiError;
use http::{HeaderMap, HeaderValue};

use super::{AUTHENTICATED, UNAUTHENTICATED, UserInfo};
use crate::authz::{Attributes, AuthorizerChain};
use crate::http::query::decode;
use crate::http::request_info::RequestInfo;

/// The user as whom the request wants to act, if it does and may.
pub(crate) async fn impersonated(
    headers: &HeaderMap,
    user: &UserInfo,
    authorizers: &AuthorizerChain,
) -> Result<Option<UserInfo>, ApiError> {
    let Some(wanted) = requested(headers)? else { return Ok(None) };
    let mut checks = vec![subject_check(&wanted.name)];
    if !wanted.uid.is_empty() {
        checks.push(check("authentication.k8s.io", "uids", &wanted.uid, ""));
    }
    checks.extend(wanted.groups.iter().map(|group| check("", "groups", group, "")));
    for (key, values) in &wanted.extra {
        checks.extend(values.iter().map(|v| check("authentication.k8s.io", "userextras", v, key)));
    }
    for info in checks {
        authorizers.require(&Attributes { user, info: &info }).await?;
    }
    let mut wanted = wanted;
    if let Some((namespace, _)) = service_account(&wanted.name)
        && wanted.groups.is_empty()
    {
        wanted.groups =
            vec!["system:serviceaccounts".to_string(), format!("system:serviceaccounts:{namespace}")];
    }
    // Groups that are said are the authority, also on whether the user counts as authenticated.
    if wanted.name == "system:anonymous" {
        if !wanted.is_in(UNAUTHENTICATED) {
            wanted.groups.push(UNAUTHENTICATED.to_string());
        }
    } else if !wanted.is_in(AUTHENTICATED) && !wanted.is_in(UNAUTHENTICATED) {
        wanted.groups.push(AUTHENTICATED.to_string());
    }
    Ok(Some(wanted))
}

fn requested(headers: &HeaderMap) -> Result<Option<UserInfo>, ApiError> {
    // A header that cannot be read must not leave out what would have to be checked.
    let read = |value: &HeaderValue| match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Ok(text.to_string()),
        Err(_) => Err(ApiError::bad_request("an Impersonate header is not UTF-8")),
    };
    let text = |name: &str| headers.get(name).map_or(Ok(String::new()), read);
    let mut wanted =
        UserInfo { name: text("impersonate-user")?, uid: text("impersonate-uid")?, ..UserInfo::default() };
    wanted.groups = headers.get_all("impersonate-group").iter().map(read).collect::<Result<_, _>>()?;
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix("impersonate-extra-") {
            wanted.extra.entry(decode(key, false)).or_default().push(read(value)?);
        }
    }
    if wanted.name.is_empty() {
        if wanted == UserInfo::default() {
            return Ok(None);
        }
        return Err(ApiError::bad_request(
            "requested to impersonate groups, a UID or extras without impersonating a user",
        ));
    }
    Ok(Some(wanted))
}

fn subject_check(name: &str) -> RequestInfo {
    match service_account(name) {
        Some((namespace, account)) => {
            RequestInfo { namespace: namespace.to_string(), ..check("", "serviceaccounts", account, "") }
        }
        None => check("", "users", name, ""),
    }
}

fn check(group: &str, resource: &str, name: &str, subresource: &str) -> RequestInfo {
    RequestInfo {
        is_resource: true,
        special_verb: "impersonate".to_string(),
        group: group.to_string(),
        version: "v1".to_string(),
        resource: resource.to_string(),
        name: name.to_string(),
        subresource: subresource.to_string(),
        ..RequestInfo::default()
    }
}

fn service_account(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("system:serviceaccount:")?.split_once(':')
}

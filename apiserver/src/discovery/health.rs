//! `/healthz`, `/livez`, `/readyz`: all checks, or a single one by its path.

use std::sync::Arc;

use http::StatusCode;

use crate::http::Response;
use crate::http::query::Query;
use crate::http::respond::{self, Failure};
use crate::pipeline::{Core, no_such_path};

const ROOTS: [&str; 3] = ["healthz", "livez", "readyz"];

/// Whether the path asks for health.
pub(super) fn is_health(path: &str) -> bool {
    let root = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    ROOTS.contains(&root)
}

/// Runs the checks.
pub(super) async fn answer(core: &Arc<Core>, path: &str, query: &Query) -> Result<Response, Failure> {
    let (root, only) = match path.trim_start_matches('/').split_once('/') {
        Some((root, only)) => (root, Some(only)),
        None => (path.trim_start_matches('/'), None),
    };
    let names: &[&str] = if root == "readyz" {
        &["ping", "log", "store", "etcd", "watch-cache", "shutdown"]
    } else {
        &["ping", "log", "store", "etcd"]
    };
    let excluded: Vec<&str> = query.all("exclude").collect();
    let wanted: Vec<&&str> = names
        .iter()
        .filter(|name| only.is_none_or(|o| o == **name) && !excluded.contains(name))
        // `etcd` is what scripts ask for by that name; among all checks the store is listed once.
        .filter(|name| **name != "etcd" || only.is_some())
        .collect();
    if wanted.is_empty() && only.is_some() {
        return Err(no_such_path());
    }
    let mut report = String::new();
    let mut healthy = true;
    for name in wanted {
        match check(core, name).await {
            Ok(()) => report.push_str(&format!("[+]{name} ok\n")),
            Err(why) => {
                tracing::warn!(check = name, %why, "a health check fails");
                report.push_str(&format!("[-]{name} failed: {why}\n"));
                healthy = false;
            }
        }
    }
    if healthy {
        let verbose = query.get("verbose").is_some() && only.is_none();
        let text = if verbose { format!("{report}{root} check passed\n") } else { "ok".to_string() };
        return Ok(respond::text(StatusCode::OK, text));
    }
    Ok(respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{report}{root} check failed\n")))
}

async fn check(core: &Arc<Core>, name: &str) -> Result<(), String> {
    match name {
        "store" | "etcd" => core.store.health().await.map_err(|error| error.to_string()),
        "watch-cache" if !core.objects.catch_up().await => {
            Err("the watch cache has not caught up with the store".to_string())
        }
        "shutdown" if core.stopping.is_cancelled() => Err("the server is shutting down".to_string()),
        _ => Ok(()),
    }
}

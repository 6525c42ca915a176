//! Checks of probes and lifecycle hooks.

use serde_json::Value;

use crate::{
    field::{Errors, Look, Path, PathExt},
    intstr, names,
};

const ONLY_ONE: &str = "may not specify more than 1 handler type";

/// Checks the three probes of a container.
pub(super) fn validate_all(errors: &mut Errors, path: &Path, container: &Value, grace_seconds: i64) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.at(name) else { continue };
        let path = path.field(name);
        validate(errors, &path, probe, grace_seconds);
        if name == "readinessProbe" {
            if let Some(seconds) = probe.int("terminationGracePeriodSeconds") {
                let detail = "must not be set for readinessProbes";
                errors.invalid(&path.field("terminationGracePeriodSeconds"), seconds, detail);
            }
        } else if let Some(threshold) = probe.int("successThreshold").filter(|t| *t != 1) {
            errors.invalid(&path.field("successThreshold"), threshold, "must be 1");
        }
    }
}

fn validate(errors: &mut Errors, path: &Path, probe: &Value, grace_seconds: i64) {
    validate_handler(errors, path, probe, grace_seconds);
    for name in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        if let Some(value) = probe.int(name).filter(|v| *v < 0) {
            errors.invalid(&path.field(name), value, "must be greater than or equal to 0");
        }
    }
    if let Some(seconds) = probe.int("terminationGracePeriodSeconds").filter(|s| *s <= 0) {
        errors.invalid(&path.field("terminationGracePeriodSeconds"), seconds, "must be greater than 0");
    }
}

/// Checks that there is exactly one handler, and the handler.
pub(super) fn validate_handler(errors: &mut Errors, path: &Path, handler: &Value, grace_seconds: i64) {
    let mut has_one = false;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let Some(action) = handler.at(kind) else { continue };
        let path = path.field(kind);
        if has_one {
            errors.forbidden(&path, ONLY_ONE);
            continue;
        }
        has_one = true;
        match kind {
            "exec" if action.items("command").is_empty() => errors.required(&path.field("command"), ""),
            "exec" => {}
            "httpGet" => http(errors, &path, action),
            "sleep" => sleep(errors, &path, action, grace_seconds),
            _ => port(errors, &path, action),
        }
    }
    if !has_one {
        errors.required(path, "must specify a handler type");
    }
}

fn port(errors: &mut Errors, path: &Path, action: &Value) {
    intstr::validate_port(errors, &path.field("port"), action.at("port").unwrap_or(&Value::from(0)));
}

fn http(errors: &mut Errors, path: &Path, action: &Value) {
    if action.text("path").is_empty() {
        errors.required(&path.field("path"), "");
    }
    port(errors, path, action);
    let scheme = action.text("scheme");
    if !["HTTP", "HTTPS"].contains(&scheme) {
        errors.not_supported(&path.field("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for header in action.items("httpHeaders") {
        let name = header.text("name");
        errors.invalid_each(&path.field("httpHeaders"), name, names::http_header_name(name));
    }
}

fn sleep(errors: &mut Errors, path: &Path, action: &Value, grace_seconds: i64) {
    let seconds = action.int("seconds").unwrap_or_default();
    if seconds < 0 || seconds > grace_seconds {
        let detail =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace_seconds})");
        errors.invalid(path, seconds, detail);
    }
}

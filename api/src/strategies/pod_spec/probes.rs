//! Checks of probes and lifecycle hooks.

use crate::{at::At, field::Look, intstr, names};

const ONLY_ONE: &str = "may not specify more than 1 handler type";

/// Checks the three probes of a container.
pub(super) fn check_all(container: &At, grace_seconds: i64) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.given(name) else { continue };
        check(&probe, grace_seconds);
        if name == "readinessProbe" {
            probe.optional("terminationGracePeriodSeconds", |seconds| {
                seconds.invalid("must not be set for readinessProbes");
            });
        } else {
            probe.field("successThreshold").within(1..=1, "must be 1");
        }
    }
}

fn check(probe: &At, grace_seconds: i64) {
    check_handler(probe, grace_seconds);
    probe.non_negative(&[
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ]);
    probe.field("terminationGracePeriodSeconds").within(1.., "must be greater than 0");
}

/// Checks that there is exactly one handler, and the handler.
pub(super) fn check_handler(handler: &At, grace_seconds: i64) {
    let mut has_one = false;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let Some(action) = handler.given(kind) else { continue };
        if has_one {
            action.forbidden(ONLY_ONE);
            continue;
        }
        has_one = true;
        match kind {
            "exec" => action.field("command").filled(""),
            "httpGet" => http(&action),
            "sleep" => sleep(&action, grace_seconds),
            _ => port(&action),
        }
    }
    if !has_one {
        handler.required("must specify a handler type");
    }
}

fn port(action: &At) {
    intstr::check_port(&action.field("port"));
}

fn http(action: &At) {
    action.field("path").filled("");
    port(action);
    action.field("scheme").among(&["HTTP", "HTTPS"]);
    for header in action.items("httpHeaders") {
        let name = header.text("name");
        action.field("httpHeaders").invalid_each(name, names::http_header_name(name));
    }
}

fn sleep(action: &At, grace_seconds: i64) {
    let seconds = action.field("seconds").number();
    if seconds < 0 || seconds > grace_seconds {
        let detail =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace_seconds})");
        action.invalid_value(seconds, detail);
    }
}

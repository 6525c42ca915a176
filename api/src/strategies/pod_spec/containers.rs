//! Checks of containers, ordinary, init and ephemeral ones.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Of, environment, probes, resources, security, volumes};
use crate::{at::At, field::Look, names};

const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const NOT_FOR_INIT: &str = "may not be set for init containers without restartPolicy=Always";
const NOT_FOR_EPHEMERAL: &str = "cannot be set for an Ephemeral Container";
const EPHEMERAL_FIELDS_REFUSED: &[&str] =
    &["lifecycle", "livenessProbe", "ports", "readinessProbe", "resizePolicy", "startupProbe"];

/// Checks every container of a spec.
pub(super) fn check(spec: &At, volumes: &volumes::Known, of: Of) {
    let context = Context { volumes, spec, of };
    let mut names = BTreeSet::new();
    let containers = spec.field("containers");
    containers.filled("");
    for container in containers.elements() {
        context.common(&container);
        container.field("name").unique(&mut names);
        context.lifecycle_and_probes(&container);
        restart_rules(&container);
    }
    let mut ports = BTreeSet::new();
    containers.elements().for_each(|container| host_ports(&container, &mut ports));
    for container in spec.field("initContainers").elements() {
        context.common(&container);
        restart_rules(&container);
        container.field("name").unique(&mut names);
        context.init_container(&container);
    }
    for container in spec.field("ephemeralContainers").elements() {
        context.common(&container);
        container.field("name").unique(&mut names);
        context.ephemeral_container(&container);
    }
}

struct Context<'a> {
    volumes: &'a volumes::Known<'a>,
    spec: &'a At<'a, 'a>,
    of: Of,
}

impl Context<'_> {
    fn common(&self, container: &At) {
        container.field("name").name(names::dns1123_label);
        let image = container.field("image");
        image.filled("");
        if self.of == Of::Pod && image.str().trim() != image.str() {
            image.invalid("must not have leading or trailing whitespace");
        }
        container.field("terminationMessagePolicy").one_of(&["File", "FallbackToLogsOnError"]);
        ports(&container.field("ports"));
        environment::check(container);
        volumes::check_mounts(container, self.volumes);
        container.field("imagePullPolicy").one_of(&["Always", "IfNotPresent", "Never"]);
        container.optional("resources", resources::check);
        resize_policy(&container.field("resizePolicy"));
        container.optional("securityContext", |context| security::check_container(context, self.spec));
    }

    fn lifecycle_and_probes(&self, container: &At) {
        let grace_seconds = self.spec.field("terminationGracePeriodSeconds").number();
        for hook in ["lifecycle.postStart", "lifecycle.preStop"] {
            container.optional(hook, |handler| probes::check_handler(handler, grace_seconds));
        }
        probes::check_all(container, grace_seconds);
    }

    fn init_container(&self, container: &At) {
        host_ports(container, &mut BTreeSet::new());
        if container.text("restartPolicy") == "Always" {
            return self.lifecycle_and_probes(container);
        }
        for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            container.optional(name, |field| field.forbidden(NOT_FOR_INIT));
        }
    }

    fn ephemeral_container(&self, container: &At) {
        let target = container.field("targetContainerName");
        let is_target = |other: &Value| other.text("name") == target.str();
        let targets = ["containers", "initContainers"];
        if !target.is_empty() && !targets.iter().any(|list| self.spec.items(list).iter().any(is_target)) {
            target.not_found();
        }
        for name in EPHEMERAL_FIELDS_REFUSED {
            container.optional(name, |field| field.forbidden(NOT_FOR_EPHEMERAL));
        }
        let resources = container.field("resources");
        if !resources.is_empty() {
            resources.forbidden(NOT_FOR_EPHEMERAL);
        }
        container.each("volumeMounts", |mount| {
            for name in ["subPath", "subPathExpr"].into_iter().filter(|name| !mount.text(name).is_empty()) {
                mount.field(name).forbidden(NOT_FOR_EPHEMERAL);
            }
        });
    }
}

fn ports(ports: &At) {
    let mut seen = BTreeSet::new();
    for port in ports.elements() {
        let name = port.field("name");
        name.name_or_none(names::port_name);
        if !name.is_empty() && names::port_name(name.str()).is_empty() {
            name.unique(&mut seen);
        }
        let (number, host) = (port.field("containerPort"), port.field("hostPort"));
        if number.number() == 0 {
            number.required("")
        } else {
            number.port_number()
        }
        if host.number() != 0 {
            host.port_number();
        }
        port.field("protocol").one_of(&["SCTP", "TCP", "UDP"]);
    }
}

fn host_ports(container: &At, seen: &mut BTreeSet<String>) {
    container.each("ports", |port| {
        let host = port.field("hostPort");
        if host.number() == 0 {
            return;
        }
        let id = format!("{}/{}/{}", port.text("protocol"), port.text("hostIP"), host.number());
        if !seen.insert(id.clone()) {
            host.duplicate_value(id);
        }
    });
}

fn resize_policy(policies: &At) {
    let mut seen = BTreeSet::new();
    for policy in policies.elements() {
        let resource = policy.field("resourceName");
        if !seen.insert(resource.str()) {
            policy.duplicate_value(resource.str());
        }
        resource.one_of(&["cpu", "memory"]);
        policy.field("restartPolicy").one_of(&["NotRequired", "RestartContainer"]);
    }
}

/// A container's own restart policy and the rules that refine it.
fn restart_rules(container: &At) {
    let (policy, rules) = (container.field("restartPolicy"), container.field("restartPolicyRules"));
    if !policy.is_given() {
        if !rules.is_empty() {
            policy.required("must specify restartPolicy when restart rules are used");
        }
        return;
    }
    policy.one_of(&["Always", "Never", "OnFailure"]);
    rules.at_most(RESTART_RULES_MAX);
    for rule in rules.elements() {
        rule.field("action").one_of(&["Restart"]);
        let codes = rule.field("exitCodes");
        if !codes.is_given() {
            codes.required("must be specified");
            continue;
        }
        codes.field("operator").one_of(&["In", "NotIn"]);
        codes.field("values").at_most(EXIT_CODES_MAX);
    }
}

//! Checks of containers, ordinary, init and ephemeral ones.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Of, Seen, environment, one_of, probes, resources, security, volumes};
use crate::{
    field::{Errors, Look, Path, PathExt},
    names,
};

const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const NOT_FOR_INIT: &str = "may not be set for init containers without restartPolicy=Always";
const EPHEMERAL_FIELDS_REFUSED: &[&str] =
    &["lifecycle", "livenessProbe", "ports", "readinessProbe", "resizePolicy", "startupProbe"];

/// Checks every container of a spec.
pub(super) fn validate(errors: &mut Errors, path: &Path, spec: &Value, volumes: &volumes::Known, of: Of) {
    let context = Context { volumes, spec, of };
    let containers = spec.items("containers");
    let containers_path = path.field("containers");
    if containers.is_empty() {
        errors.required(&containers_path, "");
    }
    let mut names = Seen::default();
    for (index, container) in containers.iter().enumerate() {
        let path = containers_path.index(index);
        context.common(errors, &path, container);
        unique_name(errors, &path, container, &mut names);
        context.lifecycle_and_probes(errors, &path, container);
        restart_rules(errors, &path, container);
    }
    host_ports(errors, &containers_path, containers);
    context.init_containers(errors, &path.field("initContainers"), &mut names);
    context.ephemeral_containers(errors, &path.field("ephemeralContainers"), &mut names);
}

struct Context<'a> {
    volumes: &'a volumes::Known<'a>,
    spec: &'a Value,
    of: Of,
}

fn unique_name<'a>(errors: &mut Errors, path: &Path, container: &'a Value, seen: &mut Seen<'a>) {
    let name = container.text("name");
    if !seen.is_new(name) {
        errors.duplicate(&path.field("name"), name);
    }
}

impl<'a> Context<'a> {
    fn common(&self, errors: &mut Errors, path: &Path, container: &Value) {
        let name = container.text("name");
        if name.is_empty() {
            errors.required(&path.field("name"), "");
        } else {
            errors.invalid_each(&path.field("name"), name, names::dns1123_label(name));
        }
        let image = container.text("image");
        if image.is_empty() {
            errors.required(&path.field("image"), "");
        } else if self.of == Of::Pod && image.trim() != image {
            errors.invalid(&path.field("image"), image, "must not have leading or trailing whitespace");
        }
        one_of(
            errors,
            &path.field("terminationMessagePolicy"),
            container,
            &["File", "FallbackToLogsOnError"],
        );
        ports(errors, &path.field("ports"), container);
        environment::validate(errors, path, container);
        volumes::validate_mounts(errors, path, container, self.volumes);
        one_of(errors, &path.field("imagePullPolicy"), container, &["Always", "IfNotPresent", "Never"]);
        if let Some(requirements) = container.at("resources") {
            resources::validate(errors, &path.field("resources"), requirements);
        }
        resize_policy(errors, &path.field("resizePolicy"), container);
        security::validate_container(errors, &path.field("securityContext"), container, self.spec);
    }

    fn lifecycle_and_probes(&self, errors: &mut Errors, path: &Path, container: &Value) {
        let grace = self.spec.int("terminationGracePeriodSeconds").unwrap_or_default();
        if let Some(lifecycle) = container.at("lifecycle") {
            let path = path.field("lifecycle");
            for hook in ["postStart", "preStop"] {
                if let Some(handler) = lifecycle.at(hook) {
                    probes::validate_handler(errors, &path.field(hook), handler, grace);
                }
            }
        }
        probes::validate_all(errors, path, container, grace);
    }

    fn init_containers(&self, errors: &mut Errors, path: &Path, names: &mut Seen<'a>) {
        for (index, container) in self.spec.items("initContainers").iter().enumerate() {
            let path = path.index(index);
            self.common(errors, &path, container);
            restart_rules(errors, &path, container);
            unique_name(errors, &path, container, names);
            host_ports(errors, &path, std::slice::from_ref(container));
            if container.text("restartPolicy") == "Always" {
                self.lifecycle_and_probes(errors, &path, container);
                continue;
            }
            for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if container.at(name).is_some() {
                    errors.forbidden(&path.field(name), NOT_FOR_INIT);
                }
            }
        }
    }

    fn ephemeral_containers(&self, errors: &mut Errors, path: &Path, names: &mut Seen<'a>) {
        let targets: BTreeSet<&str> = ["containers", "initContainers"]
            .iter()
            .flat_map(|list| self.spec.items(list))
            .map(|container| container.text("name"))
            .collect();
        for (index, container) in self.spec.items("ephemeralContainers").iter().enumerate() {
            let path = path.index(index);
            self.common(errors, &path, container);
            unique_name(errors, &path, container, names);
            let target = container.text("targetContainerName");
            if !target.is_empty() && !targets.contains(target) {
                errors.not_found(&path.field("targetContainerName"), target);
            }
            let has_resources = container.at("resources").is_some_and(|r| r != &serde_json::json!({}));
            for name in EPHEMERAL_FIELDS_REFUSED
                .iter()
                .filter(|name| container.at(name).is_some())
                .chain(has_resources.then_some(&"resources"))
            {
                errors.forbidden(&path.field(name), "cannot be set for an Ephemeral Container");
            }
            let mounts = path.field("volumeMounts");
            for (index, mount) in container.items("volumeMounts").iter().enumerate() {
                for name in ["subPath", "subPathExpr"] {
                    if !mount.text(name).is_empty() {
                        let mount = mounts.index(index);
                        errors.forbidden(&mount.field(name), "cannot be set for an Ephemeral Container");
                    }
                }
            }
        }
    }
}

fn ports(errors: &mut Errors, path: &Path, container: &Value) {
    let mut seen = Seen::default();
    for (index, port) in container.items("ports").iter().enumerate() {
        let path = path.index(index);
        let name = port.text("name");
        if !name.is_empty() {
            let faults = names::port_name(name);
            if !faults.is_empty() {
                errors.invalid_each(&path.field("name"), name, faults);
            } else if !seen.is_new(name) {
                errors.duplicate(&path.field("name"), name);
            }
        }
        let number = port.int("containerPort").unwrap_or_default();
        if number == 0 {
            errors.required(&path.field("containerPort"), "");
        } else if let Some(fault) = names::port_number(number) {
            errors.invalid(&path.field("containerPort"), number, fault);
        }
        let host = port.int("hostPort").unwrap_or_default();
        if host != 0
            && let Some(fault) = names::port_number(host)
        {
            errors.invalid(&path.field("hostPort"), host, fault);
        }
        one_of(errors, &path.field("protocol"), port, &["SCTP", "TCP", "UDP"]);
    }
}

fn host_ports(errors: &mut Errors, path: &Path, containers: &[Value]) {
    let mut seen = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        let container_path = path.index(index);
        let ports = container_path.field("ports");
        for (index, port) in container.items("ports").iter().enumerate() {
            let number = port.int("hostPort").unwrap_or_default();
            let id = format!("{}/{}/{number}", port.text("protocol"), port.text("hostIP"));
            if number != 0 && !seen.insert(id.clone()) {
                errors.duplicate(&ports.index(index).field("hostPort"), id);
            }
        }
    }
}

fn resize_policy(errors: &mut Errors, path: &Path, container: &Value) {
    let mut seen = Seen::default();
    for (index, policy) in container.items("resizePolicy").iter().enumerate() {
        let path = path.index(index);
        let resource = policy.text("resourceName");
        if !seen.is_new(resource) {
            errors.duplicate(&path, resource);
        }
        one_of(errors, &path.field("resourceName"), policy, &["cpu", "memory"]);
        one_of(errors, &path.field("restartPolicy"), policy, &["NotRequired", "RestartContainer"]);
    }
}

/// A container's own restart policy and the rules that refine it.
fn restart_rules(errors: &mut Errors, path: &Path, container: &Value) {
    let rules = container.items("restartPolicyRules");
    let policy_path = path.field("restartPolicy");
    if container.at("restartPolicy").is_none() {
        if !rules.is_empty() {
            errors.required(&policy_path, "must specify restartPolicy when restart rules are used");
        }
        return;
    }
    one_of(errors, &policy_path, container, &["Always", "Never", "OnFailure"]);
    let rules_path = path.field("restartPolicyRules");
    if rules.len() > RESTART_RULES_MAX {
        errors.too_many(&rules_path, rules.len(), RESTART_RULES_MAX);
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = rules_path.index(index);
        one_of(errors, &path.field("action"), rule, &["Restart"]);
        let codes_path = path.field("exitCodes");
        let Some(codes) = rule.at("exitCodes") else {
            errors.required(&codes_path, "must be specified");
            continue;
        };
        one_of(errors, &codes_path.field("operator"), codes, &["In", "NotIn"]);
        let count = codes.items("values").len();
        if count > EXIT_CODES_MAX {
            errors.too_many(&codes_path.field("values"), count, EXIT_CODES_MAX);
        }
    }
}

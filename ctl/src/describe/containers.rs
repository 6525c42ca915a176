//! Containers: what they run, with what, and how they are.

use serde_json::Value;

use super::page::{Page, or_none, time};
use crate::tree::{fields, flag, items, number, plain, shown, text};

/// The containers of a pod with their states.
pub fn write(title: &str, pod: &Value, containers: &str, statuses: &str, page: &mut Page) {
    page.line(0, format!("{title}:"));
    for container in items(pod, containers) {
        let status = items(pod, statuses).find(|status| status["name"] == container["name"]);
        one(container, status, Some(pod), "", page);
    }
}

/// Those of a template, which have no states.
pub fn write_of_template(title: &str, template: &Value, containers: &str, page: &mut Page) {
    let none = if items(template, containers).next().is_none() { " <none>" } else { "" };
    page.line(1, format!("{title}:{none}"));
    for container in items(template, containers) {
        one(container, None, None, " ", page);
    }
}

fn one(container: &Value, status: Option<&Value>, pod: Option<&Value>, indent: &str, page: &mut Page) {
    page.line(1, format!("{indent}{}:", text(container, "/name")));
    if let Some(status) = status {
        page.line(2, format!("Container ID:\t{}", text(status, "/containerID")));
    }
    page.line(2, format!("Image:\t{}", text(container, "/image")));
    if let Some(status) = status {
        page.line(2, format!("Image ID:\t{}", text(status, "/imageID")));
    }
    for (title, field) in [("Port", "containerPort"), ("Host Port", "hostPort")] {
        let ports = ports(container, field);
        let title = if ports.contains(',') { format!("{title}s") } else { title.to_string() };
        page.line(2, format!("{title}:\t{}", or_none(&ports)));
    }
    let seccomp = text(container, "/securityContext/seccompProfile/type");
    if !seccomp.is_empty() {
        page.line(2, format!("SeccompProfile:\t{seccomp}"));
    }
    for (title, field) in [("Command", "/command"), ("Args", "/args")] {
        if items(container, field).next().is_some() {
            page.line(2, format!("{title}:"));
        }
        for word in items(container, field) {
            page.line(3, plain(word));
        }
    }
    if let Some(status) = status {
        state("State", &status["state"], page);
        if status.pointer("/lastState/terminated").is_some() {
            state("Last State", &status["lastState"], page);
        }
        page.line(2, format!("Ready:\t{}", if flag(status, "/ready") { "True" } else { "False" }));
        page.line(2, format!("Restart Count:\t{}", number(status, "/restartCount")));
    }
    for (title, field) in [("Limits", "/resources/limits"), ("Requests", "/resources/requests")] {
        let amounts = fields(container, field);
        if !amounts.is_empty() {
            page.line(2, format!("{title}:"));
        }
        for (name, amount) in amounts {
            page.line(3, format!("{name}:\t{}", plain(amount)));
        }
    }
    for (title, field) in
        [("Liveness", "/livenessProbe"), ("Readiness", "/readinessProbe"), ("Startup", "/startupProbe")]
    {
        if let Some(found) = container.pointer(field).filter(|probe| probe.is_object()) {
            page.line(2, format!("{title}:\t{}", probe(found)));
        }
    }
    environment(container, pod, page);
    mounts(container, page);
}

fn ports(container: &Value, field: &str) -> String {
    let port = |port: &Value| {
        let protocol = match text(port, "/protocol") {
            "" => "TCP",
            protocol => protocol,
        };
        let name = match text(port, "/name") {
            "" => String::new(),
            name => format!(" ({name})"),
        };
        format!("{}/{protocol}{name}", port[field].as_i64().unwrap_or_default())
    };
    items(container, "/ports").map(port).collect::<Vec<_>>().join(", ")
}

fn state(title: &str, state: &Value, page: &mut Page) {
    if let Some(running) = state.get("running").filter(|state| state.is_object()) {
        page.line(2, format!("{title}:\tRunning"));
        page.line(3, format!("Started:\t{}", time(text(running, "/startedAt"))));
    } else if let Some(ended) = state.get("terminated").filter(|state| state.is_object()) {
        page.line(2, format!("{title}:\tTerminated"));
        for (title, field) in [("Reason", "/reason"), ("Message", "/message")] {
            if !text(ended, field).is_empty() {
                page.line(3, format!("{title}:\t{}", text(ended, field)));
            }
        }
        page.line(3, format!("Exit Code:\t{}", number(ended, "/exitCode")));
        if number(ended, "/signal") > 0 {
            page.line(3, format!("Signal:\t{}", number(ended, "/signal")));
        }
        page.line(3, format!("Started:\t{}", time(text(ended, "/startedAt"))));
        page.line(3, format!("Finished:\t{}", time(text(ended, "/finishedAt"))));
    } else {
        page.line(2, format!("{title}:\tWaiting"));
        let reason = text(state, "/waiting/reason");
        if !reason.is_empty() {
            page.line(3, format!("Reason:\t{reason}"));
        }
    }
}

fn probe(probe: &Value) -> String {
    let or = |field: &str, default: i64| probe[field].as_i64().unwrap_or(default);
    let rhythm = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        or("initialDelaySeconds", 0),
        or("timeoutSeconds", 1),
        or("periodSeconds", 10),
        or("successThreshold", 1),
        or("failureThreshold", 3)
    );
    if probe["exec"].is_object() {
        let words: Vec<String> = items(probe, "/exec/command").map(plain).collect();
        return format!("exec [{}] {rhythm}", words.join(" "));
    }
    if probe["httpGet"].is_object() {
        let scheme = match text(probe, "/httpGet/scheme") {
            "" => "http".to_string(),
            scheme => scheme.to_ascii_lowercase(),
        };
        let (host, port) = (text(probe, "/httpGet/host"), shown(probe, "/httpGet/port"));
        return format!("http-get {scheme}://{host}:{port}{} {rhythm}", text(probe, "/httpGet/path"));
    }
    if probe["tcpSocket"].is_object() {
        let (host, port) = (text(probe, "/tcpSocket/host"), shown(probe, "/tcpSocket/port"));
        return format!("tcp-socket {host}:{port} {rhythm}");
    }
    if probe["grpc"].is_object() {
        return format!(
            "grpc <pod>:{} {} {rhythm}",
            number(probe, "/grpc/port"),
            text(probe, "/grpc/service")
        );
    }
    format!("unknown {rhythm}")
}

fn environment(container: &Value, pod: Option<&Value>, page: &mut Page) {
    if items(container, "/envFrom").next().is_some() {
        page.line(2, "Environment Variables from:");
    }
    for source in items(container, "/envFrom") {
        let (kind, reference) = if source["configMapRef"].is_object() {
            ("ConfigMap", &source["configMapRef"])
        } else {
            ("Secret", &source["secretRef"])
        };
        let prefix = match text(source, "/prefix") {
            "" => String::new(),
            prefix => format!(" with prefix '{prefix}'"),
        };
        page.line(
            3,
            format!(
                "{}\t{kind}{prefix}\tOptional: {}",
                text(reference, "/name"),
                flag(reference, "/optional")
            ),
        );
    }
    let none = if items(container, "/env").next().is_none() { "\t<none>" } else { "" };
    page.line(2, format!("Environment:{none}"));
    for variable in items(container, "/env") {
        let name = text(variable, "/name");
        for (index, line) in value_of(variable, container, pod).split('\n').enumerate() {
            page.line(3, if index == 0 { format!("{name}:\t{line}") } else { format!("\t{line}") });
        }
    }
}

fn value_of(variable: &Value, container: &Value, pod: Option<&Value>) -> String {
    let from = &variable["valueFrom"];
    if from["fieldRef"].is_object() {
        let field = text(from, "/fieldRef/fieldPath");
        let value = pod.map(|pod| shown(pod, &pointer_of(field))).unwrap_or_default();
        let version = match text(from, "/fieldRef/apiVersion") {
            "" => "v1",
            version => version,
        };
        return format!("{value} ({version}:{field})");
    }
    if from["resourceFieldRef"].is_object() {
        let resource = text(from, "/resourceFieldRef/resource");
        let value = match shown(container, &format!("/resources/{}", resource.replace('.', "/"))).as_str() {
            "" if resource.starts_with("limits.") => "node allocatable".to_string(),
            "" => "0".to_string(),
            amount => amount.to_string(),
        };
        return format!("{value} ({resource})");
    }
    for (field, of) in [("secretKeyRef", "in secret"), ("configMapKeyRef", "of config map")] {
        let reference = &from[field];
        if reference.is_object() {
            return format!(
                "<set to the key '{}' {of} '{}'>\tOptional: {}",
                text(reference, "/key"),
                text(reference, "/name"),
                flag(reference, "/optional")
            );
        }
    }
    text(variable, "/value").to_string()
}

/// `metadata.labels['a/b']` as a pointer.
fn pointer_of(field: &str) -> String {
    match field.split_once("['") {
        Some((map, key)) => {
            let key = key.trim_end_matches("']").replace('~', "~0").replace('/', "~1");
            format!("/{}/{key}", map.replace('.', "/"))
        }
        None => format!("/{}", field.replace('.', "/")),
    }
}

fn mounts(container: &Value, page: &mut Page) {
    let mut mounts: Vec<&Value> = items(container, "/volumeMounts").collect();
    mounts.sort_by_key(|mount| text(mount, "/mountPath"));
    page.line(2, format!("Mounts:{}", if mounts.is_empty() { "\t<none>" } else { "" }));
    for mount in mounts {
        let access = if flag(mount, "/readOnly") { "ro" } else { "rw" };
        let below = match text(mount, "/subPath") {
            "" => String::new(),
            path => format!(",path={path:?}"),
        };
        page.line(
            3,
            format!("{} from {} ({access}{below})", text(mount, "/mountPath"), text(mount, "/name")),
        );
    }
    if items(container, "/volumeDevices").next().is_some() {
        page.line(2, "Devices:");
    }
    for device in items(container, "/volumeDevices") {
        page.line(3, format!("{} from {}", text(device, "/devicePath"), text(device, "/name")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn probes_are_told_with_their_rhythm() {
        let http = json!({"httpGet": {"path": "/ok", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 5});
        assert_eq!(
            probe(&http),
            "http-get http://:8080/ok delay=0s timeout=1s period=5s #success=1 #failure=3"
        );
        assert!(probe(&json!({"exec": {"command": ["cat", "/x"]}})).starts_with("exec [cat /x] delay=0s"));
    }

    #[test]
    fn references_in_the_environment_are_resolved_or_told() {
        let pod = json!({"metadata": {"name": "web-1", "labels": {"a/b": "c"}}});
        let of = |from: Value| value_of(&json!({"valueFrom": from}), &json!({}), Some(&pod));
        assert_eq!(of(json!({"fieldRef": {"fieldPath": "metadata.name"}})), "web-1 (v1:metadata.name)");
        assert_eq!(
            of(json!({"fieldRef": {"fieldPath": "metadata.labels['a/b']"}})),
            "c (v1:metadata.labels['a/b'])"
        );
        assert!(
            of(json!({"secretKeyRef": {"name": "s", "key": "k"}}))
                .starts_with("<set to the key 'k' in secret 's'>")
        );
    }
}

//! The process that a container runs.

use std::path::Path;

use k8s_cri::v1::LinuxContainerSecurityContext;
use serde_json::{Value, json};

use super::{SpecError, SpecInputs, capabilities::Capabilities, set, user::User};
use crate::rooted;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn build(
    inputs: &SpecInputs<'_>,
    security: &LinuxContainerSecurityContext,
    user: &User,
    capabilities: &Capabilities,
) -> Result<Value, SpecError> {
    let working_directory = [&inputs.config.working_dir, &inputs.image.config.working_dir]
        .into_iter()
        .find(|directory| !directory.is_empty())
        .map_or("/", String::as_str);
    rooted::make_directory(inputs.rootfs, Path::new(working_directory))
        .map_err(|error| SpecError::Io(format!("making the working directory {working_directory}"), error))?;
    let ambient: Vec<_> = capabilities.ambient.iter().collect();
    let mut process = json!({
        "terminal": inputs.config.tty,
        "user": { "uid": user.uid, "gid": user.gid, "additionalGids": user.groups },
        "args": arguments(inputs)?,
        "env": environment(inputs, user),
        "cwd": working_directory,
        "capabilities": {
            "bounding": capabilities.bounding,
            "effective": capabilities.bounding,
            "permitted": capabilities.bounding,
            "inheritable": ambient,
            "ambient": ambient,
        },
    });
    // Only ever set to true: libcontainer takes a mere presence to mean that the filter can wait until rights are gone.
    if security.no_new_privs {
        set(&mut process, "noNewPrivileges", json!(true));
    }
    Ok(process)
}

fn arguments(inputs: &SpecInputs<'_>) -> Result<Vec<String>, SpecError> {
    let image = &inputs.image.config;
    let mut command = inputs.config.command.clone();
    let mut args = inputs.config.args.clone();
    if command.is_empty() {
        command = image.entrypoint.clone().unwrap_or_default();
        // The image's arguments belong to the image's command.
        if args.is_empty() {
            args = image.cmd.clone().unwrap_or_default();
        }
    }
    command.append(&mut args);
    if command.is_empty() { Err(SpecError::NoCommand) } else { Ok(command) }
}

/// Later ones win over earlier ones of the same name.
fn environment(inputs: &SpecInputs<'_>, user: &User) -> Vec<String> {
    let mut variables: Vec<String> = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={}", inputs.hostname)];
    variables.push(format!("HOME={}", user.home));
    if inputs.config.tty {
        variables.push("TERM=xterm".to_owned());
    }
    let image = inputs.image.config.env.clone().unwrap_or_default();
    let config = inputs.config.envs.iter().map(|variable| format!("{}={}", variable.key, variable.value));
    for variable in image.into_iter().chain(config) {
        let name = variable.split('=').next().unwrap_or_default().to_owned();
        variables.retain(|known| known.split('=').next() != Some(name.as_str()));
        variables.push(variable);
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ImageConfig;
    use k8s_cri::v1::{ContainerConfig, KeyValue};

    fn inputs<'a>(config: &'a ContainerConfig, image: &'a ImageConfig) -> SpecInputs<'a> {
        SpecInputs {
            config,
            image,
            rootfs: Path::new("/"),
            cgroup: "/x",
            hostname: "host",
            sandbox_directory: Path::new("/"),
            host_ipc: false,
            pid_namespace_of: None,
            cgroup_v2: false,
        }
    }

    fn image() -> ImageConfig {
        let mut image = ImageConfig::default();
        image.config.entrypoint = Some(vec!["/entry".into()]);
        image.config.cmd = Some(vec!["default".into()]);
        image.config.env = Some(vec!["PATH=/image".into(), "A=image".into()]);
        image
    }

    #[test]
    fn the_arguments_of_the_image_should_go_only_with_its_command() {
        let image = image();
        let config = |command: &[&str], args: &[&str]| ContainerConfig {
            command: command.iter().map(|text| (*text).to_owned()).collect(),
            args: args.iter().map(|text| (*text).to_owned()).collect(),
            ..ContainerConfig::default()
        };
        let run = |config: ContainerConfig| arguments(&inputs(&config, &image)).unwrap();
        assert_eq!(run(config(&[], &[])), ["/entry", "default"]);
        assert_eq!(run(config(&[], &["x"])), ["/entry", "x"]);
        assert_eq!(run(config(&["sh"], &[])), ["sh"]);
        assert!(matches!(
            arguments(&inputs(&config(&[], &[]), &ImageConfig::default())),
            Err(SpecError::NoCommand)
        ));
    }

    #[test]
    fn variables_of_the_container_should_win_over_those_of_the_image() {
        let image = image();
        let envs = vec![KeyValue { key: "A".into(), value: "container".into() }];
        let config = ContainerConfig { envs, ..ContainerConfig::default() };
        let user = User { home: "/root".into(), ..User::default() };
        let variables = environment(&inputs(&config, &image), &user);
        assert_eq!(variables, ["HOSTNAME=host", "HOME=/root", "PATH=/image", "A=container"]);
    }
}

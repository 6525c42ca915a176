//! Which system calls a container may make.

use k8s_cri::v1::{SecurityProfile, security_profile::ProfileType};
use serde_json::Value;

use super::{SpecError, capabilities::Capabilities, seccomp_default};

/// The filter for a profile; nothing for none. Without a profile there is no filter: it is the agent that defaults.
pub(super) fn choose(
    profile: Option<&SecurityProfile>,
    capabilities: &Capabilities,
) -> Result<Option<Value>, SpecError> {
    let Some(profile) = profile else { return Ok(None) };
    match profile.profile_type() {
        ProfileType::Unconfined => Ok(None),
        ProfileType::RuntimeDefault => Ok(Some(for_libcontainer(seccomp_default::filter(capabilities)))),
        ProfileType::Localhost => {
            let fail = |error: &dyn std::fmt::Display| {
                SpecError::Seccomp(profile.localhost_ref.clone(), error.to_string())
            };
            let text = std::fs::read(&profile.localhost_ref).map_err(|error| fail(&error))?;
            let filter: Value = serde_json::from_slice(&text).map_err(|error| fail(&error))?;
            // Checked here, so that the user reads of it when the container is created.
            serde_json::from_value::<libcontainer::oci_spec::runtime::LinuxSeccomp>(filter.clone())
                .map_err(|error| fail(&error))?;
            Ok(Some(for_libcontainer(filter)))
        }
    }
}

/// libcontainer 0.7 takes the mask of a masked comparison from where profiles have the value, and the other way round:
/// with a profile as it is, no container could fork.
fn for_libcontainer(mut filter: Value) -> Value {
    let rules = filter.get_mut("syscalls").and_then(Value::as_array_mut);
    for rule in rules.into_iter().flatten() {
        let arguments = rule.get_mut("args").and_then(Value::as_array_mut);
        for argument in arguments.into_iter().flatten().filter_map(Value::as_object_mut) {
            if argument.get("op").and_then(Value::as_str) == Some("SCMP_CMP_MASKED_EQ") {
                let mask = argument.remove("value").unwrap_or_default();
                let value = argument.remove("valueTwo").unwrap_or(Value::from(0));
                argument.insert("value".into(), value);
                argument.insert("valueTwo".into(), mask);
            }
        }
    }
    filter
}

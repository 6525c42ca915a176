//! The seccomp filter of programs that are run later.
//!
//! Compiling the default profile takes libseccomp about ten milliseconds, for every probe again. So it is done once per
//! container, in a child whose memory is not ours to keep, and the instructions are used from then on.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    str::FromStr,
};

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::{fcntl::OFlag, unistd::pipe2};
use serde::Deserialize;

use crate::sys;

/// A profile as `config.json` has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Profile {
    default_action: String,
    default_errno_ret: Option<i32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: String,
    errno_ret: Option<i32>,
    #[serde(default)]
    args: Vec<Argument>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    value_two: Option<u64>,
    op: String,
}

/// Compiles a profile in a child and returns the instructions.
pub(super) fn compile_apart(profile: &Profile) -> Result<Vec<u8>, String> {
    let (result, result_theirs) = pipe2(OFlag::O_CLOEXEC).map_err(|error| error.to_string())?;
    if sys::fork_single_threaded().map_err(|error| error.to_string())?.is_none() {
        drop(result);
        std::process::exit(match compile(profile, &result_theirs) {
            Ok(()) => 0,
            // No instruction of a filter starts with this character.
            Err(error) => {
                File::from(result_theirs).write_all(format!("!{error}").as_bytes()).map_or(2, |()| 1)
            }
        })
    }
    drop(result_theirs);
    let mut program = Vec::new();
    File::from(result).read_to_end(&mut program).map_err(|error| error.to_string())?;
    match program.split_first() {
        Some((b'!', words)) => Err(String::from_utf8_lossy(words).into_owned()),
        Some(_) if program.len().is_multiple_of(8) => Ok(program),
        _ => Err("the filter did not compile".into()),
    }
}

fn compile(profile: &Profile, into: &OwnedFd) -> Result<(), String> {
    let text = |error: libseccomp::error::SeccompError| error.to_string();
    // Flags change how a filter is loaded, not what it says; those that loosen or defer are not for programs run later.
    if let Some(flag) = profile.flags.iter().find(|flag| flag.as_str() != "SECCOMP_FILTER_FLAG_LOG") {
        tracing::debug!(flag, "seccomp flag passed over");
    }
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let mut filter = ScmpFilterContext::new(default).map_err(text)?;
    filter.set_ctl_nnp(false).map_err(text)?;
    for architecture in &profile.architectures {
        filter.add_arch(ScmpArch::from_str(architecture).map_err(text)?).map_err(text)?;
    }
    for rule in &profile.syscalls {
        let action = action(&rule.action, rule.errno_ret)?;
        if action == default {
            continue;
        }
        let comparisons = rule.args.iter().map(comparison).collect::<Result<Vec<_>, _>>()?;
        // What this kernel's library does not know, the kernel does not either.
        for name in rule.names.iter().filter_map(|name| ScmpSyscall::from_name(name).ok()) {
            let repeats = rule.args.iter().enumerate().any(|(at, argument)| {
                rule.args.iter().take(at).any(|earlier| earlier.index == argument.index)
            });
            if repeats {
                // Several conditions on one argument are alternatives.
                for comparison in &comparisons {
                    filter.add_rule_conditional(action, name, &[*comparison]).map_err(text)?;
                }
            } else {
                filter.add_rule_conditional(action, name, &comparisons).map_err(text)?;
            }
        }
    }
    filter.export_bpf(into).map_err(text)
}

fn action(name: &str, errno: Option<i32>) -> Result<ScmpAction, String> {
    if name == "SCMP_ACT_NOTIFY" {
        return Err("profiles that notify are not supported for programs run later".into());
    }
    ScmpAction::from_str(name, Some(errno.unwrap_or(libc::EPERM))).map_err(|error| error.to_string())
}

/// As `config.json` has it for libcontainer: of a masked comparison, the mask is the second value.
fn comparison(argument: &Argument) -> Result<ScmpArgCompare, String> {
    let operator = match ScmpCompareOp::from_str(&argument.op).map_err(|error| error.to_string())? {
        ScmpCompareOp::MaskedEqual(_) => ScmpCompareOp::MaskedEqual(argument.value_two.unwrap_or_default()),
        other => other,
    };
    Ok(ScmpArgCompare::new(argument.index, operator, argument.value))
}

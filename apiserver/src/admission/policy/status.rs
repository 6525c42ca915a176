//! A policy's status, stored with the policy itself, so that there is no time without.
//!
//! Deliberately absent: `typeChecking`, which needs the types of what a policy is about.

use serde_json::Value;

use crate::tree::set;

/// Writes the status of a policy.
pub(crate) fn tell_status(policy: &mut Value) {
    let generation = policy.pointer("/metadata/generation").cloned();
    set(policy, &["status", "observedGeneration"], generation.unwrap_or_default());
}

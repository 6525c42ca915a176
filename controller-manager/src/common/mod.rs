//! What several controllers need.

pub(crate) mod claims;
pub(crate) mod conditions;
pub(crate) mod context;
pub(crate) mod history;
pub(crate) mod owned_pods;
pub(crate) mod owners;
pub(crate) mod pod_control;
pub(crate) mod pods;
pub(crate) mod served;
pub(crate) mod template;

pub(crate) use context::{Context, ReconcileError, Reconciled};

//! One verb per file.

pub mod apply;
pub mod cp;
pub mod create;
pub mod delete;
pub mod describe;
pub mod drain;
pub mod exec;
pub mod expose;
pub mod get;
pub mod image;
pub mod label;
pub mod logs;
pub mod port_forward;
pub mod rollout;
pub mod scale;
pub mod set;
pub mod version;
pub mod wait;

//! Work that ends.

mod cron_job;
mod failure_policy;
mod job;

pub use cron_job::CronJob;
pub use job::Job;

//! Other people's servers on test machines.

use std::process::{Child, Stdio};

use crate::{Machine, eventually};

/// A process on a test machine that ends with its holder.
pub struct Daemon(Child);

impl Daemon {
    /// Starts a program.
    pub fn start(machine: &Machine, command: &[&str]) -> Self {
        let mut command = machine.command(command);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Starts an etcd that answers at http://127.0.0.1:2379 of its machine.
    pub fn etcd(machine: &Machine, data_dir: &str) -> Self {
        Self::etcd_with(machine, data_dir, &[], &["http://127.0.0.1:2379/health"])
    }

    /// Starts an etcd with more flags. Curl, with these words, is answered when it is ready.
    pub fn etcd_with(machine: &Machine, data_dir: &str, flags: &[&str], health: &[&str]) -> Self {
        let etcd = Self::start(machine, &[&["etcd", "--data-dir", data_dir], flags].concat());
        eventually(30, "etcd answers", || {
            let answer = machine.inside(&[&["curl", "-sf"], health].concat());
            if answer.success { Ok(()) } else { Err(answer.all()) }
        });
        etcd
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

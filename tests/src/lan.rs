//! Machines that are network namespaces, on a switch that is another one.
//!
//! The machine that runs the tests sees none of it: its own links, routes and rules are untouched.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Output, run};

static LANS: AtomicU32 = AtomicU32::new(0);
/// Clusters take turns: several at once would measure each other.
static TURN: Mutex<()> = Mutex::new(());

/// A switch. Dropping it takes its namespace, and with it every cable, away. A process has one at a time.
pub struct Lan {
    name: String,
    subnet: u32,
    _turn: MutexGuard<'static, ()>,
}

/// A host on the switch.
pub struct Machine {
    namespace: String,
    address: String,
}

impl Lan {
    /// A switch that no other test uses, when the test before has ended.
    pub fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let number = LANS.fetch_add(1, Ordering::Relaxed);
        let lan =
            Self { name: format!("gt{}x{number}", std::process::id()), subnet: number % 200, _turn: turn };
        ip(&["netns", "add", &lan.name]).ok();
        lan.inside(&["ip", "link", "add", "switch", "type", "bridge"]).ok();
        lan.inside(&["ip", "link", "set", "switch", "up"]).ok();
        lan
    }

    /// A new machine with an address whose last part is `host`.
    pub fn machine(&self, host: u8) -> Machine {
        let namespace = format!("{}m{host}", self.name);
        let address = format!("192.168.{}.{host}", 20 + self.subnet);
        ip(&["netns", "add", &namespace]).ok();
        let machine = Machine { namespace, address };
        let port = format!("port{host}");
        let namespace = machine.namespace.as_str();
        self.inside(&[
            "ip", "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", namespace,
        ])
        .ok();
        self.inside(&["ip", "link", "set", &port, "master", "switch", "up"]).ok();
        machine.inside(&["ip", "link", "set", "lo", "up"]).ok();
        machine.inside(&["ip", "address", "add", &format!("{}/24", machine.address), "dev", "eth0"]).ok();
        machine.inside(&["ip", "link", "set", "eth0", "up"]).ok();
        let gateway = format!("192.168.{}.254", 20 + self.subnet);
        machine.inside(&["ip", "route", "add", "default", "via", &gateway]).ok();
        machine
    }

    fn inside(&self, command: &[&str]) -> Output {
        run(&mut inside(&self.name, command))
    }
}

impl Default for Lan {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        let _removed = ip(&["netns", "delete", &self.name]);
    }
}

impl Machine {
    /// The machine's address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Runs a program on the machine.
    pub fn inside(&self, command: &[&str]) -> Output {
        run(&mut self.command(command))
    }

    /// A program on the machine, not yet run.
    pub fn command(&self, command: &[&str]) -> Command {
        inside(&self.namespace, command)
    }

    /// Pulls the cable.
    pub fn unplug(&self) {
        self.inside(&["ip", "link", "set", "eth0", "down"]).ok();
    }

    /// The path of the machine's network namespace.
    pub fn namespace_path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.namespace)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _removed = ip(&["netns", "delete", &self.namespace]);
    }
}

/// `nsenter` rather than `ip netns exec`, which would hide the control groups under a fresh /sys.
fn inside(namespace: &str, command: &[&str]) -> Command {
    let mut entering = Command::new("nsenter");
    entering.arg(format!("--net=/run/netns/{namespace}")).args(command);
    entering
}

fn ip(arguments: &[&str]) -> Output {
    run(Command::new("ip").args(arguments))
}

//! A laboratory for tests with real packets: network namespaces that exist only as open files, so that they vanish with the
//! test however it ends, and never touch the machine's own.
#![allow(dead_code, reason = "every test binary uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail where it stands"
)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use netlink::netns;
use netlink::route::{Address, AddressScope, Route, RouteSocket, Veth};

pub mod fake_api;

const TIMEOUT: Duration = Duration::from_secs(2);

/// Whether namespaces can be made; says so if not, as the test then shows nothing.
pub fn can_run() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: network namespaces need root");
    }
    root
}

/// A segment with hosts on it.
pub struct Lab {
    segment: File,
    next: AtomicU8,
}

/// A host: a namespace with `eth0` on the segment.
pub struct Host {
    pub namespace: File,
    pub ip: Ipv4Addr,
}

impl Lab {
    pub fn new() -> Self {
        let segment = netns::create().unwrap();
        RouteSocket::open_in(&segment).unwrap().add_bridge("segment").unwrap();
        Self { segment, next: AtomicU8::new(1) }
    }

    /// Adds a host with the next address of 192.168.77.0/24.
    pub fn host(&self) -> Host {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let ip = Ipv4Addr::new(192, 168, 77, number);
        let namespace = netns::create().unwrap();
        let mut segment = RouteSocket::open_in(&self.segment).unwrap();
        let name = format!("port{number}");
        segment
            .add_veth(&Veth {
                name: &name,
                mac: [2, 0, 0, 0, 1, number],
                alias: "test",
                peer_name: "eth0",
                peer_mac: [2, 0, 0, 0, 2, number],
                peer_namespace: &namespace,
                mtu: 1500,
            })
            .unwrap();
        let bridge = segment.link("segment").unwrap().unwrap().index;
        let port = segment.link(&name).unwrap().unwrap().index;
        segment.set_master(port, bridge).unwrap();
        let mut host = RouteSocket::open_in(&namespace).unwrap();
        let loopback = host.link("lo").unwrap().unwrap().index;
        let index = host.link("eth0").unwrap().unwrap().index;
        host.set_up(loopback).unwrap();
        host.set_up(index).unwrap();
        let (address, label) = (IpAddr::V4(ip), String::new());
        host.add_address(&Address { index, address, prefix_len: 24, scope: AddressScope::Universe, label })
            .unwrap();
        Host { namespace, ip }
    }
}

impl Host {
    /// Runs blocking work inside the host.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::run_in(&self.namespace, work).unwrap()
    }

    /// Runs asynchronous work inside the host, on a runtime all of whose threads are there.
    pub fn block_on<F: Future>(&self, work: impl FnOnce() -> F + Send) -> F::Output
    where
        F::Output: Send,
    {
        self.run(|| runtime().block_on(work()))
    }

    /// Adds a default route by another host.
    pub fn default_route_by(&self, other: Ipv4Addr) {
        self.route_by(Ipv4Addr::UNSPECIFIED, 0, other);
    }

    /// Adds a route to one address by another host.
    pub fn host_route_by(&self, address: Ipv4Addr, other: Ipv4Addr) {
        self.route_by(address, 32, other);
    }

    fn route_by(&self, to: Ipv4Addr, prefix_len: u8, other: Ipv4Addr) {
        let mut socket = RouteSocket::open_in(&self.namespace).unwrap();
        let index = socket.link("eth0").unwrap().unwrap().index;
        let (destination, gateway) = (IpAddr::V4(to), Some(IpAddr::V4(other)));
        let (onlink, source, protocol) = (false, None, 4);
        let route = Route { destination, prefix_len, gateway, onlink, index, source, protocol };
        socket.replace_route(&route).unwrap();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A path by which an open namespace can be opened again.
pub fn path_of(namespace: &File) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd()))
}

/// A TCP and UDP server in a namespace: answers every connection and packet with `<name> <client's address>`.
pub fn serve(namespace: &File, port: u16, name: &str) {
    let (tcp, udp) = netns::run_in(namespace, || {
        (TcpListener::bind(("0.0.0.0", port)).unwrap(), UdpSocket::bind(("0.0.0.0", port)).unwrap())
    })
    .unwrap();
    let (name, name_udp) = (name.to_owned(), name.to_owned());
    // They end with the test process; the sockets stay in their namespace.
    std::thread::spawn(move || {
        while let Ok((mut stream, client)) = tcp.accept() {
            let _closed = stream.write_all(format!("{name} {}", client.ip()).as_bytes());
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, client)) = udp.recv_from(&mut buffer) {
            let _lost = udp.send_to(format!("{name_udp} {}", client.ip()).as_bytes(), client);
        }
    });
}

/// Asks over TCP from inside a namespace.
pub fn ask(namespace: &File, to: impl Into<SocketAddr>) -> io::Result<String> {
    let to = to.into();
    netns::run_in(namespace, || {
        let mut stream = TcpStream::connect_timeout(&to, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
    .unwrap()
}

/// Asks over UDP from inside a namespace.
pub fn ask_udp(namespace: &File, to: impl Into<SocketAddr>) -> io::Result<String> {
    let to = to.into();
    netns::run_in(namespace, || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.connect(to)?;
        socket.send(b"?")?;
        let mut buffer = [0; 64];
        let len = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
    })
    .unwrap()
}

/// Waits until `condition` holds, at most ten seconds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} did not happen within ten seconds");
}

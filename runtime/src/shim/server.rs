//! The loop of the shim: connections, children and output, one event after the other.

use std::{
    collections::HashMap,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill},
        socket::{SockFlag, accept4},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, read},
};

use super::{
    container::{self, Container, Phase},
    exec::{self, Program},
    pause,
    protocol::{self, Reply, Request, ShimConfig},
};
use crate::sys;

/// How often the end of output is looked for while a container is draining.
const DRAIN_INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct Server {
    directory: PathBuf,
    listener: OwnedFd,
    children: OwnedFd,
    connections: Vec<Connection>,
    containers: HashMap<String, Container>,
    pause: Option<Pid>,
    buffer: Vec<u8>,
    stopping: bool,
}

struct Connection {
    socket: OwnedFd,
    subscribed: bool,
    /// The program that was started over this connection.
    program: Option<Pid>,
    closed: bool,
}

impl Connection {
    /// A peer that is gone or does not read is dropped: nothing may hold up the loop.
    fn reply(&mut self, reply: &Reply, descriptors: &[BorrowedFd<'_>]) {
        let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        if protocol::send(self.socket.as_fd(), reply, &raw).is_err() {
            self.closed = true;
        }
    }
}

impl Server {
    pub(super) fn new(directory: PathBuf, listener: OwnedFd, config: &ShimConfig) -> nix::Result<Self> {
        let pause = if config.shared_pid { Some(pause::start(&directory)?) } else { None };
        Ok(Self {
            directory,
            listener,
            children: sys::child_signal_pipe()?,
            connections: Vec::new(),
            containers: HashMap::new(),
            pause,
            buffer: Vec::new(),
            stopping: false,
        })
    }

    /// Serves until told to stop; the result is the exit code.
    pub(super) fn run(&mut self) -> i32 {
        while !self.stopping {
            if let Err(error) = self.wait() {
                eprintln!("poll: {error}");
                return 1;
            }
            self.accept();
            self.reap();
            self.serve();
            for container in self.containers.values_mut() {
                container.pump(&mut self.buffer);
            }
            self.finish_containers();
            self.connections.retain(|connection| !connection.closed);
            if self.buffer.capacity() > 0 && self.containers.is_empty() {
                self.buffer = Vec::new();
            }
        }
        0
    }

    fn wait(&self) -> nix::Result<()> {
        let mut polled = vec![
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
        ];
        for connection in &self.connections {
            polled.push(PollFd::new(connection.socket.as_fd(), PollFlags::POLLIN));
        }
        let mut draining = false;
        for container in self.containers.values() {
            draining |= matches!(container.phase, Phase::Draining { .. });
            for output in &container.outputs {
                if let Some(source) = output.readable(container.has_ended()) {
                    polled.push(PollFd::new(source, PollFlags::POLLIN));
                }
                polled.extend(output.writable().map(|sink| PollFd::new(sink, PollFlags::POLLOUT)));
            }
        }
        let timeout = if draining {
            PollTimeout::try_from(DRAIN_INTERVAL).unwrap_or(PollTimeout::ZERO)
        } else {
            PollTimeout::NONE
        };
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn accept(&mut self) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        while let Ok(descriptor) = accept4(self.listener.as_raw_fd(), flags) {
            for socket in sys::adopt(vec![descriptor]) {
                self.connections.push(Connection { socket, subscribed: false, program: None, closed: false });
            }
        }
    }

    fn reap(&mut self) {
        let mut drain = [0u8; 64];
        while matches!(read(&self.children, &mut drain), Ok(count) if count > 0) {}
        loop {
            let (pid, code) = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            if let Some(container) = self.containers.values_mut().find(|container| container.pid == pid) {
                container.reaped(code);
            }
            for connection in &mut self.connections {
                if connection.program == Some(pid) {
                    connection.program = None;
                    connection.reply(&Reply::ExecExited { code }, &[]);
                }
            }
            if self.pause == Some(pid) {
                self.pause = None;
            }
        }
    }

    fn finish_containers(&mut self) {
        for (id, container) in &mut self.containers {
            if let Some(exit) = container.finish_if_drained() {
                let reply = Reply::Exited { container: id.clone(), exit };
                for connection in self.connections.iter_mut().filter(|connection| connection.subscribed) {
                    connection.reply(&reply, &[]);
                }
            }
        }
    }

    fn serve(&mut self) {
        for index in 0..self.connections.len() {
            while let Some(connection) =
                self.connections.get_mut(index).filter(|connection| !connection.closed)
            {
                match protocol::receive::<Request>(connection.socket.as_fd()) {
                    Ok(Some((request, descriptors))) => self.answer(index, request, descriptors),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                    Ok(None) | Err(_) => {
                        connection.closed = true;
                        break;
                    }
                }
            }
        }
    }

    fn answer(&mut self, index: usize, request: Request, descriptors: Vec<OwnedFd>) {
        let answer = match request {
            Request::ExecKill => {
                let program = self.connections.get(index).and_then(|connection| connection.program);
                Answer::plain(program.map_or(Reply::Done, |program| signal(program, Signal::SIGKILL)))
            }
            request => self.handle(request, descriptors),
        };
        let Some(connection) = self.connections.get_mut(index) else { return };
        connection.program = answer.program.or(connection.program);
        connection.subscribed |= answer.subscribes;
        let descriptors: Vec<_> = answer.descriptor.iter().map(AsFd::as_fd).collect();
        connection.reply(&answer.reply, &descriptors);
    }

    fn handle(&mut self, request: Request, descriptors: Vec<OwnedFd>) -> Answer {
        match request {
            Request::Start(config) => {
                if self.containers.contains_key(&config.id) {
                    return Answer::plain(Reply::Failed("the container has been started already".into()));
                }
                match Container::start(*config, &self.directory) {
                    Ok(container) => {
                        let reply = Reply::Started { pid: container.pid.as_raw(), at: container.started_at };
                        self.containers.insert(container.config.id.clone(), container);
                        Answer::plain(reply)
                    }
                    Err(error) => Answer::plain(Reply::Failed(error)),
                }
            }
            Request::Exec { container, args, tty, streams } => {
                self.exec(&container, args, tty, streams, descriptors)
            }
            Request::Attach { container, stdin, streams } => {
                self.attach(&container, stdin, streams, descriptors)
            }
            Request::ReopenLog { container } => Answer::plain(self.with_container(&container, |container| {
                match container.log.as_mut().map(|log| log.reopen()) {
                    Some(Err(error)) => Reply::Failed(format!("opening the log file: {error}")),
                    Some(Ok(())) | None => Reply::Done,
                }
            })),
            Request::Signal { container, signal: number } => {
                Answer::plain(self.with_container(&container, |container| match Signal::try_from(number) {
                    Ok(wanted) if !container.has_ended() => {
                        if wanted == Signal::SIGKILL {
                            container::kill(&container.config, container.pid);
                            Reply::Done
                        } else {
                            signal(container.pid, wanted)
                        }
                    }
                    Ok(_) => Reply::Done,
                    Err(_) => Reply::Failed(format!("there is no signal {number}")),
                }))
            }
            Request::Forget { container } => {
                match self.containers.get(&container).map(|container| &container.phase) {
                    Some(Phase::Exited(_)) => {
                        self.containers.remove(&container);
                        Answer::plain(Reply::Done)
                    }
                    Some(_) => Answer::plain(Reply::Failed("the container is running".into())),
                    None => Answer::plain(Reply::Done),
                }
            }
            Request::Subscribe => Answer { subscribes: true, ..Answer::plain(self.states()) },
            Request::Shutdown => {
                for container in self.containers.values().filter(|container| !container.has_ended()) {
                    container::kill(&container.config, container.pid);
                }
                if let Some(pause) = self.pause {
                    signal(pause, Signal::SIGKILL);
                }
                self.stopping = true;
                Answer::plain(Reply::Done)
            }
            Request::ExecKill => Answer::plain(Reply::Done),
        }
    }

    fn states(&self) -> Reply {
        Reply::Containers {
            pause_pid: self.pause.map(Pid::as_raw),
            containers: self.containers.values().map(Container::state).collect(),
        }
    }

    fn with_container(&mut self, id: &str, act: impl FnOnce(&mut Container) -> Reply) -> Reply {
        match self.containers.get_mut(id) {
            Some(container) => act(container),
            None => Reply::NotFound(id.to_owned()),
        }
    }

    fn exec(
        &mut self,
        id: &str,
        args: Vec<String>,
        tty: bool,
        wanted: [bool; 3],
        descriptors: Vec<OwnedFd>,
    ) -> Answer {
        let Some(container) = self.containers.get_mut(id) else {
            return Answer::plain(Reply::NotFound(id.to_owned()));
        };
        if container.has_ended() {
            return Answer::plain(Reply::Failed("the container has ended".into()));
        }
        let mut descriptors = descriptors.into_iter();
        let streams = wanted.map(|wanted| if wanted { descriptors.next() } else { None });
        match exec::start(container, Program { args, tty, streams }) {
            Ok(running) => Answer {
                program: Some(running.pid),
                descriptor: running.terminal,
                ..Answer::plain(Reply::ExecStarted { pid: running.pid.as_raw() })
            },
            Err(error) => Answer::plain(Reply::Failed(error)),
        }
    }

    fn attach(&mut self, id: &str, stdin: bool, wanted: [bool; 2], descriptors: Vec<OwnedFd>) -> Answer {
        let Some(container) = self.containers.get_mut(id) else {
            return Answer::plain(Reply::NotFound(id.to_owned()));
        };
        if container.has_ended() {
            return Answer::plain(Reply::Failed("the container has ended".into()));
        }
        let mut descriptors = descriptors.into_iter();
        for (index, wanted) in wanted.into_iter().enumerate() {
            let Some(sink) = (if wanted { descriptors.next() } else { None }) else { continue };
            // Without an output of that kind the descriptor is closed, which says so.
            if let Some(output) = container.outputs.get_mut(index)
                && let Err(error) = output.attach(sink)
            {
                return Answer::plain(Reply::Failed(format!("attaching: {error}")));
            }
        }
        let input = container.terminal.as_ref().or(container.stdin.as_ref()).filter(|_| stdin);
        let input = match input.map(OwnedFd::try_clone).transpose() {
            Ok(input) => input,
            Err(error) => return Answer::plain(Reply::Failed(format!("attaching: {error}"))),
        };
        if stdin && container.config.stdin_once {
            // The client's end of input becomes the container's.
            container.stdin = None;
        }
        Answer { descriptor: input, ..Answer::plain(Reply::Attached) }
    }
}

/// What a request comes to.
struct Answer {
    reply: Reply,
    descriptor: Option<OwnedFd>,
    program: Option<Pid>,
    subscribes: bool,
}

impl Answer {
    fn plain(reply: Reply) -> Self {
        Self { reply, descriptor: None, program: None, subscribes: false }
    }
}

fn signal(pid: Pid, signal: Signal) -> Reply {
    match kill(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Reply::Done,
        Err(error) => Reply::Failed(format!("signalling {pid}: {error}")),
    }
}

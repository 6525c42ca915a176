//! One output stream of a container: from its pipe (or terminal) into the log, and to whoever is attached.
//!
//! An attached client that does not read holds the stream back once its pipe and a buffer are full, as a terminal does;
//! one that has gone is forgotten.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::{read, write},
};

use super::log::{LineSplitter, LogFile, Stream};

const READ_BYTES: usize = 32 * 1024;
/// What is kept for a slow client before the stream waits for it.
const CLIENT_BUFFER_BYTES: usize = 256 * 1024;

pub(super) struct Output {
    source: Option<OwnedFd>,
    lines: LineSplitter,
    clients: Vec<Client>,
}

struct Client {
    sink: OwnedFd,
    pending: Vec<u8>,
}

impl Output {
    pub(super) fn new(source: OwnedFd, stream: Stream) -> nix::Result<Self> {
        set_nonblocking(source.as_fd())?;
        Ok(Self { source: Some(source), lines: LineSplitter::new(stream), clients: Vec::new() })
    }

    /// The source, while it may be read: it is open, and no client holds it back or its program has ended.
    pub(super) fn readable(&self, ended: bool) -> Option<BorrowedFd<'_>> {
        let held_back = self.clients.iter().any(|client| client.pending.len() >= CLIENT_BUFFER_BYTES);
        if held_back && !ended { None } else { self.source.as_ref().map(AsFd::as_fd) }
    }

    /// Sinks that have something waiting for them.
    pub(super) fn writable(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.clients.iter().filter(|client| !client.pending.is_empty()).map(|client| client.sink.as_fd())
    }

    pub(super) fn is_open(&self) -> bool {
        self.source.is_some()
    }

    pub(super) fn attach(&mut self, sink: OwnedFd) -> nix::Result<()> {
        set_nonblocking(sink.as_fd())?;
        self.clients.push(Client { sink, pending: Vec::new() });
        Ok(())
    }

    /// Moves what there is, without waiting. `ended` says that the program has: what it left is read in any case.
    pub(super) fn pump(&mut self, log: Option<&mut LogFile>, ended: bool, buffer: &mut Vec<u8>) {
        self.flush_clients();
        let Some(source) = self.readable(ended) else { return };
        buffer.resize(READ_BYTES, 0);
        match read(source, buffer) {
            Ok(0) => self.end(log),
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                if let Some(log) = log {
                    self.lines.push(bytes, log);
                }
                for client in &mut self.clients {
                    client.pending.extend_from_slice(bytes);
                }
                self.flush_clients();
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // A terminal reports the end as an input/output error.
            Err(_) => self.end(log),
        }
    }

    /// The stream has ended, or is not waited for any longer.
    pub(super) fn end(&mut self, log: Option<&mut LogFile>) {
        if self.source.take().is_some()
            && let Some(log) = log
        {
            self.lines.finish(log);
        }
        self.flush_clients();
    }

    fn flush_clients(&mut self) {
        self.clients.retain_mut(|client| {
            while !client.pending.is_empty() {
                match write(&client.sink, &client.pending) {
                    Ok(count) => {
                        client.pending.drain(..count);
                    }
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => return true,
                    Err(_) => return false,
                }
            }
            true
        });
        if self.source.is_none() {
            // Nothing more will come: closing their end tells the clients.
            self.clients.retain(|client| !client.pending.is_empty());
        }
    }
}

pub(super) fn set_nonblocking(descriptor: BorrowedFd<'_>) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFL)?);
    fcntl(descriptor, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

//! A blocking netlink socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::sockopt::{ReceiveTimeout, SndBufForce};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket,
};
use nix::sys::time::TimeVal;

use crate::message::{HEADER_LEN, text, u16_at, u32_at};
use crate::{Attributes, Error, Message, sys};

/// Longer than the kernel ever needs; a bound instead of a hang.
const TIMEOUT_SECONDS: i64 = 10;
const RECEIVE_BYTES: usize = 64 * 1024;
const FLAG_CAPPED: u16 = 0x100;
const FLAG_ACK_TLVS: u16 = 0x200;

/// Which part of the kernel to talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes and neighbours.
    Route,
    /// nf_tables and conntrack.
    Netfilter,
}

/// A netlink socket in the namespace it was opened in.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// One message of an answer.
enum Answer<'a> {
    Done,
    Error { errno: i32, detail: Option<String>, sequence: u32 },
    Payload(u16, &'a [u8]),
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(protocol: Protocol) -> Result<Self, Error> {
        let protocol = match protocol {
            Protocol::Route => SockProtocol::NetlinkRoute,
            Protocol::Netfilter => SockProtocol::NetlinkNetFilter,
        };
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
            .map_err(io_error)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(io_error)?;
        setsockopt(&fd, ReceiveTimeout, &TimeVal::new(TIMEOUT_SECONDS, 0)).map_err(io_error)?;
        for option in [sys::CAP_ACK, sys::EXT_ACK, sys::STRICT_CHECK] {
            // Old kernels lack some of them; answers are then merely less precise.
            sys::enable(fd.as_fd(), option).or_else(|e| match e.raw_os_error() {
                Some(libc::ENOPROTOOPT) => Ok(()),
                _ => Err(e),
            })?;
        }
        Ok(Self { fd, sequence: 1, buffer: Vec::new() })
    }

    /// Sends a request and waits for its acknowledgement. `operation` names it in errors.
    pub fn execute(&mut self, operation: &str, mut message: Message) -> Result<(), Error> {
        message.add_flags(libc::NLM_F_ACK as u16);
        self.exchange(operation, message, |_, _| {})
    }

    /// Sends a dump request and hands every answer's type and payload to `each`. A dump that was interrupted by a change is not
    /// repeated: callers compare and repair, they do not need a snapshot.
    pub fn dump(
        &mut self,
        operation: &str,
        mut message: Message,
        each: impl FnMut(u16, &[u8]),
    ) -> Result<(), Error> {
        message.add_flags(libc::NLM_F_DUMP as u16);
        self.exchange(operation, message, each)
    }

    /// Sends a request that is answered by one message, hands that to `each` and waits for the acknowledgement.
    pub fn query(
        &mut self,
        operation: &str,
        mut message: Message,
        each: impl FnMut(u16, &[u8]),
    ) -> Result<(), Error> {
        message.add_flags(libc::NLM_F_ACK as u16);
        self.exchange(operation, message, each)
    }

    /// Sends several messages as one netfilter batch; all take effect or none does. The last one asks for an
    /// acknowledgement, so that silence is not taken for success. `describe` names the message at an index in errors.
    pub(crate) fn execute_batch(
        &mut self,
        begin: Message,
        mut messages: Vec<Message>,
        end: Message,
        describe: impl Fn(usize) -> String,
    ) -> Result<(), Error> {
        let Some(last) = messages.last_mut() else { return Ok(()) };
        last.add_flags(libc::NLM_F_ACK as u16);
        let count = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        let first = self.sequence.wrapping_add(1);
        self.sequence = first.wrapping_add(count).wrapping_add(1);
        let mut bytes = begin.finish(first.wrapping_sub(1));
        for (sequence, message) in (first..).zip(messages) {
            bytes.extend_from_slice(&message.finish(sequence));
        }
        let acknowledged = first.wrapping_add(count).wrapping_sub(1);
        bytes.extend_from_slice(&end.finish(acknowledged.wrapping_add(1)));
        if bytes.len() > 100 * 1024 {
            // The kernel takes a batch only as one datagram; it doubles the figure for its own bookkeeping.
            setsockopt(&self.fd, SndBufForce, &bytes.len()).map_err(io_error)?;
        }
        self.send(&bytes)?;
        let mut complete = false;
        let mut failure = None;
        self.drain(|errno, detail, sequence| {
            complete |= errno == 0 && sequence == acknowledged;
            if errno != 0 && failure.is_none() {
                let index = usize::try_from(sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                failure = Some(Error::Kernel { operation: describe(index), errno, detail });
            }
        })?;
        match (failure, complete) {
            (Some(error), _) => Err(error),
            (None, true) => Ok(()),
            (None, false) => Err(Error::Malformed("a netfilter batch: it was not acknowledged".to_owned())),
        }
    }

    fn exchange(
        &mut self,
        operation: &str,
        message: Message,
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        self.send(&message.finish(sequence))?;
        let mut outcome = None;
        while outcome.is_none() {
            let len = self.receive(MsgFlags::empty())?.unwrap_or(0);
            if len == 0 {
                return Err(Error::Malformed(operation.to_owned()));
            }
            let datagram = self.buffer.get(..len).unwrap_or_default();
            for_each_answer(datagram, |answer| match answer {
                Answer::Done => outcome = Some(Ok(())),
                Answer::Error { errno: 0, sequence: s, .. } if s == sequence => outcome = Some(Ok(())),
                Answer::Error { errno, detail, sequence: s } if s == sequence => {
                    outcome = Some(Err(Error::Kernel { operation: operation.to_owned(), errno, detail }));
                }
                Answer::Error { .. } => {}
                Answer::Payload(kind, payload) => each(kind, payload),
            });
        }
        outcome.unwrap_or(Ok(()))
    }

    /// Reads what the kernel has already queued.
    fn drain(&mut self, mut each: impl FnMut(i32, Option<String>, u32)) -> Result<(), Error> {
        while let Some(len) = self.receive(MsgFlags::MSG_DONTWAIT)? {
            for_each_answer(self.buffer.get(..len).unwrap_or_default(), |answer| {
                if let Answer::Error { errno, detail, sequence } = answer {
                    each(errno, detail, sequence);
                }
            });
        }
        Ok(())
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        let sent = send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()).map_err(io_error)?;
        if sent == bytes.len() { Ok(()) } else { Err(Error::Socket(io::Error::other("short send"))) }
    }

    fn receive(&mut self, flags: MsgFlags) -> Result<Option<usize>, Error> {
        self.buffer.resize(RECEIVE_BYTES, 0);
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, flags) {
                Ok(len) => return Ok(Some(len)),
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) if flags.contains(MsgFlags::MSG_DONTWAIT) => return Ok(None),
                Err(error) => return Err(io_error(error).into()),
            }
        }
    }
}

fn for_each_answer<'a>(mut datagram: &'a [u8], mut each: impl FnMut(Answer<'a>)) {
    while let (Some(len), Some(kind), Some(flags), Some(sequence)) =
        (u32_at(datagram, 0), u16_at(datagram, 4), u16_at(datagram, 6), u32_at(datagram, 8))
    {
        let len = len as usize;
        let Some(payload) = datagram.get(HEADER_LEN..len) else { return };
        match i32::from(kind) {
            libc::NLMSG_NOOP => {}
            libc::NLMSG_DONE => match u32_at(payload, 0).map_or(0, |code| code as i32) {
                // A dump that fails half way says so in its last message.
                code if code < 0 => {
                    each(Answer::Error { errno: code.wrapping_neg(), detail: None, sequence })
                }
                _ => each(Answer::Done),
            },
            libc::NLMSG_ERROR => {
                let errno = u32_at(payload, 0).map_or(0, |code| (code as i32).wrapping_neg());
                each(Answer::Error { errno, detail: explanation(payload, flags), sequence });
            }
            _ => each(Answer::Payload(kind, payload)),
        }
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// The kernel's words about an error, which follow the error number and the (perhaps cut) request.
fn explanation(payload: &[u8], flags: u16) -> Option<String> {
    if flags & FLAG_ACK_TLVS == 0 {
        return None;
    }
    let request = if flags & FLAG_CAPPED != 0 { HEADER_LEN } else { u32_at(payload, 4)? as usize };
    Attributes::after(payload, 4 + request.next_multiple_of(4)).find(1).map(text)
}

fn io_error(error: nix::errno::Errno) -> io::Error {
    io::Error::from(error)
}

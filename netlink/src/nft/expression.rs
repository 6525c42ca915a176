//! What rules are made of.
//!
//! Only 32-bit registers are used ([`Reg`]); a value longer than four bytes fills the registers that follow.

use crate::Message;

/// The 32-bit register with this number, from 0 to 15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reg(pub u8);

impl Reg {
    fn number(self) -> u32 {
        8 + u32::from(self.0)
    }
}

/// Where payload offsets count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// The network header.
    Network = 1,
    /// The transport header.
    Transport = 2,
}

/// How to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// Equal.
    Equal = 0,
    /// Not equal.
    NotEqual = 1,
}

/// What becomes of the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It passes this chain's hook.
    Accept,
    /// It is gone.
    Drop,
    /// Back to the chain that jumped here.
    Return,
    /// On in that chain, and back here if it returns.
    Jump(String),
    /// On in that chain, for good.
    Goto(String),
}

/// Where a lookup puts what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Nowhere: only whether it is there counts.
    Nothing,
    /// Into registers.
    Reg(Reg),
    /// It is a verdict; carry it out.
    Verdict,
}

/// Which address of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// Where it comes from.
    Source = 1,
    /// Where it goes.
    Destination = 2,
}

/// Bits of a tracked connection's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusBit {
    /// Its destination is translated.
    DestinationNat = 1 << 5,
}

/// How to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// By a TCP reset.
    TcpReset,
    /// By an ICMP "port unreachable".
    PortUnreachable,
}

/// What a rule does to a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetOperation {
    /// Add, or prolong what is there.
    Update = 1,
    /// Delete.
    Delete = 2,
}

/// One step of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields say what they are; the variants are documented")]
pub enum Expression {
    /// Loads bytes of the packet.
    Payload { base: Base, offset: u32, len: u32, to: Reg },
    /// Loads the transport protocol.
    TransportProtocol { to: Reg },
    /// Loads the packet's mark.
    Mark { to: Reg },
    /// Sets the packet's mark.
    SetMark { from: Reg },
    /// Loads the name of the device that the packet came through (16 bytes).
    InputDevice { to: Reg },
    /// Loads the name of the device that the packet leaves through (16 bytes).
    OutputDevice { to: Reg },
    /// Loads the connection's status bits.
    ConnectionStatus { to: Reg },
    /// Loads the connection's state bits.
    ConnectionState { to: Reg },
    /// Compares.
    Compare { reg: Reg, how: Compare, with: Vec<u8> },
    /// `reg = (reg & mask) ^ flip`.
    Bits { reg: Reg, mask: Vec<u8>, flip: Vec<u8> },
    /// Loads a constant.
    Constant { to: Reg, value: Vec<u8> },
    /// Decides.
    Verdict(Verdict),
    /// Looks a key up; not found ends the rule (with `invert`: found does).
    Lookup { set: String, key: Reg, target: Target, invert: bool },
    /// Loads a random number below `modulus`.
    Random { modulus: u32, to: Reg },
    /// Loads the kind of an address: see [`Expression::ADDRESS_IS_LOCAL`].
    AddressKind { of: Address, to: Reg },
    /// Translates the destination.
    DestinationNat { address: Reg, port: Reg },
    /// Translates the source to an address of the device that the packet leaves through, with a random port.
    Masquerade,
    /// Refuses.
    Reject(Rejection),
    /// Changes a set. The data must be given if it is a map.
    Dynamic { operation: SetOperation, set: String, key: Reg, data: Option<Reg>, timeout_ms: u64 },
}

impl Expression {
    /// The kind of addresses that are this machine's own, as loaded by [`Expression::AddressKind`].
    pub const ADDRESS_IS_LOCAL: u32 = 2;

    fn name(&self) -> &'static str {
        match self {
            Self::Payload { .. } => "payload",
            Self::TransportProtocol { .. }
            | Self::Mark { .. }
            | Self::SetMark { .. }
            | Self::InputDevice { .. }
            | Self::OutputDevice { .. } => "meta",
            Self::ConnectionStatus { .. } | Self::ConnectionState { .. } => "ct",
            Self::Compare { .. } => "cmp",
            Self::Bits { .. } => "bitwise",
            Self::Constant { .. } | Self::Verdict(_) => "immediate",
            Self::Lookup { .. } => "lookup",
            Self::Random { .. } => "numgen",
            Self::AddressKind { .. } => "fib",
            Self::DestinationNat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Reject(_) => "reject",
            Self::Dynamic { .. } => "dynset",
        }
    }

    /// Writes the expression as an element of a rule's list.
    pub(crate) fn encode(&self, message: &mut Message) {
        const LIST_ELEMENT: u16 = 1;
        const EXPRESSION_NAME: u16 = 1;
        const EXPRESSION_DATA: u16 = 2;
        message.nest(LIST_ELEMENT, |m| {
            m.attr_str(EXPRESSION_NAME, self.name()).nest(EXPRESSION_DATA, |m| self.encode_body(m));
        });
    }

    fn encode_body(&self, m: &mut Message) {
        match self {
            Self::Payload { base, offset, len, to } => {
                m.attr_be32(1, to.number())
                    .attr_be32(2, *base as u32)
                    .attr_be32(3, *offset)
                    .attr_be32(4, *len);
            }
            Self::TransportProtocol { to } => meta_load(m, 16, *to),
            Self::Mark { to } => meta_load(m, 3, *to),
            Self::InputDevice { to } => meta_load(m, 6, *to),
            Self::OutputDevice { to } => meta_load(m, 7, *to),
            Self::SetMark { from } => {
                m.attr_be32(2, 3).attr_be32(3, from.number());
            }
            Self::ConnectionState { to } => {
                m.attr_be32(1, to.number()).attr_be32(2, 0);
            }
            Self::ConnectionStatus { to } => {
                m.attr_be32(1, to.number()).attr_be32(2, 2);
            }
            Self::Compare { reg, how, with } => {
                m.attr_be32(1, reg.number()).attr_be32(2, *how as u32);
                value(m, 3, with);
            }
            Self::Bits { reg, mask, flip } => {
                let len = u32::try_from(mask.len()).unwrap_or(u32::MAX);
                m.attr_be32(1, reg.number()).attr_be32(2, reg.number()).attr_be32(3, len);
                value(m, 4, mask);
                value(m, 5, flip);
            }
            Self::Constant { to, value: bytes } => {
                m.attr_be32(1, to.number());
                value(m, 2, bytes);
            }
            Self::Verdict(verdict) => {
                m.attr_be32(1, 0).nest(2, |m| verdict.encode(m));
            }
            Self::Lookup { set, key, target, invert } => encode_lookup(m, set, *key, *target, *invert),
            Self::Random { modulus, to } => {
                m.attr_be32(1, to.number()).attr_be32(2, *modulus).attr_be32(3, 1).attr_be32(4, 0);
            }
            Self::AddressKind { of, to } => {
                m.attr_be32(1, to.number()).attr_be32(2, 3).attr_be32(3, *of as u32);
            }
            Self::DestinationNat { address, port } => {
                m.attr_be32(1, 1).attr_be32(2, libc::AF_INET as u32);
                m.attr_be32(3, address.number()).attr_be32(5, port.number());
            }
            Self::Masquerade => {
                const RANDOM_FULLY: u32 = 1 << 4;
                m.attr_be32(1, RANDOM_FULLY);
            }
            Self::Reject(Rejection::TcpReset) => {
                m.attr_be32(1, 1);
            }
            Self::Reject(Rejection::PortUnreachable) => {
                const ICMP_PORT_UNREACHABLE: u8 = 3;
                m.attr_be32(1, 0).attr_u8(2, ICMP_PORT_UNREACHABLE);
            }
            Self::Dynamic { operation, set, key, data, timeout_ms } => {
                m.attr_str(1, set).attr_be32(3, *operation as u32).attr_be32(4, key.number());
                if let Some(data) = data {
                    m.attr_be32(5, data.number());
                }
                if *timeout_ms > 0 {
                    m.attr_be64(6, *timeout_ms);
                }
            }
        }
    }
}

fn meta_load(m: &mut Message, key: u32, to: Reg) {
    m.attr_be32(1, to.number()).attr_be32(2, key);
}

fn encode_lookup(m: &mut Message, set: &str, key: Reg, target: Target, invert: bool) {
    m.attr_str(1, set).attr_be32(2, key.number());
    match target {
        Target::Nothing => {}
        Target::Reg(reg) => {
            m.attr_be32(3, reg.number());
        }
        Target::Verdict => {
            m.attr_be32(3, 0);
        }
    }
    if invert {
        m.attr_be32(5, 1);
    }
}

/// Writes bytes as a data attribute.
pub(crate) fn value(m: &mut Message, kind: u16, bytes: &[u8]) {
    const DATA_VALUE: u16 = 1;
    m.nest(kind, |m| {
        m.attr(DATA_VALUE, bytes);
    });
}

impl Verdict {
    /// Writes the verdict as the content of a data attribute.
    pub(crate) fn encode(&self, m: &mut Message) {
        const DATA_VERDICT: u16 = 2;
        const CODE: u16 = 1;
        const CHAIN: u16 = 2;
        let (code, chain): (i32, _) = match self {
            Self::Drop => (0, None),
            Self::Accept => (1, None),
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
            Self::Return => (-5, None),
        };
        m.nest(DATA_VERDICT, |m| {
            m.attr_be32(CODE, code.cast_unsigned());
            if let Some(chain) = chain {
                m.attr_str(CHAIN, chain);
            }
        });
    }
}

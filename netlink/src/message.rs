//! Building and reading netlink messages: a header, a fixed part, then attributes aligned to four bytes.

/// Length of `struct nlmsghdr`.
pub(crate) const HEADER_LEN: usize = 16;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// A netlink message under construction.
#[derive(Debug, Clone)]
pub struct Message {
    buffer: Vec<u8>,
}

impl Message {
    /// An empty message of `kind` with `flags` (`NLM_F_REQUEST` is always added).
    #[must_use]
    pub fn new(kind: u16, flags: u16) -> Self {
        let mut buffer = Vec::with_capacity(256);
        buffer.extend_from_slice(&0_u32.to_ne_bytes());
        buffer.extend_from_slice(&kind.to_ne_bytes());
        buffer.extend_from_slice(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        buffer.extend_from_slice(&[0; 8]);
        Self { buffer }
    }

    /// Appends bytes as they are: the fixed part of a message, or of a nested one.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.buffer.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Appends one attribute.
    pub fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.buffer.extend_from_slice(&len.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(value);
        self.pad();
        self
    }

    /// A one-byte attribute.
    pub fn attr_u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.attr(kind, &[value])
    }

    /// A 32-bit attribute in the machine's byte order (rtnetlink).
    pub fn attr_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// A 16-bit attribute in network byte order.
    pub fn attr_be16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// A 32-bit attribute in network byte order (netfilter).
    pub fn attr_be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// A 64-bit attribute in network byte order (netfilter).
    pub fn attr_be64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// A NUL-terminated string attribute.
    pub fn attr_str(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// An attribute whose content is written by `content`. It must stay below 64 KiB: the length field has 16 bits.
    pub fn nest(&mut self, kind: u16, content: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0, 0]);
        self.buffer.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        content(self);
        let len = u16::try_from(self.buffer.len() - start).unwrap_or(u16::MAX);
        self.patch(start, &len.to_ne_bytes());
        self
    }

    /// Bytes written so far, header included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing but the header was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.len() <= HEADER_LEN
    }

    /// Adds header flags.
    pub(crate) fn add_flags(&mut self, flags: u16) {
        let old = self.buffer.get(6..8).and_then(|b| b.try_into().ok()).map_or(0, u16::from_ne_bytes);
        self.patch(6, &(old | flags).to_ne_bytes());
    }

    /// The finished bytes, with length and sequence number filled in.
    pub(crate) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let len = u32::try_from(self.buffer.len()).unwrap_or(u32::MAX);
        self.patch(0, &len.to_ne_bytes());
        self.patch(8, &sequence.to_ne_bytes());
        self.buffer
    }

    fn pad(&mut self) {
        while !self.buffer.len().is_multiple_of(4) {
            self.buffer.push(0);
        }
    }

    fn patch(&mut self, at: usize, bytes: &[u8]) {
        if let Some(target) = self.buffer.get_mut(at..at + bytes.len()) {
            target.copy_from_slice(bytes);
        }
    }
}

/// Iterates over attributes as `(type, value)`; stops at the first malformed one.
#[derive(Debug, Clone)]
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Reads attributes from `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Reads the attributes that follow a fixed part of `fixed` bytes.
    #[must_use]
    pub fn after(bytes: &'a [u8], fixed: usize) -> Self {
        Self(bytes.get(fixed..).unwrap_or_default())
    }

    /// The value of the first attribute of `kind`.
    #[must_use]
    pub fn find(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone().filter(|(k, _)| *k == kind).map(|(_, value)| value).next()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & TYPE_MASK;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// A 16-bit number of the machine's byte order at `at`.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// A 32-bit number of the machine's byte order at `at`.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// A 32-bit number of network byte order at the start.
pub(crate) fn be32(bytes: &[u8]) -> Option<u32> {
    bytes.get(..4)?.try_into().ok().map(u32::from_be_bytes)
}

/// A string attribute without its terminating NUL.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_should_read_back_what_was_written() {
        let mut message = Message::new(16, 0);
        message.raw(&[1, 2, 3, 4]).attr_str(3, "eth0").nest(18, |m| {
            m.attr_u8(1, 7).attr_be32(2, 0x0102_0304);
        });
        let bytes = message.finish(9);
        assert_eq!(u32_at(&bytes, 0), Some(bytes.len() as u32));
        let attributes = Attributes::after(&bytes, HEADER_LEN + 4);
        assert_eq!(attributes.find(3).map(text).as_deref(), Some("eth0"));
        let nested = Attributes::new(attributes.find(18).unwrap());
        assert_eq!(nested.find(1), Some(&[7_u8][..]));
        assert_eq!(nested.find(2).and_then(be32), Some(0x0102_0304));
    }

    #[test]
    fn a_malformed_attribute_should_end_the_iteration() {
        assert_eq!(Attributes::new(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(Attributes::new(&[200, 0, 1, 0, 5]).count(), 0);
        assert_eq!(Attributes::new(&[0; 8]).count(), 0);
    }
}

//! The protobuf wire format.

use super::ProtobufError;

/// A value on the wire.
#[derive(Debug)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// Reads fields one after the other.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next field; `None` at the end.
    pub fn next(&mut self) -> Result<Option<(u64, Wire<'a>)>, ProtobufError> {
        let Some(tag) = self.varint()? else { return Ok(None) };
        let missing = || ProtobufError::Malformed;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?.ok_or_else(missing)?),
            1 => {
                let bytes: [u8; 8] = self.take(8)?.try_into().map_err(|_| missing())?;
                Wire::Fixed64(u64::from_le_bytes(bytes))
            }
            2 => {
                let length = self.varint()?.ok_or_else(missing)?;
                Wire::Bytes(self.take(usize::try_from(length).map_err(|_| missing())?)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            _ => return Err(ProtobufError::Malformed),
        };
        Ok(Some((tag >> 3, wire)))
    }

    /// The next number; `None` at the end.
    pub fn varint(&mut self) -> Result<Option<u64>, ProtobufError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(ProtobufError::Malformed)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(Some(value));
            }
        }
        Err(ProtobufError::Malformed)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(ProtobufError::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }
}

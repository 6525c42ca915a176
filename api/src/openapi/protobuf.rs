//! Just enough of the protobuf wire format to write messages.

/// A message under construction.
#[derive(Debug, Default)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A text; the empty one is not written.
    pub fn text(&mut self, field: u32, text: &str) {
        if !text.is_empty() {
            self.bytes(field, text.as_bytes());
        }
    }

    /// A flag; false is not written.
    pub fn flag(&mut self, field: u32, flag: bool) {
        if flag {
            self.integer(field, 1);
        }
    }

    /// A whole number; zero is not written.
    pub fn integer(&mut self, field: u32, number: u64) {
        if number != 0 {
            self.varint(u64::from(field) << 3);
            self.varint(number);
        }
    }

    /// A floating-point number; zero is not written.
    pub fn double(&mut self, field: u32, number: f64) {
        if number != 0.0 {
            self.varint(u64::from(field) << 3 | 1);
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// A message within; empty ones are written too.
    pub fn message(&mut self, field: u32, message: &Message) {
        self.bytes(field, &message.bytes);
    }

    /// The finished message.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }
}

//! Header blocks: a list of name and value pairs, compressed over the whole connection against a fixed dictionary.
//!
//! Reading inflates for real. Writing uses stored (uncompressed) blocks, which every inflater reads: header blocks here
//! are a few dozen bytes, and a compressor would hold a quarter of a megabyte per connection.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};

use super::{SpdyError, dictionary::dictionary};

/// Header names (lower case) and values, in the order sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Adds one header; the name is sent in lower case, as the protocol demands.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// The first value of a header, by its name in any case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// More than any header block of these protocols; a block that inflates to more is refused.
const BLOCK_BYTES_MAX: usize = 256 * 1024;

/// The peer's half of the header compression.
pub(super) struct HeaderDecoder {
    state: Option<Decompress>,
}

impl HeaderDecoder {
    pub(super) fn new() -> Self {
        Self { state: None }
    }

    pub(super) fn decode(&mut self, mut block: &[u8]) -> Result<Headers, SpdyError> {
        if self.state.is_none() {
            block = self.start(block)?;
        }
        let state = self.state.as_mut().ok_or(SpdyError::HeaderBlock)?;
        let inflated = inflate(state, block)?;
        parse_pairs(Bytes::from(inflated))
    }

    /// Reads the stream's two bytes of zlib header and primes the inflater with the dictionary when it is asked for.
    fn start<'a>(&mut self, block: &'a [u8]) -> Result<&'a [u8], SpdyError> {
        let (header, rest) = block.split_at_checked(2).ok_or(SpdyError::HeaderBlock)?;
        let wants_dictionary = header.get(1).is_some_and(|flags| flags & 0x20 != 0);
        let mut state = Decompress::new(false);
        let rest = if wants_dictionary {
            // A preset dictionary is nothing but text that was "already seen": feeding it as a stored block has the
            // same effect, and works with every backend of the inflater.
            let mut primer = BytesMut::new();
            put_stored_block(&mut primer, &dictionary());
            inflate(&mut state, &primer)?;
            rest.get(4..).ok_or(SpdyError::HeaderBlock)?
        } else {
            rest
        };
        self.state = Some(state);
        Ok(rest)
    }
}

fn inflate(state: &mut Decompress, mut input: &[u8]) -> Result<Vec<u8>, SpdyError> {
    let mut output = Vec::with_capacity(4096);
    loop {
        let (in_before, out_before) = (state.total_in(), output.len());
        let status = state
            .decompress_vec(input, &mut output, FlushDecompress::Sync)
            .map_err(|_| SpdyError::HeaderBlock)?;
        let consumed = usize::try_from(state.total_in() - in_before).map_err(|_| SpdyError::HeaderBlock)?;
        input = input.get(consumed..).unwrap_or_default();
        let full = output.len() == output.capacity();
        let stuck = consumed == 0 && output.len() == out_before && !full;
        if status == Status::StreamEnd || stuck || (input.is_empty() && !full) {
            return Ok(output);
        }
        if output.len() > BLOCK_BYTES_MAX {
            return Err(SpdyError::HeaderBlock);
        }
        output.reserve(4096);
    }
}

fn parse_pairs(mut block: Bytes) -> Result<Headers, SpdyError> {
    fn take_string(block: &mut Bytes) -> Result<String, SpdyError> {
        let length = usize::try_from(take_u32(block)?).map_err(|_| SpdyError::HeaderBlock)?;
        if block.len() < length {
            return Err(SpdyError::HeaderBlock);
        }
        String::from_utf8(block.split_to(length).to_vec()).map_err(|_| SpdyError::HeaderBlock)
    }
    fn take_u32(block: &mut Bytes) -> Result<u32, SpdyError> {
        if block.len() < 4 { Err(SpdyError::HeaderBlock) } else { Ok(block.get_u32()) }
    }

    let count = take_u32(&mut block)?;
    let mut headers = Headers::default();
    for _ in 0..count {
        let name = take_string(&mut block)?;
        let values = take_string(&mut block)?;
        // Several values of one name are joined by zero bytes.
        for value in values.split('\0') {
            headers.0.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }
    Ok(headers)
}

/// Our half of the header compression.
pub(super) struct HeaderEncoder {
    started: bool,
}

impl HeaderEncoder {
    pub(super) fn new() -> Self {
        Self { started: false }
    }

    pub(super) fn encode(&mut self, headers: &Headers) -> BytesMut {
        let mut pairs = BytesMut::new();
        put_length(&mut pairs, headers.0.len());
        for (name, value) in &headers.0 {
            put_length(&mut pairs, name.len());
            pairs.put_slice(name.as_bytes());
            put_length(&mut pairs, value.len());
            pairs.put_slice(value.as_bytes());
        }
        let mut block = BytesMut::with_capacity(pairs.len() + 16);
        if !self.started {
            block.put_slice(&[0x78, 0x01]);
            self.started = true;
        }
        put_stored_block(&mut block, &pairs);
        // The empty block makes inflaters hand over what they have.
        put_stored_block(&mut block, &[]);
        block
    }
}

fn put_length(buffer: &mut BytesMut, length: usize) {
    buffer.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

fn put_stored_block(buffer: &mut BytesMut, content: &[u8]) {
    let mut chunks = content.chunks(usize::from(u16::MAX));
    let mut next = Some(chunks.next().unwrap_or_default());
    while let Some(chunk) = next {
        let length = u16::try_from(chunk.len()).unwrap_or_default();
        buffer.put_u8(0);
        buffer.put_u16_le(length);
        buffer.put_u16_le(!length);
        buffer.put_slice(chunk);
        next = chunks.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_should_survive_encoding_and_decoding_over_one_connection() {
        let (mut encoder, mut decoder) = (HeaderEncoder::new(), HeaderDecoder::new());
        for stream in ["stdin", "stdout", "error"] {
            let headers = Headers::default().with("streamType", stream).with("port", "80");
            let block = encoder.encode(&headers);
            assert_eq!(decoder.decode(&block).unwrap(), headers);
        }
    }

    #[test]
    fn blocks_compressed_with_the_dictionary_by_another_implementation_should_be_read() {
        // What zlib itself makes of these headers with the dictionary, the second after the first.
        let first = hex("78f9e3c6a7c202a62346703a2b294a4dcc851625aca9a08006000000ffff");
        let second = hex("824a210a5e1e64ab00000000ffff");
        let mut decoder = HeaderDecoder::new();
        assert_eq!(decoder.decode(&first).unwrap().get("streamType"), Some("error"));
        assert_eq!(decoder.decode(&second).unwrap().get("accept"), Some("gzip,deflate"));
    }

    #[test]
    fn a_truncated_block_should_be_an_error() {
        assert!(HeaderDecoder::new().decode(&[0x78]).is_err());
        assert!(HeaderDecoder::new().decode(&[0x78, 0x01, 0, 4, 0, 0xfb, 0xff, 0, 0, 0, 9]).is_err());
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }
}

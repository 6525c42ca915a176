//! Frames: what one synced append writes, with checksums that tell a torn append from damage.
//!
//! A frame is a header (magic, payload length, payload checksum, header checksum) and a payload that ends in a marker
//! byte. The header's checksum covers the frame's offset in the file, so bytes inside a value can never pass for a frame.
//!
//! A frame is only written after the one before it was synced. Hence, when a frame does not check out:
//! - a sound header anywhere after it proves that it was once on disk whole: damage;
//! - otherwise it is the last append. If power or space ended it, the file is too short, or a sector of it was never
//!   written and still holds the zeros that the file was extended with: torn. If all its sectors hold something: damage.
//!   (Neither the magic nor the marker holds a zero byte, so even a sector that has only a frame's first or last byte
//!   tells the difference; a value with 512 aligned zero bytes in the very last frame is the one case read as torn.)

/// What begins every frame. No zero bytes.
const MAGIC: [u8; 4] = [0xC7, b'G', b'F', 0x01];
/// What ends every payload. Not zero.
const END_MARKER: u8 = 0xA5;
const SECTOR_BYTES: usize = 512;

/// How long the header is.
pub(super) const HEADER_BYTES: usize = 16;

/// A frame under construction: the header's room, then the payload.
#[derive(Debug)]
pub(super) struct FrameBuffer {
    bytes: Vec<u8>,
}

impl FrameBuffer {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; HEADER_BYTES] }
    }

    /// Where records are appended.
    pub(super) fn payload(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER_BYTES
    }

    /// How long the frame will be.
    pub(super) fn frame_length(&self) -> usize {
        self.bytes.len() + 1
    }

    /// Puts the header and the marker in place for a frame at this offset of the file.
    pub(super) fn seal(&mut self, offset: u64) -> &[u8] {
        self.bytes.push(END_MARKER);
        let (header, payload) = self.bytes.split_at_mut(HEADER_BYTES);
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut sealed = Vec::with_capacity(HEADER_BYTES);
        sealed.extend_from_slice(&MAGIC);
        sealed.extend_from_slice(&length.to_le_bytes());
        sealed.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
        sealed.extend_from_slice(&header_checksum(&sealed, offset).to_le_bytes());
        header.copy_from_slice(&sealed);
        &self.bytes
    }

    /// Empties the buffer for the next frame and gives back what an unusually large one took.
    pub(super) fn reset(&mut self) {
        self.bytes.truncate(HEADER_BYTES);
        self.bytes.shrink_to(256 << 10);
    }
}

fn header_checksum(header: &[u8], offset: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(&offset.to_le_bytes());
    hasher.finalize()
}

/// What stands at an offset of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A sound frame: its payload without the marker, and where the next one starts.
    Frame { payload: &'a [u8], next: usize },
    /// Nothing more was ever written.
    End,
    /// An append that did not complete. Only the last append of a file can be that.
    Torn(&'static str),
    /// Bytes that are not what was written.
    Damaged(&'static str),
}

struct Header {
    length: usize,
    checksum: u32,
}

/// Reads what stands at `offset` of the whole file's bytes.
pub(super) fn read(file: &[u8], offset: usize) -> Found<'_> {
    let rest = file.get(offset..).unwrap_or_default();
    if rest.first().is_none_or(|byte| *byte == 0) && rest.iter().all(|byte| *byte == 0) {
        return Found::End;
    }
    let Some(header) = parse_header(rest, offset) else {
        let written = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if rest.len() < HEADER_BYTES {
            return Found::Torn("the file ends inside a frame's header");
        }
        return judge(file, offset, written.max(HEADER_BYTES), "a frame's header fails its checksum");
    };
    let Some(payload) = rest.get(HEADER_BYTES..HEADER_BYTES + header.length) else {
        return Found::Torn("the file ends inside a frame");
    };
    if crc32fast::hash(payload) != header.checksum {
        return judge(file, offset, HEADER_BYTES + header.length, "a frame fails its checksum");
    }
    match payload.split_last() {
        Some((&END_MARKER, payload)) => Found::Frame { payload, next: offset + HEADER_BYTES + header.length },
        _ => Found::Damaged("a frame lacks its end marker"),
    }
}

fn parse_header(bytes: &[u8], offset: usize) -> Option<Header> {
    let (magic, rest) = bytes.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let own_checksum = rest.first_chunk::<4>()?;
    if *magic != MAGIC {
        return None;
    }
    let expected = header_checksum(bytes.get(..HEADER_BYTES - 4)?, offset as u64);
    (u32::from_le_bytes(*own_checksum) == expected).then_some(Header {
        length: usize::try_from(u32::from_le_bytes(*length)).ok()?,
        checksum: u32::from_le_bytes(*checksum),
    })
}

/// Decides whether a bad frame of `length` bytes was torn or damaged. See the module's documentation.
fn judge(file: &[u8], offset: usize, length: usize, reason: &'static str) -> Found<'static> {
    let after = offset + 1..file.len();
    let later_frame = after.into_iter().any(|at| {
        file.get(at..).is_some_and(|rest| rest.starts_with(&MAGIC) && parse_header(rest, at).is_some())
    });
    if later_frame {
        return Found::Damaged(reason);
    }
    let end = offset + length;
    let mut start = offset;
    while start < end {
        let sector_end = ((start / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
        match file.get(start..sector_end) {
            Some(part) if part.iter().any(|byte| *byte != 0) => start = sector_end,
            _ => return Found::Torn(reason),
        }
    }
    Found::Damaged(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with these payloads from offset 0 and zeros after them, and where each frame starts.
    fn file_of(payloads: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
        let (mut file, mut starts) = (Vec::new(), Vec::new());
        for payload in payloads {
            let mut frame = FrameBuffer::new();
            frame.payload().extend_from_slice(payload);
            starts.push(file.len());
            let sealed = frame.seal(file.len() as u64).to_vec();
            file.extend_from_slice(&sealed);
        }
        starts.push(file.len());
        file.resize(file.len() + 4096, 0);
        (file, starts)
    }

    #[test]
    fn frames_come_back_and_zeros_are_the_end() {
        let (file, starts) = file_of(&[b"one", b"two"]);
        assert_eq!(read(&file, 0), Found::Frame { payload: b"one", next: starts[1] });
        assert_eq!(read(&file, starts[1]), Found::Frame { payload: b"two", next: starts[2] });
        assert_eq!(read(&file, starts[2]), Found::End);
        assert_eq!(read(&file[..starts[2]], starts[2]), Found::End);
    }

    #[test]
    fn every_flipped_byte_of_any_frame_is_damage() {
        let long = vec![b'x'; 1500];
        let (file, starts) = file_of(&[b"one", &long]);
        for at in 0..starts[2] {
            let mut flipped = file.clone();
            flipped[at] ^= 0x40;
            let start = if at < starts[1] { starts[0] } else { starts[1] };
            let found = read(&flipped, start);
            // A flip in the length or checksum fields is caught by the header's own checksum.
            assert!(matches!(found, Found::Damaged(_)), "byte {at}: {found:?}");
        }
    }

    #[test]
    fn a_last_frame_cut_short_anywhere_is_torn() {
        let long = vec![b'x'; 1500];
        let (file, starts) = file_of(&[b"one", &long]);
        for end in starts[1] + 1..starts[2] {
            assert!(matches!(read(&file[..end], starts[1]), Found::Torn(_)), "{end}");
        }
    }

    #[test]
    fn a_last_frame_with_an_unwritten_sector_is_torn() {
        let long = vec![b'x'; 1500];
        let (file, starts) = file_of(&[b"one", &long]);
        for sector in 0..starts[2].div_ceil(SECTOR_BYTES) {
            let mut torn = file.clone();
            let from = (sector * SECTOR_BYTES).max(starts[1]);
            torn[from..((sector + 1) * SECTOR_BYTES).min(starts[2])].fill(0);
            assert!(matches!(read(&torn, starts[1]), Found::Torn(_)), "sector {sector}");
        }
    }

    #[test]
    fn a_value_that_looks_like_a_frame_is_not_taken_for_one() {
        let (inner, _) = file_of(&[b"inner"]);
        let (mut file, starts) = file_of(&[b"one", &inner[..32]]);
        file.truncate(starts[2] - 2);
        assert!(matches!(read(&file, starts[1]), Found::Torn(_)));
    }
}

//! Frames: what one synced append writes, with checksums that tell a torn append from damage.
//!
//! A frame is a header (magic, mask, payload length, payload checksum, header checksum) and a payload that ends in a
//! marker byte. The header's checksum covers the frame's place, that is its file's number and its offset, so bytes inside
//! a value or from another file can never pass for a frame.
//!
//! A frame is only written after the one before it was synced. Hence, when a frame does not check out:
//! - a sound header anywhere after it proves that it was once on disk whole: damage;
//! - otherwise it is the last append. If power or space ended it, the file is too short, or a sector of it was never
//!   written and still holds the zeros that the file was extended with: torn. If all its sectors hold something: damage.
//!
//! For that no sector of a frame may be all zeros: magic and marker are not, and a payload with such a sector is masked.

use std::borrow::Cow;
use std::io::{self, Read};

/// What begins every frame. No zero bytes.
const MAGIC: [u8; 3] = [0xC7, b'G', b'F'];
/// What ends every payload. Not zero, nor masked.
const END_MARKER: u8 = 0xA5;
const SECTOR_BYTES: usize = 512;

/// How long the header is.
const HEADER_BYTES: usize = 16;

/// Where a frame is: frames are only sound in their place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The number of the file, as in its header.
    pub(super) file: u64,
    pub(super) offset: usize,
}

impl Place {
    fn at(self, offset: usize) -> Self {
        Self { offset, ..self }
    }
}

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

    /// Finishes the frame for its place. The payload is used up: what follows is [`Self::reset`].
    pub(super) fn seal(&mut self, place: Place) -> &[u8] {
        let (_, payload) = self.bytes.split_at_mut(HEADER_BYTES);
        let mask = mask_for(payload, place.offset + HEADER_BYTES);
        apply_mask(payload, mask);
        self.bytes.push(END_MARKER);
        let (_, payload) = self.bytes.split_at(HEADER_BYTES);
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut sealed = Vec::with_capacity(HEADER_BYTES);
        sealed.extend_from_slice(&MAGIC);
        sealed.push(mask);
        sealed.extend_from_slice(&length.to_le_bytes());
        sealed.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
        sealed.extend_from_slice(&header_checksum(&sealed, place).to_le_bytes());
        self.bytes.splice(..HEADER_BYTES, sealed);
        &self.bytes
    }

    /// Empties the buffer for the next frame and gives back what an unusually large one took.
    pub(super) fn reset(&mut self) {
        self.bytes.truncate(HEADER_BYTES);
        self.bytes.shrink_to(256 << 10);
    }
}

/// A byte that no sector of the payload consists of alone; zero, which changes nothing, for almost every payload.
fn mask_for(payload: &[u8], offset: usize) -> u8 {
    let first = (offset.next_multiple_of(SECTOR_BYTES) - offset).min(payload.len());
    let (head, aligned) = payload.split_at(first);
    let (sectors, _) = aligned.as_chunks::<SECTOR_BYTES>();
    let holds_another = |part: &[u8], mask: u8| part.is_empty() || part.iter().any(|byte| *byte != mask);
    let fits =
        |mask: &u8| holds_another(head, *mask) && sectors.iter().all(|sector| holds_another(sector, *mask));
    (0..=u8::MAX).find(fits).unwrap_or(0)
}

fn apply_mask(payload: &mut [u8], mask: u8) {
    if mask != 0 {
        payload.iter_mut().for_each(|byte| *byte ^= mask);
    }
}

fn header_checksum(header: &[u8], place: Place) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(&place.file.to_le_bytes());
    hasher.update(&(place.offset as u64).to_le_bytes());
    hasher.finalize()
}

/// What stands at an offset of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A sound frame: its payload without the marker, and where the next one starts.
    Frame { payload: Cow<'a, [u8]>, next: usize },
    /// Nothing more was ever written.
    End,
    /// An append that did not complete. Only the last append of a file can be that.
    Torn(&'static str),
    /// Bytes that are not what was written.
    Damaged(&'static str),
}

/// Reads what stands at a place, given the whole file's bytes.
pub(super) fn find(file: &[u8], place: Place) -> Found<'_> {
    let offset = place.offset;
    let rest = file.get(offset..).unwrap_or_default();
    if rest.first().is_none_or(|byte| *byte == 0) && rest.iter().all(|byte| *byte == 0) {
        return Found::End;
    }
    let Some(header) = Header::parse(rest, place) else {
        let written = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if rest.len() < HEADER_BYTES {
            return Found::Torn("the file ends inside a frame's header");
        }
        return judge(file, place, written.max(HEADER_BYTES), "a frame's header fails its checksum");
    };
    let length = HEADER_BYTES.saturating_add(header.length);
    let Some(stored) = rest.get(HEADER_BYTES..length) else {
        return Found::Torn("the file ends inside a frame");
    };
    if crc32fast::hash(stored) != header.checksum {
        return judge(file, place, length, "a frame fails its checksum");
    }
    match stored.split_last() {
        Some((&END_MARKER, payload)) => {
            let mut payload = Cow::Borrowed(payload);
            if header.mask != 0 {
                apply_mask(payload.to_mut(), header.mask);
            }
            Found::Frame { payload, next: offset + length }
        }
        _ => Found::Damaged("a frame lacks its end marker"),
    }
}

/// Reads the frame at a place of a file that was finished before it got its name: whatever is wrong is damage. Returns
/// the payload and where the next frame starts.
pub(super) fn next(file: &mut impl Read, place: Place) -> io::Result<Result<(Vec<u8>, usize), &'static str>> {
    let mut header = [0; HEADER_BYTES];
    if let Err(error) = file.read_exact(&mut header) {
        return ends_early(error);
    }
    let Some(header) = Header::parse(&header, place) else {
        return Ok(Err("a frame's header fails its checksum"));
    };
    let mut payload = vec![0; header.length];
    if let Err(error) = file.read_exact(&mut payload) {
        return ends_early(error);
    }
    if crc32fast::hash(&payload) != header.checksum || payload.pop() != Some(END_MARKER) {
        return Ok(Err("a frame fails its checksum"));
    }
    apply_mask(&mut payload, header.mask);
    Ok(Ok((payload, place.offset + HEADER_BYTES + header.length)))
}

fn ends_early<T>(error: io::Error) -> io::Result<Result<T, &'static str>> {
    if error.kind() == io::ErrorKind::UnexpectedEof { Ok(Err("the file ends too early")) } else { Err(error) }
}

struct Header {
    mask: u8,
    length: usize,
    checksum: u32,
}

impl Header {
    fn parse(bytes: &[u8], place: Place) -> Option<Self> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let (mask, rest) = rest.split_first()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (checksum, rest) = rest.split_first_chunk::<4>()?;
        let own_checksum = rest.first_chunk::<4>()?;
        let expected = header_checksum(bytes.get(..HEADER_BYTES - 4)?, place);
        (u32::from_le_bytes(*own_checksum) == expected).then_some(Self {
            mask: *mask,
            length: usize::try_from(u32::from_le_bytes(*length)).ok()?,
            checksum: u32::from_le_bytes(*checksum),
        })
    }
}

/// Decides whether a bad frame of `length` bytes was torn or damaged. See the module's documentation.
fn judge(file: &[u8], place: Place, length: usize, reason: &'static str) -> Found<'static> {
    let later_frame = (place.offset + 1..file.len())
        .any(|at| file.get(at..).is_some_and(|rest| Header::parse(rest, place.at(at)).is_some()));
    if later_frame {
        return Found::Damaged(reason);
    }
    let end = place.offset.saturating_add(length);
    let mut start = place.offset;
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

    const FILE: u64 = 3;

    fn read(file: &[u8], offset: usize) -> Found<'_> {
        find(file, Place { file: FILE, offset })
    }

    /// A file with these payloads from offset 0 and zeros after them, and where each frame starts.
    fn file_of(payloads: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
        let (mut file, mut starts) = (Vec::new(), Vec::new());
        for payload in payloads {
            let mut frame = FrameBuffer::new();
            frame.payload().extend_from_slice(payload);
            starts.push(file.len());
            let sealed = frame.seal(Place { file: FILE, offset: file.len() }).to_vec();
            file.extend_from_slice(&sealed);
        }
        starts.push(file.len());
        file.resize(file.len() + 4096, 0);
        (file, starts)
    }

    /// Values as they come, and the ones that look like sectors that were never written.
    fn long_payloads() -> [Vec<u8>; 3] {
        let mut mixed = vec![0; 1500];
        mixed[600..1200].fill(1);
        [vec![b'x'; 1500], vec![0; 1500], mixed]
    }

    #[test]
    fn frames_come_back_and_zeros_are_the_end() {
        for long in long_payloads() {
            let (file, starts) = file_of(&[b"one", &long]);
            assert_eq!(read(&file, 0), Found::Frame { payload: b"one".into(), next: starts[1] });
            assert_eq!(read(&file, starts[1]), Found::Frame { payload: (&long).into(), next: starts[2] });
            assert_eq!(read(&file, starts[2]), Found::End);
            assert_eq!(read(&file[..starts[2]], starts[2]), Found::End);
            let streamed = next(&mut &file[starts[1]..], Place { file: FILE, offset: starts[1] });
            assert_eq!(streamed.unwrap(), Ok((long, starts[2])));
        }
    }

    #[test]
    fn a_frame_in_another_place_is_not_taken_for_one() {
        let (file, starts) = file_of(&[b"one", b"two"]);
        let elsewhere = Place { file: FILE + 1, offset: 0 };
        assert!(matches!(find(&file, elsewhere), Found::Damaged(_) | Found::Torn(_)));
        assert!(matches!(read(&file[starts[1]..], 0), Found::Damaged(_) | Found::Torn(_)));
        assert!(next(&mut &*file, elsewhere).unwrap().is_err());
    }

    #[test]
    fn every_flipped_byte_of_any_frame_is_damage() {
        for long in long_payloads() {
            let (file, starts) = file_of(&[b"one", &long]);
            for at in 0..starts[2] {
                let mut flipped = file.clone();
                flipped[at] ^= 0x40;
                let start = if at < starts[1] { starts[0] } else { starts[1] };
                let found = read(&flipped, start);
                // A flip in the length or checksum fields is caught by the header's own checksum.
                assert!(matches!(found, Found::Damaged(_)), "byte {at}: {found:?}");
                let mut rest = &flipped[start..];
                assert!(next(&mut rest, Place { file: FILE, offset: start }).unwrap().is_err(), "byte {at}");
            }
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
        for long in long_payloads() {
            let (file, starts) = file_of(&[b"one", &long]);
            for sector in 0..starts[2].div_ceil(SECTOR_BYTES) {
                let mut torn = file.clone();
                let from = (sector * SECTOR_BYTES).max(starts[1]);
                torn[from..((sector + 1) * SECTOR_BYTES).min(starts[2])].fill(0);
                assert!(matches!(read(&torn, starts[1]), Found::Torn(_)), "sector {sector}");
            }
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

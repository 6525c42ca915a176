//! The header that every file begins with: what it is, in which version of the format, and which one of its kind.

/// How long it is.
pub(super) const FILE_HEADER_BYTES: usize = 32;
const VERSION: u32 = 2;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// A segment of the log. Its number is its place in the log.
    Log,
    /// A snapshot. Its number is the revision that it is of.
    Snapshot,
}

impl FileKind {
    fn magic(self) -> [u8; 8] {
        match self {
            Self::Log => *b"GANTRYLG",
            Self::Snapshot => *b"GANTRYSN",
        }
    }
}

/// The header of a file.
pub(super) fn header(kind: FileKind, number: u64) -> [u8; FILE_HEADER_BYTES] {
    let mut bytes = [0; FILE_HEADER_BYTES];
    let (rest, checksum) = bytes.split_at_mut(FILE_HEADER_BYTES - 4);
    let fields = [&kind.magic()[..], &VERSION.to_le_bytes(), &number.to_le_bytes()].concat();
    rest.iter_mut().zip(fields).for_each(|(byte, field)| *byte = field);
    checksum.copy_from_slice(&crc32fast::hash(rest).to_le_bytes());
    bytes
}

/// Checks the header of a file. The error says what is wrong with it.
pub(super) fn check_header(file: &[u8], kind: FileKind, number: u64) -> Result<(), &'static str> {
    let found = file.get(..FILE_HEADER_BYTES).ok_or("the file ends inside its header")?;
    if *found == header(kind, number) {
        return Ok(());
    }
    let (fields, checksum) = found.split_at(FILE_HEADER_BYTES - 4);
    if *checksum != crc32fast::hash(fields).to_le_bytes() || !fields.starts_with(&kind.magic()) {
        return Err("the file's header is not what was written");
    }
    match fields.get(8..12) {
        Some(version) if *version == VERSION.to_le_bytes() => {
            Err("the file is another one than its name says")
        }
        _ => Err("the file's format version is not one that this program knows"),
    }
}

/// The number in a header that is sound; none if it is not one of this kind.
pub(super) fn number_of(file: &[u8], kind: FileKind) -> Option<u64> {
    let number = u64::from_le_bytes(*file.get(12..)?.first_chunk()?);
    check_header(file, kind, number).is_ok().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_told_from_a_damaged_one_another_version_and_another_file() {
        let good = header(FileKind::Log, 7);
        assert_eq!(check_header(&good, FileKind::Log, 7), Ok(()));
        assert!(check_header(&good[..31], FileKind::Log, 7).unwrap_err().contains("ends inside"));
        assert!(check_header(&good, FileKind::Log, 8).unwrap_err().contains("its name"));
        assert!(check_header(&good, FileKind::Snapshot, 7).unwrap_err().contains("not what was written"));
        for at in 0..FILE_HEADER_BYTES {
            let mut flipped = good;
            flipped[at] ^= 1;
            assert!(check_header(&flipped, FileKind::Log, 7).unwrap_err().contains("not what was written"));
        }
        let mut newer = good;
        newer[8] = 9;
        let checksum = crc32fast::hash(&newer[..FILE_HEADER_BYTES - 4]);
        newer[FILE_HEADER_BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
        assert!(check_header(&newer, FileKind::Log, 7).unwrap_err().contains("version"));
    }
}

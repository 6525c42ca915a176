//! Container logs in CRI's format: `<time> <stream> <P|F> <text>`.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// One line, or part of one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line<'a> {
    /// When it was written, RFC 3339 with nanoseconds.
    pub time: &'a [u8],
    /// `stdout` or `stderr`.
    pub stream: &'a [u8],
    /// Whether the line goes on in the next entry.
    pub partial: bool,
    /// What was written, without the end of the line.
    pub text: &'a [u8],
}

/// Reads one entry, without its newline. None for what is none.
pub fn parse(entry: &[u8]) -> Option<Line<'_>> {
    let mut fields = entry.splitn(4, |byte| *byte == b' ');
    let (time, stream, tags) = (fields.next()?, fields.next()?, fields.next()?);
    let text = fields.next().unwrap_or_default();
    let partial = tags.split(|byte| *byte == b':').next() == Some(b"P");
    Some(Line { time, stream, partial, text })
}

/// The end of a log, as plain text: at most so many bytes and lines.
pub fn tail(path: &Path, bytes: usize, lines: usize) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        // Entries are longer than their text: read somewhat more.
        let wanted = (bytes as u64 * 2 + 4096).min(length);
        file.seek(SeekFrom::Start(length - wanted))?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        Ok(content)
    };
    let content = read().unwrap_or_default();
    let mut text = Vec::new();
    for line in content.split(|byte| *byte == b'\n').filter_map(parse) {
        text.extend_from_slice(line.text);
        if !line.partial {
            text.push(b'\n');
        }
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let all: Vec<&str> = text.split_inclusive('\n').collect();
    let kept: String = all.iter().skip(all.len().saturating_sub(lines)).copied().collect();
    let mut start = kept.len().saturating_sub(bytes);
    while !kept.is_char_boundary(start) {
        start += 1;
    }
    kept.get(start..).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_with_their_parts_and_rubbish_is_skipped() {
        let line = parse(b"2026-01-02T03:04:05.6Z stdout P:x hello  world").unwrap();
        assert!(line.partial);
        assert_eq!(line.text, b"hello  world");
        assert_eq!(parse(b"rubbish"), None);
    }
}

//! Sets of completion indexes, in the text form of a job's status: `1,3-5,7`. Pure.

use std::collections::BTreeSet;

/// Reads a set; what does not parse, or lies beyond `completions`, is left out.
pub(super) fn parse(text: &str, completions: i32) -> BTreeSet<i32> {
    let mut indexes = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
            indexes.extend(first.max(0)..=last.min(completions - 1));
        }
    }
    indexes
}

/// Writes a set with runs of three or more as ranges, as upstream does; two neighbours stay apart by a comma.
pub(super) fn format(indexes: &BTreeSet<i32>) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut run: Option<(i32, i32)> = None;
    let mut flush = |run: Option<(i32, i32)>| match run {
        Some((first, last)) if first == last => parts.push(first.to_string()),
        Some((first, last)) if first + 1 == last => parts.push(format!("{first},{last}")),
        Some((first, last)) => parts.push(format!("{first}-{last}")),
        None => {}
    };
    for index in indexes {
        run = match run {
            Some((first, last)) if last + 1 == *index => Some((first, *index)),
            other => {
                flush(other);
                Some((*index, *index))
            }
        };
    }
    flush(run);
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_survive_their_text_form() {
        let indexes: BTreeSet<i32> = [0, 2, 3, 4, 6, 7].into();
        assert_eq!(format(&indexes), "0,2-4,6,7");
        assert_eq!(parse("0,2-4,6,7", 10), indexes);
        assert_eq!(parse("0-9", 3), [0, 1, 2].into());
        assert_eq!(format(&BTreeSet::new()), "");
    }
}

//! What libcontainer says about a container that does not start.
//!
//! It reports little in its errors and much in its log, and most of it from a forked child. So its log goes to the shim's
//! own file, from where the words since a mark are added to the error.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    sync::Mutex,
};

use tracing_subscriber::{filter::LevelFilter, fmt};

/// The log of the shim, next to the sandbox's other files.
pub(super) const LOG_FILE: &str = "shim.log";
/// More than this tells no more.
const WORDS_BYTES_MAX: u64 = 4096;

/// Sends errors that are logged to a file.
pub(super) fn write_to(log: File) {
    let subscriber = fmt()
        .with_max_level(LevelFilter::ERROR)
        .without_time()
        .with_level(false)
        .with_target(false)
        .with_ansi(false)
        .with_writer(Mutex::new(log))
        .finish();
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        eprintln!("errors are logged elsewhere");
    }
}

/// A place in the log.
pub(super) struct Mark(Option<(File, u64)>);

/// The end of the log in a sandbox's directory.
pub(super) fn mark(sandbox: &Path) -> Mark {
    let open = || {
        let mut file = File::open(sandbox.join(LOG_FILE))?;
        let end = file.seek(SeekFrom::End(0))?;
        Ok::<_, std::io::Error>((file, end))
    };
    Mark(open().ok())
}

/// Adds what has been logged since a mark to an error.
pub(super) fn explain(error: &str, mark: Mark) -> String {
    let mut words = String::new();
    if let Some((mut file, from)) = mark.0 {
        let read = file
            .seek(SeekFrom::Start(from))
            .and_then(|_| file.take(WORDS_BYTES_MAX).read_to_string(&mut words));
        if read.is_err() {
            words.clear();
        }
    }
    // The innermost cause is logged first.
    match words.lines().next().filter(|line| !line.is_empty()) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_owned(),
    }
}

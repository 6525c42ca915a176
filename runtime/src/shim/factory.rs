//! Where shims come from: one process per agent that forks them.
//!
//! Starting the whole binary for every pod would relocate the same megabytes of tables every time and keep a copy of
//! them per pod. A fork of a process that has done this once shares them, and takes less than a millisecond.
//!
//! The agent holds the other end of standard input: when it ends, the factory ends, and the shims stay.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::{process, protocol};
use crate::sys;

/// Asks for the shim of a sandbox. With it comes the writing end of a pipe, on which the answer is either nothing or why
/// there is no shim; the pipe's end says that the shim serves.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NewShim {
    pub(crate) sandbox_directory: PathBuf,
}

/// Serves the agent until it ends.
pub(super) fn run() -> io::Result<()> {
    // Nobody waits for the processes in between; the kernel forgets them at once.
    sys::ignore_signal(Signal::SIGCHLD)?;
    nix::sys::prctl::set_name(c"gantry-shims")?;
    let agent = io::stdin();
    while let Some((request, descriptors)) = protocol::receive::<NewShim>(agent.as_fd())? {
        let answer = descriptors.into_iter().next();
        if sys::fork_single_threaded()?.is_none() {
            start(&request.sandbox_directory, answer)
        }
    }
    Ok(())
}

/// In a process of its own: becomes the shim, or says why not.
fn start(directory: &Path, answer: Option<OwnedFd>) -> ! {
    let reset = sys::reset_signals().map_err(|error| format!("resetting signals: {error}"));
    let started = reset.and_then(|()| process::start(directory).map_err(|error| error.to_string()));
    match started {
        Ok(process::Role::Starter) => std::process::exit(0),
        Ok(process::Role::Shim(mut server)) => {
            // The pipe ends with the starter; the shim must not keep it open.
            drop(answer);
            std::process::exit(server.run())
        }
        Err(error) => {
            if let Some(answer) = answer
                && File::from(answer).write_all(error.as_bytes()).is_err()
            {
                eprintln!("{error}");
            }
            std::process::exit(1)
        }
    }
}

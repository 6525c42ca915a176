//! Becoming a shim: the life of its process up to the loop.

use std::{fs, path::Path, process::exit};

use nix::unistd::setsid;

use super::{
    factory,
    protocol::ShimConfig,
    server::Server,
    setup::{self, SetupError},
};
use crate::sys;

/// Makes shims for the agent at the other end of standard input until that ends; the argument is the runtime's state
/// directory, which process lists show. Must be called before anything starts a thread.
pub fn main(args: &[String]) -> ! {
    let [_state_directory] = args else {
        eprintln!("usage: shim STATE-DIRECTORY (with the agent's socket as standard input)");
        exit(2)
    };
    match factory::run() {
        Ok(()) => exit(0),
        Err(error) => {
            eprintln!("making shims: {error}");
            exit(1)
        }
    }
}

/// Which side of the fork this is.
pub(super) enum Role {
    /// The process that was asked. Its end says that the shim serves.
    Starter,
    /// The process that stays.
    Shim(Box<Server>),
}

pub(super) fn start(directory: &Path) -> Result<Role, SetupError> {
    let config =
        fs::read(directory.join("shim.json")).map_err(|error| SetupError::io("reading shim.json", error))?;
    let config: ShimConfig =
        serde_json::from_slice(&config).map_err(|error| SetupError::io("reading shim.json", error.into()))?;
    let listener = setup::listen(&directory.join("shim.sock"))?;
    setup::enter_namespaces(&config)?;
    setup::apply_sysctls(&config.sysctls)?;
    // The socket listens before the starter ends: the agent can connect at once.
    if let Some(shim) = sys::fork_single_threaded().map_err(|error| SetupError::system("fork", error))? {
        fs::write(directory.join("shim.pid"), shim.to_string())
            .map_err(|error| SetupError::io("writing shim.pid", error))?;
        return Ok(Role::Starter);
    }
    // From here on nobody listens to our errors but the log.
    setsid().map_err(|error| SetupError::system("setsid", error))?;
    setup::detach(directory, &config)?;
    let server = Server::new(directory.to_owned(), listener, &config)
        .map_err(|error| SetupError::system("preparing the server", error))?;
    Ok(Role::Shim(Box::new(server)))
}

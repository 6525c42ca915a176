//! The life of the shim's process: taking its place in the world, and then serving until told to stop.

use std::{fs, path::Path, process::exit};

use nix::unistd::{Pid, setsid};

use super::{
    protocol::ShimConfig,
    server::Server,
    setup::{self, SetupError},
};
use crate::sys;

/// Runs the shim of the sandbox whose directory is the only argument. Must be called before anything starts a thread.
///
/// The process that was started prints the shim's process number and ends when the shim serves; when something fails it
/// says so on standard error and ends with 1.
pub fn main(args: &[String]) -> ! {
    let [directory] = args else {
        eprintln!("usage: shim SANDBOX-DIRECTORY");
        exit(2)
    };
    match start(Path::new(directory)) {
        Ok(Role::Starter(shim)) => {
            println!("{shim}");
            exit(0)
        }
        Ok(Role::Shim(mut server)) => exit(server.run()),
        Err(error) => {
            eprintln!("{error}");
            exit(1)
        }
    }
}

enum Role {
    /// The process that the agent waits for.
    Starter(Pid),
    /// The process that stays.
    Shim(Box<Server>),
}

fn start(directory: &Path) -> Result<Role, SetupError> {
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
        return Ok(Role::Starter(shim));
    }
    // From here on nobody listens to our errors but the log.
    setsid().map_err(|error| SetupError::system("setsid", error))?;
    setup::detach(directory, &config)?;
    let server = Server::new(directory.to_owned(), listener, &config)
        .map_err(|error| SetupError::system("preparing the server", error))?;
    Ok(Role::Shim(Box::new(server)))
}

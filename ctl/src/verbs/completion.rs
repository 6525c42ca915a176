//! `completion`: what a shell needs to finish words. Names of objects are deliberately not among them.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;

/// The flags of `completion`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Runs the verb.
pub fn run(options: &Options) {
    let mut command = Cli::command();
    let name = command.get_name().to_string();
    clap_complete::generate(options.shell, &mut command, name, &mut std::io::stdout());
}

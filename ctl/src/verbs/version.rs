//! `version`: of this program, and of the server if there is one.

use clap::Args;

use crate::api::Api;
use crate::cli::GlobalOptions;
use crate::connect::Connection;

/// The flags of `version`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Do not ask a server
    #[arg(long)]
    pub client: bool,
}

/// Runs the verb.
pub async fn run(global: &GlobalOptions, options: &Options) -> anyhow::Result<()> {
    println!("Client Version: {}", env!("CARGO_PKG_VERSION"));
    if options.client {
        return Ok(());
    }
    let connection = Connection::open(global).await?;
    let version = Api::new(connection.client, &connection.server).get("/version").await?;
    println!("Server Version: {}", version["gitVersion"].as_str().unwrap_or_default());
    Ok(())
}

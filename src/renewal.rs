//! Certificates that renew themselves: when one is due, the process drains and starts over in place, which renews it.
//! Pods do not notice: their containers belong to nobody who ends.

use std::convert::Infallible;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use tracing::{error, info};

/// Looked at this often, so that a clock that jumps does no harm.
const CHECK_INTERVAL: Duration = Duration::from_secs(6 * 3600);

/// Ready when a certificate in the directory is due.
pub async fn due(directory: PathBuf) {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        match pki::renewal_due(&directory) {
            Ok(Some(moment)) if moment <= Timestamp::now() => {
                info!(directory = %directory.display(), "a certificate is due: starting over to renew it");
                return;
            }
            Ok(_) => {}
            Err(problem) => error!(%problem, "cannot tell when certificates are due"),
        }
    }
}

/// Puts this program, as it is on disk now and with the same arguments, in place of this process.
pub fn start_over() -> anyhow::Result<Infallible> {
    let program = std::env::current_exe().context("cannot tell where the gantry binary is")?;
    let path = std::ffi::CString::new(program.as_os_str().as_bytes()).context("the binary's path")?;
    let arguments: Result<Vec<_>, _> =
        std::env::args_os().map(|argument| std::ffi::CString::new(argument.as_bytes())).collect();
    nix::unistd::execv(&path, &arguments.context("an argument")?).context("cannot start over")
}

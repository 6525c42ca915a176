//! Sessions of a remote command: standard streams, terminal size and exit status, over whatever the client speaks.
//!
//! The server end of `exec` and `attach`. WebSocket subprotocols: `v5.channel.k8s.io` (which alone can signal the end of
//! stdin), `v4.channel.k8s.io`, `channel.k8s.io`, none, and the base64 variants; SPDY protocols v1 to v4.

mod spdy;
mod status;
mod websocket;

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use http::{Request, Response};
use tokio::{
    io::DuplexStream,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::upgrade::{self, HandshakeError, UpgradeBody};

/// What a standard stream buffers before it holds back its writer.
const STREAM_BUFFER_BYTES: usize = 64 * 1024;

/// Which streams a session has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandOptions {
    /// The client sends input.
    pub stdin: bool,
    /// The client wants the output.
    pub stdout: bool,
    /// The client wants the error output; never together with `tty`, where it is part of the output.
    pub stderr: bool,
    /// The command has a terminal, and the client sends its size.
    pub tty: bool,
}

impl CommandOptions {
    /// Reads the options from a query: both the API's names (`stdin`, `stdout`, `stderr`) and the agent API's
    /// (`input`, `output`, `error`).
    pub fn from_query(query: Option<&str>) -> Self {
        let is_set = |names: [&str; 2]| {
            names
                .iter()
                .flat_map(|name| upgrade::query_values(query, name))
                .any(|value| matches!(value.as_str(), "1" | "true" | "True" | "TRUE" | "t" | "T"))
        };
        let tty = is_set(["tty", "tty"]);
        Self {
            stdin: is_set(["stdin", "input"]),
            stdout: is_set(["stdout", "output"]),
            stderr: is_set(["stderr", "error"]) && !tty,
            tty,
        }
    }
}

/// The size of the client's terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ran and exited with this code.
    Exited(i32),
    /// It could not be run, or the session broke.
    Failed(String),
    /// A `Status` object from another server, passed on as it is.
    Status(Bytes),
}

/// A session with a client. Streams that were not asked for are absent. Take the streams out, use them, drop them, and
/// then call [`CommandSession::finish`]; everything written before arrives before the exit status.
#[derive(Debug)]
pub struct CommandSession {
    /// What the client types. It ends when the client ends its input or goes away.
    pub stdin: Option<DuplexStream>,
    /// Where the command's output goes. Writes fail once the client has gone.
    pub stdout: Option<DuplexStream>,
    /// Where the command's error output goes.
    pub stderr: Option<DuplexStream>,
    /// Sizes of the client's terminal as they change; present when `tty` was asked for.
    pub resize: Option<mpsc::Receiver<TerminalSize>>,
    /// Fires when the client has gone.
    pub gone: CancellationToken,
    outcome: oneshot::Sender<Outcome>,
    driver: JoinHandle<()>,
}

impl CommandSession {
    /// Tells the client how the command ended and closes the session in order.
    pub async fn finish(self, outcome: Outcome) {
        let Self { stdin, stdout, stderr, resize, gone: _, outcome: sender, driver } = self;
        drop((stdin, stdout, stderr, resize));
        // Without a receiver the client has gone, and there is nobody to tell.
        if sender.send(outcome).is_ok()
            && let Err(error) = driver.await
        {
            tracing::debug!(%error, "session driver");
        }
    }
}

/// Why a session did not come about after the upgrade was agreed on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The connection did not complete its upgrade.
    #[error("upgrading the connection: {0}")]
    Upgrade(#[from] hyper::Error),
    /// The client went away, or took too long, before it had opened its streams.
    #[error("the client did not open its streams in time")]
    Streams,
}

/// The session, once the answer has reached the client.
pub type PendingSession = Pin<Box<dyn Future<Output = Result<CommandSession, SessionError>> + Send>>;

/// Agrees to a session. Return the response to the client and await the session in a task of its own: it comes about
/// only after the response has been sent.
pub fn accept<B>(
    request: &mut Request<B>,
    options: CommandOptions,
) -> Result<(Response<UpgradeBody>, PendingSession), HandshakeError> {
    if upgrade::is_websocket(request.headers()) {
        websocket::accept(request, options)
    } else if upgrade::is_spdy(request.headers()) {
        spdy::accept(request, options)
    } else {
        Err(HandshakeError::NotAnUpgrade)
    }
}

/// Terminal sizes arrive as JSON objects one after the other, cut anywhere.
#[derive(Default)]
struct SizeParser(Vec<u8>);

impl SizeParser {
    fn push(&mut self, bytes: &[u8]) -> Vec<TerminalSize> {
        // One object is about thirty bytes; what is not closed within this is not a size.
        const PENDING_BYTES_MAX: usize = 1024;
        let mut sizes = Vec::new();
        for byte in bytes {
            self.0.push(*byte);
            if *byte == b'}' {
                sizes.extend(serde_json::from_slice::<TerminalSize>(&self.0).ok());
                self.0.clear();
            } else if self.0.len() > PENDING_BYTES_MAX {
                self.0.clear();
            }
        }
        sizes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_should_be_read_in_both_spellings() {
        let api = CommandOptions::from_query(Some("command=sh&stdin=true&stdout=true&stderr=true&tty=true"));
        let agent = CommandOptions::from_query(Some("command=sh&input=1&output=1&tty=1"));
        assert_eq!(api, agent);
        assert_eq!(api, CommandOptions { stdin: true, stdout: true, stderr: false, tty: true });
    }

    #[test]
    fn terminal_sizes_should_be_found_however_they_are_cut() {
        let mut parser = SizeParser::default();
        assert_eq!(parser.push(b"{\"Width\":80,\"Hei"), []);
        let sizes = parser.push(b"ght\":24}\n{\"Width\":100,\"Height\":30}\n");
        assert_eq!(sizes, [TerminalSize { width: 80, height: 24 }, TerminalSize { width: 100, height: 30 }]);
    }
}

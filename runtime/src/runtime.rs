//! The runtime as its owner holds it.

use std::{fs, io::Read, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use k8s_cri::v1::{image_service_server::ImageServiceServer, runtime_service_server::RuntimeServiceServer};
use tokio::{net::UnixListener, task::JoinHandle};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Error, PodNetwork,
    cri::{ImageApi, RuntimeApi},
    engine::Engine,
    streaming_server::StreamingServer,
};

/// Messages carry specifications of pods and output of programs.
const MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long calls under way may take when the runtime ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A running runtime. Ending it leaves all containers running.
pub struct Runtime {
    engine: Arc<Engine>,
    server: JoinHandle<()>,
    shutdown: CancellationToken,
}

/// An image of this node, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSummary {
    /// The digest of its configuration.
    pub id: String,
    /// Its names with tags.
    pub tags: Vec<String>,
    /// Its names with digests.
    pub digests: Vec<String>,
    /// The size of its packed layers.
    pub size_bytes: u64,
}

impl Runtime {
    /// Takes over what runs, cleans up what does not, and serves the runtime interface until `shutdown` fires.
    pub async fn start(
        config: Config,
        network: Arc<dyn PodNetwork>,
        shutdown: CancellationToken,
    ) -> Result<Self, Error> {
        // Two tokens: exits are still heard of while everything is being ended.
        let watching = shutdown.child_token();
        let shutdown = shutdown.child_token();
        let socket = config.socket.clone();
        let engine = Engine::open(config, network, watching).await?;
        let streams = StreamingServer::start(Arc::clone(&engine), shutdown.clone()).await?;
        let runtime = RuntimeServiceServer::new(RuntimeApi::new(Arc::clone(&engine), streams))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let images = ImageServiceServer::new(ImageApi::new(Arc::clone(&engine)));
        let listener = listen(&socket)?;
        let ending = shutdown.clone();
        let server = tokio::spawn(async move {
            let serving = tonic::transport::Server::builder()
                .add_service(runtime)
                .add_service(images)
                .serve_with_incoming_shutdown(
                    UnixListenerStream::new(listener),
                    ending.clone().cancelled_owned(),
                );
            let served = tokio::select! {
                served = serving => served,
                // Streams of events never end by themselves.
                () = async { ending.cancelled().await; tokio::time::sleep(DRAIN_TIMEOUT).await } => Ok(()),
            };
            if let Err(error) = served {
                tracing::error!(%error, "serving the runtime interface");
            }
        });
        Ok(Self { engine, server, shutdown })
    }

    /// Waits until the runtime has ended, after its `shutdown` has fired.
    pub async fn ended(self) {
        if let Err(error) = self.server.await {
            tracing::error!(%error, "the server of the runtime interface");
        }
    }

    /// Loads the images of an archive (`docker save` or OCI layout, packed or not); the result is their names.
    pub async fn load<R: Read + Send + 'static>(&self, archive: R) -> Result<Vec<String>, Error> {
        Ok(self.engine.images.load(archive).await?)
    }

    /// The images of this node.
    pub fn images(&self) -> Vec<ImageSummary> {
        let images = self.engine.images.list();
        let summary = |image: &Arc<crate::image::ImageRecord>| ImageSummary {
            id: image.id.clone(),
            tags: image.tags.iter().cloned().collect(),
            digests: image.digests.iter().cloned().collect(),
            size_bytes: image.size_bytes,
        };
        images.iter().map(summary).collect()
    }

    /// Removes an image by name or identifier; false if there is none.
    pub async fn remove_image(&self, reference: &str) -> Result<bool, Error> {
        let known = self.engine.images.find(reference).is_some();
        self.engine.images.remove(reference, self.engine.layers_in_use()).await?;
        Ok(known)
    }

    /// Ends everything that runs and removes every process, mount, namespace and cgroup of this instance; images stay.
    /// The runtime serves no more afterwards.
    pub async fn destroy_all(self) -> Result<(), Error> {
        self.shutdown.cancel();
        let destroyed = self.engine.destroy_all().await;
        self.engine.end_watching();
        destroyed
    }

    /// [`Runtime::destroy_all`] for a runtime that is not running.
    pub async fn destroy(config: Config, network: Arc<dyn PodNetwork>) -> Result<(), Error> {
        let engine = Engine::open(config, network, CancellationToken::new()).await?;
        let destroyed = engine.destroy_all().await;
        engine.end_watching();
        destroyed
    }
}

fn listen(socket: &std::path::Path) -> Result<UnixListener, Error> {
    let fail = |what: &'static str| Error::io(format!("{what} {}", socket.display()));
    if let Some(parent) = socket.parent() {
        fs::create_dir_all(parent).map_err(fail("making the directory of"))?;
    }
    match std::os::unix::net::UnixStream::connect(socket) {
        Ok(_) => return Err(Error::State(format!("another runtime serves {}", socket.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        // The last one was killed.
        Err(_) => fs::remove_file(socket).map_err(fail("removing the old"))?,
    }
    let listener = UnixListener::bind(socket).map_err(fail("listening on"))?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).map_err(fail("protecting"))?;
    Ok(listener)
}

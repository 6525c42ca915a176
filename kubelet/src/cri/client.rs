//! The CRI client: every call with a time limit, every error with the name of the call.

use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::*;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

/// Calls that only look.
const SHORT: Duration = Duration::from_secs(15);
/// Calls that make or break things, as upstream.
const LONG: Duration = Duration::from_secs(120);
/// Lists of a full node are larger than tonic's default.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Why a call to the runtime failed. Whether a retry helps depends on the code.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct CriError {
    /// The call.
    pub call: &'static str,
    /// gRPC's code.
    pub code: Code,
    /// What the runtime said.
    pub message: String,
}

impl CriError {
    /// The thing is not there: what should go is gone.
    pub fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }

    /// The runtime does not know this call.
    pub fn is_unimplemented(&self) -> bool {
        self.code == Code::Unimplemented
    }

    fn new(call: &'static str, status: &Status) -> Self {
        let message = format!("rpc error: code = {:?} desc = {}", status.code(), status.message());
        Self { call, code: status.code(), message }
    }
}

/// A client of a runtime. Cheap to clone; it connects when it is first used, and again after the runtime restarted.
#[derive(Clone)]
pub struct Cri {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

async fn within<T>(
    call: &'static str,
    limit: Duration,
    reply: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, CriError> {
    let began = std::time::Instant::now();
    let reply = tokio::time::timeout(limit, reply).await;
    tracing::trace!(call, took = ?began.elapsed());
    match reply {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(CriError::new(call, &status)),
        Err(_) => Err(CriError {
            call,
            code: Code::DeadlineExceeded,
            message: "rpc error: code = DeadlineExceeded desc = context deadline exceeded".to_string(),
        }),
    }
}

fn channel(endpoint: &str) -> Channel {
    let path = PathBuf::from(endpoint.strip_prefix("unix://").unwrap_or(endpoint));
    let connect = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connect)
}

impl Cri {
    /// A client of the runtime at this socket, and of the image service at that one if they differ.
    pub fn new(runtime: &str, image: Option<&str>) -> Self {
        let runtime_channel = channel(runtime);
        let image_channel = image.map_or_else(|| runtime_channel.clone(), channel);
        Self {
            runtime: RuntimeServiceClient::new(runtime_channel).max_decoding_message_size(MESSAGE_BYTES_MAX),
            images: ImageServiceClient::new(image_channel).max_decoding_message_size(MESSAGE_BYTES_MAX),
        }
    }

    /// Who the runtime is.
    pub async fn version(&self) -> Result<VersionResponse, CriError> {
        let request = VersionRequest { version: "0.1.0".to_string() };
        within("Version", SHORT, self.runtime.clone().version(request)).await
    }

    /// Whether runtime and network are ready.
    pub async fn status(&self) -> Result<StatusResponse, CriError> {
        within("Status", SHORT, self.runtime.clone().status(StatusRequest { verbose: false })).await
    }

    /// How the runtime names cgroups, where it tells.
    pub async fn runtime_config(&self) -> Result<RuntimeConfigResponse, CriError> {
        within("RuntimeConfig", SHORT, self.runtime.clone().runtime_config(RuntimeConfigRequest {})).await
    }

    /// Tells the runtime the node's pod addresses.
    pub async fn update_pod_cidr(&self, pod_cidr: &str) -> Result<(), CriError> {
        let network_config = Some(NetworkConfig { pod_cidr: pod_cidr.to_string() });
        let request = UpdateRuntimeConfigRequest { runtime_config: Some(RuntimeConfig { network_config }) };
        within("UpdateRuntimeConfig", SHORT, self.runtime.clone().update_runtime_config(request)).await?;
        Ok(())
    }

    /// Makes and starts a sandbox; gives its id.
    pub async fn run_sandbox(&self, config: PodSandboxConfig, handler: String) -> Result<String, CriError> {
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: handler };
        let reply = within("RunPodSandbox", LONG * 2, self.runtime.clone().run_pod_sandbox(request)).await?;
        Ok(reply.pod_sandbox_id)
    }

    /// Stops a sandbox; one that is gone is stopped.
    pub async fn stop_sandbox(&self, id: &str) -> Result<(), CriError> {
        let request = StopPodSandboxRequest { pod_sandbox_id: id.to_string() };
        forgive_absence(within("StopPodSandbox", LONG, self.runtime.clone().stop_pod_sandbox(request)).await)
    }

    /// Removes a sandbox with its containers.
    pub async fn remove_sandbox(&self, id: &str) -> Result<(), CriError> {
        let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_string() };
        let reply = within("RemovePodSandbox", LONG, self.runtime.clone().remove_pod_sandbox(request)).await;
        forgive_absence(reply)
    }

    /// A sandbox's state and addresses.
    pub async fn sandbox_status(&self, id: &str) -> Result<PodSandboxStatusResponse, CriError> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_string(), verbose: false };
        within("PodSandboxStatus", SHORT, self.runtime.clone().pod_sandbox_status(request)).await
    }

    /// Sandboxes, of one pod or of all.
    pub async fn list_sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<PodSandbox>, CriError> {
        let filter = pod_uid.map(|uid| PodSandboxFilter {
            label_selector: [(super::labels::POD_UID.to_string(), uid.to_string())].into(),
            ..Default::default()
        });
        let request = ListPodSandboxRequest { filter };
        Ok(within("ListPodSandbox", SHORT, self.runtime.clone().list_pod_sandbox(request)).await?.items)
    }

    /// Makes a container; gives its id.
    pub async fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String, CriError> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_string(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let reply = within("CreateContainer", LONG, self.runtime.clone().create_container(request)).await?;
        Ok(reply.container_id)
    }

    /// Starts a container.
    pub async fn start_container(&self, id: &str) -> Result<(), CriError> {
        let request = StartContainerRequest { container_id: id.to_string() };
        within("StartContainer", LONG, self.runtime.clone().start_container(request)).await?;
        Ok(())
    }

    /// Signals a container, and kills it after so many seconds.
    pub async fn stop_container(&self, id: &str, timeout_s: i64) -> Result<(), CriError> {
        let request = StopContainerRequest { container_id: id.to_string(), timeout: timeout_s };
        let limit = LONG + Duration::from_secs(u64::try_from(timeout_s).unwrap_or(0));
        forgive_absence(within("StopContainer", limit, self.runtime.clone().stop_container(request)).await)
    }

    /// Removes a container.
    pub async fn remove_container(&self, id: &str) -> Result<(), CriError> {
        let request = RemoveContainerRequest { container_id: id.to_string() };
        let reply = within("RemoveContainer", LONG, self.runtime.clone().remove_container(request)).await;
        forgive_absence(reply)
    }

    /// Containers, of one pod or of all.
    pub async fn list_containers(&self, pod_uid: Option<&str>) -> Result<Vec<Container>, CriError> {
        let filter = pod_uid.map(|uid| ContainerFilter {
            label_selector: [(super::labels::POD_UID.to_string(), uid.to_string())].into(),
            ..Default::default()
        });
        let request = ListContainersRequest { filter };
        Ok(within("ListContainers", SHORT, self.runtime.clone().list_containers(request)).await?.containers)
    }

    /// A container's state; None when it is not there.
    pub async fn container_status(&self, id: &str) -> Result<Option<ContainerStatus>, CriError> {
        let request = ContainerStatusRequest { container_id: id.to_string(), verbose: false };
        match within("ContainerStatus", SHORT, self.runtime.clone().container_status(request)).await {
            Ok(reply) => Ok(reply.status),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tells the runtime that a container's log file was moved.
    pub async fn reopen_log(&self, id: &str) -> Result<(), CriError> {
        let request = ReopenContainerLogRequest { container_id: id.to_string() };
        within("ReopenContainerLog", SHORT, self.runtime.clone().reopen_container_log(request)).await?;
        Ok(())
    }

    /// Runs a command in a container to its end.
    pub async fn exec_sync(
        &self,
        id: &str,
        cmd: Vec<String>,
        limit: Duration,
    ) -> Result<ExecSyncResponse, CriError> {
        let timeout = i64::try_from(limit.as_secs()).unwrap_or(0);
        let request = ExecSyncRequest { container_id: id.to_string(), cmd, timeout };
        // The runtime ends the command; a little longer here, so that its answer arrives.
        let patience = if limit.is_zero() { LONG * 30 } else { limit + Duration::from_secs(5) };
        within("ExecSync", patience, self.runtime.clone().exec_sync(request)).await
    }

    /// Changes what a container may use.
    pub async fn update_container(
        &self,
        id: &str,
        resources: LinuxContainerResources,
    ) -> Result<(), CriError> {
        let request = UpdateContainerResourcesRequest {
            container_id: id.to_string(),
            linux: Some(resources),
            ..UpdateContainerResourcesRequest::default()
        };
        within("UpdateContainerResources", SHORT, self.runtime.clone().update_container_resources(request))
            .await?;
        Ok(())
    }

    /// Where to stream a command from.
    pub async fn exec(&self, request: ExecRequest) -> Result<String, CriError> {
        Ok(within("Exec", SHORT, self.runtime.clone().exec(request)).await?.url)
    }

    /// Where to stream a container's terminal from.
    pub async fn attach(&self, request: AttachRequest) -> Result<String, CriError> {
        Ok(within("Attach", SHORT, self.runtime.clone().attach(request)).await?.url)
    }

    /// Where to stream a pod's ports from.
    pub async fn port_forward(&self, request: PortForwardRequest) -> Result<String, CriError> {
        Ok(within("PortForward", SHORT, self.runtime.clone().port_forward(request)).await?.url)
    }

    /// What containers use.
    pub async fn container_stats(&self) -> Result<Vec<ContainerStats>, CriError> {
        let request = ListContainerStatsRequest { filter: None };
        Ok(within("ListContainerStats", SHORT, self.runtime.clone().list_container_stats(request))
            .await?
            .stats)
    }

    /// How many bytes of memory a container uses, as the kernel counts them against its limit.
    pub async fn memory_usage(&self, id: &str) -> Result<u64, CriError> {
        let request = ContainerStatsRequest { container_id: id.to_string() };
        let reply = within("ContainerStats", SHORT, self.runtime.clone().container_stats(request)).await?;
        let memory = reply.stats.and_then(|stats| stats.memory).unwrap_or_default();
        let value = |value: Option<UInt64Value>| value.map(|value| value.value).filter(|value| *value > 0);
        Ok(value(memory.usage_bytes).or(value(memory.working_set_bytes)).unwrap_or_default())
    }

    /// What pods use, network included, where the runtime tells.
    pub async fn sandbox_stats(&self) -> Result<Vec<PodSandboxStats>, CriError> {
        let request = ListPodSandboxStatsRequest { filter: None };
        Ok(within("ListPodSandboxStats", SHORT, self.runtime.clone().list_pod_sandbox_stats(request))
            .await?
            .stats)
    }

    /// What happens to containers, as it happens.
    pub async fn events(&self) -> Result<tonic::Streaming<ContainerEventResponse>, CriError> {
        let reply = self.runtime.clone().get_container_events(GetEventsRequest {}).await;
        reply.map(tonic::Response::into_inner).map_err(|status| CriError::new("GetContainerEvents", &status))
    }

    /// The node's images.
    pub async fn list_images(&self) -> Result<Vec<Image>, CriError> {
        let request = ListImagesRequest { filter: None };
        Ok(within("ListImages", SHORT, self.images.clone().list_images(request)).await?.images)
    }

    /// One image; None when it is not on the node.
    pub async fn image_status(&self, image: ImageSpec) -> Result<Option<Image>, CriError> {
        let request = ImageStatusRequest { image: Some(image), verbose: false };
        match within("ImageStatus", SHORT, self.images.clone().image_status(request)).await {
            Ok(reply) => Ok(reply.image),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Pulls an image; gives its reference. Takes as long as it takes.
    pub async fn pull_image(
        &self,
        image: ImageSpec,
        auth: Option<AuthConfig>,
        sandbox_config: Option<PodSandboxConfig>,
    ) -> Result<String, CriError> {
        let request = PullImageRequest { image: Some(image), auth, sandbox_config };
        Ok(within("PullImage", LONG * 30, self.images.clone().pull_image(request)).await?.image_ref)
    }

    /// Removes an image.
    pub async fn remove_image(&self, image: &str) -> Result<(), CriError> {
        let spec = ImageSpec { image: image.to_string(), ..Default::default() };
        let request = RemoveImageRequest { image: Some(spec) };
        forgive_absence(within("RemoveImage", LONG, self.images.clone().remove_image(request)).await)
    }

    /// What images take on the disk.
    pub async fn image_fs_info(&self) -> Result<ImageFsInfoResponse, CriError> {
        within("ImageFsInfo", SHORT, self.images.clone().image_fs_info(ImageFsInfoRequest {})).await
    }
}

/// What should go and is not there is gone.
fn forgive_absence<T>(result: Result<T, CriError>) -> Result<(), CriError> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

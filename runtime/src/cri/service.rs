//! The runtime half of the interface. Each call is a translation; the work is the engine's.

use std::{collections::HashMap, pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use k8s_cri::v1::{
    AttachRequest, AttachResponse, CgroupDriver, CheckpointContainerRequest, CheckpointContainerResponse,
    ContainerEventResponse, ContainerFilter, ContainerStatsFilter, ContainerStatsRequest,
    ContainerStatsResponse, ContainerStatusRequest, ContainerStatusResponse, CreateContainerRequest,
    CreateContainerResponse, ExecRequest, ExecResponse, ExecSyncRequest, ExecSyncResponse, GetEventsRequest,
    LinuxRuntimeConfiguration, ListContainerStatsRequest, ListContainerStatsResponse, ListContainersRequest,
    ListContainersResponse, ListMetricDescriptorsRequest, ListMetricDescriptorsResponse,
    ListPodSandboxMetricsRequest, ListPodSandboxMetricsResponse, ListPodSandboxRequest,
    ListPodSandboxResponse, ListPodSandboxStatsRequest, ListPodSandboxStatsResponse, PodSandboxFilter,
    PodSandboxStatsFilter, PodSandboxStatsRequest, PodSandboxStatsResponse, PodSandboxStatusRequest,
    PodSandboxStatusResponse, PortForwardRequest, PortForwardResponse, RemoveContainerRequest,
    RemoveContainerResponse, RemovePodSandboxRequest, RemovePodSandboxResponse, ReopenContainerLogRequest,
    ReopenContainerLogResponse, RunPodSandboxRequest, RunPodSandboxResponse, RuntimeCondition,
    RuntimeConfigRequest, RuntimeConfigResponse, RuntimeFeatures, RuntimeHandler, RuntimeHandlerFeatures,
    RuntimeStatus, StartContainerRequest, StartContainerResponse, StatusRequest, StatusResponse,
    StopContainerRequest, StopContainerResponse, StopPodSandboxRequest, StopPodSandboxResponse,
    UpdateContainerResourcesRequest, UpdateContainerResourcesResponse, UpdateRuntimeConfigRequest,
    UpdateRuntimeConfigResponse, VersionRequest, VersionResponse, runtime_service_server::RuntimeService,
};
use streaming::command::CommandOptions;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

use super::stats::Meter;
use crate::{
    engine::{Engine, OutputLimit},
    error::Error,
    record::{ContainerEntry, Phase, Sandbox},
    streaming_server::{StreamingServer, Ticket},
    time,
};

/// What a synchronous program may print; the rest is dropped.
const EXEC_OUTPUT: OutputLimit = OutputLimit(16 * 1024 * 1024);

pub(crate) struct RuntimeApi {
    engine: Arc<Engine>,
    streams: Arc<StreamingServer>,
    meter: Arc<Meter>,
}

impl RuntimeApi {
    pub(crate) fn new(engine: Arc<Engine>, streams: Arc<StreamingServer>) -> Self {
        Self { engine, streams, meter: Arc::default() }
    }

    /// Measures on a thread where reading files may take its time.
    async fn measure<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Engine, &Meter) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let (engine, meter) = (Arc::clone(&self.engine), Arc::clone(&self.meter));
        let measured = tokio::task::spawn_blocking(move || work(&engine, &meter));
        measured.await.map_err(|error| Status::internal(error.to_string()))
    }

    fn running(&self, id: &str) -> Result<Arc<ContainerEntry>, Status> {
        let entry = self.engine.container(id)?;
        match entry.phase() {
            Phase::Running { .. } => Ok(entry),
            _ => Err(Error::State(format!("container {id:?} is not running")).into()),
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl RuntimeService for RuntimeApi {
    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        Ok(Response::new(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "gantry".into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: "v1".into(),
        }))
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        let request = request.into_inner();
        let config = request.config.ok_or_else(|| Status::invalid_argument("no sandbox config"))?;
        let engine = Arc::clone(&self.engine);
        // In a task of its own: a caller that gives up must not leave half a sandbox.
        let running = tokio::spawn(async move { engine.run_sandbox(config, request.runtime_handler).await });
        let pod_sandbox_id = running.await.map_err(|error| Status::internal(error.to_string()))??;
        Ok(Response::new(RunPodSandboxResponse { pod_sandbox_id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<StopPodSandboxRequest>,
    ) -> Answer<StopPodSandboxResponse> {
        self.engine.stop_sandbox(&request.into_inner().pod_sandbox_id).await?;
        Ok(Response::new(StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<RemovePodSandboxRequest>,
    ) -> Answer<RemovePodSandboxResponse> {
        self.engine.remove_sandbox(&request.into_inner().pod_sandbox_id).await?;
        self.meter.retain(&self.engine);
        Ok(Response::new(RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Answer<PodSandboxStatusResponse> {
        let sandbox = self.engine.sandbox(&request.into_inner().pod_sandbox_id)?;
        let containers = self.engine.containers_of(&sandbox.id);
        Ok(Response::new(PodSandboxStatusResponse {
            status: Some(sandbox.status()),
            info: HashMap::new(),
            containers_statuses: containers.iter().map(|entry| entry.status()).collect(),
            timestamp: time::now(),
        }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<ListPodSandboxRequest>,
    ) -> Answer<ListPodSandboxResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let sandboxes = self.engine.sandboxes();
        let items = sandboxes.iter().filter(|sandbox| sandbox_matches(sandbox, &filter));
        Ok(Response::new(ListPodSandboxResponse { items: items.map(|sandbox| sandbox.summary()).collect() }))
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Answer<CreateContainerResponse> {
        let request = request.into_inner();
        let config = request.config.ok_or_else(|| Status::invalid_argument("no container config"))?;
        let engine = Arc::clone(&self.engine);
        let creating =
            tokio::spawn(async move { engine.create_container(&request.pod_sandbox_id, config).await });
        let container_id = creating.await.map_err(|error| Status::internal(error.to_string()))??;
        Ok(Response::new(CreateContainerResponse { container_id }))
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Answer<StartContainerResponse> {
        let engine = Arc::clone(&self.engine);
        let starting =
            tokio::spawn(async move { engine.start_container(&request.into_inner().container_id).await });
        starting.await.map_err(|error| Status::internal(error.to_string()))??;
        Ok(Response::new(StartContainerResponse {}))
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        let request = request.into_inner();
        let timeout = Duration::from_secs(u64::try_from(request.timeout).unwrap_or_default());
        self.engine.stop_container(&request.container_id, timeout).await?;
        Ok(Response::new(StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Answer<RemoveContainerResponse> {
        self.engine.remove_container(&request.into_inner().container_id).await?;
        self.meter.retain(&self.engine);
        Ok(Response::new(RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Answer<ListContainersResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let containers = self.engine.containers();
        let matching = containers.iter().filter(|entry| container_matches(entry, &filter));
        Ok(Response::new(ListContainersResponse {
            containers: matching.map(|entry| entry.summary()).collect(),
        }))
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Answer<ContainerStatusResponse> {
        let entry = self.engine.container(&request.into_inner().container_id)?;
        Ok(Response::new(ContainerStatusResponse { status: Some(entry.status()), info: HashMap::new() }))
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        self.engine.update_resources(&request.container_id, request.linux.unwrap_or_default()).await?;
        Ok(Response::new(UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Answer<ReopenContainerLogResponse> {
        self.engine.reopen_log(&request.into_inner().container_id).await?;
        Ok(Response::new(ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let request = request.into_inner();
        let entry = self.running(&request.container_id)?;
        let seconds = u64::try_from(request.timeout).unwrap_or_default();
        let timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
        match self.engine.exec_sync(&entry.id, request.cmd, timeout, EXEC_OUTPUT).await? {
            Some(output) => Ok(Response::new(ExecSyncResponse {
                stdout: output.stdout,
                stderr: output.stderr,
                exit_code: output.code,
            })),
            None => Err(Status::deadline_exceeded(format!("the command took longer than {seconds} s"))),
        }
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<ExecResponse> {
        let request = request.into_inner();
        let entry = self.running(&request.container_id)?;
        let options = options(request.stdin, request.stdout, request.stderr, request.tty)?;
        let ticket = Ticket::Exec { container: entry.id.clone(), args: request.cmd, options };
        Ok(Response::new(ExecResponse { url: self.streams.url(ticket)? }))
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Answer<AttachResponse> {
        let request = request.into_inner();
        let entry = self.running(&request.container_id)?;
        let options = options(request.stdin, request.stdout, request.stderr, request.tty)?;
        let ticket = Ticket::Attach { container: entry.id.clone(), options };
        Ok(Response::new(AttachResponse { url: self.streams.url(ticket)? }))
    }

    async fn port_forward(&self, request: Request<PortForwardRequest>) -> Answer<PortForwardResponse> {
        let sandbox = self.engine.sandbox(&request.into_inner().pod_sandbox_id)?;
        if sandbox.record.read().stopped {
            return Err(Error::State(format!("sandbox {:?} is not running", sandbox.id)).into());
        }
        let ticket = Ticket::PortForward { sandbox: sandbox.id.clone() };
        Ok(Response::new(PortForwardResponse { url: self.streams.url(ticket)? }))
    }

    async fn container_stats(
        &self,
        request: Request<ContainerStatsRequest>,
    ) -> Answer<ContainerStatsResponse> {
        let entry = self.engine.container(&request.into_inner().container_id)?;
        let stats = self.measure(move |engine, meter| meter.container(engine, &entry)).await?;
        Ok(Response::new(ContainerStatsResponse { stats }))
    }

    async fn list_container_stats(
        &self,
        request: Request<ListContainerStatsRequest>,
    ) -> Answer<ListContainerStatsResponse> {
        let ContainerStatsFilter { id, pod_sandbox_id, label_selector } =
            request.into_inner().filter.unwrap_or_default();
        let filter = ContainerFilter { id, pod_sandbox_id, label_selector, state: None };
        let entries = self.engine.containers();
        let stats = self.measure(move |engine, meter| {
            let matching = entries.iter().filter(|entry| container_matches(entry, &filter));
            matching.filter_map(|entry| meter.container(engine, entry)).collect()
        });
        Ok(Response::new(ListContainerStatsResponse { stats: stats.await? }))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<PodSandboxStatsRequest>,
    ) -> Answer<PodSandboxStatsResponse> {
        let sandbox = self.engine.sandbox(&request.into_inner().pod_sandbox_id)?;
        let stats = self.measure(move |engine, meter| meter.sandbox(engine, &sandbox)).await?;
        Ok(Response::new(PodSandboxStatsResponse { stats: Some(stats) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<ListPodSandboxStatsRequest>,
    ) -> Answer<ListPodSandboxStatsResponse> {
        let PodSandboxStatsFilter { id, label_selector } = request.into_inner().filter.unwrap_or_default();
        let filter = PodSandboxFilter { id, label_selector, state: None };
        let sandboxes = self.engine.sandboxes();
        let stats = self.measure(move |engine, meter| {
            let ready = sandboxes.iter().filter(|sandbox| !sandbox.record.read().stopped);
            ready
                .filter(|sandbox| sandbox_matches(sandbox, &filter))
                .map(|sandbox| meter.sandbox(engine, sandbox))
                .collect()
        });
        Ok(Response::new(ListPodSandboxStatsResponse { stats: stats.await? }))
    }

    async fn update_runtime_config(
        &self,
        _: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        // The only setting is the range of pod addresses, which the pod network learns by itself.
        Ok(Response::new(UpdateRuntimeConfigResponse {}))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        let condition = |kind: &str, problem: Option<String>| RuntimeCondition {
            r#type: kind.to_owned(),
            status: problem.is_none(),
            reason: problem.as_ref().map(|_| format!("{kind}Failed")).unwrap_or_default(),
            message: problem.unwrap_or_default(),
        };
        let network = self.engine.network.ready().await.err().map(|error| error.to_string());
        let conditions = vec![condition("RuntimeReady", None), condition("NetworkReady", network)];
        Ok(Response::new(StatusResponse {
            status: Some(RuntimeStatus { conditions }),
            info: HashMap::new(),
            runtime_handlers: vec![RuntimeHandler {
                name: String::new(),
                features: Some(RuntimeHandlerFeatures {
                    recursive_read_only_mounts: false,
                    user_namespaces: false,
                }),
            }],
            features: Some(RuntimeFeatures { supplemental_groups_policy: true }),
        }))
    }

    async fn checkpoint_container(
        &self,
        _: Request<CheckpointContainerRequest>,
    ) -> Answer<CheckpointContainerResponse> {
        Err(Status::unimplemented("checkpoints are not supported"))
    }

    type GetContainerEventsStream =
        Pin<Box<dyn Stream<Item = Result<ContainerEventResponse, Status>> + Send>>;

    async fn get_container_events(
        &self,
        _: Request<GetEventsRequest>,
    ) -> Answer<Self::GetContainerEventsStream> {
        let events = BroadcastStream::new(self.engine.subscribe());
        // A listener that has missed some must look at everything again: it is told by the stream's end.
        let events = events.map(|event| event.map_err(|error| Status::data_loss(error.to_string())));
        Ok(Response::new(Box::pin(events)))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<ListMetricDescriptorsRequest>,
    ) -> Answer<ListMetricDescriptorsResponse> {
        Ok(Response::new(ListMetricDescriptorsResponse { descriptors: Vec::new() }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<ListPodSandboxMetricsRequest>,
    ) -> Answer<ListPodSandboxMetricsResponse> {
        Ok(Response::new(ListPodSandboxMetricsResponse { pod_metrics: Vec::new() }))
    }

    async fn runtime_config(&self, _: Request<RuntimeConfigRequest>) -> Answer<RuntimeConfigResponse> {
        let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs.into() };
        Ok(Response::new(RuntimeConfigResponse { linux: Some(linux) }))
    }
}

fn options(stdin: bool, stdout: bool, stderr: bool, tty: bool) -> Result<CommandOptions, Status> {
    if tty && stderr {
        return Err(Status::invalid_argument("a terminal has no separate error output"));
    }
    if !stdin && !stdout && !stderr {
        return Err(Status::invalid_argument("one of stdin, stdout and stderr must be set"));
    }
    Ok(CommandOptions { stdin, stdout, stderr, tty })
}

fn has_labels(labels: &HashMap<String, String>, selector: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn sandbox_matches(sandbox: &Sandbox, filter: &PodSandboxFilter) -> bool {
    let wanted_state = filter.state.as_ref().map(|value| value.state());
    sandbox.id.starts_with(&filter.id)
        && wanted_state.is_none_or(|state| state == sandbox.state())
        && has_labels(&sandbox.record.read().config.labels, &filter.label_selector)
}

fn container_matches(entry: &ContainerEntry, filter: &ContainerFilter) -> bool {
    let wanted_state = filter.state.as_ref().map(|value| value.state());
    entry.id.starts_with(&filter.id)
        && entry.sandbox_id.starts_with(&filter.pod_sandbox_id)
        && wanted_state.is_none_or(|state| state == entry.phase().state())
        && has_labels(&entry.record.read().config.labels, &filter.label_selector)
}

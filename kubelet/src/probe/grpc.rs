//! gRPC's health check (`grpc.health.v1`), as far as a probe needs it.

use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message;
use tonic::transport::Endpoint;

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

/// Asks a server whether a service is well.
pub async fn check(host: &str, port: u16, service: &str, limit: Duration) -> Result<(), String> {
    let shown = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
    let asking = ask(format!("http://{shown}:{port}"), service);
    match tokio::time::timeout(limit, asking).await {
        Ok(Ok(SERVING)) => Ok(()),
        Ok(Ok(_)) => Err("service unhealthy (responded with \"NOT_SERVING\")".to_string()),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(format!(
            "timeout: failed to connect service \"{shown}:{port}\" within {limit:?}: context deadline exceeded"
        )),
    }
}

async fn ask(url: String, service: &str) -> Result<i32, String> {
    let endpoint = Endpoint::from_shared(url).map_err(|error| error.to_string())?;
    let channel = endpoint.connect().await.map_err(|error| format!("error: failed to connect: {error}"))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| error.to_string())?;
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_string() });
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let reply = client.unary(request, path, codec).await.map_err(|status| status.to_string())?;
    Ok(reply.into_inner().status)
}

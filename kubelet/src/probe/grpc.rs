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

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    /// Answers health checks: the service "well" serves, others do not.
    async fn health_server() -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service =
                    hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| async {
                        let asked = request.into_body().collect().await.unwrap().to_bytes();
                        let status = if asked.ends_with(b"well") { 1 } else { 2 };
                        let mut trailers = http::HeaderMap::new();
                        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                        let message = Bytes::from(vec![0, 0, 0, 0, 2, 8, status]);
                        let body = Full::new(message).with_trailers(async move { Some(Ok(trailers)) });
                        let reply = http::Response::builder().header("content-type", "application/grpc");
                        Ok::<_, std::convert::Infallible>(reply.body(body).unwrap())
                    });
                let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(
                    async move { drop(serving.serve_connection(TokioIo::new(stream), service).await) },
                );
            }
        });
        port
    }

    #[tokio::test]
    async fn a_service_that_serves_is_well_and_others_are_not() {
        let port = health_server().await;
        let limit = Duration::from_secs(5);
        check("127.0.0.1", port, "well", limit).await.unwrap();
        let error = check("127.0.0.1", port, "sick", limit).await.unwrap_err();
        assert!(error.contains("NOT_SERVING"), "{error}");
        assert!(check("127.0.0.1", 1, "", limit).await.unwrap_err().contains("failed to connect"));
    }
}

//! Pulling from a registry that the test serves itself, and running what was pulled: needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod helpers;

use std::{
    collections::HashMap,
    convert::Infallible,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use helpers::{Node, can_run, sha256, shell};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use k8s_cri::v1::*;
use tokio::net::TcpListener;

/// A registry with one image, `app:v1`, that asks for a password.
struct Registry {
    blobs: HashMap<String, Vec<u8>>,
    manifest: Vec<u8>,
    index: Vec<u8>,
    layer_fetches: AtomicUsize,
    layer: String,
}

impl Registry {
    fn new(corrupt: bool) -> Self {
        let archive = helpers::busybox_archive(&[]);
        let mut archive = tar::Archive::new(&archive[..]);
        let (mut layer, mut config) = (Vec::new(), Vec::new());
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let into = if name == "config.json" { &mut config } else { &mut layer };
            if name != "manifest.json" {
                std::io::Read::read_to_end(&mut entry, into).unwrap();
            }
        }
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&layer).unwrap();
        let mut layer = packed.finish().unwrap();
        let layer_digest = sha256(&layer);
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "size": config.len(), "digest": sha256(&config) },
            "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "size": layer.len(), "digest": layer_digest }],
        })
        .to_string()
        .into_bytes();
        let index = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "size": manifest.len(),
                "digest": sha256(&manifest),
                "platform": { "os": "linux", "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" } },
            }],
        })
        .to_string()
        .into_bytes();
        let config_digest = sha256(&config);
        if corrupt {
            let middle = layer.len() / 2;
            layer[middle] ^= 1;
        }
        Self {
            blobs: [(layer_digest.clone(), layer), (config_digest, config)].into(),
            manifest,
            index,
            layer_fetches: AtomicUsize::new(0),
            layer: layer_digest,
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<bytes::Bytes>> {
        let respond = |status: StatusCode, kind: &str, digest: &str, body: Vec<u8>| {
            Response::builder()
                .status(status)
                .header("content-type", kind)
                .header("docker-content-digest", digest)
                .body(Full::new(bytes::Bytes::from(body)))
                .unwrap()
        };
        let authorized =
            request.headers().get("authorization").is_some_and(|value| value == "Basic dXNlcjpwYXNz");
        if !authorized {
            let mut refusal = Response::new(Full::new(bytes::Bytes::new()));
            *refusal.status_mut() = StatusCode::UNAUTHORIZED;
            refusal.headers_mut().insert("www-authenticate", "Basic realm=\"test\"".parse().unwrap());
            return refusal;
        }
        let path = request.uri().path();
        let digest = path.rsplit('/').next().unwrap();
        if path == "/v2/" {
            return respond(StatusCode::OK, "application/json", "sha256:0", b"{}".to_vec());
        }
        if path.ends_with("/manifests/v1") || digest == sha256(&self.index) {
            let digest = sha256(&self.index);
            return respond(
                StatusCode::OK,
                "application/vnd.oci.image.index.v1+json",
                &digest,
                self.index.clone(),
            );
        }
        if digest == sha256(&self.manifest) {
            let kind = "application/vnd.oci.image.manifest.v1+json";
            return respond(StatusCode::OK, kind, digest, self.manifest.clone());
        }
        match self.blobs.get(digest) {
            Some(blob) => {
                if digest == self.layer {
                    self.layer_fetches.fetch_add(1, Ordering::Relaxed);
                }
                respond(StatusCode::OK, "application/octet-stream", digest, blob.clone())
            }
            None => respond(StatusCode::NOT_FOUND, "application/json", "sha256:0", b"{}".to_vec()),
        }
    }

    async fn serve(self: Arc<Self>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let registry = Arc::clone(&self);
                let service = service_fn(move |request| {
                    let answer = registry.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                tokio::spawn(async move {
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                        .ok();
                });
            }
        });
        port
    }
}

fn pull(image: &str, password: &str) -> PullImageRequest {
    PullImageRequest {
        image: Some(ImageSpec { image: image.into(), ..ImageSpec::default() }),
        auth: Some(AuthConfig {
            username: "user".into(),
            password: password.into(),
            ..AuthConfig::default()
        }),
        sandbox_config: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_should_be_pulled_once_however_often_it_is_asked_for() {
    if !can_run() {
        return;
    }
    let mut node = Node::start().await;
    let registry = Arc::new(Registry::new(false));
    let port = Arc::clone(&registry).serve().await;
    let name = format!("127.0.0.1:{port}/team/app:v1");
    let pulls = (0..5).map(|_| {
        let (mut images, name) = (node.images.clone(), name.clone());
        async move { images.pull_image(pull(&name, "pass")).await.unwrap().into_inner().image_ref }
    });
    let ids = futures::future::join_all(pulls).await;
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(registry.layer_fetches.load(Ordering::Relaxed), 1);
    // By digest it is the same image, and nothing is fetched again.
    let by_digest = format!("127.0.0.1:{port}/team/app@{}", sha256(&registry.index));
    let id = node.images.pull_image(pull(&by_digest, "pass")).await.unwrap().into_inner().image_ref;
    assert_eq!((id.as_str(), registry.layer_fetches.load(Ordering::Relaxed)), (ids[0].as_str(), 1));
    let request = ImageStatusRequest { image: pull(&by_digest, "").image, verbose: false };
    let image = node.images.image_status(request).await.unwrap().into_inner().image.unwrap();
    assert_eq!(image.repo_tags, std::slice::from_ref(&name));
    assert!(image.repo_digests.contains(&by_digest));
    let sandbox = node.sandbox("pulled").await;
    let mut config = shell("echo runs");
    config.image = Some(ImageSpec { image: id, ..ImageSpec::default() });
    assert_eq!(node.output_of(&sandbox, config).await, (0, "runs".into()));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_should_fail_with_words_and_leave_nothing() {
    if !can_run() {
        return;
    }
    let mut node = Node::start().await;
    let port = Arc::new(Registry::new(true)).serve().await;
    let wrong_password =
        node.images.pull_image(pull(&format!("127.0.0.1:{port}/team/app:v1"), "wrong")).await;
    assert!(wrong_password.unwrap_err().message().contains("uthoriz"));
    let missing = node.images.pull_image(pull(&format!("127.0.0.1:{port}/team/app:v2"), "pass")).await;
    assert!(missing.unwrap_err().message().contains("team/app:v2"));
    let corrupt =
        node.images.pull_image(pull(&format!("127.0.0.1:{port}/team/app:v1"), "pass")).await.unwrap_err();
    assert!(corrupt.message().to_lowercase().contains("digest"), "{corrupt:?}");
    let nobody = node.images.pull_image(pull("127.0.0.1:1/x:v1", "pass")).await.unwrap_err();
    assert!(nobody.message().contains("127.0.0.1:1/x:v1"), "{nobody:?}");
    let malformed = node.images.pull_image(pull("UPPER CASE", "pass")).await.unwrap_err();
    assert_eq!(malformed.code(), tonic::Code::InvalidArgument);
    assert!(
        node.images
            .list_images(ListImagesRequest { filter: None })
            .await
            .unwrap()
            .into_inner()
            .images
            .is_empty()
    );
    for directory in ["layers", "ingest", "images"] {
        assert_eq!(std::fs::read_dir(node.config.root.join(directory)).unwrap().count(), 0, "{directory}");
    }
    node.finish().await;
}

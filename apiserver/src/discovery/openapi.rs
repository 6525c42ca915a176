//! OpenAPI v2 and v3 documents: made when first asked for, then served from memory.
//!
//! Guarantees that a document is made once for all that ask at the same time and is kept compressed: clients that want
//! it plain are rare, and the whole of v2 is megabytes. The documents are dropped when the table changes. Version 3
//! paths carry the document's hash, so that clients keep them for a year.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::Arc;

use api::openapi::{self, Source};
use api::{ApiError, ResourceTable};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, EXPIRES, HeaderName, HeaderValue,
    IF_NONE_MATCH, VARY,
};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde_json::{Map, json};
use sha2::{Digest, Sha256};

use crate::http::negotiate::{Encoding, accepted};
use crate::http::query::Query;
use crate::http::respond::{self, Failure};
use crate::http::{JSON, Response, body};
use crate::objects::Objects;
use crate::pipeline::{Core, no_such_path};

/// Which document.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    V2Json,
    V2Protobuf,
    V3(String, String),
}

/// A document as it is kept.
#[derive(Clone)]
struct Document {
    compressed: Bytes,
    hash: Arc<str>,
}

struct Made {
    /// The table that the documents were made from.
    table: Arc<ResourceTable>,
    documents: HashMap<Key, Document>,
}

/// The documents made so far.
#[derive(Default)]
pub(crate) struct OpenApi {
    made: Mutex<Option<Made>>,
}

impl OpenApi {
    /// Serves a document.
    pub async fn answer(
        core: &Arc<Core>,
        request: &Parts,
        path: &str,
        query: &Query,
    ) -> Result<Response, Failure> {
        let parts: Vec<&str> = path.trim_start_matches("/openapi/").split('/').collect();
        match parts.as_slice() {
            ["v2"] => {
                let (key, media_type) = v2_form(&request.headers)?;
                let document = document(core, key).await?.ok_or_else(no_such_path)?;
                plain(&request.headers, &document, media_type)
            }
            ["v3"] => index(core).await,
            ["v3", "api", version] => v3(core, request, query, "", version).await,
            ["v3", "apis", group, version] => v3(core, request, query, group, version).await,
            _ => Err(no_such_path()),
        }
    }

    fn get_or_make(
        &self,
        objects: &Objects,
        table: &Arc<ResourceTable>,
        key: &Key,
    ) -> Result<Option<Document>, String> {
        // Held while the document is made, so that it is made once.
        let mut made = self.made.lock();
        if made.as_ref().is_none_or(|m| !Arc::ptr_eq(&m.table, table)) {
            *made = Some(Made { table: table.clone(), documents: HashMap::new() });
        }
        let Some(made) = made.as_mut() else { return Ok(None) };
        if let Some(document) = made.documents.get(key) {
            return Ok(Some(document.clone()));
        }
        let Some(bytes) = make(objects, table, key) else { return Ok(None) };
        let hash = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02X}")).collect::<String>().into();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let compressed =
            encoder.write_all(&bytes).and_then(|()| encoder.finish()).map_err(|e| e.to_string())?;
        let document = Document { compressed: compressed.into(), hash };
        made.documents.insert(key.clone(), document.clone());
        Ok(Some(document))
    }
}

/// Makes a document beside the requests that are being served.
async fn document(core: &Arc<Core>, key: Key) -> Result<Option<Document>, Failure> {
    let (core, table) = (core.clone(), core.table());
    let made =
        tokio::task::spawn_blocking(move || core.openapi.get_or_make(&core.objects, &table, &key)).await;
    match made {
        Ok(Ok(document)) => Ok(document),
        Ok(Err(why)) => Err(ApiError::internal(format!("the OpenAPI document: {why}")).into()),
        Err(error) => Err(ApiError::internal(format!("the OpenAPI document: {error}")).into()),
    }
}

fn make(objects: &Objects, table: &ResourceTable, key: &Key) -> Option<Vec<u8>> {
    let source = Source {
        rows: table.rows(),
        custom_schema: &|row, served| crate::custom::schema_of(objects, row, served),
    };
    match key {
        Key::V2Json => Some(openapi::v2_json(&source)),
        Key::V2Protobuf => Some(openapi::v2_protobuf(&source)),
        Key::V3(group, version) => openapi::v3_json(&source, group, version),
    }
}

/// Version 2 is asked for by `application/json`, or by the names of its protobuf form.
fn v2_form(headers: &HeaderMap) -> Result<(Key, &'static str), Failure> {
    let ranges = accepted(headers);
    if ranges.is_empty() {
        return Ok((Key::V2Json, JSON));
    }
    for range in &ranges {
        match range.media_type.as_str() {
            "application/json" | "*/*" | "application/*" => return Ok((Key::V2Json, JSON)),
            kind if kind.starts_with("application/com.github.proto-openapi.spec.v2") => {
                return Ok((Key::V2Protobuf, openapi::V2_PROTOBUF));
            }
            _ => {}
        }
    }
    let message = "only the following media types are accepted: application/json, application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    Err(ApiError::new(api::Reason::NotAcceptable, message).into())
}

/// `/openapi/v3`: every version with the path that names its document's hash.
async fn index(core: &Arc<Core>) -> Result<Response, Failure> {
    let table = core.table();
    let mut paths = Map::new();
    let versions =
        table.groups().into_iter().flat_map(|g| table.versions(g).into_iter().map(move |v| (g, v)));
    let versions: Vec<(String, String)> = versions.map(|(g, v)| (g.to_string(), v.to_string())).collect();
    for (group, version) in versions {
        let path = match group.as_str() {
            "" => format!("api/{version}"),
            group => format!("apis/{group}/{version}"),
        };
        if let Some(document) = document(core, Key::V3(group, version)).await? {
            let address = format!("/openapi/v3/{path}?hash={}", document.hash);
            paths.insert(path, json!({"serverRelativeURL": address}));
        }
    }
    Ok(respond::value(StatusCode::OK, &json!({"paths": paths}), Encoding::Json))
}

async fn v3(
    core: &Arc<Core>,
    request: &Parts,
    query: &Query,
    group: &str,
    version: &str,
) -> Result<Response, Failure> {
    let key = Key::V3(group.to_string(), version.to_string());
    let document = document(core, key).await?.ok_or_else(no_such_path)?;
    let mut response = plain(&request.headers, &document, JSON)?;
    match query.get("hash") {
        Some(hash) if hash == &*document.hash => {
            let headers = response.headers_mut();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
            let next_year = jiff::Timestamp::now()
                .saturating_add(jiff::SignedDuration::from_hours(365 * 24))
                .map(|at| at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
            if let Some(value) = next_year.ok().and_then(|at| HeaderValue::try_from(at).ok()) {
                headers.insert(EXPIRES, value);
            }
            Ok(response)
        }
        Some(_) => {
            let path =
                if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            let mut moved = Response::new(body::empty());
            *moved.status_mut() = StatusCode::MOVED_PERMANENTLY;
            let address = format!("/openapi/v3/{path}?hash={}", document.hash);
            if let Ok(value) = HeaderValue::try_from(address) {
                moved.headers_mut().insert(http::header::LOCATION, value);
            }
            Ok(moved)
        }
        None => Ok(response),
    }
}

/// The document as the client can read it; 304 when it has it already.
fn plain(headers: &HeaderMap, document: &Document, media_type: &'static str) -> Result<Response, Failure> {
    let tag = format!("\"{}\"", document.hash);
    let text = |name: HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut response = Response::new(body::empty());
    if text(IF_NONE_MATCH) == tag {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else if text(ACCEPT_ENCODING).contains("gzip") {
        *response.body_mut() = body::full(document.compressed.clone());
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    } else {
        let mut bytes = Vec::new();
        GzDecoder::new(&document.compressed[..])
            .read_to_end(&mut bytes)
            .map_err(|error| ApiError::internal(format!("the OpenAPI document: {error}")))?;
        *response.body_mut() = body::full(bytes);
    }
    let target = response.headers_mut();
    target.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    target.insert(VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    if let Ok(value) = HeaderValue::try_from(tag) {
        target.insert(ETAG, value);
    }
    Ok(response)
}

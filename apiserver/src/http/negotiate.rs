//! In which form a client wants its answer: encoding, and whether the object itself, a table or its metadata alone.
//!
//! Deliberately absent: protobuf and CBOR. A client that accepts only protobuf gets JSON all the same: Go's client
//! reads an answer as what its content type says, so that it goes on where a 406 would end it. Whoever accepts nothing
//! that is known gets 406.

use api::{ApiError, Reason};
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, USER_AGENT};

use super::query::Query;
use crate::protobuf::PROTOBUF;

/// How the answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Encoding {
    #[default]
    Json,
    PrettyJson,
    Yaml,
}

/// What the answer shows of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum View {
    /// The object itself.
    #[default]
    Whole,
    /// `meta.k8s.io/v1 Table`
    Table,
    /// `meta.k8s.io/v1 PartialObjectMetadata` and its list.
    Metadata,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Form {
    pub encoding: Encoding,
    pub view: View,
    /// Whether the client can read gzip.
    pub gzip: bool,
}

/// One entry of an Accept header.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MediaRange {
    pub media_type: String,
    pub parameters: Vec<(String, String)>,
    pub quality: f32,
}

impl MediaRange {
    /// The value of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// The entries of the Accept headers, the preferred ones first.
pub(crate) fn accepted(headers: &HeaderMap) -> Vec<MediaRange> {
    let mut ranges: Vec<MediaRange> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(media_range)
        .collect();
    ranges.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    ranges
}

fn media_range(text: &str) -> Option<MediaRange> {
    let mut parts = text.split(';').map(str::trim);
    let media_type = parts.next().filter(|t| !t.is_empty())?.to_ascii_lowercase();
    let mut range = MediaRange { media_type, parameters: Vec::new(), quality: 1.0 };
    for (name, value) in parts.filter_map(|p| p.split_once('=')) {
        match name {
            "q" => range.quality = value.parse().unwrap_or(1.0),
            _ => range.parameters.push((name.to_string(), value.to_string())),
        }
    }
    Some(range)
}

/// Decides on the form of the answer to a request for objects. Reviews and the like have no views: they are no objects
/// that could be listed.
pub(crate) fn negotiate(headers: &HeaderMap, query: &Query, has_views: bool) -> Result<Form, ApiError> {
    let gzip = headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .any(|v| v.split(',').any(|e| e.trim().split(';').next() == Some("gzip")));
    let pretty = wants_pretty(headers, query);
    let json = if pretty { Encoding::PrettyJson } else { Encoding::Json };
    let ranges = accepted(headers);
    if ranges.is_empty() {
        return Ok(Form { encoding: json, view: View::Whole, gzip });
    }
    let encoding_of = |range: &MediaRange| match range.media_type.as_str() {
        "application/json" | "*/*" | "application/*" => Some(json),
        "application/yaml" => Some(Encoding::Yaml),
        _ => None,
    };
    // What is not spoken comes last, whatever the client prefers.
    let spoken = ranges.iter().filter_map(|range| Some((encoding_of(range)?, range)));
    let unspoken = ranges.iter().filter(|range| range.media_type == PROTOBUF).map(|range| (json, range));
    for (encoding, range) in spoken.chain(unspoken) {
        if let Some(view) = view_of(range).filter(|view| has_views || *view == View::Whole) {
            return Ok(Form { encoding, view, gzip });
        }
    }
    Err(ApiError::new(
        Reason::NotAcceptable,
        "only the following media types are accepted: application/json, application/yaml",
    ))
}

fn view_of(range: &MediaRange) -> Option<View> {
    let Some(kind) = range.parameter("as") else { return Some(View::Whole) };
    if range.parameter("g") != Some("meta.k8s.io") || range.parameter("v") != Some("v1") {
        return None;
    }
    match kind {
        "Table" => Some(View::Table),
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Some(View::Metadata),
        _ => None,
    }
}

fn wants_pretty(headers: &HeaderMap, query: &Query) -> bool {
    if let Some(asked) = query.flag_option("pretty") {
        return asked;
    }
    let agent = headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|browser| agent.starts_with(browser))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(accept: &str) -> Result<Form, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        negotiate(&headers, &Query::default(), true)
    }

    #[test]
    fn the_first_form_that_can_be_served_should_win() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(form(kubectl).unwrap().view, View::Table);
        assert_eq!(
            form("application/vnd.kubernetes.protobuf,application/json").unwrap().encoding,
            Encoding::Json
        );
        assert_eq!(form("application/yaml").unwrap().encoding, Encoding::Yaml);
        assert_eq!(form("application/json;q=0.1,application/yaml").unwrap().encoding, Encoding::Yaml);
        assert_eq!(form("application/json;stream=watch").unwrap().encoding, Encoding::Json);
    }

    #[test]
    fn a_client_that_asks_only_for_protobuf_should_get_json_and_others_hear_406() {
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        assert_eq!(form("application/vnd.kubernetes.protobuf").unwrap().encoding, Encoding::Json);
        assert_eq!(form(metadata).unwrap().view, View::Metadata);
        assert_eq!(form("text/html").unwrap_err().reason, Reason::NotAcceptable);
    }

    #[test]
    fn what_has_no_views_should_be_shown_whole_or_not_at_all() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let without_views = |accept: String| {
            let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
            negotiate(&headers, &Query::default(), false)
        };
        assert_eq!(without_views(table.to_string()).unwrap_err().reason, Reason::NotAcceptable);
        assert_eq!(without_views(format!("{table},application/json")).unwrap().view, View::Whole);
    }
}

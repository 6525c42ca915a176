//! The HTTP half of an upgrade: telling what a client wants, agreeing on a protocol, and the answers.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};

/// The body of every answer of this crate: empty for an upgrade, the backend's own for an answer passed through.
pub type UpgradeBody = UnsyncBoxBody<Bytes, hyper::Error>;

/// The header by which SPDY clients name the session protocols they speak, best first.
pub(crate) const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
pub(crate) const SPDY: &str = "SPDY/3.1";

/// Why a request cannot become a stream. [`HandshakeError::into_response`] is the answer to give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The request does not ask for an upgrade, or not for one of ours.
    #[error("unable to upgrade: expected a WebSocket or SPDY/3.1 upgrade request")]
    NotAnUpgrade,
    /// None of the protocols that the client speaks is spoken here.
    #[error("unable to upgrade: no common protocol; the client speaks {client:?}, the server {server:?}")]
    NoCommonProtocol {
        /// What the client offered.
        client: Vec<String>,
        /// What is served here.
        server: Vec<String>,
    },
    /// A WebSocket request without its key, or a parameter that does not parse.
    #[error("unable to upgrade: {0}")]
    Malformed(&'static str),
}

impl HandshakeError {
    /// The refusal as HTTP.
    pub fn into_response(self) -> Response<UpgradeBody> {
        let status = match self {
            Self::NoCommonProtocol { .. } => StatusCode::FORBIDDEN,
            Self::NotAnUpgrade | Self::Malformed(_) => StatusCode::BAD_REQUEST,
        };
        text_response(status, self.to_string())
    }
}

/// Whether the request asks to leave HTTP at all.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
        && values(headers, header::CONNECTION.as_str()).any(|token| token.eq_ignore_ascii_case("upgrade"))
}

/// Whether the request asks for a WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    is_upgrade(headers)
        && values(headers, header::UPGRADE.as_str()).any(|token| token.eq_ignore_ascii_case("websocket"))
}

/// Whether the request asks for SPDY/3.1.
pub fn is_spdy(headers: &HeaderMap) -> bool {
    is_upgrade(headers)
        && values(headers, header::UPGRADE.as_str()).any(|token| token.eq_ignore_ascii_case(SPDY))
}

/// All comma-separated values of a header, over all its lines.
pub(crate) fn values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|value| !value.is_empty())
}

/// The first protocol of the client's list that is served here. A client that names none gets the empty one, if that
/// is served.
pub(crate) fn negotiate(
    headers: &HeaderMap,
    name: &str,
    served: &[&'static str],
) -> Result<&'static str, HandshakeError> {
    let offered: Vec<&str> = values(headers, name).collect();
    let chosen = if offered.is_empty() {
        served.iter().find(|served| served.is_empty())
    } else {
        offered.iter().find_map(|wanted| served.iter().find(|served| *served == wanted))
    };
    chosen.copied().ok_or_else(|| HandshakeError::NoCommonProtocol {
        client: offered.iter().map(|protocol| (*protocol).to_owned()).collect(),
        server: served.iter().map(|protocol| (*protocol).to_owned()).collect(),
    })
}

/// The answer that switches to SPDY with the session protocol agreed on.
pub(crate) fn spdy_response(protocol: &'static str) -> Response<UpgradeBody> {
    let mut response = switching(HeaderValue::from_static(SPDY));
    if !protocol.is_empty() {
        response.headers_mut().insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
    }
    response
}

/// The answer that switches to a WebSocket with the subprotocol agreed on.
pub(crate) fn websocket_response(
    method: &Method,
    headers: &HeaderMap,
    protocol: &'static str,
) -> Result<Response<UpgradeBody>, HandshakeError> {
    if method != Method::GET {
        return Err(HandshakeError::Malformed("a WebSocket starts with a GET request"));
    }
    let key =
        headers.get(header::SEC_WEBSOCKET_KEY).ok_or(HandshakeError::Malformed("no Sec-WebSocket-Key"))?;
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    let mut response = switching(HeaderValue::from_static("websocket"));
    let accept =
        HeaderValue::try_from(accept).map_err(|_| HandshakeError::Malformed("bad Sec-WebSocket-Key"))?;
    response.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if !protocol.is_empty() {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok(response)
}

fn switching(to: HeaderValue) -> Response<UpgradeBody> {
    let mut response = Response::new(empty_body());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, to);
    response
}

pub(crate) fn text_response(status: StatusCode, text: String) -> Response<UpgradeBody> {
    let mut response =
        Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

pub(crate) fn empty_body() -> UpgradeBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// The values of a query parameter, percent-decoded.
pub(crate) fn query_values(query: Option<&str>, name: &str) -> Vec<String> {
    query
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('=').or(Some((pair, ""))))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| percent_decode(value))
        .collect()
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next(), rest.next()];
                let value = digits.iter().try_fold(0u8, |value, digit| {
                    let digit = char::from((*digit)?).to_digit(16)?;
                    Some(value << 4 | u8::try_from(digit).ok()?)
                });
                bytes.push(value.unwrap_or(b'?'));
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_protocol_of_the_client_that_is_served_should_win() {
        let mut headers = HeaderMap::new();
        headers.append(STREAM_PROTOCOL, HeaderValue::from_static("v5.channel.k8s.io, v4.channel.k8s.io"));
        headers.append(STREAM_PROTOCOL, HeaderValue::from_static("v3.channel.k8s.io"));
        let served = ["v3.channel.k8s.io", "v4.channel.k8s.io", ""];
        assert_eq!(negotiate(&headers, STREAM_PROTOCOL, &served), Ok("v4.channel.k8s.io"));
        assert_eq!(negotiate(&HeaderMap::new(), STREAM_PROTOCOL, &served), Ok(""));
        assert!(negotiate(&headers, STREAM_PROTOCOL, &["v9"]).is_err());
    }

    #[test]
    fn query_values_should_be_decoded_and_kept_apart_by_name() {
        let query = Some("command=a%20b&stdin=true&command=c+d&command=%zz");
        assert_eq!(query_values(query, "command"), ["a b", "c d", "?"]);
        assert_eq!(query_values(query, "tty"), Vec::<String>::new());
    }
}

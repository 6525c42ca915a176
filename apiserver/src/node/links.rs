//! Links of what a proxied workload answers: a page that is read through the API server must lead back through it.
//!
//! Guarantees that redirects and the links of HTML pages (plain or gzip) which lead to the workload's own root lead to its
//! place behind the proxy, that the rest of a page stays byte for byte as it was, and that pages of more than
//! [`PAGE_BYTES_MAX`] go on as they come. Not looked for: addresses in styles and scripts, other encodings.

use std::io::{Read, Write};

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures::StreamExt;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, LOCATION};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, BodyStream};

use crate::http::{BoxError, Request, Response, body};

/// The largest page whose links are looked at.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
/// What HTML has links in.
const LINK_ATTRIBUTES: [&[u8]; 16] = [
    b"action",
    b"background",
    b"cite",
    b"classid",
    b"codebase",
    b"data",
    b"formaction",
    b"href",
    b"icon",
    b"longdesc",
    b"manifest",
    b"poster",
    b"profile",
    b"src",
    b"usemap",
    b"xlink:href",
];
/// Elements whose content is no HTML.
const RAW_ELEMENTS: [&[u8]; 9] =
    [b"iframe", b"noembed", b"noframes", b"plaintext", b"script", b"style", b"textarea", b"title", b"xmp"];

/// Where a workload is for a client of the API server.
pub(super) struct Place {
    /// `/api/v1/namespaces/default/pods/web/proxy`
    prefix: String,
    /// What the client asked for behind that.
    asked: String,
    /// Names by which the workload may call itself: its address, and what the client called the API server.
    hosts: Vec<String>,
}

impl Place {
    /// Of the workload that a request to the proxy is for; `remainder` is what follows the proxy's own path.
    pub fn of(request: &Request, remainder: &str, authority: &str) -> Self {
        let path = request.uri().path();
        let own = path.strip_suffix(remainder).unwrap_or(path);
        let named = request.uri().authority().map(|authority| authority.as_str().to_string());
        let named = named.or_else(|| Some(request.headers().get(HOST)?.to_str().ok()?.to_string()));
        Self {
            prefix: own.trim_end_matches('/').to_string(),
            asked: path.strip_prefix(own.trim_end_matches('/')).unwrap_or_default().to_string(),
            hosts: std::iter::once(authority.to_string()).chain(named).collect(),
        }
    }

    /// The answer to somebody who forgot the last slash, without which no relative link leads anywhere.
    pub fn root_redirect(&self, request: &Request) -> Option<Response> {
        let reads = matches!(*request.method(), http::Method::GET | http::Method::HEAD);
        if !reads || !self.asked.is_empty() {
            return None;
        }
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        let location = HeaderValue::try_from(format!("{}/{query}", self.prefix)).ok()?;
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        response.headers_mut().insert(LOCATION, location);
        Some(response)
    }

    /// Tells the workload what the client asked for.
    pub fn announce(&self, headers: &mut HeaderMap) {
        if let Ok(uri) = HeaderValue::try_from(format!("{}{}", self.prefix, self.asked)) {
            headers.insert(FORWARDED_URI, uri);
        }
    }

    /// The answer with links that lead back here.
    pub async fn translate(&self, mut response: Response, has_body: bool) -> Response {
        if let Some(location) = response.headers().get(LOCATION).and_then(|l| l.to_str().ok()) {
            if let Some(Ok(moved)) = self.moved(location).map(HeaderValue::try_from) {
                response.headers_mut().insert(LOCATION, moved);
            }
            return response;
        }
        match page_encoding(response.headers()).filter(|_| has_body) {
            Some(zipped) => self.translate_page(response, zipped).await,
            None => response,
        }
    }

    async fn translate_page(&self, response: Response, zipped: bool) -> Response {
        let (mut parts, mut content) = response.into_parts();
        let mut page = BytesMut::new();
        while let Some(Ok(frame)) = content.frame().await {
            if let Ok(data) = frame.into_data() {
                page.extend_from_slice(&data);
            }
            if page.len() > PAGE_BYTES_MAX {
                let begun = futures::stream::iter([Ok(http_body::Frame::data(page.freeze()))]);
                let whole = http_body_util::StreamBody::new(begun.chain(BodyStream::new(content)));
                return Response::from_parts(parts, whole.boxed_unsync());
            }
        }
        let translated = if zipped { self.in_gzip(&page) } else { Some(self.in_page(&page)) };
        let page = translated.map_or_else(|| page.freeze(), Bytes::from);
        parts.headers.insert(CONTENT_LENGTH, page.len().into());
        Response::from_parts(parts, http_body_util::Full::new(page).map_err(BoxError::from).boxed_unsync())
    }

    fn in_gzip(&self, zipped: &[u8]) -> Option<Vec<u8>> {
        let mut page = Vec::new();
        GzDecoder::new(zipped).take(PAGE_BYTES_MAX as u64 + 1).read_to_end(&mut page).ok()?;
        if page.len() > PAGE_BYTES_MAX {
            return None;
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&self.in_page(&page)).ok()?;
        encoder.finish().ok()
    }

    /// Where a link that leads to the workload's root has to lead instead.
    fn moved(&self, link: &str) -> Option<String> {
        let path = if let Some((scheme, rest)) = link.split_once("//")
            && ["", "http:", "https:"].contains(&scheme)
        {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (host, path) = rest.split_at_checked(end)?;
            if !self.hosts.iter().any(|known| known == host) {
                return None;
            }
            if path.starts_with('/') { path.to_string() } else { format!("/{path}") }
        } else {
            link.starts_with('/').then(|| link.to_string())?
        };
        let is_here = path.starts_with(&self.prefix);
        Some(if is_here { path } else { format!("{}{path}", self.prefix) })
    }

    /// The page with its links moved.
    fn in_page(&self, page: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(page.len() + 256);
        let mut written = 0;
        for value in link_values(page) {
            let link = page.get(value.clone()).and_then(|link| std::str::from_utf8(link).ok());
            if let Some(moved) = link.and_then(|link| self.moved(link)) {
                out.extend_from_slice(page.get(written..value.start).unwrap_or_default());
                out.extend_from_slice(moved.as_bytes());
                written = value.end;
            }
        }
        out.extend_from_slice(page.get(written..).unwrap_or_default());
        out
    }
}

/// Whether a page is in gzip; `None` for what is no page, or in an encoding that is not read.
fn page_encoding(headers: &HeaderMap) -> Option<bool> {
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or_default();
    let is_page = text(CONTENT_TYPE).split(';').next().is_some_and(|kind| kind.trim() == "text/html");
    match text(CONTENT_ENCODING) {
        _ if !is_page => None,
        "" | "identity" => Some(false),
        "gzip" => Some(true),
        _ => None,
    }
}

/// Where the values of attributes with links are.
fn link_values(page: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut scan = Scan { page, at: 0 };
    while scan.seek(b"<") {
        if scan.takes(b"<!--") {
            scan.seek(b"-->");
            continue;
        }
        scan.at += 1;
        if !scan.peek().is_some_and(|byte| byte.is_ascii_alphabetic()) {
            continue;
        }
        let element = scan.name(b"");
        scan.attributes(&mut found);
        if RAW_ELEMENTS.contains(&element.as_slice()) {
            let end = [b"</", element.as_slice()].concat();
            while scan.seek(b"<") && !scan.takes(&end) {
                scan.at += 1;
            }
        }
    }
    found
}

/// A walk over a page.
struct Scan<'a> {
    page: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.page.get(self.at).copied()
    }

    fn rest(&self) -> &[u8] {
        self.page.get(self.at..).unwrap_or_default()
    }

    fn takes(&self, text: &[u8]) -> bool {
        self.rest().get(..text.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(text))
    }

    /// Goes to where a text begins; to the end when there is none.
    fn seek(&mut self, text: &[u8]) -> bool {
        let found = self.rest().windows(text.len()).position(|window| window == text);
        self.at += found.unwrap_or(self.rest().len());
        found.is_some()
    }

    fn skip(&mut self, skips: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&skips) {
            self.at += 1;
        }
    }

    /// A name, in lower case, up to white space, the tag's end or one of other ends.
    fn name(&mut self, ends: &[u8]) -> Vec<u8> {
        let start = self.at;
        self.skip(|byte| !byte.is_ascii_whitespace() && !b"/>".contains(&byte) && !ends.contains(&byte));
        self.page.get(start..self.at).unwrap_or_default().to_ascii_lowercase()
    }

    /// The attributes of a tag up to its end.
    fn attributes(&mut self, found: &mut Vec<std::ops::Range<usize>>) {
        loop {
            self.skip(|byte| byte.is_ascii_whitespace() || byte == b'/');
            match self.peek() {
                None => return,
                Some(b'>') => {
                    self.at += 1;
                    return;
                }
                Some(_) => {}
            }
            let name = self.name(b"=");
            self.skip(|byte| byte.is_ascii_whitespace());
            if self.peek() != Some(b'=') {
                // A name that begins with what ends names is no name.
                if name.is_empty() {
                    self.at += 1;
                }
                continue;
            }
            self.at += 1;
            self.skip(|byte| byte.is_ascii_whitespace());
            let value = self.value();
            if LINK_ATTRIBUTES.contains(&name.as_slice()) {
                found.push(value);
            }
        }
    }

    fn value(&mut self) -> std::ops::Range<usize> {
        let quote = self.peek().filter(|byte| b"\"'".contains(byte));
        self.at += usize::from(quote.is_some());
        let start = self.at;
        match quote {
            Some(quote) => self.skip(|byte| byte != quote),
            None => self.skip(|byte| !byte.is_ascii_whitespace() && byte != b'>'),
        }
        let end = self.at;
        self.at += usize::from(quote.is_some());
        start..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str, remainder: &str) -> Place {
        let request = http::Request::get(format!("https://api:6443{path}")).body(body::empty()).unwrap();
        Place::of(&request, remainder, "10.244.0.2:80")
    }

    #[test]
    fn links_to_the_root_should_lead_behind_the_proxy() {
        let place = place("/x/proxy/a/b", "a/b");
        for (link, moved) in [
            ("/rewrite/me?q=1#f", Some("/x/proxy/rewrite/me?q=1#f")),
            ("/", Some("/x/proxy/")),
            ("/x/proxy/there", Some("/x/proxy/there")),
            ("http://10.244.0.2:80/c", Some("/x/proxy/c")),
            ("https://api:6443/c", Some("/x/proxy/c")),
            ("//api:6443", Some("/x/proxy/")),
            ("http://elsewhere/c", None),
            ("relative/c", None),
            ("mailto:a@b//c", None),
            ("#f", None),
            ("", None),
        ] {
            assert_eq!(place.moved(link).as_deref(), moved, "{link}");
        }
    }

    #[test]
    fn pages_should_be_left_as_they_are_but_for_their_links() {
        let place = place("/p/proxy/", "");
        for (page, expected) in [
            (r#"<a href="/r">test</a>"#, r#"<a href="/p/proxy/r">test</a>"#),
            ("<IMG alt='/no' SRC = '/i.png'/>", "<IMG alt='/no' SRC = '/p/proxy/i.png'/>"),
            ("<form action=/f method=post>", "<form action=/p/proxy/f method=post>"),
            (
                "<!-- <a href=\"/r\"> --><p title='<a href=/r>'>",
                "<!-- <a href=\"/r\"> --><p title='<a href=/r>'>",
            ),
            (
                "<script src=/s>'<a href=\"/r\">'</SCRIPT><a href=/r>",
                "<script src=/p/proxy/s>'<a href=\"/r\">'</SCRIPT><a href=/p/proxy/r>",
            ),
            ("a < b <a href=\"/r", "a < b <a href=\"/p/proxy/r"),
            ("<a = =/ \"'>\u{fc}<a href='/\u{fc}'>", "<a = =/ \"'>\u{fc}<a href='/p/proxy/\u{fc}'>"),
            ("<", "<"),
            ("", ""),
        ] {
            assert_eq!(String::from_utf8(place.in_page(page.as_bytes())).unwrap(), expected);
        }
    }

    #[test]
    fn a_page_should_be_asked_for_with_a_slash() {
        let at = |uri: &str| http::Request::get(uri).body(body::empty()).unwrap();
        let request = at("https://api:6443/p/proxy?a=b");
        let place = Place::of(&request, "", "10.244.0.2:80");
        let answer = place.root_redirect(&request).unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["location"]),
            (301, &HeaderValue::from_static("/p/proxy/?a=b"))
        );
        let request = at("https://api:6443/p/proxy/");
        assert!(Place::of(&request, "", "10.244.0.2:80").root_redirect(&request).is_none());
    }

    #[tokio::test]
    async fn a_page_that_is_zipped_should_stay_so() {
        let place = place("/p/proxy/", "");
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(b"<a href=/r>").unwrap();
        let page = http_body_util::Full::new(Bytes::from(encoder.finish().unwrap())).map_err(BoxError::from);
        let response = http::Response::builder()
            .header(CONTENT_TYPE, "text/html; charset=utf-8")
            .header(CONTENT_ENCODING, "gzip")
            .body(page.boxed_unsync())
            .unwrap();
        let bytes = place.translate(response, true).await.into_body().collect().await.unwrap().to_bytes();
        let mut text = String::new();
        GzDecoder::new(bytes.as_ref()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "<a href=/p/proxy/r>");
    }

    #[tokio::test]
    async fn a_page_of_no_end_should_go_on_as_it_comes() {
        let place = place("/p/proxy/", "");
        let chunk = Bytes::from("<a href=/r>".repeat(100_000));
        let chunks = (0..8).map(move |_| Ok::<_, BoxError>(http_body::Frame::data(chunk.clone())));
        let page = http_body_util::StreamBody::new(futures::stream::iter(chunks)).boxed_unsync();
        let response = http::Response::builder().header(CONTENT_TYPE, "text/html").body(page).unwrap();
        let bytes = place.translate(response, true).await.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(bytes.len(), 8 * 1_100_000);
        assert!(bytes.starts_with(b"<a href=/r>"));
    }
}

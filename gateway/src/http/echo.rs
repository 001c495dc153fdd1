//! `builtin:echo`: the request as an application behind the gateway would see it. What `make run`
//! shows, and a help to see what plugins did.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};

use super::head::{RequestHead, ResponseHead, ResponseSource};
use super::headers::{self, Forwarding, X_REQUEST_ID};

/// The page, as HTML for browsers and JSON for the rest.
pub fn page(request: &RequestHead, forwarding: Option<&Forwarding>) -> (ResponseHead, Bytes) {
    let wants_html = request
        .headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    let mut fields = request.headers.clone();
    headers::strip_hop_by_hop(&mut fields);
    if let Some(forwarding) = forwarding {
        headers::forward(&mut fields, forwarding, false);
    }
    if let Ok(id) = HeaderValue::from_str(&request.id) {
        fields.insert(X_REQUEST_ID, id);
    }
    let (media, body) = match wants_html {
        true => ("text/html; charset=utf-8", html(request, &fields)),
        false => ("application/json", json(request, &fields)),
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    let status = http::StatusCode::OK;
    (ResponseHead { status, headers, source: ResponseSource::Upstream }, body.into())
}

fn json(request: &RequestHead, fields: &HeaderMap) -> String {
    let pairs = fields.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        serde_json::json!([name.as_str(), value])
    });
    let seen = serde_json::json!({
        "method": request.method.as_str(),
        "authority": request.authority,
        "target": request.target.as_str(),
        "headers": pairs.collect::<Vec<_>>(),
    });
    format!("{seen:#}\n")
}

fn html(request: &RequestHead, fields: &HeaderMap) -> String {
    let rows = fields.iter().map(|(name, value)| {
        let value = escape(&String::from_utf8_lossy(value.as_bytes()));
        format!("<tr><th>{}</th><td>{value}</td></tr>", escape(name.as_str()))
    });
    let rows = rows.collect::<String>();
    let method = escape(request.method.as_str());
    let (authority, target) = (escape(&request.authority), escape(request.target.as_str()));
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Witgate</title>\
         <style>body{{font:16px/1.5 system-ui;margin:2rem auto;max-width:60rem;padding:0 1rem}}\
         th{{text-align:left;padding-right:1rem;vertical-align:top;font-weight:600}}\
         td{{font-family:ui-monospace,monospace;word-break:break-all}}</style>\
         <h1>It works</h1><p>This request reached the application behind Witgate as</p>\
         <p><code>{method} {target}</code> for <code>{authority}</code></p><table>{rows}</table>\n"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Scheme;

    #[test]
    fn a_page_cannot_be_injected() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("text/html"));
        headers.insert("x-evil", HeaderValue::from_static("<script>alert(1)</script>"));
        let request = RequestHead {
            id: "id".into(),
            method: http::Method::GET,
            scheme: Scheme::Https,
            authority: "localhost".into(),
            target: "/?a=1&b=2".parse().unwrap(),
            version: http::Version::HTTP_11,
            headers,
        };
        let (head, body) = page(&request, None);
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!(head.headers[CONTENT_TYPE], "text/html; charset=utf-8");
        assert!(body.contains("&lt;script&gt;") && !body.contains("<script>"));
    }
}

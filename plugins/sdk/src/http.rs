//! Requests that the host makes for the plugin: the only way out of the sandbox, within
//! `grants.http` of its stanza.
//!
//! Secrets never enter the plugin: [`Request::secret`], [`Request::bearer_secret`] and
//! [`secret()`] write a placeholder, which the host replaces when it sends.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A request to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a request does nothing until it is sent"]
pub struct Request {
    method: &'static str,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// A request of any method.
    pub fn new(method: &'static str, url: impl Into<String>) -> Self {
        Self { method, url: url.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// A `GET`.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// A `POST`.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    /// A `PUT`.
    pub fn put(url: impl Into<String>) -> Self {
        Self::new("PUT", url)
    }

    /// A `PATCH`.
    pub fn patch(url: impl Into<String>) -> Self {
        Self::new("PATCH", url)
    }

    /// A `DELETE`.
    pub fn delete(url: impl Into<String>) -> Self {
        Self::new("DELETE", url)
    }

    /// Adds a field.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// Adds a field whose value is the secret called `name`.
    pub fn secret(self, field: &str, name: &str) -> Self {
        self.header(field, secret(name))
    }

    /// Adds `authorization: Bearer` with the token of the session `name` of plugin.yaml.
    pub fn bearer_token(self, name: &str) -> Self {
        self.header("authorization", format!("Bearer {}", token(name)))
    }

    /// Has the host sign the finished request as `name` under `signing:` of plugin.yaml says.
    pub fn sign(self, name: &str) -> Self {
        self.header("authorization", format!("{{{{sign:{name}}}}}"))
    }

    /// Adds `authorization: Bearer` with the secret called `name` (RFC 6750).
    pub fn bearer_secret(self, name: &str) -> Self {
        self.header("authorization", format!("Bearer {}", secret(name)))
    }

    /// Adds Basic credentials (RFC 7617) of `user` and the secret called `name`.
    pub fn basic_secret(self, user: &str, name: &str) -> Self {
        self.header("authorization", format!("{{{{basic:{user}:{name}}}}}"))
    }

    /// Adds a parameter to the query, escaped for its place.
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.url.push(if self.url.contains('?') { '&' } else { '?' });
        escape_into(&mut self.url, name);
        self.url.push('=');
        escape_into(&mut self.url, value);
        self
    }

    /// Makes `value` the body, as JSON. It must be one that JSON can hold (maps with text keys);
    /// one that is not makes an empty body.
    pub fn json(mut self, value: &impl Serialize) -> Self {
        self.body = serde_json::to_vec(value).unwrap_or_default();
        self.header("content-type", "application/json")
    }

    /// Makes `bytes` the body.
    pub fn body(mut self, media_type: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = bytes.into();
        self.header("content-type", media_type)
    }

    /// Sends it and waits for the whole answer. A status of 4xx or 5xx is an answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn send(self) -> Result<Response, Error> {
        match crate::host::http::send(self.method, &self.url, &self.headers, &self.body) {
            Ok(answer) => {
                Ok(Response { status: answer.status, headers: answer.headers, body: answer.body })
            }
            Err(failure) => Err(Error { code: failure.code, message: failure.message }),
        }
    }
}

/// What more is known about the last request of this call, by key: `http-version`, `address`,
/// `duration-ms`, `retry-after-seconds`, `was-sent`.
pub fn detail(key: &str) -> Option<String> {
    crate::host::http::detail(key)
}

/// The placeholder of the token of the session `name` of plugin.yaml: the host logs in and puts it in
/// its place.
pub fn token(name: &str) -> String {
    format!("{{{{token:{name}}}}}")
}

/// The placeholder of the secret called `name`, for a header value, the query or the body.
pub fn secret(name: &str) -> String {
    format!("{{{{secret:{name}}}}}")
}

/// Percent-encodes text for one segment of a path or one part of a query.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    escape_into(&mut escaped, text);
    escaped
}

fn escape_into(target: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            target.push(char::from(byte));
        } else {
            let digit = |n: u8| char::from(if n < 10 { b'0' + n } else { b'A' + n - 10 });
            target.push('%');
            target.push(digit(byte >> 4));
            target.push(digit(byte & 15));
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The fields in the order received, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Response {
    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as text, cut to what a log line or an error can hold.
    pub fn excerpt(&self) -> String {
        const CHARS_MAX: usize = 300;
        let text = String::from_utf8_lossy(&self.body);
        let mut excerpt: String = text.trim().chars().take(CHARS_MAX).collect();
        if excerpt.len() < text.trim().len() {
            excerpt.push('…');
        }
        excerpt
    }

    /// The body read as JSON.
    ///
    /// # Errors
    /// Where it is not what was expected.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error {
            code: "unexpected-answer".to_string(),
            message: format!("the answer (status {}) is not as expected: {error}", self.status),
        })
    }

    /// How long the server asked to wait, in seconds: `retry-after` (RFC 9110, section 10.2.3) as a
    /// number, or as a date, which is measured against the answer's own `date`.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        let value = self.header("retry-after")?.trim();
        if let Ok(seconds) = value.parse() {
            return Some(seconds);
        }
        let until = date_seconds(value)?;
        let now = date_seconds(self.header("date")?)?;
        u32::try_from(until.saturating_sub(now).max(0)).ok()
    }
}

/// Why there is no usable answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// A code of `wit/http.wit`, or `unexpected-answer`.
    pub code: String,
    /// For a person, without secrets.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for Error {}

/// Seconds of an IMF-fixdate (RFC 9110, section 5.6.7), such as `Sun, 06 Nov 1994 08:49:37 GMT`,
/// since 1970.
fn date_seconds(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = text.split_once(", ")?.1.split([' ', ':']);
    let day: i64 = parts.next()?.parse().ok()?;
    let name = parts.next()?;
    let month = i64::try_from(MONTHS.iter().position(|month| *month == name)?).ok()? + 1;
    let year: i64 = parts.next()?.parse().ok().filter(|year| (1970..10_000).contains(year))?;
    let mut clock = 0;
    for _ in 0..3 {
        clock = clock * 60 + parts.next()?.parse::<u8>().map(i64::from).ok()?;
    }
    // Days from 1970-01-01, with March as the first month so that leap days come last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 719_469;
    Some(days * 86_400 + clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(headers: &[(&str, &str)]) -> Response {
        let headers = headers.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Response { status: 429, headers, body: Vec::new() }
    }

    #[test]
    fn retry_after_is_a_number_or_a_date() {
        assert_eq!(answer(&[("retry-after", "30")]).retry_after_seconds(), Some(30));
        let date = ("date", "Thu, 29 Feb 2024 23:59:50 GMT");
        let dated = answer(&[date, ("retry-after", "Fri, 01 Mar 2024 00:00:20 GMT")]);
        assert_eq!(dated.retry_after_seconds(), Some(30));
        let past = answer(&[date, ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        assert_eq!(past.retry_after_seconds(), Some(0));
        assert_eq!(answer(&[("retry-after", "soon")]).retry_after_seconds(), None);
        assert_eq!(date_seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
    }

    #[test]
    fn a_query_is_escaped() {
        let request = Request::get("https://a.example/x").query("n", "a b&c").query("m", "é");
        assert_eq!(request.url, "https://a.example/x?n=a%20b%26c&m=%C3%A9");
    }
}

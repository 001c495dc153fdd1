//! A filter that changes bodies: puts a text into HTML pages as they pass.

use serde::Deserialize;
use witgate_sdk::body::{self, Bodies, Body};
use witgate_sdk::{BodyFilter, Filter, Plugin, response};

/// The plugin, configured.
pub struct Banner {
    config: Config,
    /// What is kept of each page under way.
    pages: Bodies<Page>,
}

/// `config:` of the stanza.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is put in.
    insert: String,
    /// In front of what.
    #[serde(default = "end_of_body")]
    before: String,
}

fn end_of_body() -> String {
    "</body>".to_owned()
}

/// A page under way.
#[derive(Default)]
struct Page {
    /// An end of what came that may be the beginning of the mark.
    held: Vec<u8>,
    is_done: bool,
}

impl Plugin for Banner {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        match config.before.is_empty() {
            true => Err("config.before: it must not be empty".to_owned()),
            false => Ok(Self { config, pages: Bodies::new() }),
        }
    }
}

impl Filter for Banner {
    fn on_request(&self) {
        // Without it a part of a page, or a compressed one, goes by as it is.
        let _ = body::expect_response();
    }

    fn on_response(&self) {
        let media = response::header("content-type").unwrap_or_default();
        if media.starts_with("text/html")
            && let Ok(page) = body::transform()
        {
            self.pages.keep(page, Page::default());
        }
    }
}

impl BodyFilter for Banner {
    fn on_chunk(&self, body: Body, chunk: &[u8]) {
        self.pages.with(body, |page| self.chunk(page, chunk));
    }

    fn on_finish(&self, body: Body) {
        if let Some(page) = self.pages.end(body) {
            body::write(&page.held);
        }
    }

    fn on_abandon(&self, body: Body) {
        self.pages.end(body);
    }
}

impl Banner {
    fn chunk(&self, page: &mut Page, chunk: &[u8]) {
        let mark = self.config.before.as_bytes();
        if page.is_done {
            return body::pass();
        }
        // Mostly there is nothing in it, and it need not be copied.
        if page.held.is_empty() && !chunk.contains(&mark[0]) {
            return body::pass();
        }
        page.held.extend_from_slice(chunk);
        let place = page.held.windows(mark.len()).position(|here| here == mark);
        if let Some(place) = place {
            let (before, from) = page.held.split_at(place);
            body::write(before);
            body::write(self.config.insert.as_bytes());
            body::write(from);
            *page = Page { held: Vec::new(), is_done: true };
            return;
        }
        // The longest end that a mark may begin with.
        let begun = (1..mark.len()).rev().find(|count| page.held.ends_with(&mark[..*count]));
        let keep = page.held.len() - begun.unwrap_or(0);
        body::write(&page.held[..keep]);
        page.held.drain(..keep);
    }
}

witgate_sdk::export!(Banner: filter, body);

#[cfg(test)]
mod tests {
    use serde_json::json;
    use witgate_sdk::testing::{Exchange, configure};

    use super::*;

    fn page(media: &str, chunks: &[&str]) -> Option<String> {
        let banner: Banner = configure(json!({"insert": "HERE"})).unwrap();
        let mut exchange = Exchange::get("https://app.example/").header("range", "bytes=0-1");
        exchange.on_request(&banner);
        assert_eq!(exchange.request_header("accept-encoding").as_deref(), Some("identity"));
        assert_eq!(exchange.request_header("range"), None);
        let mut exchange = exchange.response(200, &[("content-type", media)]);
        exchange.on_response(&banner);
        let chunks: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.as_bytes()).collect();
        let body = exchange.body(&banner, &chunks);
        assert!(banner.pages.is_empty(), "nothing is left of a page that ended");
        body.map(|body| String::from_utf8(body).unwrap())
    }

    #[test]
    fn the_text_stands_before_the_mark_wherever_the_pieces_end() {
        let text = "<p>a</b></p></body></body> rest";
        let wanted = "<p>a</b></p>HERE</body></body> rest";
        for first in 0..text.len() {
            for second in first..text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                let pieces: Vec<&str> = pieces.into_iter().filter(|p| !p.is_empty()).collect();
                assert_eq!(page("text/html", &pieces).unwrap(), wanted, "{pieces:?}");
            }
        }
    }

    #[test]
    fn a_page_without_the_mark_is_as_it_was() {
        assert_eq!(page("text/html; charset=utf-8", &["ab<", "/bod"]).unwrap(), "ab</bod");
        assert_eq!(page("text/html", &[]).unwrap(), "");
    }

    #[test]
    fn what_is_no_page_is_left_alone() {
        assert_eq!(page("application/grpc", &["</body>"]), None);
        let banner: Banner = configure(json!({"insert": "x"})).unwrap();
        let exchange = Exchange::get("https://app.example/").without_body("encoded");
        let mut exchange = exchange.response(200, &[("content-type", "text/html")]);
        exchange.on_response(&banner);
        assert!(banner.pages.is_empty());
        assert!(configure::<Banner>(json!({"insert": "x", "before": ""})).is_err());
    }
}

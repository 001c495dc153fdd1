//! Pages of the operator's own for the gateway's errors. Read once per generation.

use std::io::Read as _;
use std::path::PathBuf;

use http::StatusCode;

use super::PolicyError;
use crate::config::policies::StatusPattern;

/// Pages by what they are for.
#[derive(Debug)]
pub(super) struct ErrorPages(Vec<(StatusPattern, String)>);

impl ErrorPages {
    /// Reads the files.
    pub(super) fn new(pages: &[(StatusPattern, PathBuf)]) -> Result<Self, PolicyError> {
        let read = |(pattern, path): &(StatusPattern, PathBuf)| {
            let failed = |error| PolicyError::Page(path.clone(), error);
            let mut text = String::new();
            let file = std::fs::File::open(path).map_err(failed)?;
            file.take(PAGE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
            if text.len() as u64 > PAGE_BYTES_MAX {
                return Err(failed(std::io::Error::other("it is larger than 1 MiB")));
            }
            Ok((*pattern, text))
        };
        pages.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// The page for a status: one for itself, else one for its class.
    pub(super) fn page(&self, status: StatusCode, id: &str) -> Option<String> {
        let code = status.as_u16();
        let of = |want: StatusPattern| self.0.iter().find(|(pattern, _)| *pattern == want);
        let exact = of(StatusPattern::Exact(code));
        let (_, text) = exact.or_else(|| of(StatusPattern::Class(code / 100)))?;
        // An id is made of letters, digits and dashes, so it can stand anywhere in a page.
        Some(text.replace("{status}", status.as_str()).replace("{request-id}", id))
    }
}

const PAGE_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_page_is_taken() {
        let pages = ErrorPages(vec![
            (StatusPattern::Class(5), "class {status} {request-id}".into()),
            (StatusPattern::Exact(503), "exact".into()),
        ]);
        let page = |code: u16| pages.page(StatusCode::from_u16(code).unwrap(), "abc");
        assert_eq!(page(502).unwrap(), "class 502 abc");
        assert_eq!(page(503).unwrap(), "exact");
        assert_eq!(page(404), None);
    }
}

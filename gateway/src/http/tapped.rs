//! A body that a filter sees, or changes, as it passes: a piece is read, shown, and what is given for
//! it goes on before more is read, so that nothing waits here and an event stream is as prompt as
//! without.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::body::BodyError;
use crate::fault::describe;
use crate::plugin::{CHUNK_BYTES_MAX, Mode, Tap};
use crate::telemetry::Counters;

/// Where the pieces come from.
pub(super) trait Pieces {
    /// The next one.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>>;
    /// Whether nothing more will come.
    fn is_end_stream(&self) -> bool;
    /// What will come, in bytes.
    fn size_hint(&self) -> SizeHint;
}

/// See the module.
pub(super) struct Tapped<P> {
    pub(super) inner: P,
    mode: Mode,
    /// Gone at the end, and when the filter was left out.
    tap: Option<Tap>,
    /// Whether a filter that fails may be left out (`on-error: fail-open`).
    is_optional: bool,
    counters: Arc<Counters>,
    /// What is still to be shown of the last piece.
    piece: Bytes,
    /// What goes on now.
    given: VecDeque<Bytes>,
    trailers: Option<Frame<Bytes>>,
    /// Whether the filter took anything of it, so that it cannot be left out any more.
    has_begun: bool,
    is_over: bool,
}

impl<P: Pieces> Tapped<P> {
    pub(super) fn new(inner: P, tap: Tap, is_optional: bool, counters: Arc<Counters>) -> Self {
        Self {
            inner,
            mode: tap.mode(),
            tap: Some(tap),
            is_optional,
            counters,
            piece: Bytes::new(),
            given: VecDeque::new(),
            trailers: None,
            has_begun: false,
            is_over: false,
        }
    }

    /// Shows the next part of the piece. What is given for it goes on.
    fn show(&mut self) -> Result<(), BodyError> {
        let chunk = self.piece.split_to(self.piece.len().min(CHUNK_BYTES_MAX));
        let Some(tap) = &mut self.tap else {
            self.given.push_back(chunk);
            return Ok(());
        };
        match tap.chunk(chunk.clone()) {
            Ok(given) => {
                self.has_begun = true;
                self.given.extend(given);
            }
            Err(cause) => {
                self.excuse(&describe(&cause))?;
                self.given.push_back(chunk);
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), BodyError> {
        self.is_over = true;
        let Some(mut tap) = self.tap.take() else { return Ok(()) };
        match tap.finish() {
            Ok(given) => {
                self.given.extend(given);
                Ok(())
            }
            Err(cause) => {
                self.tap = Some(tap);
                self.excuse(&describe(&cause))
            }
        }
    }

    /// Leaves the filter out, where its failure does no harm: the body is as it was.
    fn excuse(&mut self, cause: &str) -> Result<(), BodyError> {
        Counters::add(&self.counters.plugin_failures, 1);
        let tap = self.tap.take();
        if self.is_optional && (self.mode == Mode::Observe || !self.has_begun) {
            return Ok(());
        }
        self.is_over = true;
        let name = tap.as_ref().map(Tap::plugin).unwrap_or_default();
        Err(BodyError::Plugin(name.to_owned(), cause.to_owned()))
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, BodyError>> {
        for _ in 0..STEPS_MAX {
            if let Some(given) = self.given.pop_front() {
                return Poll::Ready(Ok(Some(Frame::data(given))));
            }
            if self.is_over {
                return Poll::Ready(Ok(self.trailers.take()));
            }
            if self.piece.is_empty() {
                match ready!(self.inner.poll(cx)).transpose()? {
                    Some(frame) => match frame.into_data() {
                        Ok(bytes) => self.piece = bytes,
                        Err(trailers) => self.trailers = Some(trailers),
                    },
                    None => {
                        self.finish()?;
                        continue;
                    }
                }
            }
            if !self.piece.is_empty() {
                self.show()?;
            }
            // The last piece and what follows it belong together.
            if self.piece.is_empty() && self.inner.is_end_stream() && !self.is_over {
                self.finish()?;
            }
        }
        // Others of this worker come first now.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<P: Pieces> Pieces for Tapped<P> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let outcome = ready!(self.step(cx));
        if outcome.is_err() {
            self.is_over = true;
            self.given.clear();
            // Tells the filter, when it is not the one that failed.
            self.tap = None;
        }
        Poll::Ready(outcome.transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.is_over && self.given.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.mode == Mode::Transform {
            return SizeHint::default();
        }
        let held = self.piece.len() + self.given.iter().map(Bytes::len).sum::<usize>();
        match self.inner.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest.saturating_add(held as u64)),
            None => SizeHint::default(),
        }
    }
}

/// What is swallowed in one turn, in pieces.
const STEPS_MAX: usize = 32;

/// Takes from a head what does not hold for a body that is changed on its way (RFC 9110, sections 8.6,
/// 8.8.3 and 14.3; RFC 9530; RFC 3230).
pub(super) fn reshape(fields: &mut http::HeaderMap) {
    use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, ETAG, HeaderValue};

    for name in [CONTENT_LENGTH, ACCEPT_RANGES] {
        fields.remove(name);
    }
    for name in ["content-digest", "repr-digest", "content-md5", "digest"] {
        fields.remove(name);
    }
    if let Some(tag) = fields.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/")) {
        match HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()) {
            Ok(weak) => fields.insert(ETAG, weak),
            Err(_) => fields.remove(ETAG),
        };
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    #[test]
    fn what_does_not_hold_any_more_goes() {
        let mut fields = HeaderMap::new();
        for (name, value) in [
            ("content-length", "5"),
            ("accept-ranges", "bytes"),
            ("etag", "\"a\""),
            ("digest", "x"),
            ("content-digest", "x"),
            ("content-type", "text/html"),
        ] {
            fields.insert(name, HeaderValue::from_static(value));
        }
        super::reshape(&mut fields);
        super::reshape(&mut fields);
        assert_eq!(fields.len(), 2, "{fields:?}");
        assert_eq!(
            (&fields["etag"], &fields["content-type"]),
            (&HeaderValue::from_static("W/\"a\""), &HeaderValue::from_static("text/html"),)
        );
    }
}

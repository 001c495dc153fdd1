//! The body of a request as it comes over a stream. The connection puts pieces in, the exchange takes them
//! out, and what was taken opens the client's window again.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// Between a connection and the body of one of its requests.
pub struct Inflow {
    state: RefCell<State>,
    /// Wakes the stream.
    stream: Waker,
    /// Whether the connection runs one of its streams now, and will look here by itself.
    is_running: Rc<Cell<bool>>,
}

struct State {
    pieces: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    end: End,
    /// How much of the length that the client has named was not taken.
    left: Option<u64>,
    /// Bytes that were taken and not told to the connection.
    taken: usize,
    reader: Option<Waker>,
    is_unwanted: bool,
    /// Whether the client waits for a word before it sends the body.
    expects: Expects,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Whole,
    Broken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expects {
    Nothing,
    /// `100 Continue`, once somebody wants the body.
    Continue,
    /// It is wanted now.
    ContinueNow,
}

/// The body of a request broke off: the stream was reset, or the connection is gone.
#[derive(Debug)]
pub struct Reset;

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the stream has ended before the body")
    }
}

impl std::error::Error for Reset {}

impl Inflow {
    /// Nothing has come yet. `length` is what the client has said about it.
    pub fn new(
        stream: Waker,
        is_running: Rc<Cell<bool>>,
        length: Option<u64>,
        expects_continue: bool,
    ) -> Rc<Self> {
        let expects = if expects_continue { Expects::Continue } else { Expects::Nothing };
        let state = RefCell::new(State {
            pieces: VecDeque::new(),
            trailers: None,
            end: End::Open,
            left: length,
            taken: 0,
            reader: None,
            is_unwanted: false,
            expects,
        });
        Rc::new(Self { state, stream, is_running })
    }

    /// Puts a piece in; whether anybody wants it.
    pub fn put(&self, data: Bytes, is_last: bool) -> bool {
        let state = &mut *self.state.borrow_mut();
        state.expects = Expects::Nothing;
        if !data.is_empty() && !state.is_unwanted {
            state.pieces.push_back(data);
        }
        if is_last {
            state.end = End::Whole;
        }
        state.wake();
        !state.is_unwanted
    }

    /// Ends it with trailers.
    pub fn put_trailers(&self, fields: HeaderMap) {
        let state = &mut *self.state.borrow_mut();
        state.trailers = Some(fields).filter(|fields| !fields.is_empty());
        state.end = End::Whole;
        state.wake();
    }

    /// Bytes that were taken since the last time, or that nobody wants any more.
    pub fn take_taken(&self) -> usize {
        std::mem::take(&mut self.state.borrow_mut().taken)
    }

    /// Whether the client has to be told now to go on. Once.
    pub fn take_continue(&self) -> bool {
        let state = &mut *self.state.borrow_mut();
        let is_now = state.expects == Expects::ContinueNow;
        if is_now {
            state.expects = Expects::Nothing;
        }
        is_now
    }

    /// Whether nobody will take anything more.
    pub fn is_unwanted(&self) -> bool {
        self.state.borrow().is_unwanted
    }

    /// The stream is over. Returns the bytes that nobody has taken.
    pub fn close(&self) -> usize {
        let state = &mut *self.state.borrow_mut();
        if state.end == End::Open {
            state.end = End::Broken;
        }
        let left: usize = state.pieces.drain(..).map(|piece| piece.len()).sum();
        if left > 0 {
            state.end = End::Broken;
        }
        state.wake();
        left + std::mem::take(&mut state.taken)
    }

    fn tell(&self) {
        if !self.is_running.get() {
            self.stream.wake_by_ref();
        }
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// The exchange's end of it.
pub struct ClientBody(Rc<Inflow>);

impl ClientBody {
    /// Of these pieces.
    pub fn new(inflow: Rc<Inflow>) -> Self {
        Self(inflow)
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = Reset;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reset>>> {
        let state = &mut *self.0.state.borrow_mut();
        if let Some(piece) = state.pieces.pop_front() {
            state.taken += piece.len();
            if let Some(left) = &mut state.left {
                *left = left.saturating_sub(piece.len() as u64);
            }
            self.0.tell();
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match state.end {
            End::Whole => Poll::Ready(state.trailers.take().map(|t| Ok(Frame::trailers(t)))),
            End::Broken => Poll::Ready(Some(Err(Reset))),
            End::Open => {
                if state.expects == Expects::Continue {
                    state.expects = Expects::ContinueNow;
                    self.0.tell();
                }
                if !state.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
                    state.reader = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = self.0.state.borrow();
        state.end == End::Whole && state.pieces.is_empty() && state.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.0.state.borrow();
        match state.left {
            Some(left) => SizeHint::with_exact(left),
            None if self.is_end_stream() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        let state = &mut *self.0.state.borrow_mut();
        state.is_unwanted = true;
        let left: usize = state.pieces.drain(..).map(|piece| piece.len()).sum();
        state.taken += left;
        self.0.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inflow(length: Option<u64>, expects: bool) -> (Rc<Inflow>, ClientBody) {
        let waker = Waker::noop().clone();
        let inflow = Inflow::new(waker, Rc::default(), length, expects);
        (Rc::clone(&inflow), ClientBody::new(inflow))
    }

    fn next(body: &mut ClientBody) -> Poll<Option<Result<Frame<Bytes>, Reset>>> {
        Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn what_is_taken_is_told() {
        let (inflow, mut body) = inflow(Some(5), false);
        assert!(next(&mut body).is_pending() && !inflow.take_continue());
        assert!(inflow.put(Bytes::from_static(b"abc"), false));
        assert!(inflow.put(Bytes::from_static(b"de"), true));
        assert_eq!((inflow.take_taken(), body.size_hint().exact()), (0, Some(5)));
        assert!(matches!(next(&mut body), Poll::Ready(Some(Ok(frame))) if frame.is_data()));
        assert_eq!((inflow.take_taken(), body.size_hint().exact()), (3, Some(2)));
        assert!(!body.is_end_stream());
        drop(body);
        assert_eq!((inflow.take_taken(), inflow.close()), (2, 0));
        assert!(!inflow.put(Bytes::from_static(b"f"), true));
    }

    #[test]
    fn the_word_to_go_on_comes_once_and_only_when_wanted() {
        let (inflow, mut body) = inflow(None, true);
        assert!(!inflow.take_continue());
        assert!(next(&mut body).is_pending());
        assert!(inflow.take_continue() && !inflow.take_continue());
        let (inflow, mut body) = self::inflow(None, true);
        inflow.put(Bytes::from_static(b"a"), false);
        assert!(next(&mut body).is_ready() && next(&mut body).is_pending());
        assert!(!inflow.take_continue());
    }

    #[test]
    fn an_end_is_whole_or_an_error() {
        let mut fields = HeaderMap::new();
        fields.insert("x", http::HeaderValue::from_static("1"));
        let (inflow, mut body) = inflow(None, false);
        inflow.put_trailers(fields);
        assert!(!body.is_end_stream());
        assert!(matches!(next(&mut body), Poll::Ready(Some(Ok(frame))) if frame.is_trailers()));
        assert!(body.is_end_stream() && matches!(next(&mut body), Poll::Ready(None)));
        assert_eq!(inflow.close(), 0);
        assert!(matches!(next(&mut body), Poll::Ready(None)));
        let (inflow, mut body) = self::inflow(None, false);
        inflow.put(Bytes::from_static(b"abc"), false);
        assert_eq!(inflow.close(), 3);
        assert!(matches!(next(&mut body), Poll::Ready(Some(Err(Reset)))));
    }
}

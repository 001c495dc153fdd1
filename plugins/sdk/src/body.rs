//! The body of the message in hand, as it passes: what a filter asks for in its hooks about heads, and
//! what it gives in [`crate::BodyFilter`].
//!
//! ```ignore
//! impl Filter for Redact {
//!     fn on_request(&self) {
//!         // So that the response comes whole and without a content coding.
//!         let _ = body::expect_response();
//!     }
//!
//!     fn on_response(&self) {
//!         if let Ok(body) = body::transform() {
//!             self.bodies.keep(body, Vec::new());
//!         }
//!     }
//! }
//! ```

use alloc::collections::BTreeMap;
use alloc::string::String;

use crate::host::body as host;

/// A body that a filter asked for. No other body of this instance has the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Body(u64);

impl Body {
    /// Its number.
    pub fn number(self) -> u64 {
        self.0
    }

    #[doc(hidden)]
    pub fn of(number: u64) -> Self {
        Self(number)
    }
}

/// Asks for the body in hand, to change it: what [`write`] and [`pass`] give takes its place. Inside
/// [`crate::Filter::on_request`] it is that of the request, inside [`crate::Filter::on_response`] that of
/// the response.
///
/// # Errors
/// Why it goes by unseen: `denied`, `no-body`, `encoded`, `partial`, `again`, or a code to come.
pub fn transform() -> Result<Body, String> {
    host::transform().map(Body)
}

/// Asks for the body in hand, to look at it as it passes.
///
/// # Errors
/// As [`transform`].
pub fn observe() -> Result<Body, String> {
    host::observe().map(Body)
}

/// Inside [`crate::Filter::on_request`]: asks the upstream for a response that can be transformed, whole
/// and without a content coding.
///
/// # Errors
/// `denied`, or a code to come.
pub fn expect_response() -> Result<(), String> {
    host::expect_response()
}

/// Inside [`crate::BodyFilter::on_chunk`] and [`crate::BodyFilter::on_finish`]: these bytes go on.
pub fn write(bytes: &[u8]) {
    host::write(bytes);
}

/// Inside [`crate::BodyFilter::on_chunk`]: the chunk goes on as it is, without a copy.
pub fn pass() {
    host::pass();
}

/// What a filter keeps for each body under way.
pub struct Bodies<S>(cell::Shared<BTreeMap<Body, S>>);

impl<S: Send> Bodies<S> {
    /// None yet.
    pub const fn new() -> Self {
        Self(cell::Shared::new(BTreeMap::new()))
    }

    /// Keeps `state` for `body`.
    pub fn keep(&self, body: Body, state: S) {
        self.0.with(|all| all.insert(body, state));
    }

    /// Lets `f` at what is kept for `body`; none when there is nothing. `f` must not come back here.
    pub fn with<R>(&self, body: Body, f: impl FnOnce(&mut S) -> R) -> Option<R> {
        self.0.with(|all| all.get_mut(&body).map(f))
    }

    /// What was kept for `body`, which is done.
    pub fn end(&self, body: Body) -> Option<S> {
        self.0.with(|all| all.remove(&body))
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.0.with(|all| all.len())
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<S: Send> Default for Bodies<S> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(target_family = "wasm")]
mod cell {
    use core::cell::RefCell;

    /// Something that hooks change. An instance has one thread.
    pub(super) struct Shared<T>(RefCell<T>);

    // SAFETY: a component has one thread; `borrow_mut` panics on a use within a use.
    #[expect(unsafe_code, reason = "a component has one thread, and std need not be there")]
    unsafe impl<T: Send> Sync for Shared<T> {}

    impl<T> Shared<T> {
        pub(super) const fn new(value: T) -> Self {
            Self(RefCell::new(value))
        }

        pub(super) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
            f(&mut self.0.borrow_mut())
        }
    }
}

#[cfg(not(target_family = "wasm"))]
mod cell {
    use std::sync::{Mutex, PoisonError};

    /// Something that hooks change.
    pub(super) struct Shared<T>(Mutex<T>);

    impl<T> Shared<T> {
        pub(super) const fn new(value: T) -> Self {
            Self(Mutex::new(value))
        }

        pub(super) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
            f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }
}

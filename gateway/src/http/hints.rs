//! Interim responses (RFC 9110, section 15.2) of a server on their way to a client: 103 Early Hints and
//! their kin. They go out while the exchange still waits; filters do not see them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use http::{HeaderMap, Response, StatusCode};

use super::headers;

/// Where an exchange puts them, and the connection finds them.
#[derive(Clone, Default)]
pub struct Hints(Rc<Queue>);

#[derive(Default)]
struct Queue {
    waiting: RefCell<Vec<Response<()>>>,
    count: Cell<usize>,
}

impl Hints {
    /// Puts one in. 100 and 101 are not of this kind: each connection sees to them itself. Too many are
    /// dropped, since a server may send them as long as it likes.
    pub fn put(&self, status: StatusCode, mut fields: HeaderMap) {
        let is_hint = status.is_informational()
            && !matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS);
        if !is_hint || self.0.count.get() >= COUNT_MAX {
            return;
        }
        self.0.count.set(self.0.count.get() + 1);
        headers::strip_hop_by_hop(&mut fields);
        fields.remove(http::header::CONTENT_LENGTH);
        let mut hint = Response::new(());
        *hint.status_mut() = status;
        *hint.headers_mut() = fields;
        self.0.waiting.borrow_mut().push(hint);
    }

    /// Takes out what is there.
    pub fn take(&self) -> Vec<Response<()>> {
        std::mem::take(&mut *self.0.waiting.borrow_mut())
    }

    /// Forgets what belongs to an exchange that has ended.
    pub fn reset(&self) {
        self.0.count.set(0);
        self.0.waiting.borrow_mut().clear();
    }
}

/// Of one exchange.
const COUNT_MAX: usize = 16;

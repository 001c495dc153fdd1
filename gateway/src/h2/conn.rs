//! A server's side of one connection: what comes in becomes events, what is to go out gathers in
//! [`Conn::out`]. Whoever drives it keeps what belongs to a stream under the stream's key, which is good
//! until the stream has ended.

use std::time::Instant;

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{Entry, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Uri};

use super::flood::Meter;
use super::frame::{self, HEAD_BYTES, Head, PAYLOAD_BYTES_MAX, PREFACE, flag, kind, setting};
use super::hpack::{self, Decoder, Field, Scheme};
use super::{Code, Fatal};

/// What a client may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of a head, as RFC 9113, section 6.5.2, counts them, inclusive.
    pub head_bytes_max: usize,
    /// The number of fields, inclusive.
    pub fields_max: usize,
    /// Open streams, inclusive.
    pub streams_max: usize,
}

/// What came of the client's frames.
#[derive(Debug)]
pub enum Event {
    /// A request: the stream is open from here on.
    Request {
        /// Its stream.
        key: usize,
        /// Its head.
        request: Box<Request>,
        /// Whether it has no body.
        is_last: bool,
    },
    /// A request whose head is larger than allowed. Its stream is open and wants an answer.
    TooLarge {
        /// Its stream.
        key: usize,
    },
    /// A piece of a body; none when nothing but the end has come.
    Data {
        /// Its stream.
        key: usize,
        /// The piece.
        data: Bytes,
        /// Whether it is the last.
        is_last: bool,
    },
    /// The end of a body, with fields after it.
    Trailers {
        /// Its stream.
        key: usize,
        /// The fields.
        fields: HeaderMap,
    },
    /// A stream has ended before its time: by the client, or by a rule that it broke. Its key is free.
    Gone {
        /// Its stream.
        key: usize,
    },
    /// There is room for more: of one stream, or of all.
    Opened(Option<usize>),
    /// The client has seen [`Conn::announce_end`].
    EndSeen,
    /// The client will ask for nothing more.
    Leaving,
}

/// A request's head.
#[derive(Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Scheme, authority and path, as far as there are.
    pub target: Uri,
    /// The protocol of an extended CONNECT (RFC 8441): whether it is `websocket`.
    pub protocol: Option<bool>,
    /// All other fields, in their order.
    pub fields: HeaderMap,
    /// What `content-length` says.
    pub length: Option<u64>,
}

/// The connection.
#[derive(Debug)]
pub struct Conn {
    /// What is to be sent.
    pub out: Vec<u8>,
    decoder: Decoder,
    meter: Meter,
    bounds: Bounds,
    /// Bytes of the preface that are still to come.
    preface_left: usize,
    has_settings: bool,
    /// A head that has not come whole.
    block: Option<Box<Block>>,
    streams: Vec<Option<Stream>>,
    open: usize,
    /// The highest stream that the client has opened.
    last: u32,
    is_ending: bool,
    /// Streams that have ended lately.
    closed: [Closed; CLOSED_KEPT],
    closed_at: usize,
    window_out: i64,
    window_in: i64,
    /// Bytes that were taken in and are not told to the client.
    credit: usize,
    /// What a stream's window begins with.
    window_out_first: i64,
    /// Whether the client's wish for a smaller table is still to be confirmed.
    owes_table: bool,
}

#[derive(Debug)]
struct Block {
    stream: u32,
    is_last: bool,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Stream {
    id: u32,
    /// Whether more of the request is to come.
    is_receiving: bool,
    window_out: i64,
    window_in: i64,
    credit: usize,
    /// How much of the length that the client has named is still to come.
    left: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Closed {
    id: u32,
    /// Whether the client may not know it yet.
    is_ours: bool,
}

impl Conn {
    /// A connection that begins. What is to be sent first lies ready.
    pub fn new(bounds: Bounds) -> Self {
        let mut conn = Self {
            out: Vec::new(),
            decoder: Decoder::default(),
            meter: Meter::default(),
            bounds,
            preface_left: PREFACE.len(),
            has_settings: false,
            block: None,
            streams: Vec::new(),
            open: 0,
            last: 0,
            is_ending: false,
            closed: [Closed::default(); CLOSED_KEPT],
            closed_at: 0,
            window_out: WINDOW_BYTES_DEFAULT,
            window_in: CONNECTION_WINDOW_BYTES,
            credit: 0,
            window_out_first: WINDOW_BYTES_DEFAULT,
            owes_table: false,
        };
        conn.write_settings();
        conn
    }

    fn write_settings(&mut self) {
        let text = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let settings = [
            (setting::MAX_CONCURRENT_STREAMS, text(self.bounds.streams_max)),
            (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES as u32),
            (setting::MAX_HEADER_LIST_SIZE, text(self.bounds.head_bytes_max)),
            (setting::ENABLE_CONNECT_PROTOCOL, 1),
        ];
        let mut payload = [0; 4 * SETTING_BYTES];
        for (place, (name, value)) in payload.chunks_exact_mut(SETTING_BYTES).zip(settings) {
            let ([a, b], [c, d, e, f]) = (name.to_be_bytes(), value.to_be_bytes());
            place.copy_from_slice(&[a, b, c, d, e, f]);
        }
        frame::write(&mut self.out, kind::SETTINGS, 0, 0, &payload);
        let more = CONNECTION_WINDOW_BYTES - WINDOW_BYTES_DEFAULT;
        frame::write_window(&mut self.out, 0, more as u32);
    }

    /// Open streams.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Bytes of bodies that have come and were not [released](Self::release).
    pub fn held(&self) -> usize {
        let taken = CONNECTION_WINDOW_BYTES - self.window_in;
        usize::try_from(taken).unwrap_or_default().saturating_sub(self.credit)
    }

    /// Whether it waits for the rest of the preface, of settings or of a head; `input` is what was read
    /// and not taken.
    pub fn awaits_head(&self, input: &[u8]) -> bool {
        let is_data = input.get(3) == Some(&kind::DATA);
        !self.has_settings || self.block.is_some() || !input.is_empty() && !is_data
    }

    /// Bytes that `input` is short of for a whole frame, as far as is known.
    pub fn missing(&self, input: &[u8]) -> usize {
        match Head::peek(input) {
            Some(head) => (HEAD_BYTES + head.length).saturating_sub(input.len()),
            None => 0,
        }
    }

    /// Takes frames off `input` up to the first that is of interest. `None`: more has to be read.
    ///
    /// # Errors
    /// When the connection is beyond help.
    pub fn take(
        &mut self,
        input: &mut BytesMut,
        now: impl Fn() -> Instant + Copy,
    ) -> Result<Option<Event>, Fatal> {
        loop {
            if self.preface_left > 0 && !self.take_preface(input)? {
                return Ok(None);
            }
            let Some(head) = Head::peek(input) else { return Ok(None) };
            if head.length > PAYLOAD_BYTES_MAX {
                return Err(Fatal::new(Code::FRAME_SIZE, "a frame is larger than allowed"));
            }
            self.check_order(head)?;
            let whole = HEAD_BYTES + head.length;
            let Some(payload) = input.get(HEAD_BYTES..whole) else { return Ok(None) };
            if is_costly(head) && !self.meter.take(now) {
                return Err(Fatal::new(Code::ENHANCE_YOUR_CALM, "a flood of frames"));
            }
            let event = match head.kind {
                kind::DATA => self.data(head, input, now)?,
                kind::HEADERS => self.headers(head, payload, now)?,
                kind::CONTINUATION => self.continuation(head, payload, now)?,
                kind::SETTINGS => self.settings(head, payload)?,
                kind::RST_STREAM => self.reset_by_client(head, payload)?,
                kind::WINDOW_UPDATE => self.window(head, payload)?,
                kind::PING => self.ping(head, payload)?,
                kind::PRIORITY => self.priority(head)?,
                kind::PUSH_PROMISE => return Err(Fatal::protocol("a push by a client")),
                kind::GOAWAY if head.stream != 0 || head.length < 8 => {
                    return Err(Fatal::protocol("a malformed GOAWAY"));
                }
                kind::GOAWAY => Some(Event::Leaving),
                // RFC 9113, section 5.5.
                _ => None,
            };
            if head.kind != kind::DATA {
                input.advance(whole);
            }
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    fn take_preface(&mut self, input: &mut BytesMut) -> Result<bool, Fatal> {
        let here = self.preface_left.min(input.len());
        let begun = PREFACE.len() - self.preface_left;
        if input.get(..here) != PREFACE.get(begun..begun + here) {
            return Err(Fatal::protocol("this is not HTTP/2"));
        }
        input.advance(here);
        self.preface_left -= here;
        Ok(self.preface_left == 0)
    }

    /// What may come now at all (RFC 9113, sections 3.4 and 6.10).
    fn check_order(&self, head: Head) -> Result<(), Fatal> {
        if !self.has_settings && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(Fatal::protocol("settings come first"));
        }
        let continued = (head.kind == kind::CONTINUATION).then_some(head.stream);
        match self.block.as_ref().map(|block| block.stream) == continued {
            true => Ok(()),
            false => Err(Fatal::protocol("a head is continued by other frames")),
        }
    }

    fn data(
        &mut self,
        head: Head,
        input: &mut BytesMut,
        now: impl Fn() -> Instant,
    ) -> Result<Option<Event>, Fatal> {
        if head.stream == 0 || head.stream > self.last {
            return Err(Fatal::protocol("data of no stream"));
        }
        // Padding counts (RFC 9113, section 6.9.1).
        self.window_in -= head.length as i64;
        if self.window_in < 0 {
            return Err(Fatal::new(Code::FLOW_CONTROL, "more data than the window allows"));
        }
        let whole = HEAD_BYTES + head.length;
        let payload = input.get(HEAD_BYTES..whole).unwrap_or_default();
        let Some(content) = frame::unpadded(payload, head.has(flag::PADDED)) else {
            return Err(Fatal::protocol("more padding than payload"));
        };
        self.meter.moved(content.len());
        let begin = HEAD_BYTES + usize::from(head.has(flag::PADDED));
        let bytes = content.len();
        let is_last = head.has(flag::END_STREAM);
        let Some(key) = self.find(head.stream) else {
            input.advance(whole);
            self.release(None, head.length);
            if !self.is_ours(head.stream) {
                self.charge(now)?;
                frame::write_reset(&mut self.out, head.stream, Code::STREAM_CLOSED);
            }
            return Ok(None);
        };
        let Some(stream) = self.stream(key) else { return Ok(None) };
        stream.window_in -= head.length as i64;
        let fault = if !stream.is_receiving {
            Some(Code::STREAM_CLOSED)
        } else if stream.window_in < 0 {
            Some(Code::FLOW_CONTROL)
        } else if !stream.fits(bytes, is_last) {
            Some(Code::PROTOCOL)
        } else {
            None
        };
        if let Some(code) = fault {
            input.advance(whole);
            self.release(None, head.length);
            self.reset(key, code);
            return Ok(Some(Event::Gone { key }));
        }
        stream.is_receiving = !is_last;
        // A small piece must not keep a large buffer alive.
        let data = if bytes >= COPY_BYTES_MAX {
            let mut frame = input.split_to(whole);
            frame.advance(begin);
            frame.truncate(bytes);
            frame.freeze()
        } else {
            let data = Bytes::copy_from_slice(content);
            input.advance(whole);
            data
        };
        self.release(Some(key), head.length - bytes);
        match bytes == 0 && !is_last {
            true => Ok(None),
            false => Ok(Some(Event::Data { key, data, is_last })),
        }
    }

    fn headers(
        &mut self,
        head: Head,
        payload: &[u8],
        now: impl Fn() -> Instant,
    ) -> Result<Option<Event>, Fatal> {
        if head.stream.is_multiple_of(2) {
            return Err(Fatal::protocol("a stream that no client opens"));
        }
        let Some(mut block) = frame::unpadded(payload, head.has(flag::PADDED)) else {
            return Err(Fatal::protocol("more padding than payload"));
        };
        if head.has(flag::PRIORITY) {
            // RFC 9113, section 5.3.2: it means nothing any more.
            block = block
                .get(PRIORITY_BYTES..)
                .ok_or(Fatal::new(Code::FRAME_SIZE, "a head without its priority"))?;
        }
        let is_last = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.block(head.stream, is_last, block, now);
        }
        let bytes = block.to_vec();
        self.block = Some(Box::new(Block { stream: head.stream, is_last, bytes }));
        Ok(None)
    }

    fn continuation(
        &mut self,
        head: Head,
        payload: &[u8],
        now: impl Fn() -> Instant,
    ) -> Result<Option<Event>, Fatal> {
        let Some(mut block) = self.block.take() else { return Ok(None) };
        block.bytes.extend_from_slice(payload);
        // The code of a field is hardly ever longer than its text, so that this is more than enough.
        if block.bytes.len() > self.bounds.head_bytes_max + PAYLOAD_BYTES_MAX {
            return Err(Fatal::new(Code::ENHANCE_YOUR_CALM, "a head that does not end"));
        }
        if head.has(flag::END_HEADERS) {
            return self.block(block.stream, block.is_last, &block.bytes, now);
        }
        self.block = Some(block);
        Ok(None)
    }

    /// A head or trailers, whole.
    fn block(
        &mut self,
        id: u32,
        is_last: bool,
        block: &[u8],
        now: impl Fn() -> Instant,
    ) -> Result<Option<Event>, Fatal> {
        if let Some(key) = self.find(id) {
            return self.trailers(key, is_last, block);
        }
        if id <= self.last {
            self.pass_over(block)?;
            let known = self.closed.iter().find(|closed| closed.id == id);
            return match known {
                Some(closed) if closed.is_ours => Ok(None),
                Some(_) => {
                    Err(Fatal::new(Code::STREAM_CLOSED, "a head on a stream that has ended"))
                }
                None => Err(Fatal::protocol("streams are opened in their order")),
            };
        }
        self.last = id;
        if self.open >= self.bounds.streams_max || self.is_ending {
            self.pass_over(block)?;
            return self.refuse(id, Code::REFUSED_STREAM, now);
        }
        let mut fields = Fields::default();
        self.read(block, &mut fields)?;
        let is_too_large = fields.is_too_large;
        let request = match is_too_large {
            true => None,
            false => match fields.request(is_last) {
                Ok(request) => Some(request),
                Err(_) => return self.refuse(id, Code::PROTOCOL, now),
            },
        };
        let left = request.as_ref().and_then(|request| request.length);
        let key = self.insert(Stream {
            id,
            is_receiving: !is_last,
            window_out: self.window_out_first,
            window_in: STREAM_WINDOW_BYTES,
            credit: 0,
            left,
        });
        Ok(Some(match request {
            Some(request) => Event::Request { key, request: Box::new(request), is_last },
            None => Event::TooLarge { key },
        }))
    }

    fn trailers(
        &mut self,
        key: usize,
        is_last: bool,
        block: &[u8],
    ) -> Result<Option<Event>, Fatal> {
        let mut fields = Fields::default();
        self.read(block, &mut fields)?;
        let Some(stream) = self.stream(key) else { return Ok(None) };
        let fault = if !stream.is_receiving {
            Some(Code::STREAM_CLOSED)
        } else if !is_last || !stream.fits(0, true) || !fields.are_trailers() {
            Some(Code::PROTOCOL)
        } else {
            None
        };
        stream.is_receiving = false;
        if let Some(code) = fault {
            self.reset(key, code);
            return Ok(Some(Event::Gone { key }));
        }
        Ok(Some(Event::Trailers { key, fields: fields.ordinary }))
    }

    fn read(&mut self, mut block: &[u8], fields: &mut Fields) -> Result<(), Fatal> {
        let mut is_first = true;
        loop {
            match self.decoder.next(&mut block, is_first) {
                Ok(Some((field, bytes))) => fields.add(field, bytes, self.bounds),
                Ok(None) => return Ok(()),
                Err(hpack::Broken) => {
                    return Err(Fatal::new(Code::COMPRESSION, "a head cannot be decompressed"));
                }
            }
            is_first = false;
        }
    }

    /// Reads a block for what it does to the table alone.
    fn pass_over(&mut self, block: &[u8]) -> Result<(), Fatal> {
        let mut fields = Fields { is_too_large: true, ..Fields::default() };
        self.read(block, &mut fields)
    }

    /// Refuses a stream that never was open.
    fn refuse(
        &mut self,
        id: u32,
        code: Code,
        now: impl Fn() -> Instant,
    ) -> Result<Option<Event>, Fatal> {
        self.charge(now)?;
        frame::write_reset(&mut self.out, id, code);
        self.note_closed(id, true);
        Ok(None)
    }

    fn charge(&mut self, now: impl Fn() -> Instant) -> Result<(), Fatal> {
        match self.meter.take(now) {
            true => Ok(()),
            false => Err(Fatal::new(Code::ENHANCE_YOUR_CALM, "a flood of refusals")),
        }
    }

    fn settings(&mut self, head: Head, payload: &[u8]) -> Result<Option<Event>, Fatal> {
        if head.stream != 0 {
            return Err(Fatal::protocol("settings of a stream"));
        }
        let is_sized = head.length.is_multiple_of(SETTING_BYTES);
        if !is_sized || head.has(flag::ACK) && head.length > 0 {
            return Err(Fatal::new(Code::FRAME_SIZE, "settings of no such size"));
        }
        if head.has(flag::ACK) {
            return Ok(None);
        }
        self.has_settings = true;
        let mut event = None;
        for setting in payload.chunks_exact(SETTING_BYTES) {
            let [a, b, c, d, e, f] = *setting else { continue };
            let value = u32::from_be_bytes([c, d, e, f]);
            match u16::from_be_bytes([a, b]) {
                // The table of this direction is never used, which a client that makes it smaller
                // has to be told (RFC 7541, section 4.2).
                setting::HEADER_TABLE_SIZE => {
                    self.owes_table |= (value as usize) < hpack::TABLE_BYTES;
                }
                setting::ENABLE_PUSH if value > 1 => {
                    return Err(Fatal::protocol("a setting of no such value"));
                }
                setting::MAX_FRAME_SIZE if !(1 << 14..1 << 24).contains(&value) => {
                    return Err(Fatal::protocol("a setting of no such value"));
                }
                setting::INITIAL_WINDOW_SIZE => {
                    let value = i64::from(value);
                    let by = value - self.window_out_first;
                    self.window_out_first = value;
                    let mut streams = self.streams.iter_mut().flatten();
                    let is_over = |stream: &mut Stream| {
                        stream.window_out += by;
                        stream.window_out > WINDOW_BYTES_MAX
                    };
                    if value > WINDOW_BYTES_MAX || streams.any(is_over) {
                        return Err(Fatal::new(Code::FLOW_CONTROL, "a window that is too large"));
                    }
                    event = Some(Event::Opened(None));
                }
                _ => {}
            }
        }
        frame::write(&mut self.out, kind::SETTINGS, flag::ACK, 0, &[]);
        Ok(event)
    }

    fn reset_by_client(&mut self, head: Head, payload: &[u8]) -> Result<Option<Event>, Fatal> {
        if head.stream == 0 || head.stream > self.last {
            return Err(Fatal::protocol("a reset of no stream"));
        }
        if payload.len() != 4 {
            return Err(Fatal::new(Code::FRAME_SIZE, "a reset of no such size"));
        }
        let Some(key) = self.find(head.stream) else { return Ok(None) };
        self.remove(key, false);
        Ok(Some(Event::Gone { key }))
    }

    fn window(&mut self, head: Head, payload: &[u8]) -> Result<Option<Event>, Fatal> {
        let Some(bytes) = payload.first_chunk().filter(|_| payload.len() == 4) else {
            return Err(Fatal::new(Code::FRAME_SIZE, "a window of no such size"));
        };
        let bytes = i64::from(u32::from_be_bytes(*bytes) & 0x7fff_ffff);
        if head.stream == 0 {
            self.window_out += bytes;
            if bytes == 0 {
                return Err(Fatal::protocol("a window that opens by nothing"));
            }
            if self.window_out > WINDOW_BYTES_MAX {
                return Err(Fatal::new(Code::FLOW_CONTROL, "a window that is too large"));
            }
            return Ok(Some(Event::Opened(None)));
        }
        if head.stream > self.last {
            return Err(Fatal::protocol("a window of no stream"));
        }
        let Some(key) = self.find(head.stream) else { return Ok(None) };
        let Some(stream) = self.stream(key) else { return Ok(None) };
        stream.window_out += bytes;
        let code = if bytes == 0 {
            Code::PROTOCOL
        } else if stream.window_out > WINDOW_BYTES_MAX {
            Code::FLOW_CONTROL
        } else {
            return Ok(Some(Event::Opened(Some(key))));
        };
        self.reset(key, code);
        Ok(Some(Event::Gone { key }))
    }

    fn ping(&mut self, head: Head, payload: &[u8]) -> Result<Option<Event>, Fatal> {
        if head.stream != 0 {
            return Err(Fatal::protocol("a ping of a stream"));
        }
        if payload.len() != PING_OF_END.len() {
            return Err(Fatal::new(Code::FRAME_SIZE, "a ping of no such size"));
        }
        if head.has(flag::ACK) {
            return Ok((payload == PING_OF_END).then_some(Event::EndSeen));
        }
        frame::write(&mut self.out, kind::PING, flag::ACK, 0, payload);
        Ok(None)
    }

    fn priority(&mut self, head: Head) -> Result<Option<Event>, Fatal> {
        if head.stream == 0 {
            return Err(Fatal::protocol("a priority of no stream"));
        }
        if head.length == PRIORITY_BYTES {
            return Ok(None);
        }
        match self.find(head.stream) {
            Some(key) => {
                self.reset(key, Code::FRAME_SIZE);
                Ok(Some(Event::Gone { key }))
            }
            None => Err(Fatal::new(Code::FRAME_SIZE, "a priority of no such size")),
        }
    }

    /// Notes that so many bytes that came are out of the way; what it was that came tells `key`.
    pub fn release(&mut self, key: Option<usize>, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.credit += bytes;
        if self.credit as i64 >= CONNECTION_WINDOW_BYTES / 2 {
            self.window_in += self.credit as i64;
            frame::write_window(&mut self.out, 0, self.credit as u32);
            self.credit = 0;
        }
        let Some(stream) = key.and_then(|key| self.streams.get_mut(key)?.as_mut()) else { return };
        stream.credit += bytes;
        if stream.is_receiving && stream.credit as i64 >= STREAM_WINDOW_BYTES / 2 {
            stream.window_in += stream.credit as i64;
            frame::write_window(&mut self.out, stream.id, stream.credit as u32);
            stream.credit = 0;
        }
    }

    /// How much of a body may go out on a stream now, in one frame.
    pub fn sendable(&self, key: usize) -> usize {
        let stream = self.streams.get(key).and_then(Option::as_ref);
        let window = stream.map_or(0, |stream| stream.window_out.min(self.window_out));
        usize::try_from(window).unwrap_or_default().min(PAYLOAD_BYTES_MAX)
    }

    /// Whether the window of the connection is open.
    pub fn is_window_open(&self) -> bool {
        self.window_out > 0
    }

    /// Writes a head, or trailers. `encode` writes its fields by [`hpack`].
    pub fn write_head(&mut self, key: usize, is_last: bool, encode: impl FnOnce(&mut Vec<u8>)) {
        let Some(id) = self.stream(key).map(|stream| stream.id) else { return };
        let out = &mut self.out;
        let start = out.len();
        out.extend_from_slice(&[0; HEAD_BYTES]);
        if std::mem::take(&mut self.owes_table) {
            hpack::write_no_table(out);
        }
        encode(out);
        let block = out.len() - start - HEAD_BYTES;
        let last = if is_last { flag::END_STREAM } else { 0 };
        let mut head = Head {
            length: block,
            kind: kind::HEADERS,
            flags: last | flag::END_HEADERS,
            stream: id,
        };
        if block > PAYLOAD_BYTES_MAX {
            let rest = out.split_off(start + HEAD_BYTES + PAYLOAD_BYTES_MAX);
            (head.length, head.flags) = (PAYLOAD_BYTES_MAX, last);
            let mut pieces = rest.chunks(PAYLOAD_BYTES_MAX).peekable();
            while let Some(piece) = pieces.next() {
                let flags = if pieces.peek().is_none() { flag::END_HEADERS } else { 0 };
                frame::write(out, kind::CONTINUATION, flags, id, piece);
            }
        }
        if let Some(place) = out.get_mut(start..start + HEAD_BYTES) {
            place.copy_from_slice(&head.bytes());
        }
    }

    /// Writes a piece of a body, no longer than [`Self::sendable`].
    pub fn write_data(&mut self, key: usize, data: &[u8], is_last: bool) {
        let Some(stream) = self.streams.get_mut(key).and_then(Option::as_mut) else { return };
        stream.window_out -= data.len() as i64;
        self.window_out -= data.len() as i64;
        self.meter.moved(data.len());
        let flags = if is_last { flag::END_STREAM } else { 0 };
        frame::write(&mut self.out, kind::DATA, flags, stream.id, data);
    }

    /// Whether more of a stream's request is to come.
    pub fn is_receiving(&self, key: usize) -> bool {
        self.streams.get(key).and_then(Option::as_ref).is_some_and(|stream| stream.is_receiving)
    }

    /// Ends a stream whose response has been written to its end. Nobody wants the rest of its request
    /// (RFC 9113, section 8.1). Its key is free.
    pub fn finish(&mut self, key: usize) {
        self.meter.answered();
        match self.is_receiving(key) {
            true => self.reset(key, Code::NO_ERROR),
            false => self.remove(key, false),
        }
    }

    /// Ends a stream in the middle. Its key is free.
    pub fn reset(&mut self, key: usize, code: Code) {
        let Some(id) = self.stream(key).map(|stream| stream.id) else { return };
        frame::write_reset(&mut self.out, id, code);
        self.remove(key, true);
    }

    /// Tells the client that the connection will end, and asks it to say that it knows
    /// ([`Event::EndSeen`]); what it sends before that is served (RFC 9113, section 6.8).
    pub fn announce_end(&mut self) {
        frame::write_go_away(&mut self.out, WINDOW_BYTES_MAX as u32, Code::NO_ERROR);
        frame::write(&mut self.out, kind::PING, 0, 0, PING_OF_END);
    }

    /// Tells the client which requests are served; no other will be.
    pub fn end(&mut self, code: Code) {
        self.is_ending = true;
        frame::write_go_away(&mut self.out, self.last, code);
    }

    /// Lets go of memory that no open stream needs.
    pub fn shrink(&mut self) {
        if self.open == 0 {
            self.streams = Vec::new();
        }
    }

    fn find(&self, id: u32) -> Option<usize> {
        let is_it = |stream: &Option<Stream>| stream.as_ref().is_some_and(|stream| stream.id == id);
        self.streams.iter().position(is_it)
    }

    fn stream(&mut self, key: usize) -> Option<&mut Stream> {
        self.streams.get_mut(key)?.as_mut()
    }

    fn insert(&mut self, stream: Stream) -> usize {
        self.open += 1;
        match self.streams.iter().position(Option::is_none) {
            Some(key) => {
                if let Some(place) = self.streams.get_mut(key) {
                    *place = Some(stream);
                }
                key
            }
            None => {
                self.streams.push(Some(stream));
                self.streams.len() - 1
            }
        }
    }

    fn remove(&mut self, key: usize, is_ours: bool) {
        let Some(stream) = self.streams.get_mut(key).and_then(Option::take) else { return };
        self.open -= 1;
        self.note_closed(stream.id, is_ours);
    }

    fn note_closed(&mut self, id: u32, is_ours: bool) {
        self.closed_at = (self.closed_at + 1) % CLOSED_KEPT;
        if let Some(place) = self.closed.get_mut(self.closed_at) {
            *place = Closed { id, is_ours };
        }
    }

    /// Whether a stream was ended by us, so that frames of it may still be on their way.
    fn is_ours(&self, id: u32) -> bool {
        self.closed.iter().any(|closed| closed.id == id && closed.is_ours)
    }
}

impl Stream {
    /// Takes so much of the length that the client has named; whether that agrees with it.
    fn fits(&mut self, bytes: usize, is_last: bool) -> bool {
        let Some(left) = &mut self.left else { return true };
        match left.checked_sub(bytes as u64) {
            Some(rest) => {
                *left = rest;
                !is_last || rest == 0
            }
            None => false,
        }
    }
}

/// The fields of a block as they come.
#[derive(Default)]
struct Fields {
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    path: Option<PathAndQuery>,
    protocol: Option<bool>,
    ordinary: HeaderMap,
    length: Option<u64>,
    bytes: usize,
    count: usize,
    is_too_large: bool,
    /// Why it is no head (RFC 9113, section 8.1.1).
    malformed: Option<&'static str>,
}

impl Fields {
    fn add(&mut self, field: Field, bytes: usize, bounds: Bounds) {
        self.bytes += bytes;
        self.is_too_large |= self.bytes > bounds.head_bytes_max;
        if self.is_too_large {
            return;
        }
        let has_fields = self.count > 0;
        let is_twice = match field {
            Field::Ordinary(name, value) => {
                self.count += 1;
                self.is_too_large |= self.count > bounds.fields_max;
                return self.add_ordinary(name, value);
            }
            Field::Malformed(why) => return self.fail(why),
            Field::Method(method) => self.method.replace(method).is_some(),
            Field::Scheme(scheme) => self.scheme.replace(scheme).is_some(),
            Field::Authority(authority) => self.authority.replace(authority).is_some(),
            Field::Path(path) => self.path.replace(path).is_some(),
            Field::Protocol { is_websocket } => self.protocol.replace(is_websocket).is_some(),
        };
        if is_twice {
            self.fail("a pseudo-field twice");
        }
        if has_fields {
            self.fail("a pseudo-field after a field");
        }
    }

    fn fail(&mut self, why: &'static str) {
        self.malformed.get_or_insert(why);
    }

    fn add_ordinary(&mut self, name: HeaderName, value: HeaderValue) {
        match name.as_str() {
            // RFC 9113, section 8.2.2.
            "connection" | "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection" => {
                return self.fail("a field that belongs to HTTP/1.1");
            }
            "te" if !value.as_bytes().eq_ignore_ascii_case(b"trailers") => {
                return self.fail("a coding that belongs to HTTP/1.1");
            }
            "content-length" => {
                let text = value.as_bytes();
                let is_number =
                    (1..=19).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
                if !is_number || self.length.is_some() {
                    return self.fail("the length of the body is not valid");
                }
                let digits = text.iter().map(|digit| u64::from(digit - b'0'));
                self.length = Some(digits.fold(0, |n: u64, digit| n * 10 + digit));
            }
            _ => {}
        }
        if self.ordinary.capacity() == 0 {
            self.ordinary.reserve(FIELDS_USUAL);
        }
        match self.ordinary.try_entry(name) {
            Ok(Entry::Vacant(entry)) => self.is_too_large |= entry.try_insert(value).is_err(),
            Ok(Entry::Occupied(mut entry)) => entry.append(value),
            Err(_) => self.is_too_large = true,
        }
    }

    fn are_trailers(&self) -> bool {
        let has_pseudo = self.method.is_some()
            || self.scheme.is_some()
            || self.authority.is_some()
            || self.path.is_some()
            || self.protocol.is_some();
        !has_pseudo && self.malformed.is_none() && !self.is_too_large
    }

    /// The request that they are (RFC 9113, section 8.3.1; RFC 8441, section 4).
    fn request(self, is_last: bool) -> Result<Request, &'static str> {
        if let Some(why) = self.malformed {
            return Err(why);
        }
        let method = self.method.ok_or("no method")?;
        let is_connect = method == Method::CONNECT;
        if is_connect && self.protocol.is_none() {
            let Self { scheme: None, path: None, authority: Some(authority), .. } = self else {
                return Err("a CONNECT with a path");
            };
            let target = Uri::from(authority);
            let (protocol, fields, length) = (None, self.ordinary, self.length);
            return Ok(Request { method, target, protocol, fields, length });
        }
        if self.protocol.is_some() && !(is_connect && self.authority.is_some()) {
            return Err("a protocol of no CONNECT");
        }
        if is_last && self.length.is_some_and(|length| length > 0) {
            return Err("a length without a body");
        }
        let mut parts = http::uri::Parts::default();
        let scheme = self.scheme.ok_or("no scheme")?;
        parts.path_and_query = Some(self.path.ok_or("no path")?);
        if let Some(authority) = self.authority {
            parts.authority = Some(authority);
            parts.scheme = Some(match scheme {
                Scheme::Https => http::uri::Scheme::HTTPS,
                Scheme::Http => http::uri::Scheme::HTTP,
            });
        }
        let target = Uri::from_parts(parts).map_err(|_| "the target is not valid")?;
        let (protocol, fields, length) = (self.protocol, self.ordinary, self.length);
        Ok(Request { method, target, protocol, fields, length })
    }
}

/// Whether a frame asks for work and brings nothing.
fn is_costly(head: Head) -> bool {
    match head.kind {
        kind::DATA => head.length == 0 && !head.has(flag::END_STREAM),
        kind::HEADERS => false,
        kind::SETTINGS | kind::PING => !head.has(flag::ACK),
        _ => true,
    }
}

/// The windows that clients get. That of the connection bounds what one of them may have here unread.
pub const STREAM_WINDOW_BYTES: i64 = 512 * 1024;
/// For all streams together.
pub const CONNECTION_WINDOW_BYTES: i64 = 1024 * 1024;
const WINDOW_BYTES_DEFAULT: i64 = 65_535;
const WINDOW_BYTES_MAX: i64 = (1 << 31) - 1;
const SETTING_BYTES: usize = 6;
const PRIORITY_BYTES: usize = 5;
const PING_OF_END: &[u8] = b"goodbye!";
const CLOSED_KEPT: usize = 64;
const COPY_BYTES_MAX: usize = 4 * 1024;
/// The fields that most requests have, and those that the gateway adds.
const FIELDS_USUAL: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { head_bytes_max: 1000, fields_max: 10, streams_max: 3 };
    /// GET https / of a.example.
    const GET: &[u8] = b"\x82\x87\x84\x01\x09a.example";
    const POST: &[u8] = b"\x83\x87\x84\x01\x09a.example";

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame::write(&mut out, kind, flags, stream, payload);
        out
    }

    /// A connection whose beginning is over.
    fn begun() -> Conn {
        let mut conn = Conn::new(BOUNDS);
        let settings = frame(kind::SETTINGS, 0, 0, &[]);
        assert!(fed(&mut conn, &[PREFACE, &settings].concat()).unwrap().is_empty());
        conn.out.clear();
        conn
    }

    fn fed(conn: &mut Conn, bytes: &[u8]) -> Result<Vec<Event>, Fatal> {
        let (mut input, mut events) = (BytesMut::from(bytes), Vec::new());
        while let Some(event) = conn.take(&mut input, Instant::now)? {
            events.push(event);
        }
        Ok(events)
    }

    /// Frames that wait to be sent, as kind, stream and the last four bytes of the payload.
    fn sent(conn: &mut Conn) -> Vec<(u8, u32, u32)> {
        let out = std::mem::take(&mut conn.out);
        let (mut rest, mut frames) = (&out[..], Vec::new());
        while let Some(head) = Head::peek(rest) {
            let payload = &rest[HEAD_BYTES..HEAD_BYTES + head.length];
            let last = payload.last_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
            frames.push((head.kind, head.stream, last));
            rest = &rest[HEAD_BYTES + head.length..];
        }
        frames
    }

    fn head(stream: u32, is_last: bool, block: &[u8]) -> Vec<u8> {
        let last = if is_last { flag::END_STREAM } else { 0 };
        frame(kind::HEADERS, flag::END_HEADERS | last, stream, block)
    }

    fn opened(conn: &mut Conn, stream: u32, block: &[u8], is_last: bool) -> usize {
        match fed(conn, &head(stream, is_last, block)).unwrap().pop() {
            Some(Event::Request { key, .. }) => key,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_comes_in_pieces_of_any_size() {
        let settings = frame(kind::SETTINGS, 0, 0, &[]);
        let (first, rest) = POST.split_at(3);
        let all = [
            PREFACE,
            &settings,
            &frame(kind::HEADERS, 0, 1, first),
            &frame(kind::CONTINUATION, flag::END_HEADERS, 1, rest),
            &frame(kind::DATA, flag::PADDED, 1, b"\x02abc\0\0"),
            &frame(kind::DATA, 0, 1, b"def"),
            &head(1, true, b"\x00\x01x\x01y"),
        ]
        .concat();
        for step in 1..all.len() {
            let (mut conn, mut input) = (Conn::new(BOUNDS), BytesMut::new());
            let (mut content, mut seen) = (Vec::new(), Vec::new());
            for piece in all.chunks(step) {
                input.extend_from_slice(piece);
                while let Some(event) = conn.take(&mut input, Instant::now).unwrap() {
                    match event {
                        Event::Request { request, is_last: false, .. } => {
                            seen.push(request.target.to_string());
                        }
                        Event::Data { data, is_last: false, .. } => content.extend(data),
                        Event::Trailers { fields, .. } => seen.push(format!("{fields:?}")),
                        other => panic!("{other:?}"),
                    }
                }
            }
            assert_eq!(content, b"abcdef");
            assert_eq!(seen, ["https://a.example/", "{\"x\": \"y\"}"]);
            assert!(input.is_empty() && conn.open() == 1 && !conn.is_receiving(0));
            conn.finish(0);
            assert_eq!(conn.open(), 0);
        }
    }

    #[test]
    fn streams_are_bounded_and_their_places_come_back() {
        let mut conn = begun();
        let keys: Vec<usize> = [1, 3, 5].map(|id| opened(&mut conn, id, GET, true)).into();
        assert_eq!(keys, [0, 1, 2]);
        assert!(fed(&mut conn, &head(7, true, GET)).unwrap().is_empty());
        assert_eq!(sent(&mut conn), [(kind::RST_STREAM, 7, Code::REFUSED_STREAM.0)]);
        conn.finish(1);
        assert!(sent(&mut conn).is_empty());
        assert_eq!(opened(&mut conn, 9, GET, false), 1);
        // What is answered before it has come whole is not wanted any more.
        conn.finish(1);
        assert_eq!(sent(&mut conn), [(kind::RST_STREAM, 9, Code::NO_ERROR.0)]);
        let late = [frame(kind::DATA, 0, 9, b"late"), head(9, true, b"\x00\x01x\x01y")].concat();
        assert!(fed(&mut conn, &late).unwrap().is_empty() && sent(&mut conn).is_empty());
        // The table goes on where heads are not looked at.
        let kept = b"\x82\x87\x84\x41\x09b.example";
        opened(&mut conn, 11, GET, true);
        assert!(fed(&mut conn, &head(13, true, kept)).unwrap().is_empty());
        conn.finish(0);
        let Some(Event::Request { request, .. }) =
            fed(&mut conn, &head(15, true, b"\x82\x87\x84\xbe")).unwrap().pop()
        else {
            panic!("a request");
        };
        assert_eq!(request.target.host(), Some("b.example"));
    }

    #[test]
    fn windows_bound_both_directions() {
        let mut conn = begun();
        let key = opened(&mut conn, 1, POST, false);
        assert_eq!(conn.sendable(key), PAYLOAD_BYTES_MAX);
        conn.write_head(key, false, |out| hpack::write_status(out, http::StatusCode::OK));
        for _ in 0..3 {
            conn.write_data(key, &[0; PAYLOAD_BYTES_MAX], false);
        }
        conn.write_data(key, &vec![0; conn.sendable(key)], false);
        assert_eq!((conn.sendable(key), conn.is_window_open()), (0, false));
        let open = |stream: u32, by: u32| frame(kind::WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
        assert!(matches!(fed(&mut conn, &open(0, 100)).unwrap()[..], [Event::Opened(None)]));
        assert_eq!(conn.sendable(key), 0);
        let events = fed(&mut conn, &open(1, 60)).unwrap();
        assert!(matches!(events[..], [Event::Opened(Some(0))]));
        assert_eq!(conn.sendable(key), 60);
        // The window of all streams changes with the setting, even below nothing.
        fed(&mut conn, &frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).unwrap();
        assert_eq!(conn.sendable(key), 0);
        fed(&mut conn, &frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff])).unwrap();
        assert_eq!(conn.sendable(key), 60);
        sent(&mut conn);

        let piece = frame(kind::DATA, 0, 1, &[0; PAYLOAD_BYTES_MAX]);
        let count = STREAM_WINDOW_BYTES as usize / PAYLOAD_BYTES_MAX;
        for _ in 0..count {
            assert_eq!(fed(&mut conn, &piece).unwrap().len(), 1);
        }
        assert_eq!(conn.held(), STREAM_WINDOW_BYTES as usize);
        // Half of it is worth a frame.
        conn.release(Some(key), STREAM_WINDOW_BYTES as usize / 2 - 1);
        assert!(sent(&mut conn).is_empty());
        conn.release(Some(key), 1);
        assert_eq!(sent(&mut conn), [(kind::WINDOW_UPDATE, 1, STREAM_WINDOW_BYTES as u32 / 2)]);
        conn.release(Some(key), STREAM_WINDOW_BYTES as usize / 2);
        assert_eq!(sent(&mut conn).len(), 2);
        assert_eq!(conn.held(), 0);
        for _ in 0..count {
            assert_eq!(fed(&mut conn, &piece).unwrap().len(), 1);
        }
        assert!(matches!(fed(&mut conn, &piece).unwrap()[..], [Event::Gone { key: 0 }]));
        assert_eq!(sent(&mut conn), [(kind::RST_STREAM, 1, Code::FLOW_CONTROL.0)]);
    }

    #[test]
    fn a_client_that_takes_no_notice_of_the_connections_window_is_sent_away() {
        let mut conn = begun();
        let (one, other) = (opened(&mut conn, 1, POST, false), opened(&mut conn, 3, POST, false));
        assert_ne!(one, other);
        let mut code = None;
        for index in 0..=CONNECTION_WINDOW_BYTES as usize / PAYLOAD_BYTES_MAX {
            let stream = if index % 2 == 0 { 1 } else { 3 };
            let piece = frame(kind::DATA, 0, stream, &[0; PAYLOAD_BYTES_MAX]);
            code = fed(&mut conn, &piece).err().map(|fatal| fatal.code);
        }
        assert_eq!(code, Some(Code::FLOW_CONTROL));
    }

    #[test]
    fn a_large_head_is_written_in_several_frames_and_read_in_bounds() {
        let mut conn = begun();
        let key = opened(&mut conn, 1, GET, true);
        let value = vec![b'v'; 40_000];
        conn.write_head(key, true, |out| hpack::write_field(out, "x", &value));
        let kinds: Vec<u8> = sent(&mut conn).iter().map(|frame| frame.0).collect();
        assert_eq!(kinds, [kind::HEADERS, kind::CONTINUATION, kind::CONTINUATION]);

        let mut large = GET.to_vec();
        hpack::write_field(&mut large, "x", &[b'v'; 1000]);
        let events = fed(&mut conn, &head(3, true, &large)).unwrap();
        assert!(matches!(events[..], [Event::TooLarge { key: 1 }]), "{events:?}");
        let mut many = GET.to_vec();
        for _ in 0..11 {
            hpack::write_field(&mut many, "x", b"");
        }
        let events = fed(&mut conn, &head(5, true, &many)).unwrap();
        assert!(matches!(events[..], [Event::TooLarge { key: 2 }]), "{events:?}");
        conn.finish(2);
        let endless = [
            frame(kind::HEADERS, 0, 7, GET),
            frame(kind::CONTINUATION, 0, 7, &[0; 10_000]),
            frame(kind::CONTINUATION, 0, 7, &[0; 10_000]),
        ];
        assert_eq!(fed(&mut conn, &endless.concat()).unwrap_err().code, Code::ENHANCE_YOUR_CALM);
    }

    #[test]
    fn floods_end_the_connection() {
        for (kind, flags, stream, payload) in [
            (kind::PING, 0, 0, &[0; 8][..]),
            (kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1]),
            (kind::PRIORITY, 0, 1, &[0; 5]),
            (kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            (kind::RST_STREAM, 0, 1, &[0; 4]),
            (kind::DATA, 0, 1, &[]),
            (99, 0, 0, &[0; 3]),
        ] {
            let mut conn = begun();
            opened(&mut conn, 1, POST, false);
            let flood = frame(kind, flags, stream, payload).repeat(3000);
            let outcome = fed(&mut conn, &flood).map_err(|fatal| fatal.code);
            assert_eq!(outcome.err(), Some(Code::ENHANCE_YOUR_CALM), "{kind}");
        }
        let mut conn = begun();
        let acks = frame(kind::SETTINGS, flag::ACK, 0, &[]).repeat(10_000);
        assert!(fed(&mut conn, &acks).is_ok());
        // Requests that are no requests, each on a stream of its own.
        let mut conn = begun();
        let flood = (0..3000).flat_map(|n| head(2 * n + 1, true, b"\x82"));
        let outcome = fed(&mut conn, &flood.collect::<Vec<_>>());
        assert_eq!(outcome.unwrap_err().code, Code::ENHANCE_YOUR_CALM);
    }

    #[test]
    fn the_end_is_said_in_two_steps() {
        let mut conn = begun();
        opened(&mut conn, 1, GET, true);
        conn.announce_end();
        assert_eq!(sent(&mut conn)[0], (kind::GOAWAY, 0, 0));
        opened(&mut conn, 3, GET, true);
        let seen = frame(kind::PING, flag::ACK, 0, PING_OF_END);
        assert!(matches!(fed(&mut conn, &seen).unwrap()[..], [Event::EndSeen]));
        conn.end(Code::NO_ERROR);
        let out = conn.out.clone();
        assert_eq!(out[HEAD_BYTES..HEAD_BYTES + 4], 3u32.to_be_bytes());
        conn.out.clear();
        assert!(fed(&mut conn, &head(5, true, GET)).unwrap().is_empty());
        assert_eq!(sent(&mut conn), [(kind::RST_STREAM, 5, Code::REFUSED_STREAM.0)]);
        assert_eq!(conn.open(), 2);
    }

    #[test]
    fn lengths_have_to_agree() {
        let mut block = POST.to_vec();
        hpack::write_field(&mut block, "content-length", b"5");
        for (pieces, is_good) in [
            (&[(5, true)][..], true),
            (&[(2, false), (3, true)], true),
            (&[(5, false), (0, true)], true),
            (&[(6, false)], false),
            (&[(4, true)], false),
            (&[(5, false), (1, true)], false),
        ] {
            let mut conn = begun();
            opened(&mut conn, 1, &block, false);
            let frames = pieces.iter().flat_map(|(bytes, is_last)| {
                frame(kind::DATA, u8::from(*is_last), 1, &vec![0; *bytes])
            });
            let events = fed(&mut conn, &frames.collect::<Vec<_>>()).unwrap();
            let is_gone = matches!(events.last(), Some(Event::Gone { .. }));
            assert_eq!(!is_gone, is_good, "{pieces:?}");
        }
        let mut conn = begun();
        assert!(fed(&mut conn, &head(1, true, &block)).unwrap().is_empty());
        assert_eq!(sent(&mut conn), [(kind::RST_STREAM, 1, Code::PROTOCOL.0)]);
    }

    #[test]
    fn a_table_that_must_be_smaller_is_confirmed_once() {
        let mut conn = begun();
        fed(&mut conn, &frame(kind::SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0])).unwrap();
        let key = opened(&mut conn, 1, GET, true);
        conn.out.clear();
        for first in [0x20, 0x88] {
            conn.write_head(key, false, |out| hpack::write_status(out, http::StatusCode::OK));
            assert_eq!(std::mem::take(&mut conn.out)[HEAD_BYTES], first);
        }
    }
}

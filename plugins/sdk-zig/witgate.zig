//! Write Witgate plugins in Zig: a thin layer over the SDK of C.
//!
//! A plugin is a file with a `Config`, a function `configure(Config) !void`, the hooks of its world, and one of
//! `comptime { witgate.router(@This()); }`, `filter`, `dnsSolver`. `witgate plugin build` compiles plugin.zig and
//! what it imports.
//!
//! Texts that functions return, and all that `allocator` gives, live until the hook returns, and what is made in
//! `configure` lives as long as the instance: there is nothing to free. A call that breaks a rule of the contract
//! (an invalid name, an upstream that does not exist) ends there.

const std = @import("std");

/// A text as the host has it: UTF-8, with a NUL behind it that is not counted.
pub const Text = [:0]const u8;

/// Memory that lives until the hook returns; from `configure`, as long as the instance.
pub const allocator: std.mem.Allocator = .{ .ptr = undefined, .vtable = &.{
    .alloc = allocate,
    .resize = std.mem.Allocator.noResize,
    .remap = std.mem.Allocator.noRemap,
    .free = std.mem.Allocator.noFree,
} };

fn allocate(_: *anyopaque, length: usize, alignment: std.mem.Alignment, _: usize) ?[*]u8 {
    // The C side aligns to 16.
    if (alignment.toByteUnits() > 16) return null;
    return @ptrCast(c.wg_alloc(length));
}

/// Formats into memory of `allocator`.
pub fn print(comptime format: []const u8, values: anytype) Text {
    return std.fmt.allocPrintSentinel(allocator, format, values, 0) catch @panic("out of memory");
}

/// A copy with a NUL behind it.
pub fn copy(text: []const u8) Text {
    return allocator.dupeSentinel(u8, text, 0) catch @panic("out of memory");
}

/// A name and a value.
pub const Field = struct { []const u8, []const u8 };

/// An error for the operator, from `configure`: remembers the text and gives the error to return.
pub fn refuse(comptime format: []const u8, values: anytype) error{Refused} {
    refusal = print(format, values);
    return error.Refused;
}

var refusal: ?Text = null;

// ---- JSON ----

/// A value of JSON (RFC 8259).
pub const Json = extern struct {
    kind: Kind,
    /// The name of a member of a map.
    key: ?[*:0]const u8,
    raw: ?[*:0]const u8,
    number: f64,
    /// The first item of a list or member of a map, and the one after this.
    first: ?*const Json,
    next: ?*const Json,

    pub const Kind = enum(c_uint) { null, false, true, number, string, list, map };

    pub fn read(source: []const u8) ?*const Json {
        return c.wg_json_read(start(source), source.len);
    }

    /// The member of a map; null when it is absent, null, or this is no map.
    pub fn get(json: *const Json, name: []const u8) ?*const Json {
        return c.wg_json_get(json, copy(name));
    }

    /// The text of a string; of a number as it was written.
    pub fn text(json: *const Json) ?Text {
        return switch (json.kind) {
            .string, .number => maybe(json.raw),
            else => null,
        };
    }

    /// The text of a member that is a string.
    pub fn textOf(json: *const Json, name: []const u8) ?Text {
        return maybe(c.wg_json_text(json, copy(name)));
    }

    /// The items of a list and the members of a map.
    pub fn each(json: *const Json) Each {
        return .{ .at = switch (json.kind) {
            .list, .map => json.first,
            else => null,
        } };
    }

    pub const Each = struct {
        at: ?*const Json,

        pub fn next(self: *Each) ?*const Json {
            const item = self.at orelse return null;
            self.at = item.next;
            return item;
        }
    };
};

/// Text as a JSON string, with its quotes.
pub fn quote(text: []const u8) Text {
    return std.mem.span(c.wg_json_quote(copy(text)));
}

/// A map of texts in the configuration.
pub const Texts = struct {
    map: ?*const Json = null,

    pub fn get(texts: Texts, key: []const u8) ?Text {
        return (texts.map orelse return null).textOf(key);
    }

    pub fn each(texts: Texts) Json.Each {
        return .{ .at = if (texts.map) |map| map.first else null };
    }
};

/// Reads the configuration into `T`: fields are `Text`, `?Text`, `i64`, `bool` or `Texts`, those without a default
/// are required, and any other key is an error. Returns the error's text.
fn want(comptime T: type, config: ?*const Json, into: *T) ?[*:0]const u8 {
    const Slot = extern union { text: ?[*:0]const u8, integer: i64, flag: bool, texts: ?*const Json };
    const Key = extern struct { key: [*:0]const u8, kind: c_uint, is_required: bool, to: *Slot };
    const fields = @typeInfo(T).@"struct";
    const count = fields.field_names.len;
    var slots: [count]Slot = undefined;
    var keys: [count]Key = undefined;
    inline for (fields.field_names, fields.field_types, fields.field_attrs, 0..) |name, Kind, attributes, at| {
        slots[at] = switch (Kind) {
            Text, ?Text => .{ .text = null },
            i64 => .{ .integer = comptime attributes.defaultValue(i64) orelse 0 },
            bool => .{ .flag = comptime attributes.defaultValue(bool) orelse false },
            Texts => .{ .texts = null },
            else => @compileError("a configuration has no " ++ @typeName(Kind)),
        };
        const kind = switch (Kind) {
            Text, ?Text => 0,
            i64 => 1,
            bool => 2,
            else => 3,
        };
        keys[at] = .{ .key = name, .kind = kind, .is_required = attributes.default_value_ptr == null, .to = &slots[at] };
    }
    if (c.wg_want(config, @ptrCast(&keys), count)) |failure| return failure;
    inline for (fields.field_names, fields.field_types, fields.field_attrs, 0..) |name, Kind, attributes, at| {
        @field(into, name) = switch (Kind) {
            Text => if (slots[at].text) |text| std.mem.span(text) else comptime attributes.defaultValue(Text) orelse "",
            ?Text => maybe(slots[at].text),
            i64 => slots[at].integer,
            bool => slots[at].flag,
            else => .{ .map = slots[at].texts },
        };
    }
    return null;
}

// ---- The exchange in hand ----

/// The request.
pub const request = struct {
    pub fn id() Text {
        return std.mem.span(c.wg_request_id());
    }
    pub fn method() Text {
        return std.mem.span(c.wg_request_method());
    }
    /// "https" or "http".
    pub fn scheme() Text {
        return std.mem.span(c.wg_request_scheme());
    }
    /// The host in lower case, and the port when the client sent one.
    pub fn authority() Text {
        return std.mem.span(c.wg_request_authority());
    }
    /// The host alone.
    pub fn hostname() Text {
        return std.mem.span(c.wg_request_hostname());
    }
    /// Percent-encoded, without the query.
    pub fn path() Text {
        return std.mem.span(c.wg_request_path());
    }
    /// Without its "?".
    pub fn query() ?Text {
        return maybe(c.wg_request_query());
    }
    /// The first value of a field.
    pub fn header(name: []const u8) ?Text {
        return maybe(c.wg_request_header(copy(name)));
    }
    pub fn headerValues(name: []const u8) []const [*:0]const u8 {
        return several(c.wg_request_header_values(copy(name)));
    }
    pub fn headerNames() []const [*:0]const u8 {
        return several(c.wg_request_header_names());
    }
    pub fn setHeader(name: []const u8, value: []const u8) void {
        c.wg_request_set_header(copy(name), copy(value));
    }
    pub fn appendHeader(name: []const u8, value: []const u8) void {
        c.wg_request_append_header(copy(name), copy(value));
    }
    pub fn removeHeader(name: []const u8) void {
        c.wg_request_remove_header(copy(name));
    }
    pub fn setMethod(value: []const u8) void {
        c.wg_request_set_method(copy(value));
    }
    pub fn setPath(value: []const u8) void {
        c.wg_request_set_path(copy(value));
    }
    /// Null removes it.
    pub fn setQuery(value: ?[]const u8) void {
        c.wg_request_set_query(if (value) |text| copy(text) else null);
    }
    pub fn setAuthority(value: []const u8) void {
        c.wg_request_set_authority(copy(value));
    }
};

/// The response, in `onResponse`.
pub const response = struct {
    pub fn status() u32 {
        return c.wg_response_status();
    }
    pub fn setStatus(value: u32) void {
        c.wg_response_set_status(value);
    }
    /// "upstream", "plugin" or "gateway".
    pub fn source() Text {
        return std.mem.span(c.wg_response_source());
    }
    pub fn header(name: []const u8) ?Text {
        return maybe(c.wg_response_header(copy(name)));
    }
    pub fn headerValues(name: []const u8) []const [*:0]const u8 {
        return several(c.wg_response_header_values(copy(name)));
    }
    pub fn headerNames() []const [*:0]const u8 {
        return several(c.wg_response_header_names());
    }
    pub fn setHeader(name: []const u8, value: []const u8) void {
        c.wg_response_set_header(copy(name), copy(value));
    }
    pub fn appendHeader(name: []const u8, value: []const u8) void {
        c.wg_response_append_header(copy(name), copy(value));
    }
    pub fn removeHeader(name: []const u8) void {
        c.wg_response_remove_header(copy(name));
    }
};

/// The client's connection.
pub const connection = struct {
    /// The client's IP address.
    pub fn clientAddress() Text {
        return std.mem.span(c.wg_client_address());
    }
    /// Such as "HTTP/2".
    pub fn httpVersion() Text {
        return std.mem.span(c.wg_http_version());
    }
    /// The name in the ClientHello.
    pub fn tlsServerName() ?Text {
        return maybe(c.wg_tls_server_name());
    }
};

/// What becomes of the request; without any it goes on.
pub const decision = struct {
    /// Routers only: an upstream by its name in gateway.yaml.
    pub fn toUpstream(name: []const u8) void {
        c.wg_to_upstream(copy(name));
    }
    /// 301, 302, 303, 307 or 308.
    pub fn redirect(status: u32, location: []const u8) void {
        c.wg_redirect(status, copy(location));
    }
    pub fn respond(status: u32, body: []const u8, headers: []const Field) void {
        c.wg_respond_bytes(status, start(body), body.len, pairs(headers));
    }
};

// ---- Every world ----

/// A line for the gateway's log.
pub fn log(level: enum { @"error", warn, info, debug, trace }, message: []const u8) void {
    c.wg_log(@tagName(level), copy(message));
}

/// The plugin's key-value store, shared by its instances. `life` is in seconds, 0 for no end.
pub const state = struct {
    pub const Error = error{ KeyTooLong, ValueTooLong, Quota, NotACounter, Unknown };

    pub fn get(key: []const u8) ?Text {
        return maybe(c.wg_state_get(copy(key)));
    }
    pub fn set(key: []const u8, value: []const u8, life: u32) Error!void {
        return told(Error, c.wg_state_set(copy(key), copy(value), life));
    }
    pub fn remove(key: []const u8) void {
        c.wg_state_remove(copy(key));
    }
    pub fn increment(key: []const u8, by: i64, life: u32) Error!i64 {
        var value: i64 = 0;
        try told(Error, c.wg_state_increment(copy(key), by, life, &value));
        return value;
    }
};

/// Keyed checks that the gateway makes, so that no key enters the plugin. `secret` is the name of one in the
/// plugin's stanza, which needs `grants: {hmac: [NAME]}`. `algorithm` is sha256, sha384 or sha512, for signatures a
/// name of JSON Web Algorithms, such as RS256; wit/crypto.wit has the form of each key.
pub const crypto = struct {
    pub const Error = error{ UnknownAlgorithm, UnknownSecret, Denied, BadKey, Unknown };

    pub fn hmac(algorithm: Text, secret_name: Text, data: []const u8) Error![]const u8 {
        var code: Bytes = undefined;
        try told(Error, c.wg_hmac(algorithm, secret_name, .of(data), &code));
        return code.data[0..code.length];
    }
    /// Compares in constant time.
    pub fn verifyHmac(algorithm: Text, secret_name: Text, data: []const u8, code: []const u8) Error!bool {
        var is_good = false;
        try told(Error, c.wg_verify_hmac(algorithm, secret_name, .of(data), .of(code), &is_good));
        return is_good;
    }
    pub fn verifySignature(algorithm: Text, key: []const u8, data: []const u8, signature: []const u8) Error!bool {
        var is_good = false;
        try told(Error, c.wg_verify_signature(algorithm, .of(key), .of(data), .of(signature), &is_good));
        return is_good;
    }
};

/// A code of the contract, such as `not-a-counter`, as an error, such as `error.NotACounter`.
fn told(comptime E: type, code: ?[*:0]const u8) E!void {
    const text = std.mem.span(code orelse return);
    inline for (@typeInfo(E).error_set.error_names.?) |name| {
        if (isCode(name, text)) return @field(E, name);
    }
    return error.Unknown;
}

fn isCode(name: []const u8, code: []const u8) bool {
    var at: usize = 0;
    for (name, 0..) |letter, index| {
        if (std.ascii.isUpper(letter) and index > 0) {
            if (at >= code.len or code[at] != '-') return false;
            at += 1;
        }
        if (at >= code.len or code[at] != std.ascii.toLower(letter)) return false;
        at += 1;
    }
    return at == code.len;
}

// ---- HTTP: solvers ----

/// Why a call did not succeed: a code of wit/dns-solver.wit, words for the operator, and the seconds that the
/// provider asked to wait, or 0.
pub const Failure = extern struct { code: [*:0]const u8, message: [*:0]const u8, retry_after: c_uint = 0 };

/// Fails a call of a solver: remembers why and gives the error to return.
pub fn fail(failure: Failure) error{Failed} {
    last_failure = failure;
    return error.Failed;
}

var last_failure: Failure = .{ .code = "unavailable", .message = "" };

pub const Outgoing = struct {
    method: Text = "GET",
    url: []const u8,
    headers: []const Field = &.{},
    /// The body, as JSON.
    json: ?[]const u8 = null,
    /// The NAME of a secret for `authorization: Bearer`; its value never enters the plugin.
    bearer: ?Text = null,
};

/// An answer; 4xx and 5xx are answers too.
pub const Answer = extern struct {
    status: c_uint,
    headers: Pairs,
    raw: [*]const u8,
    length: usize,
    /// The body as JSON; null when it is none.
    json: ?*const Json,

    pub fn body(answer: *const Answer) []const u8 {
        return answer.raw[0..answer.length];
    }
    pub fn isSuccess(answer: *const Answer) bool {
        return c.wg_is_success(answer);
    }
    /// The failure that the status stands for; `message` has the provider's own words.
    pub fn refused(answer: *const Answer, message: []const u8) error{Failed} {
        return fail(c.wg_refused(answer, copy(message)).*);
    }
    /// The beginning of the body, for messages.
    pub fn excerpt(answer: *const Answer) Text {
        return std.mem.span(c.wg_excerpt(answer));
    }
};

/// Sends a request within `grants` and waits for the whole answer.
pub fn send(outgoing: Outgoing) error{Failed}!Answer {
    var answer: Answer = undefined;
    const failure = c.wg_send(.{
        .method = outgoing.method,
        .url = copy(outgoing.url),
        .headers = pairs(outgoing.headers),
        .json = if (outgoing.json) |json| copy(json) else null,
        .bearer = if (outgoing.bearer) |bearer| bearer else null,
    }, &answer);
    if (failure) |why| return fail(why.*);
    return answer;
}

/// Percent-encodes text for one segment of a path or one part of a query.
pub fn escape(text: []const u8) Text {
    return std.mem.span(c.wg_escape(copy(text)));
}

/// The placeholder of a secret, for a header value, the query or the body.
pub fn secret(name: []const u8) Text {
    return std.mem.span(c.wg_secret(copy(name)));
}

/// A zone: the provider's name and id of it.
pub const Zone = struct { name: []const u8, handle: []const u8 };

pub fn zoneNotFound(candidates: []const [*:0]const u8) error{Failed} {
    return fail(c.wg_zone_not_found(.{ .items = @constCast(candidates.ptr), .count = candidates.len }).*);
}

// ---- What the host calls ----

/// Makes a router of `Plugin`: `Config`, `configure(Config) !void`, `route() !void`.
pub fn router(comptime Plugin: type) void {
    const hooks = struct {
        fn route() callconv(.c) void {
            run(Plugin.route);
        }
    };
    configured(Plugin);
    @export(&hooks.route, .{ .name = "plugin_route" });
}

/// Makes a filter of `Plugin`: `Config`, `configure(Config) !void`, and any of `onRequest() !void`,
/// `onRequestBody(prefix: []const u8, is_complete: bool) !void`, `onResponse() !void`. `hooks() []const u8` says which
/// a configuration needs, such as "request request-body:4096"; without it, those for request and response.
pub fn filter(comptime Plugin: type) void {
    const hooks = struct {
        fn onRequest() callconv(.c) void {
            if (@hasDecl(Plugin, "onRequest")) run(Plugin.onRequest);
        }
        fn onRequestBody(prefix: [*]const u8, length: usize, is_complete: bool) callconv(.c) void {
            if (!@hasDecl(Plugin, "onRequestBody")) return;
            Plugin.onRequestBody(prefix[0..length], is_complete) catch |failure| broken(failure);
        }
        fn onResponse() callconv(.c) void {
            if (@hasDecl(Plugin, "onResponse")) run(Plugin.onResponse);
        }
        fn asked() callconv(.c) [*:0]const u8 {
            if (@hasDecl(Plugin, "hooks")) return copy(Plugin.hooks());
            const has_request = @hasDecl(Plugin, "onRequest");
            const has_response = @hasDecl(Plugin, "onResponse");
            if (has_request and has_response) return "request response";
            return if (has_request) "request" else if (has_response) "response" else "none";
        }
    };
    configured(Plugin);
    @export(&hooks.onRequest, .{ .name = "plugin_on_request" });
    @export(&hooks.onRequestBody, .{ .name = "plugin_on_request_body" });
    @export(&hooks.onResponse, .{ .name = "plugin_on_response" });
    @export(&hooks.asked, .{ .name = "plugin_hooks" });
}

/// Makes a solver of `Plugin`: `Config`, `configure(Config) !void`, `traits: []const Field` (may be left out),
/// `findZone(candidates) !Zone`, `present(zone, name, values, ttl) !Text`, `poll(zone, handle) !u32` (may be left out),
/// `cleanup(zone, name, values, handle) !void`. `error.Failed` is what `fail` and `send` return.
pub fn dnsSolver(comptime Plugin: type) void {
    const hooks = struct {
        fn traits() callconv(.c) Pairs {
            return pairs(if (@hasDecl(Plugin, "traits")) Plugin.traits else &.{});
        }
        fn findZone(candidates: CTexts, zone: *CZone) callconv(.c) ?*const Failure {
            const found: Zone = Plugin.findZone(several(candidates)) catch |failure| return failed(failure);
            zone.* = .{ .name = copy(found.name), .handle = copy(found.handle) };
            return null;
        }
        fn present(zone: CZone, name: [*:0]const u8, values: CTexts, ttl: c_uint, handle: *[*:0]const u8) callconv(.c) ?*const Failure {
            const made: Text = Plugin.present(zone.lifted(), std.mem.span(name), several(values), ttl) catch |failure| return failed(failure);
            handle.* = made;
            return null;
        }
        fn poll(zone: CZone, handle: [*:0]const u8, seconds: *c_uint) callconv(.c) ?*const Failure {
            if (!@hasDecl(Plugin, "poll")) return null;
            seconds.* = Plugin.poll(zone.lifted(), std.mem.span(handle)) catch |failure| return failed(failure);
            return null;
        }
        fn cleanup(zone: CZone, name: [*:0]const u8, values: CTexts, handle: [*:0]const u8) callconv(.c) ?*const Failure {
            Plugin.cleanup(zone.lifted(), std.mem.span(name), several(values), std.mem.span(handle)) catch |failure| return failed(failure);
            return null;
        }
    };
    configured(Plugin);
    @export(&hooks.traits, .{ .name = "plugin_traits" });
    @export(&hooks.findZone, .{ .name = "plugin_find_zone" });
    @export(&hooks.present, .{ .name = "plugin_present" });
    @export(&hooks.poll, .{ .name = "plugin_poll" });
    @export(&hooks.cleanup, .{ .name = "plugin_cleanup" });
}

fn configured(comptime Plugin: type) void {
    const entry = struct {
        fn configure(json: ?*const Json) callconv(.c) ?[*:0]const u8 {
            var config: Plugin.Config = undefined;
            if (want(Plugin.Config, json, &config)) |failure| return failure;
            Plugin.configure(config) catch |failure| {
                defer refusal = null;
                return refusal orelse @errorName(failure);
            };
            return null;
        }
    };
    @export(&entry.configure, .{ .name = "plugin_configure" });
}

fn run(comptime hook: anytype) void {
    hook() catch |failure| broken(failure);
}

/// An error that a hook did not deal with ends the call like any other that breaks a rule.
fn broken(failure: anyerror) noreturn {
    @panic(@errorName(failure));
}

fn failed(failure: anyerror) *const Failure {
    if (failure != error.Failed) last_failure = .{ .code = "unavailable", .message = @errorName(failure) };
    return &last_failure;
}

// ---- The C side: witgate.h documents it ----

const Bytes = extern struct {
    data: [*]const u8,
    length: usize,

    fn of(data: []const u8) Bytes {
        return .{ .data = start(data), .length = data.len };
    }
};
const Pair = extern struct { name: [*:0]const u8, value: [*:0]const u8 };
const Pairs = extern struct { items: ?[*]const Pair, count: usize };
const CTexts = extern struct { items: [*c][*:0]const u8, count: usize };
const CZone = extern struct {
    name: [*:0]const u8,
    handle: [*:0]const u8,

    fn lifted(zone: CZone) Zone {
        return .{ .name = std.mem.span(zone.name), .handle = std.mem.span(zone.handle) };
    }
};
const COutgoing = extern struct {
    method: ?[*:0]const u8,
    url: [*:0]const u8,
    headers: Pairs,
    json: ?[*:0]const u8,
    bearer: ?[*:0]const u8,
};

fn maybe(text: ?[*:0]const u8) ?Text {
    return if (text) |there| std.mem.span(there) else null;
}

fn several(texts: CTexts) []const [*:0]const u8 {
    return if (texts.count == 0) &.{} else texts.items[0..texts.count];
}

/// Where data begins; the pointer of an empty slice may be anything, which the gateway does not take.
fn start(data: []const u8) [*]const u8 {
    return if (data.len == 0) "" else data.ptr;
}

fn pairs(fields: []const Field) Pairs {
    if (fields.len == 0) return .{ .items = null, .count = 0 };
    const items = allocator.alloc(Pair, fields.len) catch @panic("out of memory");
    for (fields, items) |field, *item| item.* = .{ .name = copy(field[0]), .value = copy(field[1]) };
    return .{ .items = items.ptr, .count = items.len };
}

const c = struct {
    extern fn wg_alloc(usize) *anyopaque;
    extern fn wg_escape([*:0]const u8) [*:0]const u8;
    extern fn wg_json_read([*]const u8, usize) ?*const Json;
    extern fn wg_json_get(*const Json, [*:0]const u8) ?*const Json;
    extern fn wg_json_text(*const Json, [*:0]const u8) ?[*:0]const u8;
    extern fn wg_json_quote([*:0]const u8) [*:0]const u8;
    extern fn wg_want(?*const Json, *const anyopaque, usize) ?[*:0]const u8;
    extern fn wg_request_id() [*:0]const u8;
    extern fn wg_request_method() [*:0]const u8;
    extern fn wg_request_scheme() [*:0]const u8;
    extern fn wg_request_authority() [*:0]const u8;
    extern fn wg_request_hostname() [*:0]const u8;
    extern fn wg_request_path() [*:0]const u8;
    extern fn wg_request_query() ?[*:0]const u8;
    extern fn wg_request_header([*:0]const u8) ?[*:0]const u8;
    extern fn wg_request_header_values([*:0]const u8) CTexts;
    extern fn wg_request_header_names() CTexts;
    extern fn wg_request_set_header([*:0]const u8, [*:0]const u8) void;
    extern fn wg_request_append_header([*:0]const u8, [*:0]const u8) void;
    extern fn wg_request_remove_header([*:0]const u8) void;
    extern fn wg_request_set_method([*:0]const u8) void;
    extern fn wg_request_set_path([*:0]const u8) void;
    extern fn wg_request_set_query(?[*:0]const u8) void;
    extern fn wg_request_set_authority([*:0]const u8) void;
    extern fn wg_client_address() [*:0]const u8;
    extern fn wg_http_version() [*:0]const u8;
    extern fn wg_tls_server_name() ?[*:0]const u8;
    extern fn wg_to_upstream([*:0]const u8) void;
    extern fn wg_redirect(c_uint, [*:0]const u8) void;
    extern fn wg_respond_bytes(c_uint, [*]const u8, usize, Pairs) void;
    extern fn wg_response_status() c_uint;
    extern fn wg_response_set_status(c_uint) void;
    extern fn wg_response_source() [*:0]const u8;
    extern fn wg_response_header([*:0]const u8) ?[*:0]const u8;
    extern fn wg_response_header_values([*:0]const u8) CTexts;
    extern fn wg_response_header_names() CTexts;
    extern fn wg_response_set_header([*:0]const u8, [*:0]const u8) void;
    extern fn wg_response_append_header([*:0]const u8, [*:0]const u8) void;
    extern fn wg_response_remove_header([*:0]const u8) void;
    extern fn wg_log([*:0]const u8, [*:0]const u8) void;
    extern fn wg_state_get([*:0]const u8) ?[*:0]const u8;
    extern fn wg_state_set([*:0]const u8, [*:0]const u8, c_uint) ?[*:0]const u8;
    extern fn wg_state_remove([*:0]const u8) void;
    extern fn wg_state_increment([*:0]const u8, i64, c_uint, *i64) ?[*:0]const u8;
    extern fn wg_hmac([*:0]const u8, [*:0]const u8, Bytes, *Bytes) ?[*:0]const u8;
    extern fn wg_verify_hmac([*:0]const u8, [*:0]const u8, Bytes, Bytes, *bool) ?[*:0]const u8;
    extern fn wg_verify_signature([*:0]const u8, Bytes, Bytes, Bytes, *bool) ?[*:0]const u8;
    extern fn wg_send(COutgoing, *Answer) ?*const Failure;
    extern fn wg_is_success(*const Answer) bool;
    extern fn wg_refused(*const Answer, [*:0]const u8) *const Failure;
    extern fn wg_zone_not_found(CTexts) *const Failure;
    extern fn wg_excerpt(*const Answer) [*:0]const u8;
    extern fn wg_secret([*:0]const u8) [*:0]const u8;
};

/// Stands in for the gateway in a plugin's own tests: `zig test` with the *.c of build/witgate; witgate.zig and
/// testing.h say how.
pub const testing = struct {
    /// `configure` with JSON text; its error.
    pub fn configure(json: [:0]const u8) ?Text {
        return maybe(test_configure(json));
    }
    /// The request in hand from now on; what was decided before is forgotten. `url` is absolute.
    pub fn newRequest(url: [:0]const u8) void {
        test_request(url);
    }
    /// The response in hand from now on.
    pub fn newResponse(status: u32) void {
        test_response(status);
    }
    /// "", "upstream", "redirect" or "respond".
    pub fn decided() Text {
        return std.mem.span(test_decision);
    }
    pub fn decidedStatus() u32 {
        return test_status;
    }
    /// The upstream, or the location.
    pub fn decidedTarget() Text {
        return maybe(test_target) orelse "";
    }
    pub fn decidedBody() Text {
        return maybe(test_body) orelse "";
    }

    /// A request that was sent, and what to answer.
    pub const Sent = extern struct { method: [*:0]const u8, url: [*:0]const u8, authorization: ?[*:0]const u8, json: ?*const Json };
    pub const Reply = extern struct { status: c_uint, body: [*:0]const u8 };

    /// Answers requests from now on.
    pub fn serve(comptime server: fn (Sent) Reply) void {
        const wrapped = struct {
            fn call(sent: Sent) callconv(.c) Reply {
                return server(sent);
            }
        };
        test_server = &wrapped.call;
    }

    /// Makes HMACs with this SHA-256 key from now on, under the name of this secret.
    pub fn useKey(comptime name: Text, comptime key: []const u8) void {
        const wrapped = struct {
            fn call(_: [*:0]const u8, secret_name: [*:0]const u8, data: Bytes) callconv(.c) Bytes {
                if (!std.mem.eql(u8, std.mem.span(secret_name), name)) @panic("a secret that there is not");
                const Hmac = std.crypto.auth.hmac.sha2.HmacSha256;
                const code = allocator.create([Hmac.mac_length]u8) catch @panic("out of memory");
                Hmac.create(code, data.data[0..data.length], key);
                return .of(code);
            }
        };
        test_hmac = &wrapped.call;
    }

    extern fn test_configure([*:0]const u8) ?[*:0]const u8;
    extern fn test_request([*:0]const u8) void;
    extern fn test_response(c_uint) void;
    extern var test_decision: [*:0]const u8;
    extern var test_status: c_uint;
    extern var test_target: ?[*:0]const u8;
    extern var test_body: ?[*:0]const u8;
    extern var test_server: ?*const fn (Sent) callconv(.c) Reply;
    extern var test_hmac: ?*const fn ([*:0]const u8, [*:0]const u8, Bytes) callconv(.c) Bytes;
};

//! A filter: lets requests through that carry a JWT signed with HMAC-SHA256 (RFC 7519, `HS256` of RFC 7518),
//! and hands its claims to the application as fields. The application need not know about tokens, and cannot
//! be told lies by clients.

const std = @import("std");
const token = @import("token.zig");
const witgate = @import("build/witgate/witgate.zig");
const request = witgate.request;

pub const Config = struct {
    issuer: ?witgate.Text = null,
    audience: ?witgate.Text = null,
    claims: witgate.Texts = .{},
    leeway: i64 = 0,
    @"keep-token": bool = false,
};

/// Why a request is refused; `reason` has the words for the client.
const Refusal = token.Error || error{ MissingToken, MalformedClaim, Expired, NotYetValid, WrongIssuer, WrongAudience };

var config: Config = undefined;

pub fn configure(given: Config) !void {
    // Better now than at the first request.
    _ = witgate.crypto.hmac("sha256", token.key, "") catch |failure| {
        return witgate.refuse("secrets.key: {s}", .{words(failure)});
    };
    if (given.leeway < 0) return witgate.refuse("config.leeway: seconds, zero or more", .{});
    config = given;
    if (config.claims.map == null) config.claims = .{ .map = witgate.Json.read("{\"sub\":\"x-user\"}") };
    var claims = config.claims.each();
    while (claims.next()) |claim| {
        const name = claim.text().?;
        if (!canBeSet(name)) {
            return witgate.refuse("config.claims.{s}: `{s}` is no field that can be set", .{ claim.key.?, name });
        }
    }
}

pub fn onRequest() !void {
    // Only the token may say who the client is.
    var claims = config.claims.each();
    while (claims.next()) |claim| request.removeHeader(claim.text().?);
    admit() catch |refusal| return refuse(words(refusal));
    if (!config.@"keep-token") request.removeHeader("authorization");
}

pub fn onResponse() !void {
    // What one user may see must not come out of a cache for another.
    witgate.response.appendHeader("vary", "authorization");
}

/// Gives the request the fields of a good token.
fn admit() Refusal!void {
    const found = try token.verify(bearer() orelse return error.MissingToken);
    try check(found);
    var claims = config.claims.each();
    while (claims.next()) |claim| {
        if (found.get(std.mem.span(claim.key.?))) |value| _ = try asText(value);
    }
    claims = config.claims.each();
    while (claims.next()) |claim| {
        if (found.get(std.mem.span(claim.key.?))) |value| request.setHeader(claim.text().?, try asText(value));
    }
}

/// The text after the scheme of Bearer credentials.
fn bearer() ?[]const u8 {
    var words_of = std.mem.tokenizeScalar(u8, request.header("authorization") orelse return null, ' ');
    const scheme = words_of.next() orelse return null;
    return if (std.ascii.eqlIgnoreCase(scheme, "bearer")) words_of.next() else null;
}

/// Times, issuer and audience (RFC 7519, section 4.1).
fn check(found: *const witgate.Json) Refusal!void {
    const now: f64 = @floatFromInt(time(null));
    const leeway: f64 = @floatFromInt(config.leeway);
    const end = found.get("exp");
    const start = found.get("nbf");
    for ([_]?*const witgate.Json{ end, start }) |one| {
        if (one) |claim| if (claim.kind != .number) return error.MalformedClaim;
    }
    if (end) |claim| if (now >= claim.number + leeway) return error.Expired;
    if (start) |claim| if (now < claim.number - leeway) return error.NotYetValid;
    if (config.issuer) |issuer| if (!is(found.get("iss"), issuer)) return error.WrongIssuer;
    const audience = config.audience orelse return;
    const claim = found.get("aud") orelse return error.WrongAudience;
    if (is(claim, audience)) return;
    if (claim.kind != .list) return error.WrongAudience;
    var several = claim.each();
    while (several.next()) |one| if (is(one, audience)) return;
    return error.WrongAudience;
}

/// Whether a claim is this text.
fn is(claim: ?*const witgate.Json, text: []const u8) bool {
    const there = claim orelse return false;
    return there.kind == .string and std.mem.eql(u8, there.text().?, text);
}

/// A claim as the value of a field.
fn asText(claim: *const witgate.Json) Refusal![]const u8 {
    switch (claim.kind) {
        .true => return "true",
        .false => return "false",
        .number => {
            const digits = claim.text().?;
            return if (std.mem.indexOfAny(u8, digits, ".eE") == null) digits else error.MalformedClaim;
        },
        .string => {
            const text = claim.text().?;
            for (text) |letter| if (std.ascii.isControl(letter)) return error.MalformedClaim;
            const has_edge = text.len > 0 and (text[0] == ' ' or text[text.len - 1] == ' ');
            return if (has_edge) error.MalformedClaim else text;
        },
        else => return error.MalformedClaim,
    }
}

/// Whether a name is one of a field that the gateway does not keep for itself.
fn canBeSet(name: []const u8) bool {
    const owned = [_][]const u8{ "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "host" };
    for (owned) |one| if (std.ascii.eqlIgnoreCase(one, name)) return false;
    for (name) |letter| {
        if (!std.ascii.isAlphanumeric(letter) and std.mem.indexOfScalar(u8, "!#$%&'*+.^_`|~-", letter) == null) return false;
    }
    return name.len > 0;
}

/// 401 with the reason for the client (RFC 6750, section 3).
fn refuse(reason: []const u8) void {
    const challenge = if (std.mem.eql(u8, reason, "missing-token"))
        "Bearer"
    else
        witgate.print("Bearer error=\"invalid_token\", error_description=\"{s}\"", .{reason});
    const body = witgate.print("{{\"error\":{s}}}", .{witgate.quote(reason)});
    witgate.decision.respond(401, body, &.{ .{ "content-type", "application/json" }, .{ "www-authenticate", challenge } });
}

/// `error.MissingToken` as `missing-token`.
fn words(failure: anyerror) []const u8 {
    var text: []const u8 = "";
    for (@errorName(failure), 0..) |letter, at| {
        const dash = if (std.ascii.isUpper(letter) and at > 0) "-" else "";
        text = witgate.print("{s}{s}{c}", .{ text, dash, std.ascii.toLower(letter) });
    }
    return text;
}

/// Seconds since 1970, from libc.
extern fn time(?*i64) i64;

comptime {
    witgate.filter(@This());
}

const testing = witgate.testing;
const expectEqualStrings = std.testing.expectEqualStrings;

fn ask(claims: ?[]const u8) !void {
    testing.newRequest("https://example.com/");
    request.setHeader("x-user", "forged");
    if (claims) |given| request.setHeader("authorization", witgate.print("Bearer {s}", .{try token.sign(given)}));
    try onRequest();
}

test "a key that is missing is a load error" {
    try expectEqualStrings("secrets.key: unknown-secret", testing.configure("{}").?);
}

test "a good token tells the application who it is, and bad ones are refused" {
    testing.useKey(token.key, "a key of thirty-two bytes or more");
    try std.testing.expectEqual(null, testing.configure("{\"issuer\":\"login\"}"));
    try ask("{\"sub\":\"ann\",\"iss\":\"login\"}");
    try expectEqualStrings("", testing.decided());
    try expectEqualStrings("ann", request.header("x-user").?);
    try std.testing.expectEqual(null, request.header("authorization"));

    try ask("{\"sub\":\"ann\",\"iss\":\"login\",\"exp\":1}");
    try expectEqualStrings("{\"error\":\"expired\"}", testing.decidedBody());
    try ask("{\"sub\":\"ann\",\"iss\":\"elsewhere\"}");
    try expectEqualStrings("{\"error\":\"wrong-issuer\"}", testing.decidedBody());
    try ask(null);
    try expectEqualStrings("{\"error\":\"missing-token\"}", testing.decidedBody());
    try std.testing.expectEqual(401, testing.decidedStatus());
    try std.testing.expectEqual(null, request.header("x-user"));
}

test "caches are told" {
    testing.newResponse(200);
    try onResponse();
    try expectEqualStrings("authorization", witgate.response.header("vary").?);
}

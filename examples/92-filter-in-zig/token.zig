//! Compact JSON Web Signatures with HMAC-SHA256 (RFC 7515, RFC 7518 section 3.2). The gateway checks them: the
//! key is a secret that stays there.

const std = @import("std");
const witgate = @import("build/witgate/witgate.zig");

/// The name of the secret that tokens are signed with.
pub const key = "key";

pub const Error = error{ MalformedToken, UnsupportedAlgorithm, BadSignature };

/// The claims of a token, once its signature has been found good.
pub fn verify(token: []const u8) Error!*const witgate.Json {
    var parts = std.mem.splitScalar(u8, token, '.');
    const head = parts.first();
    const body = parts.next() orelse return error.MalformedToken;
    const signature = parts.next() orelse return error.MalformedToken;
    if (parts.next() != null) return error.MalformedToken;
    const header = try map(head);
    // The token does not get to choose how it is checked: there is no `none` here.
    const algorithm = header.textOf("alg") orelse "";
    if (!std.mem.eql(u8, algorithm, "HS256")) return error.UnsupportedAlgorithm;
    const code = try decode(signature);
    // `configure` has seen that the key is there.
    const signed = token[0 .. head.len + 1 + body.len];
    const is_good = witgate.crypto.verifyHmac("sha256", key, signed, code) catch false;
    if (!is_good) return error.BadSignature;
    return map(body);
}

/// A token with these claims, for tests.
pub fn sign(claims: []const u8) !witgate.Text {
    const signed = witgate.print("{s}.{s}", .{ encode("{\"alg\":\"HS256\"}"), encode(claims) });
    return witgate.print("{s}.{s}", .{ signed, encode(try witgate.crypto.hmac("sha256", key, signed)) });
}

const base64 = std.base64.url_safe_no_pad;

fn decode(part: []const u8) Error![]const u8 {
    const length = base64.Decoder.calcSizeForSlice(part) catch return error.MalformedToken;
    const bytes = witgate.allocator.alloc(u8, length) catch return error.MalformedToken;
    base64.Decoder.decode(bytes, part) catch return error.MalformedToken;
    return bytes;
}

fn encode(bytes: []const u8) []const u8 {
    const text = witgate.allocator.alloc(u8, base64.Encoder.calcSize(bytes.len)) catch @panic("out of memory");
    return base64.Encoder.encode(text, bytes);
}

fn map(part: []const u8) Error!*const witgate.Json {
    const json = witgate.Json.read(try decode(part)) orelse return error.MalformedToken;
    return if (json.kind == .map) json else error.MalformedToken;
}

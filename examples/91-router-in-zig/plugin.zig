//! A router: the tenant is the label in front of our domain, and the configuration knows which upstream
//! serves it.

const std = @import("std");
const witgate = @import("build/witgate/witgate.zig");
const request = witgate.request;
const decision = witgate.decision;

pub const Config = struct {
    domain: witgate.Text,
    tenants: witgate.Texts,
    moved: witgate.Texts = .{},
    default: ?witgate.Text = null,
};

var config: Config = undefined;
var suffix: witgate.Text = undefined;

pub fn configure(given: Config) !void {
    if (given.domain.len == 0 or given.domain[0] == '.') {
        return witgate.refuse("config.domain: a name such as example.com, without a first dot", .{});
    }
    var tenants = given.tenants.each();
    if (tenants.next() == null) return witgate.refuse("config.tenants: name at least one tenant and its upstream", .{});
    var moved = given.moved.each();
    while (moved.next()) |old| {
        const tenant = old.text().?;
        if (given.tenants.get(tenant) == null) {
            return witgate.refuse("config.moved.{s}: `{s}` is not in config.tenants", .{ old.key.?, tenant });
        }
    }
    config = given;
    suffix = witgate.print(".{s}", .{given.domain});
}

pub fn route() !void {
    // Whoever reads it behind us must be able to trust it.
    request.removeHeader("x-tenant");
    const host = request.hostname();
    if (!std.mem.endsWith(u8, host, suffix)) return;
    const tenant = host[0 .. host.len - suffix.len];
    if (config.tenants.get(tenant)) |upstream| {
        request.setHeader("x-tenant", tenant);
        decision.toUpstream(upstream);
    } else if (config.moved.get(tenant)) |new| {
        decision.redirect(308, location(new, host));
    } else if (config.default) |upstream| {
        decision.toUpstream(upstream);
    } else {
        const body = witgate.print("{{\"error\":\"unknown tenant\",\"tenant\":{s}}}", .{witgate.quote(tenant)});
        decision.respond(404, body, &.{.{ "content-type", "application/json" }});
    }
}

/// The URL in hand with another tenant in it; its port stays.
fn location(tenant: []const u8, host: []const u8) witgate.Text {
    const port = request.authority()[host.len..];
    const query = if (request.query()) |query| witgate.print("?{s}", .{query}) else "";
    return witgate.print("{s}://{s}{s}{s}{s}{s}", .{ request.scheme(), tenant, suffix, port, request.path(), query });
}

comptime {
    witgate.router(@This());
}

const testing = witgate.testing;
const expectEqualStrings = std.testing.expectEqualStrings;

test "a mistake names its key" {
    const wrong = testing.configure("{\"domain\":\"a.example\",\"tenants\":{\"b\":\"w\"},\"moved\":{\"c\":\"d\"}}");
    try expectEqualStrings("config.moved.c: `d` is not in config.tenants", wrong.?);
}

test "tenants go to their upstreams, move, or are unknown" {
    const good = "{\"domain\":\"example.com\",\"tenants\":{\"blue\":\"web-1\"},\"moved\":{\"azure\":\"blue\"}}";
    try std.testing.expectEqual(null, testing.configure(good));

    testing.newRequest("https://blue.example.com/");
    request.setHeader("x-tenant", "forged");
    try route();
    try expectEqualStrings("web-1", testing.decidedTarget());
    try std.testing.expectEqual(1, request.headerValues("x-tenant").len);
    try expectEqualStrings("blue", request.header("x-tenant").?);

    testing.newRequest("https://azure.example.com:8443/a?b=c");
    try route();
    try std.testing.expectEqual(308, testing.decidedStatus());
    try expectEqualStrings("https://blue.example.com:8443/a?b=c", testing.decidedTarget());

    testing.newRequest("https://x.example.com/");
    try route();
    try expectEqualStrings("{\"error\":\"unknown tenant\",\"tenant\":\"x\"}", testing.decidedBody());
    testing.newRequest("https://example.com/");
    try route();
    try expectEqualStrings("", testing.decided());
}

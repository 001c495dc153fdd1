//! A DNS-01 solver for a provider with a small JSON API over single records, as most have. The API is the one
//! of `examples/provider.py`, so that all of this can be tried on one machine.
//!
//! The gateway computes names and values, retries, waits and cleans up; here is only the API. The token is a
//! placeholder: the gateway puts the secret in when it sends.

const std = @import("std");
const witgate = @import("build/witgate/witgate.zig");
const Json = witgate.Json;
const Text = witgate.Text;
const Zone = witgate.Zone;
const Texts = []const [*:0]const u8;

pub const Config = struct {
    api: Text,
    ttl: i64 = unset,
};

const unset = std.math.minInt(i64);
pub const traits: []const witgate.Field = &.{.{ "ttl-min", "30" }};

var api: []const u8 = "";
var ttl_configured: i64 = unset;

pub fn configure(given: Config) !void {
    if (!std.mem.startsWith(u8, given.api, "https://") and !std.mem.startsWith(u8, given.api, "http://")) {
        return witgate.refuse("config.api: a URL such as https://api.provider.example/v1", .{});
    }
    if (given.ttl != unset and given.ttl < 1) return witgate.refuse("config.ttl: at least one second", .{});
    api = std.mem.trimEnd(u8, given.api, "/");
    ttl_configured = given.ttl;
}

pub fn findZone(candidates: Texts) !Zone {
    for (candidates) |candidate| {
        const name = std.mem.span(candidate);
        var zones = try list(witgate.print("{s}/zones?name={s}", .{ api, witgate.escape(name) }), "zones");
        while (zones.next()) |zone| {
            const id = zone.textOf("id") orelse continue;
            if (std.mem.eql(u8, zone.textOf("name") orelse "", name)) return .{ .name = name, .handle = id };
        }
    }
    return witgate.zoneNotFound(candidates);
}

pub fn present(zone: Zone, name: []const u8, values: Texts, ttl: u32) !Text {
    var ids: Text = "";
    var is_complete = true;
    const seconds = if (ttl_configured == unset) ttl else ttl_configured;
    for (values) |value| {
        const record = witgate.print("{{\"type\":\"TXT\",\"name\":{s},\"content\":{s},\"ttl\":{d}}}", .{
            witgate.quote(name), witgate.quote(std.mem.span(value)), seconds,
        });
        const answer = try call("POST", records(zone), record);
        // It is there already, from a call that did not come through.
        if (answer.status == 409) {
            is_complete = false;
            continue;
        }
        const made = try checked(answer);
        const id = textOf(made.json, "id") orelse return unexpected(made, "id");
        ids = witgate.print("{s}{s}{s}", .{ ids, if (ids.len > 0) " " else "", id });
    }
    // Records that were there already are found by their value when they are removed.
    return if (is_complete) ids else "";
}

pub fn poll(zone: Zone, handle: []const u8) !u32 {
    var seconds: u32 = 0;
    var ids = std.mem.tokenizeScalar(u8, handle, ' ');
    while (ids.next()) |id| {
        const answer = try checked(try call("GET", record_of(zone, id), null));
        if (std.mem.eql(u8, textOf(answer.json, "status") orelse "", "pending")) seconds = 1;
    }
    return seconds;
}

pub fn cleanup(zone: Zone, name: []const u8, values: Texts, handle: []const u8) !void {
    var ids = std.mem.tokenizeScalar(u8, handle, ' ');
    while (ids.next()) |id| try drop(zone, id);
    if (handle.len > 0) return;
    var found = try list(witgate.print("{s}?type=TXT&name={s}", .{ records(zone), witgate.escape(name) }), "records");
    while (found.next()) |record| {
        const content = record.textOf("content") orelse continue;
        const id = record.textOf("id") orelse continue;
        // Nobody else's: the name may hold more than ours.
        for (values) |value| {
            if (std.mem.eql(u8, content, std.mem.span(value))) try drop(zone, id);
        }
    }
}

fn records(zone: Zone) Text {
    return witgate.print("{s}/zones/{s}/records", .{ api, witgate.escape(zone.handle) });
}

fn record_of(zone: Zone, id: []const u8) Text {
    return witgate.print("{s}/{s}", .{ records(zone), witgate.escape(id) });
}

fn call(method: Text, url: []const u8, json: ?[]const u8) !witgate.Answer {
    return witgate.send(.{ .method = method, .url = url, .json = json, .bearer = "token" });
}

/// The answer if it is one of success; else a failure in the provider's own words.
fn checked(answer: witgate.Answer) !witgate.Answer {
    if (answer.isSuccess()) return answer;
    // Without such words it is not from the API itself but from something in front of it.
    return answer.refused(textOf(answer.json, "error") orelse answer.excerpt());
}

fn unexpected(answer: witgate.Answer, what: []const u8) error{Failed} {
    const message = witgate.print("the answer (status {d}) has no {s}: {s}", .{ answer.status, what, answer.excerpt() });
    return witgate.fail(.{ .code = "unavailable", .message = message });
}

/// Reads something whose answer is a map with a list of this name.
fn list(url: []const u8, name: []const u8) !Json.Each {
    const answer = try checked(try call("GET", url, null));
    const json = answer.json orelse return unexpected(answer, name);
    const found = json.get(name) orelse return unexpected(answer, name);
    return if (found.kind == .list) found.each() else unexpected(answer, name);
}

fn drop(zone: Zone, id: []const u8) !void {
    const answer = try call("DELETE", record_of(zone, id), null);
    // It is gone already.
    if (answer.status != 404) _ = try checked(answer);
}

fn textOf(json: ?*const Json, name: []const u8) ?Text {
    return (json orelse return null).textOf(name);
}

comptime {
    witgate.dnsSolver(@This());
}

const testing = witgate.testing;
const expectEqualStrings = std.testing.expectEqualStrings;
const example_zone: Zone = .{ .name = "example.com", .handle = "z1" };
const example_values: Texts = &.{ "one", "two" };
var removed: [64]u8 = undefined;
var removed_length: usize = 0;

fn serve(sent: testing.Sent) testing.Reply {
    if (!std.mem.eql(u8, std.mem.span(sent.authorization.?), "Bearer {{secret:token}}")) return .{ .status = 401, .body = "" };
    const method = std.mem.span(sent.method);
    if (std.mem.eql(u8, method, "DELETE")) {
        const url = std.mem.span(sent.url);
        const shown = std.fmt.bufPrint(removed[removed_length..], " {s}", .{url[std.mem.lastIndexOfScalar(u8, url, '/').? + 1 ..]});
        removed_length += (shown catch @panic("too much is removed")).len;
        return .{ .status = 204, .body = "" };
    }
    if (std.mem.eql(u8, method, "GET")) {
        return .{ .status = 200, .body = "{\"records\":[{\"id\":\"a\",\"content\":\"one\"},{\"id\":\"b\",\"content\":\"somebody else's\"}]}" };
    }
    return .{ .status = 201, .body = witgate.print("{{\"id\":\"r-{s}\"}}", .{sent.json.?.textOf("content").?}) };
}

fn refuse(_: testing.Sent) testing.Reply {
    return .{ .status = 403, .body = "{\"error\":\"this token is read-only\"}" };
}

test "records are added and exactly those removed" {
    try std.testing.expectEqual(null, testing.configure("{\"api\":\"https://api.example/v1/\"}"));
    testing.serve(serve);
    const handle = try present(example_zone, "n", example_values, 60);
    try expectEqualStrings("r-one r-two", handle);
    try cleanup(example_zone, "n", example_values, handle);
    try expectEqualStrings(" r-one r-two", removed[0..removed_length]);
    // Without a handle only our values are removed.
    removed_length = 0;
    try cleanup(example_zone, "n", example_values, "");
    try expectEqualStrings(" a", removed[0..removed_length]);
}

test "the provider speaks for itself" {
    testing.serve(refuse);
    try std.testing.expectError(error.Failed, present(example_zone, "n", example_values, 60));
}

//! Bodies as filters see and change them, against the guest `streaming`.

use super::*;
use crate::config::BodyGrant;

/// The guest with these grants for bodies of requests and of responses.
fn streaming(name: &str, request: BodyGrant, response: BodyGrant) -> Hooks {
    with(name, request, response, |_| ())
}

fn with(
    name: &str,
    request: BodyGrant,
    response: BodyGrant,
    change: impl FnOnce(&mut PluginConfig),
) -> Hooks {
    let mut config = config(guest("streaming"), serde_json::Value::Null);
    config.grants.request.body = request;
    config.grants.response.body = response;
    change(&mut config);
    Hooks::new(engine().load(name, &config, &upstreams()).unwrap(), &config.config).unwrap()
}

fn granted(name: &str) -> Hooks {
    streaming(name, BodyGrant::Transform, BodyGrant::Transform)
}

fn asking(field: &'static str, what: &str) -> RequestHead {
    let mut head = request("/");
    head.headers.insert(field, HeaderValue::from_str(what).unwrap());
    head
}

/// The tap that a filter asks for with `what`, about a request's body.
fn tap(hooks: &Hooks, what: &str) -> Tap {
    let mut head = asking("x-on-request", what);
    let called = hooks.on_request(&connection(), &mut head, true).unwrap();
    assert_eq!(field(&head.headers, "x-request-body"), "asked", "{what}");
    called.tap.expect("a tap")
}

fn text(pieces: Vec<Bytes>) -> String {
    String::from_utf8(pieces.concat()).unwrap()
}

fn chunk(tap: &mut Tap, bytes: &'static str) -> String {
    text(tap.chunk(Bytes::from_static(bytes.as_bytes())).unwrap())
}

#[test]
fn chunks_become_what_the_filter_makes_of_them() {
    let hooks = granted("makes");
    for (what, given, end) in [
        ("upper", ["ONE", "TWO"], ""),
        ("pass", ["one", "two"], ""),
        ("double", ["oneone", "twotwo"], ""),
        ("mark", ["<one>", "<two>"], ""),
        ("swallow", ["", ""], "6"),
        ("append", ["one", "two"], "[6 bytes of request-1]"),
        ("observe", ["one", "two"], ""),
    ] {
        let mut tap = tap(&hooks, what);
        let is_observing = what == "observe";
        assert_eq!(tap.mode() == Mode::Observe, is_observing, "{what}");
        assert_eq!([chunk(&mut tap, "one"), chunk(&mut tap, "two")], given, "{what}");
        assert_eq!(text(tap.finish().unwrap()), end, "{what}");
    }
    let totals = hooks.plugin().stats().totals();
    assert_eq!((totals.body_bytes_in, totals.failures), (7 * 6, 0));
    assert_eq!(totals.body_bytes_out, 6 + 6 + 12 + 10 + 1 + 6 + 22 + 6);
    assert_eq!(totals.calls[4], 7 * 3);
}

#[test]
fn what_is_passed_is_not_copied() {
    let hooks = granted("copies");
    let mut tap = tap(&hooks, "pass");
    let chunk = Bytes::from(vec![b'x'; CHUNK_BYTES_MAX]);
    let given = tap.chunk(chunk.clone()).unwrap();
    assert_eq!(given[0].as_ptr(), chunk.as_ptr());
    tap.finish().unwrap();
}

#[test]
fn bodies_of_one_instance_do_not_mix() {
    let log = Log::capture();
    let hooks = granted("mixes");
    let mut taps: Vec<Tap> = (0..50).map(|_| tap(&hooks, "append")).collect();
    let mut other = tap(&hooks, "leak");
    for round in 0..3 {
        for (index, tap) in taps.iter_mut().enumerate() {
            if index % 3 >= round {
                assert_eq!(chunk(tap, "x"), "x");
            }
        }
    }
    assert_eq!(chunk(&mut other, "x"), "51;");
    for (index, mut tap) in taps.into_iter().enumerate() {
        match index % 5 {
            0 => drop(tap),
            _ => {
                let bytes = index % 3 + 1;
                let wanted = format!("[{bytes} bytes of request-1]");
                assert_eq!(text(tap.finish().unwrap()), wanted);
            }
        }
    }
    // Nothing is left of those that ended, well or not.
    assert_eq!(chunk(&mut other, "x"), "1;");
    assert_eq!(log.lines("abandoned append").len(), 10);
    assert_eq!(hooks.plugin().stats().totals().instances, 1);
}

#[test]
fn a_filter_gets_the_bodies_it_was_granted_and_no_others() {
    let log = Log::capture();
    let none = streaming("none", BodyGrant::None, BodyGrant::None);
    let reads = streaming("reads", BodyGrant::Read, BodyGrant::None);
    let both = granted("both");
    for (hooks, what, wanted) in [
        (&none, "observe", "denied"),
        (&none, "upper", "denied"),
        (&reads, "observe", "asked"),
        (&reads, "upper", "denied"),
        (&both, "observe", "asked"),
        (&both, "twice", "again"),
    ] {
        let mut head = asking("x-on-request", what);
        let called = hooks.on_request(&connection(), &mut head, true).unwrap();
        assert_eq!(field(&head.headers, "x-request-body"), wanted, "{what}");
        assert_eq!(called.tap.is_some(), wanted != "denied", "{what}");
        let mut head = asking("x-on-response", what);
        let mut answer = response(200);
        let called = hooks.on_response(&connection(), &mut head, &mut answer, true).unwrap();
        let wanted = if hooks.plugin().name() == "reads" { "denied" } else { wanted };
        assert_eq!(field(&answer.headers, "x-response-body"), wanted, "{what}");
        assert_eq!(called.reshapes, wanted == "asked" && what == "upper", "{what}");
    }
    let told = log.lines("may not transform the body of a request");
    assert_eq!(told.len(), 2, "once for each plugin: {told:?}");
    assert!(told[1].contains("`body: transform` in plugins.reads.grants.request"), "{told:?}");
    assert_eq!(log.lines("may not read the body of a response").len(), 2);
}

#[test]
fn what_is_not_the_content_itself_is_not_transformed() {
    let hooks = granted("codes");
    let field_of = |name: &'static str, value: &str| {
        let mut answer = response(200);
        answer.headers.insert(name, HeaderValue::from_str(value).unwrap());
        answer
    };
    for (mut answer, has_body, transforms, observes) in [
        (response(200), true, "asked", "asked"),
        (response(200), false, "no-body", "no-body"),
        (response(206), true, "partial", "asked"),
        (field_of("content-encoding", "gzip"), true, "encoded", "asked"),
        (field_of("content-encoding", "Identity"), true, "asked", "asked"),
        (field_of("content-range", "bytes 0-1/5"), true, "partial", "asked"),
    ] {
        for (what, wanted) in [("upper", transforms), ("observe", observes)] {
            let mut head = asking("x-on-response", what);
            hooks.on_response(&connection(), &mut head, &mut answer, has_body).unwrap();
            assert_eq!(field(&answer.headers, "x-response-body"), wanted);
        }
    }
    // A head alone tells what the whole response would.
    let mut head = asking("x-on-response", "upper");
    let called = hooks.on_response(&connection(), &mut head, &mut response(304), false).unwrap();
    assert!(called.reshapes && called.tap.is_none());
}

#[test]
fn a_response_that_can_be_transformed_is_asked_for() {
    let hooks = granted("expects");
    let mut head = asking("x-expect", "yes");
    head.headers.insert("range", HeaderValue::from_static("bytes=0-1"));
    head.headers.insert("if-range", HeaderValue::from_static("\"a\""));
    head.headers.insert("accept-encoding", HeaderValue::from_static("gzip, br"));
    hooks.on_request(&connection(), &mut head, false).unwrap();
    assert_eq!(field(&head.headers, "accept-encoding"), "identity");
    assert!(!head.headers.contains_key("range") && !head.headers.contains_key("if-range"));
    assert_eq!(field(&head.headers, "x-expected"), "expected");
    // Undone with the rest of a call that fails.
    let mut head = asking("x-expect", "yes");
    head.headers.insert("range", HeaderValue::from_static("bytes=0-1"));
    head.headers.insert("x-head", HeaderValue::from_static("trap-after"));
    let before = super::text(&head);
    hooks.on_request(&connection(), &mut head, true).unwrap_err();
    assert_eq!(super::text(&head), before);
    let reads = streaming("expects-less", BodyGrant::Transform, BodyGrant::Read);
    let mut head = asking("x-expect", "yes");
    reads.on_request(&connection(), &mut head, false).unwrap();
    assert_eq!(field(&head.headers, "x-expected"), "denied");
    assert!(!head.headers.contains_key("accept-encoding"));
}

#[test]
fn a_body_that_goes_wrong_says_what_it_was() {
    for (what, wanted) in [
        ("trap", "at the first chunk"),
        ("loop", "limits.deadline"),
        ("output", "limits.output"),
        ("head", "only valid inside a hook about heads"),
        ("ask", "a body is asked for in `on-request` or `on-response`"),
    ] {
        let log = Log::capture();
        let hooks = granted(&format!("wrong-{what}"));
        let mut tap = tap(&hooks, what);
        let error = tap.chunk(Bytes::from_static(b"x")).unwrap_err().to_string();
        assert!(error.contains(wanted), "{what}: {error}");
        assert!(error.contains("body-hooks.on-chunk"), "{what}: {error}");
        assert_eq!(log.lines("request=\"request-1\"").len(), 1, "{what}: {}", log.text());
        let totals = hooks.plugin().stats().totals();
        assert_eq!(totals.failures, 1, "{what}");
        assert_eq!(totals.last_failure.unwrap().request, "request-1");
        // The next call has an instance of its own.
        on_request(&hooks, &connection(), &mut request("/")).unwrap();
        assert_eq!(hooks.plugin().stats().totals().instances, 2);
    }
    let hooks = granted("wrong-end");
    let mut ends = tap(&hooks, "trap-finish");
    assert_eq!(chunk(&mut ends, "x"), "x");
    assert!(ends.finish().unwrap_err().to_string().contains("at the end, after 1 chunks"));
    let mut passes = tap(&hooks, "pass-finish");
    assert!(passes.finish().unwrap_err().to_string().contains("no chunk to pass"));
    let error = hooks.on_request(&connection(), &mut asking("x-head", "write"), true).unwrap_err();
    assert!(error.to_string().contains("give bytes"), "{error}");
}

#[test]
fn a_body_grows_so_far_and_no_further() {
    let hooks = with("grows", BodyGrant::Transform, BodyGrant::None, |config| {
        config.limits.body_growth_bytes_max = 600_000;
    });
    let mut grows = tap(&hooks, "grow");
    assert_eq!(grows.chunk(Bytes::from_static(b"x")).unwrap().concat().len(), 512_000);
    let error = grows.chunk(Bytes::from_static(b"x")).unwrap_err().to_string();
    assert!(error.contains("limits.body-growth"), "{error}");
    // What came in may go out again.
    let mut long = tap(&hooks, "double");
    let piece = Bytes::from(vec![b'x'; 60_000]);
    for _ in 0..10 {
        assert_eq!(long.chunk(piece.clone()).unwrap().len(), 2);
    }
    assert!(long.chunk(piece).unwrap_err().to_string().contains("limits.body-growth"));
}

#[test]
fn a_trap_takes_the_bodies_of_its_instance_along_and_no_others() {
    let hooks = granted("shares");
    let (mut good, mut bad) = (tap(&hooks, "pass"), tap(&hooks, "trap"));
    assert_eq!(chunk(&mut good, "x"), "x");
    bad.chunk(Bytes::from_static(b"x")).unwrap_err();
    let mut later = tap(&hooks, "pass");
    let error = good.chunk(Bytes::from_static(b"x")).unwrap_err().to_string();
    assert!(error.contains("isolation: request"), "{error}");
    drop(good);
    assert_eq!(chunk(&mut later, "x"), "x");
    assert_eq!(hooks.plugin().stats().totals().failures, 1, "one failed, the other only suffered");

    let alone = with("alone", BodyGrant::Transform, BodyGrant::None, |config| {
        config.reuse.calls_max = Some(1);
    });
    let (mut good, mut bad) = (tap(&alone, "append"), tap(&alone, "trap"));
    bad.chunk(Bytes::from_static(b"x")).unwrap_err();
    assert_eq!(chunk(&mut good, "x"), "x");
    let mut leaks = tap(&alone, "leak");
    assert_eq!(chunk(&mut leaks, "x"), "1;");
    assert_eq!(text(good.finish().unwrap()), "[1 bytes of request-1]");
}

#[test]
fn bodies_that_hold_instances_leave_room_for_others() {
    let cache = tempfile::tempdir().unwrap();
    let engine = Engine::start(cache.path().join("compiled")).unwrap();
    let mut config = config(guest("streaming"), serde_json::Value::Null);
    config.grants.request.body = BodyGrant::Transform;
    config.reuse.calls_max = Some(1);
    let plugin = engine.load("alone", &config, &upstreams()).unwrap();
    let hooks = Hooks::new(plugin, &config.config).unwrap();
    let mut taps = Vec::new();
    let error = loop {
        let mut head = asking("x-on-request", "append");
        match hooks.on_request(&connection(), &mut head, true) {
            Ok(called) => taps.push(called.tap.unwrap()),
            Err(error) => break error.to_string(),
        }
        assert!(taps.len() <= 750);
    };
    assert!(error.contains("isolation: request"), "{error}");
    assert_eq!(taps.len(), 750);
    let other = engine.load("other", &config, &upstreams()).unwrap();
    let other = Hooks::new(other, &config.config).unwrap();
    on_request(&other, &connection(), &mut request("/")).unwrap();
    // Once bodies have ended it goes on, and nothing is left of them.
    let stats = Arc::clone(&hooks.plugin().stats);
    taps.truncate(700);
    on_request(&hooks, &connection(), &mut request("/")).unwrap();
    drop(hooks);
    let mut last = taps.pop().unwrap();
    drop(taps);
    assert_eq!(chunk(&mut last, "x"), "x");
    drop(last);
    assert_eq!(stats.totals().body_bytes_in, 1, "what comes after the place is gone counts too");
    drop(other);
    assert_eq!(engine.instances(), 0);
}

#[test]
fn a_component_says_that_it_wants_bodies() {
    let asks = engine().inspect(&guest("streaming")).unwrap().asks;
    for wanted in ["transform bodies of requests", "transform bodies of responses"] {
        assert!(asks.iter().any(|ask| ask == wanted), "{asks:?}");
    }
    let asks = engine().inspect(&guest("filter")).unwrap().asks;
    assert!(!asks.iter().any(|ask| ask.contains("bodies")), "{asks:?}");
}

//! Promise: a balancer that is trusted says by a PROXY header who the client is, nobody else can, and
//! servers are told the same way, over connections that no two clients share.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::client::{Client, get};
use crate::harness::origin::field;
use crate::harness::{Gateway, RustOrigin, SOON, within};

const YAML: &str = "
listen:
  - {address: \"https://127.0.0.1:@https@\", proxy-protocol: [127.0.0.2]}
  - {address: \"http://127.0.0.1:@http@\", proxy-protocol: [127.0.0.2]}
limits: {handshake: 1s}
sites:
  - hosts: [app.localhost]
    routes:
      - {path: /v1, upstream: v1}
      - {path: /v2, upstream: v2}
      - {path: /h2, upstream: h2}
      - upstream: app
upstreams:
  app: http://127.0.0.1:@app@
  v1:
    servers: [\"http://127.0.0.1:@v1@\"]
    proxy-protocol: v1
    health: {path: /healthz, interval: 100ms, unhealthy-after: 1}
  v2: {servers: [\"http://127.0.0.1:@v2@\"], proxy-protocol: v2}
  h2: {servers: [\"h2c://127.0.0.1:@h2@\"], proxy-protocol: v2}
";

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n";

fn v2(command: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, 0x11], &length, rest].concat()
}

/// 203.0.113.7:4711 to 198.51.100.1:443.
const ENDS: &[u8] = &[203, 0, 113, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 187];

struct Setting {
    gateway: Gateway,
    app: RustOrigin,
    v1: RustOrigin,
    v2: RustOrigin,
    h2: RustOrigin,
}

async fn setting() -> Setting {
    let (app, v1) = (RustOrigin::h1().await, RustOrigin::proxied().await);
    let (v2, h2) = (RustOrigin::proxied().await, RustOrigin::proxied_h2c().await);
    let mut gateway = Gateway::new();
    gateway.set("app", app.port).set("v1", v1.port).set("v2", v2.port).set("h2", h2.port);
    gateway.start(YAML).await;
    Setting { gateway, app, v1, v2, h2 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_balancer_says_who_the_client_is() {
    let Setting { gateway, app, .. } = setting().await;
    let balancer = gateway.client().await.from("127.0.0.2");
    let entries =
        b"\x02\x00\x0dapp.localhost\x05\x00\x03id7\x20\x00\x0f\x01\0\0\0\x01\x21\x00\x07TLSv1.2";
    let rich = v2(0x21, &[ENDS, entries].concat());
    for (path, header, client) in [
        ("/one", V1, "203.0.113.7"),
        ("/two", &rich, "203.0.113.7"),
        ("/own", &v2(0x20, b""), "127.0.0.2"),
        ("/unknown", b"PROXY UNKNOWN\r\n", "127.0.0.2"),
        ("/six", b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", "2001:db8::7"),
    ] {
        let seen = balancer.clone().saying(header).get("app.localhost", path).await.json();
        assert_eq!(field(&seen, "x-forwarded-for"), [client], "{path}");
        let record = gateway.accessed(path).await;
        assert_eq!(record["client"], client);
        assert_eq!(record["proxy"]["peer"], "127.0.0.2", "{record}");
    }
    let proxy = gateway.accessed("/two").await["proxy"].clone();
    assert_eq!(
        (&proxy["authority"], &proxy["unique_id"]),
        (&"app.localhost".into(), &"id7".into())
    );
    assert_eq!(proxy["tls"], "TLSv1.2", "{proxy}");
    // Over plain HTTP as well.
    let plain = Client::new(gateway.http).from("127.0.0.2").saying(V1);
    let mut plain = plain.plain().await.unwrap();
    assert_eq!(plain.send(get("app.localhost", "/")).await.unwrap().status, 308);
    // Others are who they are, and cannot say anything else.
    let stranger = gateway.client().await;
    let seen = stranger.get("app.localhost", "/").await.json();
    assert_eq!(field(&seen, "x-forwarded-for"), ["127.0.0.1"]);
    let requests = app.requests().len();
    assert!(stranger.saying(V1).h1("app.localhost").await.is_err());
    // The balancer has to say it, and say it right, within the time of a handshake.
    for wrong in [&b""[..], b"PROXY TCP4 203.0.113.7\r\n", &v2(0x21, &ENDS[..11]), &v2(0x31, ENDS)]
    {
        assert!(balancer.clone().saying(wrong).h1("app.localhost").await.is_err(), "{wrong:?}");
    }
    for begun in [&b""[..], b"PROXY TCP4 203", &rich[..20]] {
        let mut stream = balancer.tcp().await.unwrap();
        let start = Instant::now();
        stream.write_all(begun).await.unwrap();
        let end = within("the end of a half header", SOON, stream.read_u8()).await;
        assert!(end.is_err() && start.elapsed() > Duration::from_millis(900), "{begun:?}");
    }
    assert_eq!(app.requests().len(), requests);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_are_told_over_connections_of_their_own() {
    let Setting { gateway, v1, v2, h2, .. } = setting().await;
    let balancer = gateway.client().await.from("127.0.0.2");
    let one = balancer.clone().saying(V1);
    let other = balancer.saying(b"PROXY TCP4 203.0.113.8 198.51.100.1 4712 443\r\n");
    let mut clients =
        [one.h1("app.localhost").await.unwrap(), other.h2("app.localhost").await.unwrap()];
    for round in 0..2 {
        for client in &mut clients {
            for path in ["/v1", "/v2", "/h2"] {
                let answer = client.send(get("app.localhost", path)).await.unwrap();
                assert_eq!(answer.status, 200, "{path} in round {round}");
            }
        }
    }
    let said = |origin: &RustOrigin| {
        let headers = origin.proxy_headers().into_iter();
        headers.filter(|header| !header.starts_with(b"PROXY UNKNOWN")).collect::<Vec<_>>()
    };
    let lines: Vec<String> =
        said(&v1).into_iter().map(|line| String::from_utf8(line).unwrap()).collect();
    assert_eq!(
        lines,
        [
            "PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n",
            "PROXY TCP4 203.0.113.8 198.51.100.1 4712 443\r\n"
        ]
    );
    // Health checks are nobody's.
    assert!(v1.proxy_headers().contains(&b"PROXY UNKNOWN\r\n".to_vec()));
    for origin in [&v2, &h2] {
        let headers = said(origin);
        assert_eq!(headers.len(), 2, "one connection for each client: {headers:?}");
        assert!(headers[0].starts_with(&self::v2(0x21, ENDS)[..14]));
        assert!(headers[0].windows(12).any(|part| part == ENDS));
        assert!(headers[0].ends_with(b"\x02\x00\x0dapp.localhost"), "{headers:?}");
    }
}

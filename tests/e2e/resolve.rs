//! Promise: a server's name is looked up again while it serves: one that moves is followed within its time
//! to live, connections to where it no longer is are let go, but not the requests on them, and each of its
//! addresses has load and health of its own.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;

use crate::harness::client::get;
use crate::harness::{Gateway, RustOrigin, SOON, port, until};

const YAML: &str = "
sites:
  - {hosts: [h1.localhost], upstream: h1}
  - {hosts: [h2.localhost], upstream: h2}
  - {hosts: [none.localhost], upstream: none}
upstreams:
  h1:
    servers: [\"http://app.example.test:@h1@\"]
    resolve: {servers: [\"127.0.0.1:@dns@\"]}
    balance: round-robin
    health: {check: tcp, interval: 100ms, unhealthy-after: 1}
  h2:
    servers: [\"h2c://app.example.test:@h2@\"]
    resolve: {servers: [\"127.0.0.1:@dns@\"]}
    balance: round-robin
  none: {servers: [\"http://none.example.test:80\"], resolve: {servers: [\"127.0.0.1:@dns@\"]}}
";

/// A DNS server that has these addresses for one name, for a second.
async fn dns(addresses: Arc<Mutex<Vec<Ipv4Addr>>>) -> u16 {
    let socket = UdpSocket::bind(("127.0.0.1", port())).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let query = &buffer[..length];
            let name = query[12..].iter().position(|byte| *byte == 0).unwrap();
            let question = &query[12..12 + name + 5];
            let is_ours = question.starts_with(b"\x03app") && question.ends_with(&[0, 0, 1, 0, 1]);
            let addresses = match is_ours {
                true => addresses.lock().unwrap().clone(),
                false => Vec::new(),
            };
            // RFC 1035, section 4.1: a response with recursion, one question, the answers.
            let mut answer = [&query[..2], &[0x81, 0x80, 0, 1, 0, addresses.len() as u8]].concat();
            answer.extend([0, 0, 0, 0]);
            answer.extend(question);
            for address in addresses {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
                answer.extend(address.octets());
            }
            let _ = socket.send_to(&answer, from).await;
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_moves_is_followed() {
    let (one, other) = (Ipv4Addr::new(127, 0, 0, 3), Ipv4Addr::new(127, 0, 0, 4));
    let records = Arc::new(Mutex::new(vec![one]));
    let (h1, h2) = (port(), port());
    let mut origins = Vec::new();
    for address in [one, other] {
        let address = address.to_string();
        let pair =
            (RustOrigin::at(&address, h1, false).await, RustOrigin::at(&address, h2, true).await);
        origins.push(pair);
    }
    let mut gateway = Gateway::new();
    gateway.set("dns", dns(Arc::clone(&records)).await).set("h1", h1).set("h2", h2);
    gateway.start(YAML).await;
    let client = gateway.client().await;
    let counts = |at: usize| [origins[at].0.requests().len(), origins[at].1.requests().len()];
    // Until the first answer is there, the system's resolver is asked, which does not know the name.
    for name in ["h1.localhost", "h2.localhost"] {
        until("the name", SOON, async || (client.get(name, "/").await.status == 200).then_some(()))
            .await;
        let mut http = client.h2(name).await.unwrap();
        for _ in 0..3 {
            assert_eq!(http.send(get(name, "/")).await.unwrap().status, 200);
        }
    }
    assert_eq!(counts(1), [0, 0]);
    let open = ["h1.localhost", "h2.localhost"].map(|name| {
        let client = client.clone();
        tokio::spawn(async move { client.get(name, "/slow?ms=4000").await.status })
    });
    until("both to be there", SOON, async || (counts(0).iter().sum::<usize>() >= 10).then_some(()))
        .await;

    let mark = gateway.mark();
    *records.lock().unwrap() = vec![other];
    for upstream in ["h1", "h2"] {
        let words = ["server has moved", upstream, "127.0.0.4"];
        gateway.logged(mark, &words).await;
    }
    let kept = origins.iter().map(|(h1, h2)| h1.connections() + h2.connections()).sum::<usize>();
    for name in ["h1.localhost", "h2.localhost"] {
        let mut http = client.h2(name).await.unwrap();
        until("the other server", SOON, async || {
            let before = counts(0);
            assert_eq!(http.send(get(name, "/")).await.unwrap().status, 200);
            (before == counts(0)).then_some(())
        })
        .await;
        let before = counts(0);
        for _ in 0..5 {
            assert_eq!(http.send(get(name, "/")).await.unwrap().status, 200);
        }
        assert_eq!(counts(0), before, "nothing new goes to where it was");
    }
    assert!(counts(1).iter().all(|count| *count >= 5), "{:?} of {kept}", counts(1));
    for request in open {
        assert_eq!(request.await.unwrap(), 200, "what was under way ends well");
    }

    // Both at once share the load.
    let mark = gateway.mark();
    *records.lock().unwrap() = vec![one, other];
    // Connections that are opened before would all lead to one of them, and be enough for ever.
    gateway.logged(mark, &["server has moved", "\"h1\"", "127.0.0.3, 127.0.0.4"]).await;
    gateway.logged(mark, &["server has moved", "\"h2\"", "127.0.0.3, 127.0.0.4"]).await;
    // Each is a server of its own: one request after the other goes to either, whatever connections there are.
    for (at, name) in ["h1.localhost", "h2.localhost"].into_iter().enumerate() {
        let mut http = client.h2(name).await.unwrap();
        let before = [counts(0)[at], counts(1)[at]];
        for _ in 0..60 {
            assert_eq!(http.send(get(name, "/")).await.unwrap().status, 200);
        }
        let seen = [counts(0)[at] - before[0], counts(1)[at] - before[1]];
        // Workers take turns by themselves, and one begins anew where it learns of the addresses.
        assert!(seen.iter().all(|count| (25..=35).contains(count)), "{name}: {seen:?}");
    }
    // One that is gone is taken out by its checks, and nobody notices.
    let mark = gateway.mark();
    drop(origins.remove(0));
    let mut http = client.h2("h1.localhost").await.unwrap();
    for _ in 0..20 {
        assert_eq!(http.send(get("h1.localhost", "/")).await.unwrap().status, 200);
    }
    let line = gateway.logged(mark, &["server is taken out", "127.0.0.3"]).await;
    assert!(!line.contains("127.0.0.4"), "{line}");
    for _ in 0..20 {
        assert_eq!(http.send(get("h1.localhost", "/")).await.unwrap().status, 200);
    }
    // A name that leads nowhere is told about.
    assert_eq!(client.get("none.localhost", "/").await.status, 502);
    gateway.logged(0, &["name of a server has no address", "none.example.test"]).await;
}

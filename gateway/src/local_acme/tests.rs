//! Ring 1 and 2: the server's answers, asked by hand; what certbot, lego or another gateway make of
//! them is in `tests/e2e/local_acme.rs`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use rcgen::{CertificateParams, KeyPair, SanType};
use serde_json::{Value, json};

use super::api::{Desk, Reply};
use super::look;
use super::problem::Problem;
use crate::acme::fake_dns::{FakeDns, Mood, Records};
use crate::acme::jose::AccountKey;
use crate::config::{Hostname, LocalAcme, LocalDomain};
use crate::store::Store;
use crate::tls::local::LocalCa;

const BASE: &str = "https://localhost:8555";

struct Bench {
    desk: Arc<Desk>,
    records: Records,
    _dns: FakeDns,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new(limits: &[LocalDomain]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let local = LocalCa::open(&store, limits).unwrap();
        let records = Records::default();
        let dns = FakeDns::start(1, records.clone(), Mood::Honest).await;
        // Nobody listens there.
        let settings =
            LocalAcme { listen: "127.0.0.1:1".parse().unwrap(), http_port: 1, tls_port: 1 };
        let desk = Arc::new(Desk::new(local, store, look(&settings, &[dns.address().into()])));
        Self { desk, records, _dns: dns, _folder: folder }
    }
}

/// A client with a key, and an account once it has one.
struct Client<'a> {
    bench: &'a Bench,
    key: AccountKey,
    kid: Option<String>,
}

impl<'a> Client<'a> {
    fn new(bench: &'a Bench) -> Self {
        let key = AccountKey::from_der(&AccountKey::generate().unwrap()).unwrap();
        Self { bench, key, kid: None }
    }

    fn registered(bench: &'a Bench) -> Self {
        let mut client = Self::new(bench);
        let reply = client.post("new-account", &json!({"contact": ["mailto:a@b.example"]}));
        let reply = reply.ok().unwrap();
        assert_eq!(reply.status, StatusCode::CREATED);
        client.kid = reply.location;
        client
    }

    fn post(&self, path: &str, payload: &Value) -> Result<Reply, Problem> {
        self.post_as(path, payload.to_string().as_bytes(), self.bench.desk.nonce())
    }

    fn post_as(&self, path: &str, body: &[u8], nonce: Option<String>) -> Result<Reply, Problem> {
        let path = path.strip_prefix(BASE).unwrap_or(path).trim_start_matches('/');
        let mut header = json!({"url": format!("{BASE}/{path}"), "nonce": nonce});
        match &self.kid {
            Some(kid) => header["kid"] = kid.clone().into(),
            None => header["jwk"] = self.key.jwk(),
        }
        let signed = self.key.sign(header, body);
        self.bench.desk.post(BASE, &path.split('/').collect::<Vec<_>>(), &signed)
    }

    fn read(&self, url: &str) -> Value {
        body(&self.post_as(url, b"", self.bench.desk.nonce()).ok().unwrap())
    }

    fn order(&self, names: &[&str]) -> Result<(String, Value), Problem> {
        let kind = |name: &str| if name.parse::<std::net::IpAddr>().is_ok() { "ip" } else { "dns" };
        let names = names.iter().map(|name| json!({"type": kind(name), "value": name}));
        let identifiers: Vec<Value> = names.collect();
        let reply = self.post("new-order", &json!({"identifiers": identifiers}))?;
        Ok((reply.location.clone().unwrap(), body(&reply)))
    }

    /// Proves a name by DNS and gives the authorization in the end.
    async fn prove(&self, authorization: &str, is_right: bool) -> Value {
        let document = self.read(authorization);
        let all = document["challenges"].as_array().unwrap();
        let dns = all.iter().find(|one| one["type"] == "dns-01").unwrap();
        let public = super::jws::PublicKey::from_jwk(&self.key.jwk()).unwrap();
        let text = format!("{}.{}", dns["token"].as_str().unwrap(), public.thumbprint());
        let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        let value = URL_SAFE_NO_PAD.encode(sum);
        let name = format!("_acme-challenge.{}", document["identifier"]["value"].as_str().unwrap());
        self.bench.records.set_txt(&name, &[if is_right { &value } else { "another" }]);
        self.post(dns["url"].as_str().unwrap(), &json!({})).ok().unwrap();
        loop {
            let document = self.read(authorization);
            if document["status"] != "pending" {
                return document;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    fn finalize(&self, order: &Value, names: &[&str], key: &KeyPair) -> Result<Reply, Problem> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let san = |name: &&str| SanType::DnsName((*name).try_into().unwrap());
        params.subject_alt_names = names.iter().map(san).collect();
        let csr = params.serialize_request(key).unwrap();
        let csr = URL_SAFE_NO_PAD.encode(csr.der());
        self.post(order["finalize"].as_str().unwrap(), &json!({"csr": csr}))
    }
}

fn body(reply: &Reply) -> Value {
    serde_json::from_str(&reply.body.as_ref().unwrap().1).unwrap()
}

/// For orders that must not be made.
fn answered((url, _): (String, Value)) -> Reply {
    panic!("an order was made: {url}")
}

/// The type of a problem.
fn kind(answered: Result<Reply, Problem>) -> String {
    let document = answered.err().expect("a problem").document();
    let kind = document["type"].as_str().unwrap();
    kind.strip_prefix("urn:ietf:params:acme:error:").unwrap().to_owned()
}

#[tokio::test]
async fn a_name_and_its_wildcard_from_the_order_to_the_revocation() {
    let bench = Bench::new(&[]).await;
    let client = Client::registered(&bench);
    let names = ["a.test", "*.a.test"];
    let (url, order) = client.order(&names).ok().unwrap();
    assert_eq!(order["status"], "pending");
    let key = KeyPair::generate().unwrap();
    assert_eq!(kind(client.finalize(&order, &names, &key)), "orderNotReady");
    for authorization in order["authorizations"].as_array().unwrap() {
        let proved = client.prove(authorization.as_str().unwrap(), true).await;
        assert_eq!(proved["status"], "valid", "{proved}");
    }
    let order = client.read(&url);
    assert_eq!(order["status"], "ready");
    assert_eq!(kind(client.finalize(&order, &["a.test"], &key)), "badCSR");
    assert_eq!(kind(client.finalize(&order, &["a.test", "*.a.test", "b.test"], &key)), "badCSR");
    let done = body(&client.finalize(&order, &names, &key).ok().unwrap());
    assert_eq!(done["status"], "valid");
    let at = done["certificate"].as_str().unwrap();
    let pem = client.post_as(at, b"", bench.desk.nonce()).ok().unwrap().body.unwrap().1;
    let chain: Vec<_> =
        x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes()).collect::<Result<_, _>>().unwrap();
    assert_eq!(chain.len(), 2);
    let leaf = chain[0].parse_x509().unwrap();
    assert_eq!(leaf.public_key().raw, rcgen::PublicKeyData::subject_public_key_info(&key));

    // Renewal information, and what it says once the certificate is revoked.
    let serial = URL_SAFE_NO_PAD.encode(leaf.raw_serial());
    let id = format!("AAAA.{serial}");
    let start =
        |reply: Reply| body(&reply)["suggestedWindow"]["start"].as_str().unwrap().to_owned();
    let before = start(bench.desk.get(BASE, &["renewal-info", &id]).ok().unwrap());
    let revoke = json!({"certificate": URL_SAFE_NO_PAD.encode(&chain[0].contents), "reason": 1});
    let other = Client::registered(&bench);
    assert_eq!(kind(other.post("revoke-cert", &revoke)), "unauthorized");
    let odd = json!({"certificate": revoke["certificate"], "reason": 2});
    assert_eq!(kind(client.post("revoke-cert", &odd)), "badRevocationReason");
    // By the certificate's own key, without an account.
    let own = AccountKey::from_der(&key.serialize_der()).unwrap();
    let own = Client { bench: &bench, key: own, kid: None };
    assert_eq!(own.post("revoke-cert", &revoke).ok().unwrap().status, StatusCode::OK);
    assert_eq!(kind(client.post("revoke-cert", &revoke)), "alreadyRevoked");
    let after = start(bench.desk.get(BASE, &["renewal-info", &id]).ok().unwrap());
    assert!(after < before, "{after} {before}");

    // Whose renewal says what it replaces, once.
    let identifiers = json!([{"type": "dns", "value": "a.test"}]);
    let wish = json!({"identifiers": identifiers, "replaces": id});
    assert_eq!(kind(other.post("new-order", &wish)), "malformed");
    let again = client.post("new-order", &wish).ok().unwrap();
    assert_eq!(body(&again)["replaces"], id);
    assert_eq!(kind(client.post("new-order", &wish)), "alreadyReplaced");
    assert_eq!(client.read(client.kid.as_ref().unwrap())["status"], "valid");
    let orders = client.read(&format!("{}/orders", client.kid.as_ref().unwrap()));
    assert_eq!(orders["orders"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_name_that_is_not_proved_is_not_signed() {
    let bench = Bench::new(&[]).await;
    let client = Client::registered(&bench);
    let (url, order) = client.order(&["a.test"]).ok().unwrap();
    let authorization = order["authorizations"][0].as_str().unwrap().to_owned();
    let failed = client.prove(&authorization, false).await;
    assert_eq!(failed["status"], "invalid");
    let dns = failed["challenges"].as_array().unwrap().iter().find(|one| one["type"] == "dns-01");
    assert_eq!(dns.unwrap()["error"]["type"], "urn:ietf:params:acme:error:incorrectResponse");
    let order = client.read(&url);
    assert_eq!(order["status"], "invalid");
    let key = KeyPair::generate().unwrap();
    assert_eq!(kind(client.finalize(&order, &["a.test"], &key)), "orderNotReady");
    // Nobody listens for the two others: it is told as the RFC names it.
    for challenge in ["http-01", "tls-alpn-01"] {
        bench.records.set_address("b.test", std::net::Ipv4Addr::LOCALHOST);
        let (_, order) = client.order(&["b.test"]).ok().unwrap();
        let authorization = order["authorizations"][0].as_str().unwrap();
        let document = client.read(authorization);
        let all = document["challenges"].as_array().unwrap();
        let one = all.iter().find(|one| one["type"] == challenge).unwrap();
        client.post(one["url"].as_str().unwrap(), &json!({})).ok().unwrap();
        let error = loop {
            let one = client.read(one["url"].as_str().unwrap());
            if one["status"] != "processing" {
                break one["error"]["type"].as_str().unwrap().to_owned();
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        };
        assert_eq!(error, "urn:ietf:params:acme:error:connection", "{challenge}");
    }
}

#[tokio::test]
async fn names_that_are_not_the_local_cas_are_refused() {
    let bench = Bench::new(&[]).await;
    let client = Client::registered(&bench);
    for name in ["example.com", "com", "*", "a_b!.test", "8.8.8.8", "*.co.uk", "*.com"] {
        assert_eq!(kind(client.order(&[name]).map(answered)), "rejectedIdentifier");
    }
    for name in ["localhost", "nas", "a.localhost", "*.lan", "127.0.0.1", "10.0.0.1", "::1"] {
        assert!(client.order(&[name]).is_ok(), "{name}");
    }
    assert_eq!(kind(client.order(&[]).map(answered)), "malformed");
    let odd = json!({"identifiers": [{"type": "email", "value": "a@b.test"}]});
    assert_eq!(kind(client.post("new-order", &odd)), "unsupportedIdentifier");
    let odd = json!({"identifiers": [{"type": "dns", "value": "a.test"}], "profile": "x"});
    assert_eq!(kind(client.post("new-order", &odd)), "invalidProfile");

    let limits = [LocalDomain::Name(Hostname::parse("corp.example").unwrap())];
    let bench = Bench::new(&limits).await;
    let client = Client::registered(&bench);
    assert!(client.order(&["a.corp.example", "localhost"]).is_ok());
    assert_eq!(kind(client.order(&["a.test"]).map(answered)), "rejectedIdentifier");
}

#[tokio::test]
async fn requests_that_others_could_have_made_are_refused() {
    let bench = Bench::new(&[]).await;
    let stranger = Client::new(&bench);
    assert_eq!(kind(stranger.post("new-order", &json!({}))), "malformed");
    let existing = json!({"onlyReturnExisting": true});
    assert_eq!(kind(stranger.post("new-account", &existing)), "accountDoesNotExist");
    let client = Client::registered(&bench);
    let kid = client.kid.clone().unwrap();
    // Asked again, the same key finds its account.
    let again = Client { bench: &bench, key: reread(&client.key), kid: None };
    assert_eq!(again.post("new-account", &existing).ok().unwrap().location, Some(kid.clone()));
    // A nonce is good for one request.
    let nonce = bench.desk.nonce();
    assert!(client.post_as(&kid, b"", nonce.clone()).is_ok());
    assert_eq!(kind(client.post_as(&kid, b"", nonce)), "badNonce");
    assert_eq!(kind(client.post_as(&kid, b"", None)), "badNonce");
    // Signed for another place, or by another key.
    let header =
        json!({"url": format!("{BASE}/new-order"), "nonce": bench.desk.nonce(), "kid": kid});
    let signed = client.key.sign(header.clone(), b"{}");
    assert_eq!(kind(bench.desk.post(BASE, &["revoke-cert"], &signed)), "unauthorized");
    let other = Client::registered(&bench);
    let signed = other.key.sign(header, b"{}");
    assert_eq!(kind(bench.desk.post(BASE, &["new-order"], &signed)), "malformed");
    // Another's order.
    let (url, order) = client.order(&["a.test"]).ok().unwrap();
    assert_eq!(kind(other.post(&url, &json!({}))), "unauthorized");
    let authorization = order["authorizations"][0].as_str().unwrap();
    assert_eq!(kind(other.post(authorization, &json!({}))), "unauthorized");
    assert_eq!(kind(client.post("order/..%2f..%2flocal", &json!({}))), "malformed");
    // A new key takes the place of the old one.
    let new = AccountKey::from_der(&AccountKey::generate().unwrap()).unwrap();
    let at = format!("{BASE}/key-change");
    let inner = json!({"account": kid, "oldKey": client.key.jwk()}).to_string();
    let inner = new.sign(json!({"jwk": new.jwk(), "url": at}), inner.as_bytes());
    assert!(client.post_as(&at, &inner, bench.desk.nonce()).is_ok());
    assert_eq!(kind(client.post(&kid, &json!({}))), "malformed");
    let client = Client { bench: &bench, key: new, kid: Some(kid.clone()) };
    assert_eq!(client.read(&kid)["status"], "valid");
    let leaving = json!({"status": "deactivated"});
    assert_eq!(body(&client.post(&kid, &leaving).ok().unwrap())["status"], "deactivated");
    assert_eq!(kind(client.post("new-order", &json!({}))), "unauthorized");
}

#[tokio::test]
async fn memory_and_rate_are_bounded() {
    let bench = Bench::new(&[]).await;
    let client = Client::registered(&bench);
    let first = bench.desk.nonce();
    for _ in 0..1000 {
        bench.desk.nonce();
    }
    let kid = client.kid.clone().unwrap();
    assert_eq!(kind(client.post_as(&kid, b"", first)), "badNonce");
    let refused = (0..301).find_map(|_| client.order(&["a.test"]).err()).expect("a limit");
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.retry_after.is_some_and(|wait| wait.as_secs() > 3000));
    assert_eq!(kind(Err(refused)), "rateLimited");
    let many = vec!["mailto:a@b.example"; 11];
    let contacts = json!({"contact": many});
    assert_eq!(kind(client.post(&kid, &contacts)), "unsupportedContact");
}

fn reread(key: &AccountKey) -> AccountKey {
    AccountKey::from_der(&key.pkcs8().unwrap()).unwrap()
}

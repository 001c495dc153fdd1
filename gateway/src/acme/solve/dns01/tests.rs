use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::journal::{Entry, FOLDER};
use super::*;
use crate::acme::fake_dns::{FakeDns, Mood, Records, quick};

/// A store in memory, with a switch that makes it fail.
#[derive(Default)]
struct Memory {
    items: Mutex<BTreeMap<String, Vec<u8>>>,
    is_full: Mutex<bool>,
}

impl Memory {
    fn entries(&self) -> Vec<Entry> {
        let items = self.items.lock().unwrap();
        items.values().map(|content| serde_json::from_slice(content).unwrap()).collect()
    }
}

impl Keep for Memory {
    fn read(&self, item: &str) -> Result<Option<Vec<u8>>, Cause> {
        Ok(self.items.lock().unwrap().get(item).cloned())
    }

    fn write(&self, item: &str, content: &[u8]) -> Result<(), Cause> {
        if *self.is_full.lock().unwrap() {
            return Err("disk full".into());
        }
        self.items.lock().unwrap().insert(item.to_owned(), content.to_vec());
        Ok(())
    }

    fn remove(&self, item: &str) -> Result<(), Cause> {
        self.items.lock().unwrap().remove(item);
        Ok(())
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, Cause> {
        let items = self.items.lock().unwrap();
        Ok(items.keys().filter(|item| item.starts_with(folder)).cloned().collect())
    }

    fn set_aside(&self, item: &str, _why: &str) -> Result<(), Cause> {
        let mut items = self.items.lock().unwrap();
        let content = items.remove(item).unwrap();
        items.insert(format!("set-aside/{item}"), content);
        Ok(())
    }
}

/// A provider whose zones are the fake servers' records.
#[derive(Default)]
struct Provider {
    zones: Vec<String>,
    records: Records,
    traits: Vec<(String, String)>,
    /// Failures to give before `present` works.
    failures: Mutex<VecDeque<SolverFailure>>,
    cleanup_fails: Mutex<bool>,
    find_zone_says: Option<String>,
    /// `present` writes, then never returns: the gateway is killed meanwhile.
    hangs_after_write: bool,
    pending: Mutex<u32>,
    /// How long `present` takes.
    takes: Duration,
    /// A journal that has to hold the entry when `present` is called.
    journal: Option<Arc<Memory>>,
    running: AtomicUsize,
    running_max: AtomicUsize,
    values_max: AtomicUsize,
    calls: Mutex<Vec<String>>,
}

fn failure(code: &str, retry_after: Option<Duration>) -> SolverFailure {
    SolverFailure { code: code.into(), message: "the provider's words".into(), retry_after }
}

impl Provider {
    fn for_zones(zones: &[&str], records: &Records) -> Self {
        let zones = zones.iter().map(|z| (*z).to_owned()).collect();
        Self { zones, records: records.clone(), ..Self::default() }
    }

    fn with_traits(mut self, traits: &[(&str, &str)]) -> Self {
        self.traits = traits.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        self
    }

    fn failing(self, failures: &[SolverFailure]) -> Self {
        self.failures.lock().unwrap().extend(failures.iter().cloned());
        self
    }

    fn called(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    fn calls_of(&self, start: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|call| call.starts_with(start)).count()
    }
}

impl DnsSolver for Provider {
    fn label(&self) -> String {
        "`fake` (1234abcd)".into()
    }

    fn traits(&self) -> SolverFuture<'_, Vec<(String, String)>> {
        Box::pin(async { Ok(self.traits.clone()) })
    }

    fn find_zone(&self, candidates: Vec<String>) -> SolverFuture<'_, (String, String)> {
        Box::pin(async move {
            if self.find_zone_says.as_deref() == Some(ASK_DNS) {
                return Err(failure(ASK_DNS, None));
            }
            if let Some(nonsense) = &self.find_zone_says {
                return Ok((nonsense.clone(), String::new()));
            }
            let zone = candidates.into_iter().find(|candidate| self.zones.contains(candidate));
            let zone = zone.ok_or_else(|| failure("zone-not-found", None))?;
            Ok((format!("{}.", zone.to_uppercase()), format!("id-of-{zone}")))
        })
    }

    fn present(&self, at: RecordSet, ttl_seconds: u32) -> SolverFuture<'_, String> {
        Box::pin(async move {
            self.called(format!("present {} {} {ttl_seconds}", at.name, at.values.join(",")));
            if let Some(failure) = self.failures.lock().unwrap().pop_front() {
                return Err(failure);
            }
            if let Some(journal) = &self.journal {
                assert!(journal.entries().iter().any(|e| e.record == at && e.handle.is_none()));
            }
            let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            self.running_max.fetch_max(running, Ordering::SeqCst);
            tokio::time::sleep(self.takes).await;
            self.running.fetch_sub(1, Ordering::SeqCst);
            for value in &at.values {
                self.records.add_txt(&at.name, value);
            }
            self.values_max.fetch_max(self.records.txt(&at.name).len(), Ordering::SeqCst);
            if self.hangs_after_write {
                std::future::pending::<()>().await;
            }
            Ok(format!("handle of {}", at.name))
        })
    }

    fn poll(&self, zone: Zone, handle: String) -> SolverFuture<'_, Option<u32>> {
        Box::pin(async move {
            self.called(format!("poll {} {handle}", zone.handle));
            let mut pending = self.pending.lock().unwrap();
            *pending = pending.saturating_sub(1);
            Ok((*pending > 0).then_some(0))
        })
    }

    fn cleanup(&self, at: RecordSet, handle: String) -> SolverFuture<'_, ()> {
        Box::pin(async move {
            self.called(format!("cleanup {} {} [{handle}]", at.name, at.values.join(",")));
            if *self.cleanup_fails.lock().unwrap() {
                return Err(failure("auth", None));
            }
            for value in &at.values {
                self.records.remove_txt(&at.name, value);
            }
            Ok(())
        })
    }
}

/// The code of a provider that cannot tell its zones.
const ASK_DNS: &str = "ask-dns";

fn pace() -> Pace {
    Pace {
        patience: quick(),
        backoff: Duration::from_millis(20),
        backoff_conflict: Duration::from_millis(5),
        retry_after_max: Duration::from_millis(300),
        poll_min: Duration::from_millis(10),
        slot_wait: Duration::from_secs(5),
        look: Duration::from_millis(20),
        look_max: Duration::from_millis(50),
        ..Pace::default()
    }
}

fn host(name: &str) -> Hostname {
    Hostname::parse(name).unwrap()
}

fn record(domain: &str, value: &str) -> Wanted {
    Wanted { domain: host(domain), account: None, value: value.to_owned() }
}

/// A resolver, the zones' server, a store, and the room under test.
struct Bench {
    directory: Records,
    zones: Records,
    memory: Arc<Memory>,
    dns01: Dns01,
    _servers: Vec<FakeDns>,
}

impl Bench {
    async fn new() -> Self {
        Self::with(Mood::Honest, Duration::from_millis(700)).await
    }

    async fn with(resolver: Mood, timeout: Duration) -> Self {
        let (directory, zones) = (Records::default(), Records::default());
        for zone in ["a.example", "b.example"] {
            directory.set_zone(zone, &[("ns1.example", IpAddr::from([127, 0, 0, 11]))]);
        }
        let servers = FakeDns::start_all(&[
            (10, directory.clone(), resolver),
            (11, zones.clone(), Mood::Honest),
        ])
        .await;
        let memory = Arc::new(Memory::default());
        let propagation = Propagation {
            check: true,
            delay: Duration::ZERO,
            timeout,
            port: servers[0].address().port(),
        };
        let keep = Arc::clone(&memory) as Arc<dyn Keep>;
        let dns01 = Dns01::with(keep, vec![servers[0].address()], propagation, pace());
        Self { directory, zones, memory, dns01, _servers: servers }
    }

    fn provider(&self, zones: &[&str]) -> Provider {
        let mut provider = Provider::for_zones(zones, &self.zones);
        provider.journal = Some(Arc::clone(&self.memory));
        provider
    }
}

fn both(provider: Provider) -> (Arc<Provider>, Arc<dyn DnsSolver>) {
    let provider = Arc::new(provider);
    (Arc::clone(&provider), provider)
}

fn is_send<T: Send + 'static>(value: T) -> T {
    value
}

#[tokio::test]
async fn an_apex_and_its_wildcard_share_one_name() {
    let bench = Bench::new().await;
    bench.zones.set_txt("_acme-challenge.a.example", &["foreign"]);
    let (provider, solver) = both(bench.provider(&["a.example"]));
    let records = [record("a.example", "one"), record("a.example", "two")];
    let (dns01, solver2) = (bench.dns01.clone(), Arc::clone(&solver));
    let work = async move { dns01.present("fake", &solver2, &records).await };
    let presented = tokio::spawn(is_send(work)).await.unwrap().unwrap();
    let name = "_acme-challenge.a.example";
    assert_eq!(bench.zones.txt(name), ["foreign", "one", "two"]);
    assert_eq!(provider.calls_of("present"), 1);
    let entries = bench.memory.entries();
    assert_eq!(entries[0].handle.as_deref(), Some("handle of _acme-challenge.a.example"));
    assert_eq!(entries[0].record.zone.handle, "id-of-a.example");
    // What is in use is no leftover.
    let solvers = BTreeMap::from([("fake".to_owned(), Arc::clone(&solver))]);
    assert!(bench.dns01.clean_leftovers(&solvers).await.is_empty());
    assert_eq!(bench.zones.txt(name).len(), 3);

    bench.dns01.clean(presented, &solver).await.unwrap();
    assert_eq!(bench.zones.txt(name), ["foreign"]);
    assert!(bench.memory.entries().is_empty());
    let calls = provider.calls.lock().unwrap().clone();
    assert_eq!(calls.last().unwrap(), &format!("cleanup {name} one,two [handle of {name}]"));
}

#[tokio::test]
async fn a_delegated_name_is_written_in_the_other_zone() {
    let bench = Bench::new().await;
    bench.directory.set_cname("_acme-challenge.a.example", "x.b.example");
    bench.directory.set_cname("_acme-challenge.c.example", "x.b.example");
    let (provider, solver) = both(bench.provider(&["b.example"]));
    let records = [record("a.example", "one"), record("c.example", "two")];
    let presented = bench.dns01.present("fake", &solver, &records).await.unwrap();
    assert_eq!(bench.zones.txt("x.b.example"), ["one", "two"]);
    assert_eq!(provider.calls_of("present"), 1, "all values of one name in one call");
    bench.dns01.clean(presented, &solver).await.unwrap();
    assert!(bench.zones.txt("x.b.example").is_empty());

    // A target outside the account is refused, and nothing is written.
    bench.directory.set_cname("_acme-challenge.a.example", "x.elsewhere.example");
    let records = [record("a.example", "one")];
    let error = bench.dns01.present("fake", &solver, &records).await.unwrap_err();
    assert_eq!((error.code(), error.fault()), (Some("zone-not-found"), Fault::Operator));
    assert_eq!(
        error.to_string(),
        "plugin `fake` (1234abcd) could not find the zone of x.elsewhere.example; the account has \
         no zone for it: use the credential of the account that has, or make the challenge name a \
         CNAME into a zone that this account has"
    );

    bench.directory.set_cname("_acme-challenge.a.example", "_acme-challenge.a.example");
    let error = bench.dns01.present("fake", &solver, &records).await.unwrap_err();
    assert!(matches!(error, Dns01Error::Chain { .. }), "{error}");
    assert_eq!(provider.calls_of("present"), 1);
}

#[tokio::test]
async fn a_wildcard_cname_does_not_lead_astray() {
    let bench = Bench::new().await;
    bench.directory.set_cname("*.a.example", "balancer.elsewhere.example");
    let (_, solver) = both(bench.provider(&["a.example"]));
    let records = [record("a.example", "one")];
    let presented = bench.dns01.present("fake", &solver, &records).await.unwrap();
    assert_eq!(bench.zones.txt("_acme-challenge.a.example"), ["one"]);
    bench.dns01.clean(presented, &solver).await.unwrap();
}

#[tokio::test]
async fn a_provider_that_cannot_tell_leaves_the_zone_to_the_dns() {
    let bench = Bench::new().await;
    let cannot_tell = || {
        let mut provider = bench.provider(&[]);
        provider.find_zone_says = Some(ASK_DNS.to_owned());
        both(provider)
    };
    let (provider, solver) = cannot_tell();
    let records = [record("x.y.a.example", "one")];
    let presented = bench.dns01.present("p", &solver, &records).await.unwrap();
    assert_eq!(provider.calls_of("present _acme-challenge.x.y.a.example one"), 1);
    assert_eq!(bench.memory.entries()[0].record.zone.name, "a.example");
    bench.dns01.clean(presented, &solver).await.unwrap();
    // Where the DNS does not know either, it is said.
    let (_, solver) = cannot_tell();
    let records = [record("a.nowhere", "one")];
    let error = bench.dns01.present("p", &solver, &records).await.unwrap_err();
    assert!(error.to_string().contains("certificates.resolvers"), "{error}");
}

#[tokio::test]
async fn nonsense_from_find_zone_is_refused() {
    let bench = Bench::new().await;
    for nonsense in ["elsewhere.example", "", "ample", "x._acme-challenge.a.example"] {
        let mut provider = bench.provider(&[]);
        provider.find_zone_says = Some(nonsense.to_owned());
        let (provider, solver) = both(provider);
        let records = [record("a.example", "one")];
        let error = bench.dns01.present("fake", &solver, &records).await.unwrap_err();
        assert!(matches!(&error, Dns01Error::OutsideZone { .. }), "{error}");
        assert_eq!(error.fault(), Fault::Plugin);
        assert_eq!(provider.calls_of("present"), 0);
    }
}

#[tokio::test]
async fn failures_that_pass_are_tried_again() {
    let bench = Bench::new().await;
    let failures = [
        failure("rate-limited", Some(Duration::from_millis(200))),
        failure("conflict", None),
        failure("a-code-of-tomorrow", None),
    ];
    let (provider, solver) = both(bench.provider(&["a.example"]).failing(&failures));
    let started = Instant::now();
    let records = [record("a.example", "one")];
    let presented = bench.dns01.present("fake", &solver, &records).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(200), "Retry-After is kept");
    assert_eq!(provider.calls_of("present"), 4);
    bench.dns01.clean(presented, &solver).await.unwrap();

    // Not for ever.
    let failures = vec![failure("unavailable", None); 9];
    let (provider, solver) = both(bench.provider(&["a.example"]).failing(&failures));
    let error = bench.dns01.present("fake", &solver, &records).await.unwrap_err();
    assert_eq!(provider.calls_of("present"), 4);
    assert_eq!(provider.calls_of("cleanup"), 1, "it may have written in spite of the failure");
    assert!(error.to_string().contains("could not add TXT"), "{error}");
    assert_eq!(error.source().unwrap().to_string(), "the provider's words (unavailable)");
    assert!(bench.memory.entries().is_empty());
}

#[tokio::test]
async fn a_long_retry_after_is_for_the_order_to_keep() {
    let bench = Bench::new().await;
    let hour = Duration::from_secs(3600);
    let failures = [failure("rate-limited", Some(hour))];
    let (provider, solver) = both(bench.provider(&["a.example"]).failing(&failures));
    let records = [record("a.example", "one")];
    let error = bench.dns01.present("fake", &solver, &records).await.unwrap_err();
    assert_eq!((error.retry_after(), error.fault()), (Some(hour), Fault::Authority));
    assert_eq!(provider.calls_of("present"), 1);
}

#[tokio::test]
async fn a_refused_credential_is_asked_once_and_leaves_nothing() {
    let bench = Bench::new().await;
    let (provider, solver) = both(bench.provider(&["a.example"]).failing(&[failure("auth", None)]));
    let records = [record("a.example", "one")];
    let error = bench.dns01.present("fake", &solver, &records).await.unwrap_err();
    assert_eq!((error.code(), error.fault()), (Some("auth"), Fault::Operator));
    assert_eq!((provider.calls_of("present"), provider.calls_of("cleanup")), (1, 0));
    assert!(bench.memory.entries().is_empty());
}

#[tokio::test]
async fn nothing_is_written_without_a_journal() {
    let bench = Bench::new().await;
    *bench.memory.is_full.lock().unwrap() = true;
    let (provider, solver) = both(bench.provider(&["a.example"]));
    let records = [record("a.example", "one")];
    let error = bench.dns01.present("fake", &solver, &records).await.unwrap_err();
    assert!(matches!(error, Dns01Error::Journal { .. }));
    assert_eq!(error.source().unwrap().to_string(), "disk full");
    assert_eq!(provider.calls_of("present"), 0);
}

#[tokio::test]
async fn what_never_gets_visible_is_removed_and_reported() {
    let bench = Bench::with(Mood::Honest, Duration::from_millis(100)).await;
    // This provider writes to servers that nobody asks.
    let mut provider = bench.provider(&["a.example"]);
    provider.records = Records::default();
    let (provider, solver) = both(provider);
    let records = [record("a.example", "one")];
    let error = bench.dns01.present("fake", &solver, &records).await.unwrap_err();
    assert!(error.to_string().contains("ns1.example 127.0.0.11: has 0 of 1 values"), "{error}");
    assert_eq!(provider.calls_of("cleanup"), 1);
    assert!(bench.memory.entries().is_empty());
}

#[tokio::test]
async fn the_provider_is_polled_until_it_is_done() {
    let bench = Bench::new().await;
    let provider = bench.provider(&["a.example"]).with_traits(&[("ttl-min", "3600")]);
    *provider.pending.lock().unwrap() = 3;
    let (provider, solver) = both(provider);
    let records = [record("a.example", "one")];
    let presented = bench.dns01.present("fake", &solver, &records).await.unwrap();
    assert_eq!(provider.calls_of("poll id-of-a.example handle of _acme"), 3);
    assert_eq!(provider.calls_of("present _acme-challenge.a.example one 3600"), 1);
    bench.dns01.clean(presented, &solver).await.unwrap();
}

#[tokio::test]
async fn without_check_only_the_delay_is_waited_for() {
    let bench = Bench::with(Mood::Mute, Duration::from_millis(100)).await;
    let propagation = Propagation {
        check: false,
        delay: Duration::from_millis(80),
        ..bench.dns01.shared.propagation.clone()
    };
    let dns01 = bench.dns01.reconfigured(vec![bench._servers[0].address()], propagation);
    let (_, solver) = both(bench.provider(&["a.example"]));
    let records = [record("a.example", "one")];
    let started = Instant::now();
    // The mute resolver is logged, and the name taken as it is.
    let presented = dns01.present("fake", &solver, &records).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(80));
    assert_eq!(bench.zones.txt("_acme-challenge.a.example"), ["one"]);
    dns01.clean(presented, &solver).await.unwrap();
}

#[tokio::test]
async fn after_a_crash_ours_is_removed_and_nothing_else() {
    let bench = Bench::new().await;
    let name = "_acme-challenge.a.example";
    bench.zones.set_txt(name, &["foreign"]);
    let mut provider = bench.provider(&["a.example"]);
    provider.hangs_after_write = true;
    let (_, solver) = both(provider);
    let (dns01, solver2) = (bench.dns01.clone(), Arc::clone(&solver));
    let order = tokio::spawn(async move {
        dns01.present("fake", &solver2, &[record("a.example", "ours")]).await
    });
    while bench.zones.txt(name).len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    order.abort();
    let _aborted = order.await;
    assert_eq!(bench.memory.entries().len(), 1);

    // The next process: a new room over the same store.
    let keep = Arc::clone(&bench.memory) as Arc<dyn Keep>;
    let next =
        Dns01::with(keep, Vec::<Resolver>::new(), bench.dns01.shared.propagation.clone(), pace());
    let remaining = next.clean_leftovers(&BTreeMap::new()).await;
    assert_eq!(
        remaining,
        [
            "TXT _acme-challenge.a.example in zone a.example was left behind by plugin `fake`, which \
          is not in gateway.yaml any more: put it back for a while, or remove the values ours by \
          hand"
        ]
    );
    let (provider, solver) = both(bench.provider(&["a.example"]));
    let solvers = BTreeMap::from([("fake".to_owned(), solver)]);
    *provider.cleanup_fails.lock().unwrap() = true;
    let remaining = next.clean_leftovers(&solvers).await;
    assert!(remaining[0].contains("could not remove TXT"), "{remaining:?}");
    assert_eq!(bench.memory.entries().len(), 1, "kept for the next time");
    *provider.cleanup_fails.lock().unwrap() = false;
    assert!(next.clean_leftovers(&solvers).await.is_empty());
    assert_eq!(bench.zones.txt(name), ["foreign"]);
    assert_eq!(provider.calls_of("cleanup _acme-challenge.a.example ours []"), 2);
    assert!(bench.memory.entries().is_empty());
}

#[tokio::test]
async fn a_corrupt_entry_is_set_aside_and_a_newer_one_left_alone() {
    let bench = Bench::new().await;
    let corrupt = format!("{FOLDER}/corrupt.json");
    bench.memory.write(&corrupt, b"{\"version\":").unwrap();
    let newer = Entry {
        version: 99,
        credential: "fake".into(),
        record: RecordSet {
            zone: Zone { name: "z".into(), handle: String::new() },
            name: "n.z".into(),
            values: vec![],
        },
        handle: None,
        written_at: 0,
        holder: None,
    };
    let newer = serde_json::to_vec(&newer).unwrap();
    bench.memory.write(&format!("{FOLDER}/newer.json"), &newer).unwrap();
    assert_eq!(bench.dns01.clean_leftovers(&BTreeMap::new()).await.len(), 2);
    let items: Vec<String> = bench.memory.items.lock().unwrap().keys().cloned().collect();
    assert_eq!(items, [format!("{FOLDER}/newer.json"), format!("set-aside/{corrupt}")]);
}

/// Ten orders in two zones at once; how many calls of `present` ran together.
async fn at_once(traits: &[(&str, &str)]) -> usize {
    let bench = Bench::with(Mood::Honest, Duration::from_secs(3)).await;
    let mut provider = bench.provider(&["a.example", "b.example"]).with_traits(traits);
    provider.takes = Duration::from_millis(30);
    let (provider, solver) = both(provider);
    let mut orders = JoinSet::new();
    for n in 0..10 {
        let (dns01, solver) = (bench.dns01.clone(), Arc::clone(&solver));
        let zone = if n % 2 == 0 { "a" } else { "b" };
        orders.spawn(async move {
            let records = [record(&format!("n{n}.{zone}.example"), "v")];
            let presented = dns01.present("fake", &solver, &records).await.unwrap();
            dns01.clean(presented, &solver).await.unwrap();
        });
    }
    while let Some(done) = orders.join_next().await {
        done.unwrap();
    }
    assert!(bench.memory.entries().is_empty());
    provider.running_max.load(Ordering::SeqCst)
}

#[tokio::test]
async fn calls_take_turns_as_the_plugin_asks() {
    assert!(at_once(&[]).await > 2);
    assert_eq!(at_once(&[("parallelism", "per-zone")]).await, 2);
    assert_eq!(at_once(&[("parallelism", "per-credential")]).await, 1);
}

#[tokio::test]
async fn a_single_slot_is_used_by_one_order_after_another() {
    let bench = Bench::with(Mood::Honest, Duration::from_secs(3)).await;
    for n in 0..5 {
        bench.directory.set_cname(&format!("_acme-challenge.n{n}.c.example"), "slot.b.example");
    }
    let traits = [("max-values-per-name", "1")];
    let (provider, solver) = both(bench.provider(&["b.example"]).with_traits(&traits));
    let mut orders = JoinSet::new();
    for n in 0..5 {
        let (dns01, solver) = (bench.dns01.clone(), Arc::clone(&solver));
        orders.spawn(async move {
            let records = [record(&format!("n{n}.c.example"), &format!("v{n}"))];
            let presented = dns01.present("fake", &solver, &records).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            dns01.clean(presented, &solver).await.unwrap();
        });
    }
    while let Some(done) = orders.join_next().await {
        done.unwrap();
    }
    assert_eq!(provider.values_max.load(Ordering::SeqCst), 1);
    assert_eq!(provider.calls_of("present"), 5);

    let records = [record("n0.c.example", "one"), record("n0.c.example", "two")];
    let error = bench.dns01.present("fake", &solver, &records).await.unwrap_err();
    assert_eq!(error.values_max(), Some(1));
    assert_eq!(provider.calls_of("present"), 5);
}

#[tokio::test]
async fn an_order_that_fails_half_way_leaves_nothing() {
    let bench = Bench::new().await;
    let (provider, solver) = both(bench.provider(&["a.example", "b.example"]));
    let dns01 = bench.dns01.clone();
    let records = [record("a.example", "one")];
    let presented = dns01.present("fake", &solver, &records).await.unwrap();
    provider.failures.lock().unwrap().push_back(failure("invalid", None));
    let records = [record("a.example", "two"), record("b.example", "three")];
    dns01.present("fake", &solver, &records).await.unwrap_err();
    assert_eq!(bench.zones.txt("_acme-challenge.a.example"), ["one"], "another order's value");
    assert!(bench.zones.txt("_acme-challenge.b.example").is_empty());
    dns01.clean(presented, &solver).await.unwrap();
    assert!(bench.memory.entries().is_empty());
}

#[tokio::test]
async fn records_that_are_dropped_become_leftovers() {
    let bench = Bench::new().await;
    let (_, solver) = both(bench.provider(&["a.example"]));
    let records = [record("a.example", "one")];
    drop(bench.dns01.present("fake", &solver, &records).await.unwrap());
    assert_eq!(bench.memory.entries().len(), 1);
    let solvers = BTreeMap::from([("fake".to_owned(), solver)]);
    assert!(bench.dns01.clean_leftovers(&solvers).await.is_empty());
    assert!(bench.zones.txt("_acme-challenge.a.example").is_empty());
}

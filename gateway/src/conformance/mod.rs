//! `witgate solver conformance FILE.wasm`: the list of what every DNS-01 solver has to do, held
//! against a component as it is, in an engine of the gateway's own. Its provider is a mock that the
//! author brings ([`mock`]); DNS and the CA are in this process ([`authority`]).
//!
//! Called by the command line alone. The same list is in the SDK, for tests without a component
//! (`witgate_sdk::testing::conformance`).

mod authority;
mod mock;
mod stage;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::acme::rehearsal::Point;
use crate::acme::solve::dns01::{
    Dns01, Dns01Error, DnsSolver, RecordSet, SolverFailure, Wanted, Zone,
};
use crate::config::{Hostname, Propagation};
use crate::plugin::WireAnswer;
use crate::store::Store;
use authority::Authority;
use mock::Mock;
use stage::{HASTY_MAX, Load, Stage};

/// Where the answers of a provider come from.
#[derive(Debug, Clone, Default)]
pub struct Provider {
    /// A program that plays the provider.
    pub mock: Option<String>,
    /// Where to write what it said.
    pub record: Option<std::path::PathBuf>,
    /// What one said earlier, instead of a program.
    pub recording: Option<std::path::PathBuf>,
}

/// Checks every point of the list. `folder` is private, empty, and the caller's to remove; `say` gets
/// each point as it is known.
///
/// # Errors
/// When the component cannot be tried at all.
pub async fn conform(
    component: &Path,
    provider: &Provider,
    folder: &Path,
    mut say: impl FnMut(&Point),
) -> Result<Vec<Point>, String> {
    let mock = match (&provider.mock, &provider.recording) {
        (_, Some(file)) => Some(Arc::new(Mock::replay(file)?)),
        (Some(command), None) => Some(Arc::new(Mock::start(command, provider.record.is_some())?)),
        (None, None) => None,
    };
    let stage = Stage::new(component, mock.clone(), folder).await?;
    let solver = stage.load(Load::Whole)?;
    // A recording has the requests in the order in which they came.
    let takes_turns = provider.record.is_some() || provider.recording.is_some();
    let bench = Bench { stage, solver, folder, takes_turns };
    let mut points = Vec::new();
    for (number, what) in LIST {
        let point = Point { number, what, outcome: bench.check(number).await };
        say(&point);
        points.push(point);
    }
    if let (Some(file), Some(mock)) = (&provider.record, &mock) {
        std::fs::write(file, mock.recording().await)
            .map_err(|cause| format!("cannot write {}: {cause}", file.display()))?;
    }
    Ok(points)
}

/// A solver, while it is tried.
struct Bench<'a> {
    stage: Stage,
    solver: Arc<dyn DnsSolver>,
    folder: &'a Path,
    takes_turns: bool,
}

/// What a point found wrong.
type Outcome = Result<(), String>;

impl Bench<'_> {
    async fn check(&self, number: u8) -> Outcome {
        if !matches!(number, 12 | 16 | 17) {
            self.stage.wire.mock()?.reset(&zones(), number == 14).await?;
        } else if let Ok(mock) = self.stage.wire.mock() {
            mock.reset(&zones(), false).await?;
        }
        self.stage.wire.take();
        match number {
            1 => self.two_values().await,
            2 => self.foreign_value().await,
            3 => self.cleanup_twice().await,
            4 => self.present_twice().await,
            5 => self.rate_limited().await,
            6 => self.unavailable().await,
            7 => self.unauthorized().await,
            8 => self.zones_of_all_depths().await,
            9 => self.zones_among_many().await,
            10 => self.delegated().await,
            11 => self.crashed().await,
            12 => self.secrets_stay_outside().await,
            13 => self.ten_names().await,
            14 => self.quoted_values().await,
            15 => self.internationalised().await,
            16 => self.deadline().await,
            17 => self.refused().await,
            _ => self.fresh_instances().await,
        }
    }

    async fn two_values(&self) -> Outcome {
        let (name, both) = (self.name(), self.both());
        let handle = self.present(&name, both).await?;
        self.expect(&name, both).await?;
        self.cleanup(&name, both, &handle).await?;
        self.expect_clean(&name, &[]).await
    }

    async fn foreign_value(&self) -> Outcome {
        let (name, both) = (self.name(), self.both());
        let foreign = self.foreign(&name).await?;
        let handle = self.present(&name, both).await?;
        self.expect(&name, &[foreign, both].concat()).await?;
        self.cleanup(&name, both, &handle).await?;
        self.expect_clean(&name, foreign).await
    }

    async fn cleanup_twice(&self) -> Outcome {
        let (name, both) = (self.name(), self.both());
        let handle = self.present(&name, both).await?;
        for _ in 0..2 {
            self.cleanup(&name, both, &handle).await?;
            self.expect_clean(&name, &[]).await?;
        }
        Ok(())
    }

    async fn present_twice(&self) -> Outcome {
        let (name, both) = (self.name(), self.both());
        self.present(&name, both).await?;
        let handle = self.present(&name, both).await?;
        self.expect(&name, both).await?;
        self.cleanup(&name, both, &handle).await?;
        self.expect_clean(&name, &[]).await
    }

    async fn rate_limited(&self) -> Outcome {
        let headers = vec![("retry-after".to_owned(), "42".to_owned())];
        let body = b"{\"message\":\"slow down\"}".to_vec();
        let failure = self.failing(WireAnswer { status: 429, headers, body }).await?;
        let wanted = ("rate-limited", Some(Duration::from_secs(42)));
        match (failure.code.as_str(), failure.retry_after) {
            said if said == wanted => Ok(()),
            (code, wait) => Err(format!(
                "429 with `retry-after: 42` is {code} with {wait:?}; return the code `rate-limited` and \
                 the seconds"
            )),
        }
    }

    async fn unavailable(&self) -> Outcome {
        let body = b"{\"message\":\"oh\"}".to_vec();
        let failure = self.failing(WireAnswer { status: 500, headers: Vec::new(), body }).await?;
        if failure.code != "unavailable" {
            return Err(format!("500 is {failure}; return the code `unavailable`"));
        }
        let (name, both) = (self.name(), self.both());
        self.present(&name, both).await?;
        self.expect(&name, both).await
    }

    async fn unauthorized(&self) -> Outcome {
        let (answer, _) = self.stage.about.unauthorized.clone().parts();
        let failure = self.failing(answer).await?;
        match failure.code.as_str() {
            "auth" => Ok(()),
            _ => Err(format!("a refused credential is {failure}; return the code `auth`")),
        }
    }

    async fn zones_of_all_depths(&self) -> Outcome {
        self.zones_are(&[
            ("_acme-challenge.a.b.example.com", "example.com"),
            ("_acme-challenge.shop.example.co.uk", "example.co.uk"),
        ])
        .await?;
        if !self.stage.about.asks_for_zones {
            return Ok(());
        }
        let found = self.solver.find_zone(candidates("_acme-challenge.nobody.test")).await;
        self.no_wrongs()?;
        match found {
            Err(failure) if failure.code == "zone-not-found" => Ok(()),
            other => Err(format!("a zone that is not there: {other:?}")),
        }
    }

    async fn zones_among_many(&self) -> Outcome {
        self.zones_are(&[
            ("_acme-challenge.sub.example.org", "sub.example.org"),
            ("_acme-challenge.nosub.example.org", "example.org"),
            ("_acme-challenge.zone249.example", "zone249.example"),
        ])
        .await
    }

    async fn zones_are(&self, wanted: &[(&str, &str)]) -> Outcome {
        if !self.stage.about.asks_for_zones {
            return Ok(());
        }
        for (name, wanted) in wanted {
            let found = self.zone(name).await?.name;
            if found != *wanted {
                return Err(format!("{name} is in {wanted}, not {found}"));
            }
        }
        Ok(())
    }

    /// Names at the end of a CNAME, and an order through one: the record is written, served, seen by
    /// the CA, and removed.
    async fn delegated(&self) -> Outcome {
        let mut end = self.name();
        if self.stage.about.asks_for_zones {
            for name in ["example-com.acme.example.net", "acme.example.net"] {
                let handle = self.present(name, &[ONE]).await?;
                self.expect(name, &[ONE]).await?;
                self.cleanup(name, &[ONE], &handle).await?;
                self.expect_clean(name, &[]).await?;
            }
            "example-com.acme.example.net".clone_into(&mut end);
        }
        let (dns01, authority) = self.order(&end, "delegated").await?;
        let value = authority::challenge();
        let records = [wanted(&value)?];
        let presented = dns01.present("solver", &self.solver, &records).await;
        let presented = presented.map_err(|error| told(&error))?;
        let seen = authority.validate(DELEGATED, &value).await;
        let cleaned = dns01.clean(presented, &self.solver).await;
        seen?;
        cleaned.map_err(|error| told(&error))?;
        self.no_wrongs()?;
        self.expect_clean(&end, &[]).await
    }

    /// Without a handle, with one of another version, and by the journal of a gateway that was killed.
    async fn crashed(&self) -> Outcome {
        let (name, both) = (self.name(), self.both());
        let foreign = self.foreign(&name).await?;
        self.present(&name, both).await?;
        self.cleanup(&name, both, "").await?;
        self.expect_clean(&name, foreign).await?;
        self.cleanup(&name, both, "not a handle of this version").await?;
        self.expect_clean(&name, foreign).await?;
        let (dns01, _authority) = self.order(&name, "crashed").await?;
        let records = [wanted(ONE)?];
        let presented = dns01.present("solver", &self.solver, &records).await;
        drop(presented.map_err(|error| told(&error))?);
        drop(dns01);
        let (dns01, _authority) = self.order(&name, "crashed").await?;
        let solvers = BTreeMap::from([("solver".to_owned(), Arc::clone(&self.solver))]);
        if let Some(left) = dns01.clean_leftovers(&solvers).await.into_iter().next() {
            return Err(format!("after a crash this stays: {left}"));
        }
        self.expect_clean(&name, foreign).await
    }

    /// What orders use: CNAMEs, propagation at a name server, and a journal.
    async fn order(&self, end: &str, store: &str) -> Result<(Dns01, Authority), String> {
        let mock = Arc::clone(self.stage.wire.mock()?);
        let alias = (format!("_acme-challenge.{DELEGATED}"), end.to_owned());
        let authority = Authority::start(mock, zones(), &[alias]).await?;
        let store = Store::open(&self.folder.join(store)).map_err(|cause| cause.to_string())?;
        let address = authority.address();
        let propagation = Propagation {
            check: true,
            delay: Duration::ZERO,
            timeout: Duration::from_secs(20),
            port: address.port(),
        };
        Ok((Dns01::new(store, vec![address], propagation), authority))
    }

    /// A round with a provider that sends back all that it gets.
    async fn secrets_stay_outside(&self) -> Outcome {
        let (name, both) = (self.name(), self.both());
        self.stage.wire.set_echo(true);
        let round = async {
            let handle = self.present(&name, both).await?;
            self.cleanup(&name, both, &handle).await
        }
        .await;
        self.stage.wire.set_echo(false);
        if self.stage.wire.mock().is_ok() {
            round?;
        }
        if let Some(name) = self.stage.leak() {
            return Err(format!("the secret {name} is in the plugin's memory"));
        }
        match self.stage.has_used_a_secret() {
            true => Ok(()),
            false => Err(
                "none of its secrets was sent; name them as {{secret:NAME}} where the provider \
                          wants them, or take them out of plugin.yaml"
                    .to_owned(),
            ),
        }
    }

    /// Ten at once where the solver says that it can; in turns, as the gateway does, where not.
    async fn ten_names(&self) -> Outcome {
        let traits = self.solver.traits().await.map_err(|failure| failure.to_string())?;
        let takes_turns = self.takes_turns
            || traits.iter().any(|(name, value)| name == "parallelism" && value != "parallel");
        let names = &self.stage.about.names;
        let mut handles = Vec::new();
        if takes_turns {
            for name in names {
                let handle = self.present(name, &[ONE]).await?;
                self.expect(name, &[ONE]).await?;
                self.cleanup(name, &[ONE], &handle).await?;
            }
        } else {
            let mut running = JoinSet::new();
            for name in names.clone() {
                let solver = Arc::clone(&self.solver);
                let zone = self.zone(&name).await?;
                running.spawn(async move {
                    let handle = solver.present(set(&zone, &name, &[ONE]), 3600).await;
                    (name, handle)
                });
            }
            while let Some(done) = running.join_next().await {
                let (name, handle) = done.map_err(|cause| cause.to_string())?;
                handles.push((name, handle.map_err(told_by("add TXT"))?));
            }
            self.no_wrongs()?;
        }
        for (name, _) in &handles {
            self.expect(name, &[ONE]).await?;
        }
        for (name, handle) in &handles {
            self.cleanup(name, &[ONE], handle).await?;
        }
        for name in names {
            self.expect_clean(name, &[]).await?;
        }
        Ok(())
    }

    async fn quoted_values(&self) -> Outcome {
        let long = "x".repeat(300);
        let mut both = vec![ONE, long.as_str()];
        both.truncate(self.stage.about.slots.map_or(2, |_| 1));
        let both = both.as_slice();
        let name = self.name();
        let foreign = self.foreign(&name).await?;
        self.present(&name, both).await?;
        let handle = self.present(&name, both).await?;
        self.expect(&name, &[foreign, both].concat()).await?;
        self.cleanup(&name, both, &handle).await?;
        self.expect_clean(&name, foreign).await
    }

    async fn internationalised(&self) -> Outcome {
        if !self.stage.about.asks_for_zones {
            return Ok(());
        }
        let name = "_acme-challenge.xn--bcher-kva.example.com";
        let handle = self.present(name, &[ONE]).await?;
        self.expect(name, &[ONE]).await?;
        self.cleanup(name, &[ONE], &handle).await?;
        self.expect_clean(name, &[]).await
    }

    async fn deadline(&self) -> Outcome {
        let zone = self.any_zone().await?;
        let hasty = self.stage.load(Load::Hasty)?;
        let started = Instant::now();
        self.stage.wire.set_silent(true);
        let answer = hasty.present(set(&zone, &self.name(), &[ONE]), 3600).await;
        self.stage.wire.set_silent(false);
        match answer {
            Err(failure) if failure.code == "deadline" && started.elapsed() < HASTY_MAX => Ok(()),
            Err(failure) => {
                Err(format!("a provider that does not answer makes it fail with {failure}"))
            }
            Ok(_) => Err("it asks its provider nothing and says that it is done".to_owned()),
        }
    }

    async fn refused(&self) -> Outcome {
        if self.stage.manifest.as_ref().is_none_or(|it| it.guard.is_none()) {
            return Err(
                "its plugin.yaml has no `guard`: nothing holds it to the records of its order; \
                        docs/PLUGINS.md says how to write one"
                    .to_owned(),
            );
        }
        let zone = self.any_zone().await?;
        let barred = self.stage.load(Load::Barred)?;
        match barred.present(set(&zone, &self.name(), &[ONE]), 3600).await {
            Err(failure) if failure.code == "forbidden" => Ok(()),
            Err(failure) => Err(format!(
                "a request that the gateway denies makes it fail with {failure}; return the code \
                 `forbidden`"
            )),
            Ok(_) => Err("it says that it is done though no request was let through".to_owned()),
        }
    }

    /// Each call in a plugin that was just loaded, as after a restart.
    async fn fresh_instances(&self) -> Outcome {
        let (name, both) = (self.name(), self.both());
        let zone = self.zone(&name).await?;
        let first = self.stage.load(Load::Whole)?;
        let presented = first.present(set(&zone, &name, both), 3600).await;
        let handle = presented.map_err(told_by("add TXT"))?;
        self.expect(&name, both).await?;
        let second = self.stage.load(Load::Whole)?;
        let polled = second.poll(zone.clone(), handle.clone()).await;
        polled.map_err(told_by("tell the state"))?;
        let cleaned = second.cleanup(set(&zone, &name, both), handle).await;
        cleaned.map_err(told_by("remove TXT"))?;
        self.no_wrongs()?;
        self.expect_clean(&name, &[]).await
    }

    /// The failure of `present` when the provider gives `fault` first.
    async fn failing(&self, fault: WireAnswer) -> Result<SolverFailure, String> {
        let name = self.name();
        let zone = self.zone(&name).await?;
        self.stage.wire.fail_once(fault);
        let answer = self.solver.present(set(&zone, &name, self.both()), 3600).await;
        self.no_wrongs()?;
        match answer {
            Err(failure) => Ok(failure),
            Ok(_) => Err("it takes the answer for a success".to_owned()),
        }
    }

    /// The zone of the first name; without a mock as good a guess as any.
    async fn any_zone(&self) -> Result<Zone, String> {
        match self.stage.wire.mock() {
            Ok(_) => self.zone(&self.name()).await,
            Err(_) => Ok(Zone { name: zone_of(&self.name()), handle: String::new() }),
        }
    }

    async fn zone(&self, name: &str) -> Result<Zone, String> {
        let found = self.solver.find_zone(candidates(name)).await;
        self.no_wrongs()?;
        let (zone, handle) = found.map_err(told_by("find the zone"))?;
        Ok(Zone { name: zone.trim_end_matches('.').to_ascii_lowercase(), handle })
    }

    async fn present(&self, name: &str, values: &[&str]) -> Result<String, String> {
        let zone = self.zone(name).await?;
        let answer = self.solver.present(set(&zone, name, values), 3600).await;
        self.no_wrongs()?;
        answer.map_err(told_by("add TXT"))
    }

    async fn cleanup(&self, name: &str, values: &[&str], handle: &str) -> Outcome {
        let zone = self.zone(name).await?;
        let answer = self.solver.cleanup(set(&zone, name, values), handle.to_owned()).await;
        self.no_wrongs()?;
        answer.map_err(told_by("remove TXT"))
    }

    /// What was wrong with its requests, in the mock's eyes.
    fn no_wrongs(&self) -> Outcome {
        match self.stage.wire.take() {
            (Some(wrong), _) => Err(wrong),
            (None, requests) if requests > REQUESTS_MAX => {
                Err(format!("{requests} requests in one call; {REQUESTS_MAX} have to do"))
            }
            _ => Ok(()),
        }
    }

    async fn expect(&self, name: &str, wanted: &[&str]) -> Outcome {
        let mut wanted: Vec<String> = wanted.iter().map(|it| (*it).to_owned()).collect();
        wanted.sort();
        let mut found = self.stage.wire.mock()?.values(name, false).await?;
        if !self.stage.about.can_remove {
            // Such a server keeps a value that came twice twice; a record set has it once.
            found.dedup();
        }
        match found == wanted {
            true => Ok(()),
            false => Err(format!("{name} has {found:?}, not {wanted:?}")),
        }
    }

    /// After a cleanup of everything that was presented.
    async fn expect_clean(&self, name: &str, foreign: &[&str]) -> Outcome {
        if self.stage.about.can_remove { self.expect(name, foreign).await } else { Ok(()) }
    }

    /// Values that one name can hold at once, at most two.
    fn both(&self) -> &'static [&'static str] {
        if self.stage.about.slots == Some(1) { &[ONE] } else { &[ONE, TWO] }
    }

    /// Somebody else's value at the name, where the provider can keep it.
    async fn foreign(&self, name: &str) -> Result<&'static [&'static str], String> {
        if self.stage.about.slots.is_some() {
            return Ok(&[]);
        }
        self.stage.wire.mock()?.add(name, FOREIGN).await?;
        Ok(&[FOREIGN])
    }

    fn name(&self) -> String {
        self.stage.about.names.first().cloned().unwrap_or_default()
    }
}

/// The zones of the account.
fn zones() -> Vec<String> {
    let mut zones: Vec<String> = (0..250).map(|n| format!("zone{n}.example")).collect();
    let own =
        ["example.com", "example.co.uk", "sub.example.org", "example.org", "acme.example.net"];
    zones.extend(own.map(str::to_owned));
    zones
}

/// The zone of a challenge name where none is asked for.
fn zone_of(name: &str) -> String {
    let found = zones().into_iter().find(|zone| name.ends_with(&format!(".{zone}")));
    found.unwrap_or_else(|| name.split_once('.').map_or(name, |it| it.1).to_owned())
}

fn set(zone: &Zone, name: &str, values: &[&str]) -> RecordSet {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    RecordSet { zone: zone.clone(), name: name.to_owned(), values }
}

/// A name's suffixes, longest first.
fn candidates(name: &str) -> Vec<String> {
    let ends = name.match_indices('.').filter_map(|(at, _)| name.get(at + 1..));
    std::iter::once(name).chain(ends).map(str::to_owned).collect()
}

fn wanted(value: &str) -> Result<Wanted, String> {
    let domain = Hostname::parse(DELEGATED).map_err(|error| error.to_string())?;
    Ok(Wanted { domain, account: None, value: value.to_owned() })
}

fn told_by(doing: &'static str) -> impl Fn(SolverFailure) -> String {
    move |failure| format!("it could not {doing}: {failure}")
}

fn told(error: &Dns01Error) -> String {
    crate::fault::describe(error)
}

/// Numbers of the list, and what they ask for.
const LIST: [(u8, &str); 18] = [
    (1, "two values at one name"),
    (2, "a foreign value at the name is kept"),
    (3, "cleanup can be repeated"),
    (4, "present can be repeated"),
    (5, "429 is `rate-limited`, with Retry-After"),
    (6, "500 is `unavailable`, and the next attempt succeeds"),
    (7, "a refused credential is `auth`"),
    (8, "zones two labels up and below co.uk"),
    (9, "the right one of many zones, the longest that fits"),
    (10, "a name that a CNAME leads to, up to the CA's own look"),
    (11, "cleanup after a crash, without a handle and by the journal"),
    (12, "no secret in its memory, though the provider echoes them"),
    (13, "ten names in a zone, no lost change"),
    (14, "values in quoted form, in one string and in several"),
    (15, "an internationalised name"),
    (16, "a provider that does not answer meets the deadline"),
    (17, "a request outside its grants is `forbidden`, and it has a guard"),
    (18, "each call in a plugin that was just loaded"),
];

/// What a point says that nothing can be said about without a mock.
const NEEDS_MOCK: &str = "needs a mock of the provider: `--mock COMMAND`, or `--recording FILE`";
/// A name that belongs to nobody's account.
const DELEGATED: &str = "delegated.test";
/// Requests of one call, inclusive: the gateway's own default is higher.
const REQUESTS_MAX: usize = 20;
/// Values as long as those of real challenges (43 characters).
const ONE: &str = "LPsIwTo7o8BoG0-vjCyGQGBWSVIPxI-i_X336eUOQZo";
const TWO: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
const FOREIGN: &str = "v=spf1 -all";

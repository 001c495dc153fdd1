//! Trying a solver at its provider, without a CA: what `witgate solver test` and `witgate solver
//! conformance` do. Records are written for real, below names of their own, looked for at the zone's
//! servers, and removed again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::dns::{Patience, Resolvers};
use super::propagation;
use super::solve::dns01::{DnsSolver, RecordSet, SolverFailure, Zone};
use crate::config::{Propagation, Resolver};

/// A solver, and the zone it is tried with.
#[derive(Clone)]
pub struct Rehearsal {
    solver: Arc<dyn DnsSolver>,
    zone: String,
    resolvers: Resolvers,
    port: u16,
    timeout: Duration,
    /// A label that no other run has.
    run: String,
}

/// One thing that every solver has to do, and whether this one did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Its number in the list.
    pub number: u8,
    /// What it asks for.
    pub what: &'static str,
    /// What was found instead.
    pub outcome: Result<(), String>,
}

/// What a step found wrong.
type Outcome = Result<(), String>;

impl Rehearsal {
    /// A run with a solver in a zone, which its credential may change.
    pub fn new(
        solver: Arc<dyn DnsSolver>,
        zone: &str,
        resolvers: Vec<Resolver>,
        propagation: &Propagation,
    ) -> Self {
        let id = uuid::Uuid::now_v7().simple().to_string();
        Self {
            solver,
            zone: zone.trim_end_matches('.').to_ascii_lowercase(),
            resolvers: Resolvers::new(resolvers, Patience::default()),
            port: propagation.port,
            timeout: propagation.timeout,
            run: format!("witgate-{}", id.get(20..).unwrap_or("x")),
        }
    }

    /// Writes a record, waits until it is served, and removes it. `say` gets a line for each step.
    ///
    /// # Errors
    /// The first step that fails.
    pub async fn once(&self, mut say: impl FnMut(String)) -> Outcome {
        let name = self.name("");
        let zone = self.find(&name).await?;
        say(format!("the account has the zone {}", zone.name));
        let one = value(1);
        let started = Instant::now();
        let written = async {
            let handle = self.present(&zone, &name, &[&one]).await?;
            say(format!("TXT {name} is written"));
            self.settle(&zone, &handle).await?;
            self.expect(&zone, &name, &[&one]).await?;
            say(format!("it is served after {} s", started.elapsed().as_secs()));
            Ok::<_, String>(handle)
        }
        .await;
        let handle = written.as_ref().map_or("", String::as_str);
        let removed = self.cleanup(&zone, &name, &[&one], handle).await;
        written.map(drop)?;
        removed?;
        self.expect(&zone, &name, &[]).await?;
        say("it is removed".to_owned());
        Ok(())
    }

    /// The points of the list that can be seen from outside at a provider that works.
    pub async fn conform(&self, mut say: impl FnMut(&Point)) -> Vec<Point> {
        let mut points = Vec::new();
        let mut add = |number, what, outcome: Outcome| {
            let point = Point { number, what, outcome };
            say(&point);
            points.push(point);
        };
        let slots = self.slots().await;
        add(1, "two values at one name", self.two_values(slots).await);
        add(2, "a foreign value at the name is kept", self.foreign(slots).await);
        add(3, "cleanup can be repeated", self.twice(false).await);
        add(4, "present can be repeated", self.twice(true).await);
        add(8, "a zone two labels up, and none where there is none", self.zones().await);
        add(10, "a name that a CNAME leads to", self.delegated().await);
        add(11, "cleanup after a crash, without a handle", self.crashed().await);
        add(13, "ten names in a zone, no lost change", self.ten_names(slots).await);
        add(14, "a value of 300 characters", self.long().await);
        add(15, "an internationalised name", self.simple("xn--bcher-kva").await);
        points
    }

    /// How many values a name can hold.
    async fn slots(&self) -> usize {
        let traits = self.solver.traits().await.unwrap_or_default();
        let limit = traits.iter().find(|(name, _)| name == "max-values-per-name");
        limit.and_then(|(_, limit)| limit.parse().ok()).unwrap_or(usize::MAX)
    }

    async fn two_values(&self, slots: usize) -> Outcome {
        let both = [value(1), value(2)];
        let both: Vec<&str> = both.iter().map(String::as_str).take(slots).collect();
        self.round("two", &both, &[]).await
    }

    async fn foreign(&self, slots: usize) -> Outcome {
        let (name, foreign) = (self.name("foreign"), value(9));
        if slots < 2 {
            return Ok(());
        }
        let zone = self.find(&name).await?;
        let other = self.present(&zone, &name, &[&foreign]).await?;
        let kept = self.round("foreign", &[&value(1)], &[&foreign]).await;
        self.cleanup(&zone, &name, &[&foreign], &other).await?;
        kept
    }

    async fn twice(&self, is_present: bool) -> Outcome {
        let (name, one) = (self.name("twice"), value(1));
        let zone = self.find(&name).await?;
        let mut handle = self.present(&zone, &name, &[&one]).await?;
        if is_present {
            handle = self.present(&zone, &name, &[&one]).await?;
        }
        let seen = self.expect(&zone, &name, &[&one]).await;
        self.cleanup(&zone, &name, &[&one], &handle).await?;
        self.cleanup(&zone, &name, &[&one], &handle).await?;
        seen?;
        self.expect(&zone, &name, &[]).await
    }

    async fn zones(&self) -> Outcome {
        self.find(&self.name("a.b.c")).await?;
        match self.solver.find_zone(candidates("_acme-challenge.nobody.invalid")).await {
            Err(failure) if failure.code == "zone-not-found" => Ok(()),
            other => Err(format!("a zone that is not there: {other:?}")),
        }
    }

    async fn delegated(&self) -> Outcome {
        let name = format!("{}.{}", self.run, self.zone);
        self.round_at(&name, &[&value(1)], &[]).await
    }

    async fn crashed(&self) -> Outcome {
        let (name, one) = (self.name("crash"), value(1));
        let zone = self.find(&name).await?;
        self.present(&zone, &name, &[&one]).await?;
        let seen = self.expect(&zone, &name, &[&one]).await;
        self.cleanup(&zone, &name, &[&one], "").await?;
        seen?;
        self.expect(&zone, &name, &[]).await
    }

    async fn ten_names(&self, slots: usize) -> Outcome {
        let traits = self.solver.traits().await.map_err(|failure| failure.to_string())?;
        let takes_turns =
            traits.iter().any(|(name, value)| name == "parallelism" && value != "parallel");
        let mut running = JoinSet::new();
        for number in 0..10 {
            let (own, label) = (self.clone(), format!("n{number}"));
            if takes_turns || slots == 1 {
                own.simple(&label).await?;
            } else {
                running.spawn(async move { own.simple(&label).await });
            }
        }
        while let Some(done) = running.join_next().await {
            done.map_err(|cause| cause.to_string())??;
        }
        Ok(())
    }

    async fn long(&self) -> Outcome {
        self.round("long", &[&"x".repeat(300)], &[]).await
    }

    async fn simple(&self, label: &str) -> Outcome {
        self.round(label, &[&value(1)], &[]).await
    }

    async fn round(&self, label: &str, values: &[&str], foreign: &[&str]) -> Outcome {
        self.round_at(&self.name(label), values, foreign).await
    }

    /// Writes values beside foreign ones, looks, removes them, looks.
    async fn round_at(&self, name: &str, values: &[&str], foreign: &[&str]) -> Outcome {
        let zone = self.find(name).await?;
        let handle = self.present(&zone, name, values).await?;
        let seen = async {
            self.settle(&zone, &handle).await?;
            self.expect(&zone, name, &[values, foreign].concat()).await
        }
        .await;
        self.cleanup(&zone, name, values, &handle).await?;
        seen?;
        self.expect(&zone, name, foreign).await
    }

    fn name(&self, label: &str) -> String {
        let dot = if label.is_empty() { "" } else { "." };
        format!("_acme-challenge.{label}{dot}{}.{}", self.run, self.zone)
    }

    async fn find(&self, name: &str) -> Result<Zone, String> {
        let found = self.solver.find_zone(candidates(name)).await.map_err(told("find the zone"))?;
        let zone =
            Zone { name: found.0.trim_end_matches('.').to_ascii_lowercase(), handle: found.1 };
        match zone.name == self.zone {
            true => Ok(zone),
            false => Err(format!("{name} is in {}, not in {}", self.zone, zone.name)),
        }
    }

    async fn present(&self, zone: &Zone, name: &str, values: &[&str]) -> Result<String, String> {
        let written = self.solver.present(set(zone, name, values), TTL_SECONDS).await;
        written.map_err(told("add TXT"))
    }

    async fn cleanup(&self, zone: &Zone, name: &str, values: &[&str], handle: &str) -> Outcome {
        let removed = self.solver.cleanup(set(zone, name, values), handle.to_owned()).await;
        removed.map_err(told("remove TXT"))
    }

    /// Waits until the provider says that it is done.
    async fn settle(&self, zone: &Zone, handle: &str) -> Outcome {
        let started = Instant::now();
        while let Some(seconds) = self
            .solver
            .poll(zone.clone(), handle.to_owned())
            .await
            .map_err(told("tell the state"))?
        {
            if started.elapsed() > self.timeout {
                return Err(format!("it is still not done after {:?}", self.timeout));
            }
            sleep(Duration::from_secs(seconds.clamp(1, 60).into())).await;
        }
        Ok(())
    }

    /// Waits until exactly these values are served.
    async fn expect(&self, zone: &Zone, name: &str, values: &[&str]) -> Outcome {
        let wanted: BTreeSet<String> = values.iter().map(|value| (*value).to_owned()).collect();
        let started = Instant::now();
        loop {
            let found = propagation::values(&self.resolvers, &zone.name, name, self.port).await;
            if found.as_ref().is_ok_and(|found| *found == wanted) {
                return Ok(());
            }
            if started.elapsed() > self.timeout {
                return Err(match found {
                    Ok(found) => format!("{name} is served with {found:?}, not {wanted:?}"),
                    Err(error) => format!("the servers of {}: {error}", zone.name),
                });
            }
            sleep(LOOK).await;
        }
    }
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

/// A value as long as those of real challenges.
fn value(number: u8) -> String {
    format!("witgate-test-{number}-{}", "x".repeat(27))
}

fn told(doing: &'static str) -> impl Fn(SolverFailure) -> String {
    move |failure| format!("the plugin could not {doing}: {failure}")
}

/// Short, since what is tried is gone soon.
const TTL_SECONDS: u32 = 60;
const LOOK: Duration = Duration::from_millis(500);

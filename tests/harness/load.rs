//! Steady load on connections that stay open, and a count of everything that went wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::client::{Answer, Client, Http, get};

/// How much load of each kind.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// HTTP/1.1 keep-alive connections, one request at a time each.
    pub h1: usize,
    /// HTTP/2 connections.
    pub h2: usize,
    /// Requests at a time on each HTTP/2 connection.
    pub streams: usize,
    /// Tasks that make a new TLS connection for every request, without resumption.
    pub fresh: usize,
    /// The pause of each task between two requests.
    pub pause: Duration,
}

/// Load that goes on until it is stopped.
pub struct Load {
    shared: Arc<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// What load has seen.
#[derive(Debug)]
pub struct Report {
    /// Requests answered as expected.
    pub answered: u64,
    /// All that went wrong, a line each.
    pub failures: Vec<String>,
    /// Times of the answered requests, sorted.
    pub times: Vec<Duration>,
}

type Expect = dyn Fn(&Answer) -> bool + Send + Sync;

struct Shared {
    client: Client,
    name: String,
    path: String,
    pause: Duration,
    expect: Box<Expect>,
    is_over: AtomicBool,
    answered: AtomicU64,
    failures: Mutex<Vec<String>>,
    times: Mutex<Vec<Duration>>,
}

impl Load {
    /// Opens the connections and starts. Every answer must satisfy `expect`.
    pub async fn start(
        client: &Client,
        name: &str,
        path: &str,
        plan: Plan,
        expect: impl Fn(&Answer) -> bool + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            client: client.clone(),
            name: name.to_owned(),
            path: path.to_owned(),
            pause: plan.pause,
            expect: Box::new(expect),
            is_over: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            failures: Mutex::default(),
            times: Mutex::default(),
        });
        let mut tasks = Vec::new();
        for _ in 0..plan.h1 {
            let http = client.h1(name).await.expect("an HTTP/1.1 connection");
            tasks.push(tokio::spawn(keep_alive(Arc::clone(&shared), http)));
        }
        for _ in 0..plan.h2 {
            let http = client.h2(name).await.expect("an HTTP/2 connection");
            for _ in 0..plan.streams {
                tasks.push(tokio::spawn(keep_alive(Arc::clone(&shared), http.stream())));
            }
        }
        for _ in 0..plan.fresh {
            tasks.push(tokio::spawn(fresh(Arc::clone(&shared))));
        }
        Self { shared, tasks }
    }

    /// How many requests were answered so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// What went wrong so far.
    pub fn failures(&self) -> Vec<String> {
        lock(&self.shared.failures).clone()
    }

    /// Stops after the requests in flight, and tells.
    pub async fn stop(self) -> Report {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            if let Err(e) = task.await {
                lock(&self.shared.failures).push(format!("a load task ended: {e}"));
            }
        }
        let mut times = std::mem::take(&mut *lock(&self.shared.times));
        times.sort();
        Report {
            answered: self.shared.answered.load(Ordering::Relaxed),
            failures: lock(&self.shared.failures).clone(),
            times,
        }
    }
}

impl Report {
    /// The time within which this share (0 to 1) of the requests was answered.
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self.times.len().saturating_sub(1);
        let index = (last as f64 * share).round() as usize;
        self.times.get(index).copied().unwrap_or_default()
    }

    /// Panics unless there was load and nothing went wrong.
    pub fn assert_flawless(&self, at_least: u64) {
        let shown: Vec<_> = self.failures.iter().take(10).collect();
        assert!(
            self.failures.is_empty(),
            "{} failures beside {} answers, the first: {shown:#?}",
            self.failures.len(),
            self.answered
        );
        assert!(self.answered >= at_least, "only {} requests were answered", self.answered);
    }
}

/// One connection for all requests; its end is a failure.
async fn keep_alive(shared: Arc<Shared>, mut http: Http) {
    while !shared.is_over() {
        if !shared.exchange(&mut http).await {
            return;
        }
        tokio::time::sleep(shared.pause).await;
    }
    if http.is_closed() {
        shared.fail("the connection was closed after its last answer".to_owned());
    }
}

async fn fresh(shared: Arc<Shared>) {
    while !shared.is_over() {
        match shared.client.clone().fresh().h1(&shared.name).await {
            Ok(mut http) => {
                shared.exchange(&mut http).await;
            }
            Err(e) => shared.fail(format!("new connection: {e}")),
        }
        tokio::time::sleep(shared.pause).await;
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn fail(&self, what: String) {
        lock(&self.failures).push(what);
    }

    /// One request; whether the connection may be used again.
    async fn exchange(&self, http: &mut Http) -> bool {
        let start = Instant::now();
        match http.send(get(&self.name, &self.path)).await {
            Ok(answer) if (self.expect)(&answer) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
                lock(&self.times).push(start.elapsed());
                true
            }
            Ok(answer) => {
                self.fail(format!("{} {:?} {}", answer.status, answer.headers, answer.text()));
                true
            }
            Err(e) => {
                self.fail(format!("request: {e:?}"));
                false
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

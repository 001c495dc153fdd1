//! DNS-01 (RFC 8555, section 8.4): what the host does around a solver plugin.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// A boxed future, since solvers are used through a trait object.
pub type SolverFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, SolverFailure>> + Send + 'a>>;

/// A DNS provider, as `wit/dns-solver.wit` describes it. `plugin` implements it.
pub trait DnsSolver: Send + Sync {
    /// The plugin's name in `gateway.yaml` and digest, for messages.
    fn label(&self) -> String;

    /// `traits` of the contract.
    fn traits(&self) -> SolverFuture<'_, Vec<(String, String)>>;

    /// `find-zone` of the contract: zone and zone handle.
    fn find_zone(&self, candidates: Vec<String>) -> SolverFuture<'_, (String, String)>;

    /// `present` of the contract: the handle.
    fn present(&self, at: RecordSet, ttl_seconds: u32) -> SolverFuture<'_, String>;

    /// `poll` of the contract.
    fn poll(&self, zone: Zone, handle: String) -> SolverFuture<'_, Option<u32>>;

    /// `cleanup` of the contract.
    fn cleanup(&self, at: RecordSet, handle: String) -> SolverFuture<'_, ()>;
}

/// A zone at a provider.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Zone {
    /// Its name, lower case, without the final dot.
    pub name: String,
    /// The provider's id.
    pub handle: String,
}

/// TXT values at one name.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RecordSet {
    /// The zone that holds the name.
    pub zone: Zone,
    /// The absolute name, lower case, without the final dot.
    pub name: String,
    /// The values.
    pub values: Vec<String>,
}

/// Why a solver did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SolverFailure {
    /// A code of `wit/dns-solver.wit`, or of the host: `trap`, `deadline`, `load`.
    pub code: String,
    /// For the operator; secrets are already masked.
    pub message: String,
    /// How long the provider asked to wait.
    pub retry_after: Option<Duration>,
}

impl std::fmt::Display for SolverFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for SolverFailure {}

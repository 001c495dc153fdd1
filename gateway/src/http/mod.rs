//! HTTP towards clients: connections, the life of one exchange, and our own answers.

pub mod answer;
mod attempts;
pub mod body;
mod echo;
pub mod exchange;
pub mod files;
mod forward_auth;
mod h1;
mod h2;
pub mod h3;
pub mod head;
pub mod headers;
pub mod hints;
pub mod incoming;
mod mirror;
pub mod plain;
pub mod serve;
mod tapped;
mod tunnel;
mod websocket;

/// Runs hyper's tasks on the worker's own thread.
#[derive(Debug, Clone, Copy)]
pub struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

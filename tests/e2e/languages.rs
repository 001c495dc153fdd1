//! Promise: a plugin can be written in any of these languages. The same router, filter and solver in
//! each of them pass the same cases through a real gateway.

use crate::harness::{conformance, examples};

/// One test for each example.
macro_rules! example {
    ($name:ident, $folder:literal, $world:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            conformance::$world(&examples::built($folder).await).await;
        }
    };
}

example!(a_router_in_rust, "11-router-in-rust", router);
example!(a_filter_in_rust, "12-filter-in-rust", filter);
example!(a_solver_in_rust, "13-solver-in-rust", solver);
example!(a_router_in_javascript, "41-router-in-javascript", router);
example!(a_filter_in_javascript, "42-filter-in-javascript", filter);
example!(a_solver_in_javascript, "43-solver-in-javascript", solver);

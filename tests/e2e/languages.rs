//! Promise: a plugin can be written in any of these languages. The same router, filter and solver in
//! each of them pass the same cases through a real gateway, and `witgate plugin new` makes a plugin
//! that builds, passes its tests and loads at once.

use std::process::Output;

use crate::harness::{Gateway, LATER, conformance, examples, output};

/// One test for each example, and one for a new plugin made from it.
macro_rules! example {
    ($folder:literal, $world:ident, $name:ident, $new:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            conformance::$world(&examples::built($folder).await).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $new() {
            examples::made($folder, &stringify!($world).replace("solver", "dns-solver")).await;
        }
    };
}

example!("11-router-in-rust", router, a_router_in_rust, a_new_router_in_rust);
example!("12-filter-in-rust", filter, a_filter_in_rust, a_new_filter_in_rust);
example!("13-solver-in-rust", solver, a_solver_in_rust, a_new_solver_in_rust);
example!("21-router-in-go", router, a_router_in_go, a_new_router_in_go);
example!("22-filter-in-go", filter, a_filter_in_go, a_new_filter_in_go);
example!("23-solver-in-go", solver, a_solver_in_go, a_new_solver_in_go);
example!("31-router-in-python", router, a_router_in_python, a_new_router_in_python);
example!("32-filter-in-python", filter, a_filter_in_python, a_new_filter_in_python);
example!("33-solver-in-python", solver, a_solver_in_python, a_new_solver_in_python);
example!("41-router-in-javascript", router, a_router_in_javascript, a_new_router_in_javascript);
example!("42-filter-in-javascript", filter, a_filter_in_javascript, a_new_filter_in_javascript);
example!("43-solver-in-javascript", solver, a_solver_in_javascript, a_new_solver_in_javascript);
example!("51-router-in-typescript", router, a_router_in_typescript, a_new_router_in_typescript);
example!("52-filter-in-typescript", filter, a_filter_in_typescript, a_new_filter_in_typescript);
example!("53-solver-in-typescript", solver, a_solver_in_typescript, a_new_solver_in_typescript);
example!("61-router-in-c", router, a_router_in_c, a_new_router_in_c);
example!("62-filter-in-c", filter, a_filter_in_c, a_new_filter_in_c);
example!("63-solver-in-c", solver, a_solver_in_c, a_new_solver_in_c);

/// One test for each "after" of docs/MIGRATING-PLUGINS.md: it builds, passes its tests, loads with its
/// `gateway.yaml`, and is what the guide shows.
macro_rules! migration {
    ($name:ident, $folder:literal, $($file:literal),+) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            examples::built($folder).await;
            examples::loads($folder).await;
            examples::is_shown_in("docs/MIGRATING-PLUGINS.md", $folder, &[$($file),+]);
        }
    };
}

migration!(from_caddy, "71-from-caddy-in-go", "plugin.go", "plugin.yaml");
migration!(from_traefik, "72-from-traefik-in-go", "plugin.go");
migration!(from_nginx, "73-from-nginx-in-javascript", "plugin.js");
migration!(from_envoy, "74-from-envoy-in-rust", "src/lib.rs");

/// Heavy runtimes work under the default limits, which the tests of new plugins show; where they are
/// given less they say what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_does_not_fit_names_the_key_to_raise() {
    for example in ["21-router-in-go", "31-router-in-python", "41-router-in-javascript"] {
        let gateway = Gateway::new();
        gateway.configure(&format!(
            "sites: [{{hosts: [a.localhost], router: heavy, routes: [{{respond: {{body: a}}}}]}}]\n\
             upstreams: {{web: builtin:echo}}\n\
             plugins:\n  heavy:\n    component: {}\n    limits: {{memory: 256KiB}}\n    \
             config: {{domain: localhost, tenants: {{a: web}}}}\n",
            examples::built(example).await.display()
        ));
        let config = gateway.config().display().to_string();
        let arguments = ["check", "--plugins", "--config", &config];
        let Output { status, stderr, .. } =
            output(env!("CARGO_BIN_EXE_witgate"), &arguments, 4 * LATER).await;
        let said = String::from_utf8_lossy(&stderr);
        assert!(!status.success() && said.contains("raise plugins.heavy.limits.memory"), "{said}");
    }
}

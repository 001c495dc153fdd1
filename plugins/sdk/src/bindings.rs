//! What `wit-bindgen` makes of `wit/`, for wasm targets alone. One world for all imports (those
//! that a plugin does not call are left out of its component) and one world for each exported
//! interface, so that a component can export any choice of them beside `plugin`.

/// The host's interfaces.
pub mod imports {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package witgate:sdk;
            world imports {
                import witgate:plugin/body@0.1.0;
                import witgate:plugin/connection@0.1.0;
                import witgate:plugin/request@0.1.0;
                import witgate:plugin/response@0.1.0;
                import witgate:plugin/decision@0.1.0;
                import witgate:plugin/log@0.1.0;
                import witgate:plugin/state@0.1.0;
                import witgate:plugin/http@0.1.0;
                import witgate:plugin/crypto@0.1.0;
                import witgate:plugin/hello@0.1.0;
                import witgate:plugin/hello-decision@0.1.0;
                import witgate:plugin/issuance@0.1.0;
                import witgate:plugin/report@0.1.0;
            }
        ",
        world: "witgate:sdk/imports",
        generate_all,
    });
}

/// Exports `configure`.
pub mod plugin {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package witgate:sdk;
            world plugin-export { export witgate:plugin/plugin@0.1.0; }
        ",
        world: "witgate:sdk/plugin-export",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_plugin",
    });
}

/// Exports the hook of a router.
pub mod router {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package witgate:sdk;
            world router-export { export witgate:plugin/router-hooks@0.1.0; }
        ",
        world: "witgate:sdk/router-export",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_router",
    });
}

/// Exports the hooks of a filter.
pub mod filter {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package witgate:sdk;
            world filter-export { export witgate:plugin/filter-hooks@0.1.0; }
        ",
        world: "witgate:sdk/filter-export",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_filter",
    });
}

/// Exports the hooks of a filter about bodies.
pub mod body {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package witgate:sdk;
            world body-export { export witgate:plugin/body-hooks@0.1.0; }
        ",
        world: "witgate:sdk/body-export",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_body",
    });
}

/// Exports the hooks of a DNS-01 solver.
pub mod dns_solver {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package witgate:sdk;
            world solver-export { export witgate:plugin/dns-solver-hooks@0.1.0; }
        ",
        world: "witgate:sdk/solver-export",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_dns_solver",
    });
}

/// Exports the hook of a client-hello plugin.
pub mod client_hello {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package witgate:sdk;
            world client-hello-export { export witgate:plugin/client-hello-hooks@0.1.0; }
        ",
        world: "witgate:sdk/client-hello-export",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_client_hello",
    });
}

/// Exports the hook of an issuance policy.
pub mod issuance_policy {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package witgate:sdk;
            world issuance-policy-export { export witgate:plugin/issuance-policy-hooks@0.1.0; }
        ",
        world: "witgate:sdk/issuance-policy-export",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_issuance_policy",
    });
}

/// Exports the hook of a sink of exchanges.
pub mod access_log {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package witgate:sdk;
            world access-log-export { export witgate:plugin/access-log-hooks@0.1.0; }
        ",
        world: "witgate:sdk/access-log-export",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_access_log",
    });
}

/// Exports the hook of a plugin that takes events.
pub mod events {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package witgate:sdk;
            world events-export { export witgate:plugin/event-hooks@0.1.0; }
        ",
        world: "witgate:sdk/events-export",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_events",
    });
}

/// Exports what instances hand over.
pub mod handover {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package witgate:sdk;
            world handover-export { export witgate:plugin/handover@0.1.0; }
        ",
        world: "witgate:sdk/handover-export",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_handover",
    });
}

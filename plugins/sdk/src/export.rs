//! Makes a component of a plugin: [`export!`](crate::export!) and what it expands to.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
#[doc(hidden)]
pub use alloc::string::String;
#[doc(hidden)]
pub use alloc::vec::Vec;

use once_cell::race::OnceBox;

use crate::{Hook, Plugin, config};

/// Exports a plugin as a component, once per crate: `export!(MyPlugin: filter);`, with one or more
/// of `router`, `filter` and `client_hello`, or of `dns_solver`, `issuance_policy`, `access_log` and
/// `events`. With `filter` also `body`, and a plugin that implements
/// [`Remembering`](crate::Remembering) adds `remembering`.
#[macro_export]
macro_rules! export {
    ($plugin:ty: $($world:ident),+ $(,)?) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            static PLUGIN: $crate::export::Slot<$plugin> = $crate::export::Slot::new();
            struct Component;
            impl $crate::bindings::plugin::exports::witgate::plugin::plugin::Guest for Component {
                fn configure(
                    config: $crate::export::String,
                ) -> Result<$crate::export::Vec<$crate::export::String>, $crate::export::String> {
                    PLUGIN.configure(&config)
                }
            }
            $crate::bindings::plugin::export_plugin!(
                Component with_types_in $crate::bindings::plugin
            );
            $($crate::__export_world!($world, $plugin, PLUGIN, Component);)+
        };
        #[cfg(not(target_family = "wasm"))]
        const _: () = {
            $($crate::__check_world!($world, $plugin);)+
        };
    };
}

/// Leaves the standard library out of a plugin: it then imports nothing but the interfaces of the
/// gateway that it calls, and is smaller. Goes beside
/// `#![cfg_attr(target_family = "wasm", no_std)]` and `extern crate alloc;`. A panic is logged at
/// `error` and traps.
#[macro_export]
macro_rules! lean {
    () => {
        #[cfg(target_family = "wasm")]
        #[global_allocator]
        static ALLOCATOR: $crate::export::Allocator = $crate::export::ALLOCATOR;

        #[cfg(target_family = "wasm")]
        #[unsafe(export_name = "cabi_realloc")]
        unsafe extern "C" fn cabi_realloc(
            old: *mut u8,
            old_len: usize,
            align: usize,
            new_len: usize,
        ) -> *mut u8 {
            // SAFETY: the caller is the host, which keeps to the canonical ABI.
            unsafe { $crate::export::lean::cabi_realloc(old, old_len, align, new_len) }
        }

        #[cfg(target_family = "wasm")]
        #[panic_handler]
        fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
            $crate::export::panicked(info)
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_world {
    (router, $plugin:ty, $slot:ident, $component:ident) => {
        use $crate::bindings::router::exports::witgate::plugin::router_hooks;
        impl router_hooks::Guest for $component {
            fn route() {
                <$plugin as $crate::Router>::route($slot.plugin());
            }
        }
        $crate::bindings::router::export_router!(
            $component with_types_in $crate::bindings::router
        );
    };
    (filter, $plugin:ty, $slot:ident, $component:ident) => {
        use $crate::bindings::filter::exports::witgate::plugin::filter_hooks;
        impl filter_hooks::Guest for $component {
            fn on_request() {
                <$plugin as $crate::Filter>::on_request($slot.plugin());
            }
            fn on_request_body(prefix: $crate::export::Vec<u8>, complete: bool) {
                <$plugin as $crate::Filter>::on_request_body($slot.plugin(), &prefix, complete);
            }
            fn on_response() {
                <$plugin as $crate::Filter>::on_response($slot.plugin());
            }
        }
        $crate::bindings::filter::export_filter!(
            $component with_types_in $crate::bindings::filter
        );
    };
    (client_hello, $plugin:ty, $slot:ident, $component:ident) => {
        use $crate::bindings::client_hello::exports::witgate::plugin::client_hello_hooks;
        impl client_hello_hooks::Guest for $component {
            fn on_client_hello() {
                <$plugin as $crate::ClientHello>::on_client_hello($slot.plugin());
            }
        }
        $crate::bindings::client_hello::export_client_hello!(
            $component with_types_in $crate::bindings::client_hello
        );
    };
    (issuance_policy, $plugin:ty, $slot:ident, $component:ident) => {
        use $crate::bindings::issuance_policy::exports::witgate::plugin::issuance_policy_hooks;
        impl issuance_policy_hooks::Guest for $component {
            fn decide() {
                <$plugin as $crate::IssuancePolicy>::decide($slot.plugin());
            }
        }
        $crate::bindings::issuance_policy::export_issuance_policy!(
            $component with_types_in $crate::bindings::issuance_policy
        );
    };
    (access_log, $plugin:ty, $slot:ident, $component:ident) => {
        use $crate::bindings::access_log::exports::witgate::plugin::access_log_hooks;
        impl access_log_hooks::Guest for $component {
            fn write(
                records: $crate::export::Vec<$crate::export::String>,
            ) -> Result<(), $crate::export::String> {
                <$plugin as $crate::AccessLog>::write($slot.plugin(), &records)
            }
        }
        $crate::bindings::access_log::export_access_log!(
            $component with_types_in $crate::bindings::access_log
        );
    };
    (events, $plugin:ty, $slot:ident, $component:ident) => {
        use $crate::bindings::events::exports::witgate::plugin::event_hooks;
        impl event_hooks::Guest for $component {
            fn on_event(event: $crate::export::String) -> Result<(), $crate::export::String> {
                <$plugin as $crate::Events>::on_event($slot.plugin(), &event)
            }
        }
        $crate::bindings::events::export_events!(
            $component with_types_in $crate::bindings::events
        );
    };
    (remembering, $plugin:ty, $slot:ident, $component:ident) => {
        use $crate::bindings::handover::exports::witgate::plugin::handover;
        impl handover::Guest for $component {
            fn save() -> $crate::export::Vec<u8> {
                <$plugin as $crate::Remembering>::save($slot.plugin())
            }
            fn restore(saved: $crate::export::Vec<u8>) {
                <$plugin as $crate::Remembering>::restore($slot.plugin(), &saved);
            }
        }
        $crate::bindings::handover::export_handover!(
            $component with_types_in $crate::bindings::handover
        );
    };
    (body, $plugin:ty, $slot:ident, $component:ident) => {
        use $crate::bindings::body::exports::witgate::plugin::body_hooks;
        impl body_hooks::Guest for $component {
            fn on_chunk(body: u64, chunk: $crate::export::Vec<u8>) {
                let body = $crate::body::Body::of(body);
                <$plugin as $crate::BodyFilter>::on_chunk($slot.plugin(), body, &chunk);
            }
            fn on_finish(body: u64) {
                let body = $crate::body::Body::of(body);
                <$plugin as $crate::BodyFilter>::on_finish($slot.plugin(), body);
            }
            fn on_abandon(body: u64) {
                let body = $crate::body::Body::of(body);
                <$plugin as $crate::BodyFilter>::on_abandon($slot.plugin(), body);
            }
        }
        $crate::bindings::body::export_body!(
            $component with_types_in $crate::bindings::body
        );
    };
    (dns_solver, $plugin:ty, $slot:ident, $component:ident) => {
        const _: () = {
            use $crate::DnsSolver;
            use $crate::bindings::dns_solver::exports::witgate::plugin::dns_solver_hooks::{
                Failure, Guest,
            };
            use $crate::export::{String, Vec};

            impl Guest for $component {
                fn traits() -> Vec<(String, String)> {
                    DnsSolver::traits($slot.plugin()).into_pairs()
                }
                fn find_zone(candidates: Vec<String>) -> Result<(String, String), Failure> {
                    let zone = DnsSolver::find_zone($slot.plugin(), &candidates)?;
                    Ok((zone.name, zone.handle))
                }
                fn present(
                    zone: String,
                    handle: String,
                    name: String,
                    values: Vec<String>,
                    ttl_seconds: u32,
                ) -> Result<String, Failure> {
                    let zone = $crate::dns::Zone { name: zone, handle };
                    let plugin = $slot.plugin();
                    Ok(DnsSolver::present(plugin, &zone, &name, &values, ttl_seconds)?)
                }
                fn poll(
                    zone: String,
                    zone_handle: String,
                    handle: String,
                ) -> Result<Option<u32>, Failure> {
                    let zone = $crate::dns::Zone { name: zone, handle: zone_handle };
                    Ok(DnsSolver::poll($slot.plugin(), &zone, &handle)?)
                }
                fn cleanup(
                    zone: String,
                    zone_handle: String,
                    name: String,
                    values: Vec<String>,
                    handle: String,
                ) -> Result<(), Failure> {
                    let zone = $crate::dns::Zone { name: zone, handle: zone_handle };
                    Ok(DnsSolver::cleanup($slot.plugin(), &zone, &name, &values, &handle)?)
                }
            }
        };
        $crate::bindings::dns_solver::export_dns_solver!(
            $component with_types_in $crate::bindings::dns_solver
        );
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __check_world {
    (router, $plugin:ty) => {
        const fn is_router<T: $crate::Router>() {}
        is_router::<$plugin>();
    };
    (filter, $plugin:ty) => {
        const fn is_filter<T: $crate::Filter>() {}
        is_filter::<$plugin>();
    };
    (client_hello, $plugin:ty) => {
        const fn is_client_hello<T: $crate::ClientHello>() {}
        is_client_hello::<$plugin>();
    };
    (issuance_policy, $plugin:ty) => {
        const fn is_issuance_policy<T: $crate::IssuancePolicy>() {}
        is_issuance_policy::<$plugin>();
    };
    (access_log, $plugin:ty) => {
        const fn is_access_log<T: $crate::AccessLog>() {}
        is_access_log::<$plugin>();
    };
    (events, $plugin:ty) => {
        const fn is_events<T: $crate::Events>() {}
        is_events::<$plugin>();
    };
    (remembering, $plugin:ty) => {
        const fn is_remembering<T: $crate::Remembering>() {}
        is_remembering::<$plugin>();
    };
    (body, $plugin:ty) => {
        const fn is_body_filter<T: $crate::BodyFilter>() {}
        is_body_filter::<$plugin>();
    };
    (dns_solver, $plugin:ty) => {
        const fn is_dns_solver<T: $crate::DnsSolver>() {}
        is_dns_solver::<$plugin>();
    };
}

/// The place of the configured plugin in its instance.
#[doc(hidden)]
pub struct Slot<T>(OnceBox<T>);

impl<T: Plugin> Slot<T> {
    /// An empty place.
    #[expect(clippy::new_without_default, reason = "made in a static, by `export!` alone")]
    pub const fn new() -> Self {
        Self(OnceBox::new())
    }

    /// Runs `plugin.configure`.
    ///
    /// # Errors
    /// The text for the operator.
    pub fn configure(&self, config: &str) -> Result<Vec<String>, String> {
        let plugin = T::configure(config::parse(config)?)?;
        let hooks = plugin.hooks().into_iter().map(Hook::code).collect();
        self.0
            .set(Box::new(plugin))
            .map_err(|_| "the gateway configured one instance twice".to_owned())?;
        Ok(hooks)
    }

    /// The plugin. The gateway calls `configure` before any hook; a host that does not is trapped.
    pub fn plugin(&self) -> &T {
        #[expect(clippy::expect_used, reason = "the contract: `configure` is called first")]
        self.0.get().expect("configure is called before any hook")
    }
}

impl Hook {
    fn code(self) -> String {
        match self {
            Self::Request => "request".to_owned(),
            Self::RequestBody(bytes_max) => format!("request-body:{bytes_max}"),
            Self::Response => "response".to_owned(),
            Self::None => "none".to_owned(),
        }
    }
}

#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod lean;

#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub use lean::{ALLOCATOR, Allocator, panicked};

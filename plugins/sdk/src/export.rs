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
/// of `router`, `filter` and `dns_solver`, and with `filter` also `body`.
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

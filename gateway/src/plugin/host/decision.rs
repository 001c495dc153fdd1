//! `wit/decision.wit`.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use wasmtime::component::{LinkerInstance, WasmList, WasmStr};

use super::super::Decision;
use super::super::call::rule;
use super::fields::{may_set, name_of, value_of};
use super::response::{self, status_of};
use super::{Host, Phase};

/// Links `function` of `decision`; false when there is none.
pub(in super::super) fn link(
    at: &mut LinkerInstance<'_, Host>,
    function: &str,
) -> wasmtime::Result<bool> {
    match function {
        "to-upstream" => at.func_wrap(function, |mut store, (name,): (WasmStr,)| {
            if store.data().exchange.phase != Phase::Route {
                return Err(rule("only `router.route` may choose an upstream".to_owned()));
            }
            let name = name.to_str(&store)?;
            let Some(upstream) = store.data().facts.upstreams.get(&*name) else {
                return Err(rule(format!("gateway.yaml has no upstream called {name:?}")));
            };
            let decision = Decision::Upstream(std::sync::Arc::clone(upstream));
            store.data_mut().exchange.decision = decision;
            Ok(())
        })?,
        "redirect" => at.func_wrap(function, |mut store, (status, location): (u16, WasmStr)| {
            may_decide(store.data())?;
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return Err(rule(format!("{status} is not a redirect of 301, 302, 303, 307, 308")));
            }
            let Ok(location) = HeaderValue::from_bytes(location.to_str(&store)?.as_bytes()) else {
                return Err(rule("the location has bytes that no field value may have".to_owned()));
            };
            let host = store.data_mut();
            host.charge(location.len())?;
            host.exchange.decision = Decision::Redirect { status, location };
            Ok(())
        })?,
        "respond" => at.func_wrap(function, |mut store, (status, headers, body): Response| {
            may_decide(store.data())?;
            let status = status_of(status)?;
            // What it costs is known before anything is copied.
            store.data_mut().charge(body.len().saturating_add(headers.len().saturating_mul(4)))?;
            let headers: Vec<_> = headers.iter(&mut store)?.collect::<wasmtime::Result<_>>()?;
            let (mut map, mut bytes) = (HeaderMap::with_capacity(headers.len().min(64)), 0_usize);
            for (name, value) in headers {
                let name = name_of(&name.to_str(&store)?)?;
                may_set::<response::Response>(store.data(), name.as_str())?;
                let value = value_of(&name, value.to_str(&store)?.as_bytes())?;
                bytes = bytes.saturating_add(name.as_str().len()).saturating_add(value.len());
                map.try_append(name, value)
                    .map_err(|_| rule("there are too many fields".to_owned()))?;
            }
            store.data_mut().charge(bytes)?;
            let body = Bytes::copy_from_slice(body.as_le_slice(&store));
            store.data_mut().exchange.decision = Decision::Respond { status, headers: map, body };
            Ok(())
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// The parameters of `respond`.
type Response = (u16, WasmList<(WasmStr, WasmStr)>, WasmList<u8>);

fn may_decide(host: &Host) -> wasmtime::Result<()> {
    match host.exchange.phase {
        Phase::Route | Phase::Request | Phase::RequestBody => Ok(()),
        Phase::Idle | Phase::Hello | Phase::Response | Phase::Body => {
            Err(rule("`decision` is only valid while a request is in hand".to_owned()))
        }
    }
}

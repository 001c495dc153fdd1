//! `wit/hello.wit`.

use std::sync::Arc;

use wasmtime::component::LinkerInstance;

use super::super::call::rule;
use super::{Host, Phase};
use crate::hex;
use crate::tls::hello::{HelloFacts, HelloVerdict, alert};

/// A ClientHello in the hands of a plugin.
pub(in super::super) struct Case {
    pub facts: Arc<HelloFacts>,
    pub verdict: HelloVerdict,
}

/// Links `function` of `hello`; false when there is none.
pub(in super::super) fn link(
    at: &mut LinkerInstance<'_, Host>,
    function: &str,
) -> wasmtime::Result<bool> {
    match function {
        "transport" => {
            at.func_wrap(function, |store, (): ()| Ok((facts(store.data())?.transport.name(),)))?
        }
        "server-name" => at.func_wrap(function, |store, (): ()| {
            Ok((facts(store.data())?.server_name.as_deref().map(str::to_owned),))
        })?,
        "alpn" => at.func_wrap(function, |store, (): ()| {
            let offered = &facts(store.data())?.offered.alpn;
            let words = offered.iter().map(|name| match std::str::from_utf8(name) {
                Ok(text) => text.to_owned(),
                Err(_) => format!("0x{}", hex::lower(name)),
            });
            Ok((words.collect::<Vec<_>>(),))
        })?,
        "versions" => at.func_wrap(function, |store, (): ()| {
            let versions = facts(store.data())?.offered.versions.iter();
            Ok((versions.map(|version| version_name(*version)).collect::<Vec<_>>(),))
        })?,
        "cipher-suites" => at.func_wrap(function, |store, (): ()| {
            Ok((facts(store.data())?.offered.suites.clone(),))
        })?,
        "groups" => at.func_wrap(function, |store, (): ()| {
            Ok((facts(store.data())?.offered.groups.clone(),))
        })?,
        "signature-schemes" => at.func_wrap(function, |store, (): ()| {
            Ok((facts(store.data())?.offered.signature_schemes.clone(),))
        })?,
        "extensions" => at.func_wrap(function, |store, (): ()| {
            Ok((facts(store.data())?.offered.extensions.clone(),))
        })?,
        "ja4" => at.func_wrap(function, |store, (): ()| Ok((facts(store.data())?.ja4.clone(),)))?,
        "message" => {
            at.func_wrap(function, |store, (): ()| Ok((facts(store.data())?.message.clone(),)))?
        }
        "client-address" => at.func_wrap(function, |store, (): ()| {
            Ok((facts(store.data())?.client.ip().to_canonical().to_string(),))
        })?,
        "client-port" => {
            at.func_wrap(function, |store, (): ()| Ok((facts(store.data())?.client.port(),)))?
        }
        "local-address" => at.func_wrap(function, |store, (): ()| {
            Ok((facts(store.data())?.local.ip().to_canonical().to_string(),))
        })?,
        "local-port" => {
            at.func_wrap(function, |store, (): ()| Ok((facts(store.data())?.local.port(),)))?
        }
        "proxy" => at.func_wrap(function, |store, (key,): (String,)| {
            Ok((proxy(facts(store.data())?, &key),))
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Links `function` of `hello-decision`; false when there is none.
pub(in super::super) fn link_decision(
    at: &mut LinkerInstance<'_, Host>,
    function: &str,
) -> wasmtime::Result<bool> {
    match function {
        "pass-through" => at.func_wrap(function, |mut store, (name,): (String,)| {
            facts(store.data())?;
            let Some(upstream) = store.data().facts.upstreams.get(&*name) else {
                return Err(rule(format!("gateway.yaml has no upstream called {name:?}")));
            };
            let upstream = Arc::clone(upstream);
            decide(store.data_mut(), HelloVerdict::PassThrough(upstream));
            Ok(())
        })?,
        "terminate-as" => at.func_wrap(function, |mut store, (name,): (String,)| {
            facts(store.data())?;
            store.data_mut().charge(name.len())?;
            let name = name.to_ascii_lowercase();
            decide(store.data_mut(), HelloVerdict::TerminateAs(name.into()));
            Ok(())
        })?,
        "refuse" => at.func_wrap(function, |mut store, (name,): (String,)| {
            facts(store.data())?;
            decide(store.data_mut(), HelloVerdict::Refuse(alert(&name)));
            Ok(())
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn facts(host: &Host) -> wasmtime::Result<&HelloFacts> {
    match &host.hello {
        Some(case) if host.exchange.phase == Phase::Hello => Ok(&case.facts),
        _ => Err(rule(
            "`hello` and `hello-decision` are only valid inside `client-hello.on-client-hello`"
                .to_owned(),
        )),
    }
}

fn decide(host: &mut Host, verdict: HelloVerdict) {
    if let Some(case) = &mut host.hello {
        case.verdict = verdict;
    }
}

fn proxy(facts: &HelloFacts, key: &str) -> Option<String> {
    let via = facts.via.as_ref()?;
    let ssl = via.header.ssl.as_ref();
    match key {
        "peer" => Some(via.peer.ip().to_canonical().to_string()),
        "authority" => via.header.authority.as_deref().map(str::to_owned),
        "unique-id" => via.header.unique_id.as_deref().map(hex::lower),
        "tls-version" => ssl.map(|ssl| ssl.version.clone().into_string()),
        "tls-common-name" => ssl.and_then(|ssl| ssl.common_name.as_deref()).map(str::to_owned),
        _ => None,
    }
}

fn version_name(version: u16) -> String {
    match version {
        0x0304 => "TLSv1.3".to_owned(),
        0x0303 => "TLSv1.2".to_owned(),
        0x0302 => "TLSv1.1".to_owned(),
        0x0301 => "TLSv1.0".to_owned(),
        0x0300 => "SSLv3".to_owned(),
        other => format!("0x{other:04x}"),
    }
}

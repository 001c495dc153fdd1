//! `wit/connection.wit`.

use std::sync::Arc;

use wasmtime::component::LinkerInstance;

use super::super::call::rule;
use super::{Host, Phase};
use crate::http::head::ConnectionFacts;
use crate::tls::TlsFacts;
use crate::tls::clients::ClientCertificate;

/// Links `function` of `connection`; false when there is none.
pub(in super::super) fn link(
    at: &mut LinkerInstance<'_, Host>,
    function: &str,
) -> wasmtime::Result<bool> {
    match function {
        "client-address" => at.func_wrap(function, |store, (): ()| {
            Ok((facts(store.data())?.client.ip().to_canonical().to_string(),))
        })?,
        "client-port" => {
            at.func_wrap(function, |store, (): ()| Ok((facts(store.data())?.client.port(),)))?
        }
        "http-version" => at.func_wrap(function, |store, (): ()| {
            Ok((match store.data().request()?.version {
                http::Version::HTTP_09 | http::Version::HTTP_10 => "HTTP/1.0",
                http::Version::HTTP_2 => "HTTP/2",
                http::Version::HTTP_3 => "HTTP/3",
                _ => "HTTP/1.1",
            },))
        })?,
        "tls-server-name" => at.func_wrap(function, |store, (): ()| {
            Ok((tls(store.data())?.and_then(|tls| tls.server_name.as_deref().map(str::to_owned)),))
        })?,
        "tls-version" => at.func_wrap(function, |store, (): ()| {
            Ok((tls(store.data())?.map(|tls| tls.version),))
        })?,
        "tls-cipher-suite" => at.func_wrap(function, |store, (): ()| {
            Ok((tls(store.data())?.map(|tls| tls.cipher_suite),))
        })?,
        "tls-group" => at.func_wrap(function, |store, (): ()| {
            Ok((tls(store.data())?.and_then(|tls| tls.group),))
        })?,
        "tls-alpn" => at.func_wrap(function, |store, (): ()| {
            Ok((tls(store.data())?.and_then(|tls| tls.alpn),))
        })?,
        "tls-is-resumed" => at.func_wrap(function, |store, (): ()| {
            Ok((tls(store.data())?.is_some_and(|tls| tls.is_resumed),))
        })?,
        "tls-ja4" => at.func_wrap(function, |store, (): ()| {
            Ok((tls(store.data())?.and_then(|tls| tls.ja4.as_deref().map(str::to_owned)),))
        })?,
        "tls-client-subject" => of_client(at, function, |client| client.subject.clone())?,
        "tls-client-issuer" => of_client(at, function, |client| client.issuer.clone())?,
        "tls-client-serial" => of_client(at, function, |client| client.serial.clone())?,
        "tls-client-sha256" => of_client(at, function, |client| client.sha256.clone())?,
        "tls-client-names" => at.func_wrap(function, |store, (): ()| {
            let tls = tls(store.data())?;
            let client = tls.and_then(|tls| tls.client.as_ref());
            Ok((client.map(|client| client.names.clone()).unwrap_or_default(),))
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Links a function that tells one thing of the client's certificate.
fn of_client(
    at: &mut LinkerInstance<'_, Host>,
    function: &str,
    tell: fn(&ClientCertificate) -> String,
) -> wasmtime::Result<()> {
    at.func_wrap(function, move |store, (): ()| {
        Ok((tls(store.data())?.and_then(|tls| tls.client.as_deref()).map(tell),))
    })
}

fn facts(host: &Host) -> wasmtime::Result<&ConnectionFacts> {
    match &host.exchange.connection {
        Some(facts) if !matches!(host.exchange.phase, Phase::Idle | Phase::Hello) => Ok(facts),
        _ => Err(rule("`connection` is only valid inside a hook".to_owned())),
    }
}

fn tls(host: &Host) -> wasmtime::Result<Option<&Arc<TlsFacts>>> {
    Ok(facts(host)?.tls.as_ref())
}

//! `wit/response.wit`.

use http::{HeaderMap, StatusCode};
use wasmtime::component::LinkerInstance;

use super::super::call::rule;
use super::super::facts::Facts;
use super::fields::{self, Side, may_set};
use super::{Host, Undo};
use crate::config::HeadGrant;
use crate::http::head::ResponseSource;

/// Links `function` of `response`; false when there is none.
pub(in super::super) fn link(
    at: &mut LinkerInstance<'_, Host>,
    function: &str,
) -> wasmtime::Result<bool> {
    match function {
        "status" => {
            at.func_wrap(function, |store, (): ()| Ok((store.data().response()?.status.as_u16(),)))?
        }
        "source" => at.func_wrap(function, |store, (): ()| {
            Ok((match store.data().response()?.source {
                ResponseSource::Upstream => "upstream",
                ResponseSource::Plugin => "plugin",
                ResponseSource::Gateway => "gateway",
            },))
        })?,
        "set-status" => at.func_wrap(function, |mut store, (status,): (u16,)| {
            may_set::<Response>(store.data(), ":status")?;
            let (response, journal) = store.data_mut().response_mut()?;
            let status = status_of(status)?;
            if response.status == StatusCode::SWITCHING_PROTOCOLS {
                return Err(rule("a response of 101 keeps its status".to_owned()));
            }
            journal.push(Undo::Status(std::mem::replace(&mut response.status, status)));
            Ok(())
        })?,
        _ => return fields::link::<Response>(at, function),
    }
    Ok(true)
}

/// A final status: 200 to 599.
pub(in super::super) fn status_of(status: u16) -> wasmtime::Result<StatusCode> {
    match StatusCode::from_u16(status) {
        Ok(code) if (200..=599).contains(&status) => Ok(code),
        _ => Err(rule(format!("{status} is not a status of 200 to 599"))),
    }
}

/// The response's fields.
pub(in super::super) struct Response;

impl Side for Response {
    fn headers(host: &Host) -> wasmtime::Result<&HeaderMap> {
        Ok(&host.response()?.headers)
    }

    fn headers_mut(host: &mut Host) -> wasmtime::Result<(&mut HeaderMap, &mut Vec<Undo>)> {
        let (response, journal) = host.response_mut()?;
        Ok((&mut response.headers, journal))
    }

    fn elsewhere<'h>(_host: &'h Host, _name: &str) -> Option<&'h str> {
        None
    }

    fn grant(facts: &Facts) -> &HeadGrant {
        &facts.response
    }

    const NAME: &'static str = "response";
}

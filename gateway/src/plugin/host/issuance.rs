//! `wit/issuance.wit`.

use wasmtime::component::LinkerInstance;

use super::super::call::rule;
use super::Host;
use crate::acme::policy::{Question, Ruling};

/// A certificate that a plugin decides about.
pub(in super::super) struct Case {
    pub question: Question,
    /// What it said about permission; none while it said nothing.
    pub permission: Option<Result<(), String>>,
    /// What it said about issuer and profile.
    pub ruling: Ruling,
}

/// Links `function` of `issuance`; false when there is none.
pub(in super::super) fn link(
    at: &mut LinkerInstance<'_, Host>,
    function: &str,
) -> wasmtime::Result<bool> {
    match function {
        "names" => at.func_wrap(function, |store, (): ()| {
            Ok((case(store.data())?.question.names.clone(),))
        })?,
        "reason" => {
            at.func_wrap(function, |store, (): ()| Ok((case(store.data())?.question.reason,)))?
        }
        "issuers" => at.func_wrap(function, |store, (): ()| {
            Ok((case(store.data())?.question.issuers.clone(),))
        })?,
        "challenge" => {
            at.func_wrap(function, |store, (): ()| Ok((case(store.data())?.question.challenge,)))?
        }
        "not-after" => {
            at.func_wrap(function, |store, (): ()| Ok((case(store.data())?.question.not_after,)))?
        }
        "allow" => at.func_wrap(function, |mut store, (): ()| {
            case_mut(store.data_mut())?.permission = Some(Ok(()));
            Ok(())
        })?,
        "deny" => at.func_wrap(function, |mut store, (why,): (String,)| {
            store.data_mut().charge(why.len())?;
            case_mut(store.data_mut())?.permission = Some(Err(why));
            Ok(())
        })?,
        "use-issuer" => at.func_wrap(function, |mut store, (name,): (String,)| {
            let case = case_mut(store.data_mut())?;
            if !case.question.issuers.contains(&name) {
                return Err(rule(format!("the configuration names no issuer {name:?} for this")));
            }
            case.ruling.issuer = Some(name);
            Ok(())
        })?,
        "use-profile" => at.func_wrap(function, |mut store, (name,): (String,)| {
            store.data_mut().charge(name.len())?;
            case_mut(store.data_mut())?.ruling.profile = Some(name);
            Ok(())
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn case(host: &Host) -> wasmtime::Result<&Case> {
    host.issuance.as_ref().ok_or_else(outside)
}

fn case_mut(host: &mut Host) -> wasmtime::Result<&mut Case> {
    host.issuance.as_mut().ok_or_else(outside)
}

fn outside() -> wasmtime::Error {
    rule("`issuance` is only valid inside `issuance-policy.decide`".to_owned())
}

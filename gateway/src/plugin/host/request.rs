//! `wit/request.wit`.

use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use wasmtime::component::{LinkerInstance, WasmStr};

use super::super::call::rule;
use super::super::facts::Facts;
use super::fields::{self, Side, may_set};
use super::{Host, Undo};
use crate::config::{HeadGrant, Scheme};

/// Links `function` of `request`; false when there is none.
pub(in super::super) fn link(
    at: &mut LinkerInstance<'_, Host>,
    function: &str,
) -> wasmtime::Result<bool> {
    match function {
        "id" => at.func_wrap(function, |store, (): ()| {
            Ok((std::sync::Arc::clone(&store.data().request()?.id),))
        })?,
        "method" => at.func_wrap(function, |store, (): ()| {
            Ok((store.data().request()?.method.as_str().to_owned(),))
        })?,
        "scheme" => at.func_wrap(function, |store, (): ()| {
            Ok((match store.data().request()?.scheme {
                Scheme::Http => "http",
                Scheme::Https => "https",
            },))
        })?,
        "authority" => at.func_wrap(function, |store, (): ()| {
            Ok((store.data().request()?.authority.clone(),))
        })?,
        "path" => at.func_wrap(function, |store, (): ()| {
            Ok((store.data().request()?.target.path().to_owned(),))
        })?,
        "query" => at.func_wrap(function, |store, (): ()| {
            Ok((store.data().request()?.target.query().map(str::to_owned),))
        })?,
        "set-method" => at.func_wrap(function, |mut store, (method,): (WasmStr,)| {
            let method = method_of(&method.to_str(&store)?)?;
            let host = store.data_mut();
            may_set::<Request>(host, ":method")?;
            host.charge(method.as_str().len())?;
            let (request, journal) = host.request_mut()?;
            journal.push(Undo::Method(std::mem::replace(&mut request.method, method)));
            Ok(())
        })?,
        "set-path" => at.func_wrap(function, |mut store, (path,): (WasmStr,)| {
            let path = path.to_str(&store)?;
            let query = store.data().request()?.target.query();
            let (target, bytes) = (target_of(&path, query)?, path.len());
            replace_target(store.data_mut(), target, bytes)
        })?,
        "set-query" => at.func_wrap(function, |mut store, (query,): (Option<WasmStr>,)| {
            let query = match &query {
                Some(query) => Some(query.to_str(&store)?),
                None => None,
            };
            let path = store.data().request()?.target.path();
            let target = target_of(path, query.as_deref())?;
            let bytes = query.as_deref().map_or(0, str::len);
            replace_target(store.data_mut(), target, bytes)
        })?,
        "set-authority" => at.func_wrap(function, |mut store, (authority,): (WasmStr,)| {
            let authority = authority_of(&authority.to_str(&store)?)?;
            let host = store.data_mut();
            may_set::<Request>(host, ":authority")?;
            host.charge(authority.len())?;
            let (request, journal) = host.request_mut()?;
            journal.push(Undo::Authority(std::mem::replace(&mut request.authority, authority)));
            Ok(())
        })?,
        _ => return fields::link::<Request>(at, function),
    }
    Ok(true)
}

/// The request's fields.
struct Request;

impl Side for Request {
    fn headers(host: &Host) -> wasmtime::Result<&HeaderMap> {
        Ok(&host.request()?.headers)
    }

    fn headers_mut(host: &mut Host) -> wasmtime::Result<(&mut HeaderMap, &mut Vec<Undo>)> {
        let (request, journal) = host.request_mut()?;
        Ok((&mut request.headers, journal))
    }

    fn elsewhere<'h>(host: &'h Host, name: &str) -> Option<&'h str> {
        name.eq_ignore_ascii_case("host").then_some(host.exchange.request.authority.as_str())
    }

    fn grant(facts: &Facts) -> &HeadGrant {
        &facts.request
    }

    const NAME: &'static str = "request";
}

fn replace_target(host: &mut Host, target: PathAndQuery, bytes: usize) -> wasmtime::Result<()> {
    may_set::<Request>(host, ":path")?;
    host.charge(bytes)?;
    let (request, journal) = host.request_mut()?;
    journal.push(Undo::Target(std::mem::replace(&mut request.target, target)));
    Ok(())
}

fn method_of(method: &str) -> wasmtime::Result<Method> {
    match Method::from_bytes(method.as_bytes()) {
        Ok(Method::CONNECT) => Err(rule("a plugin cannot make a request a CONNECT".to_owned())),
        Ok(method) => Ok(method),
        Err(_) => Err(rule(format!("{method:?} is not a method"))),
    }
}

/// A target of the parts; anything that would be read as other parts is refused, not repaired.
fn target_of(path: &str, query: Option<&str>) -> wasmtime::Result<PathAndQuery> {
    if !path.starts_with('/') && path != "*" {
        return Err(rule("a path starts with /".to_owned()));
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?' && byte != b'#') {
        return Err(rule(
            "a path is percent-encoded: no spaces, controls, `?`, `#` or bytes beyond ASCII"
                .to_owned(),
        ));
    }
    let joined = match query {
        Some(query) if query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') => {
            format!("{path}?{query}")
        }
        Some(_) => {
            return Err(rule(
                "a query is percent-encoded: no spaces, controls, `#` or bytes beyond ASCII"
                    .to_owned(),
            ));
        }
        None => path.to_owned(),
    };
    PathAndQuery::try_from(joined).map_err(|cause| rule(format!("not a target: {cause}")))
}

fn authority_of(authority: &str) -> wasmtime::Result<String> {
    match http::uri::Authority::try_from(authority) {
        Ok(found) if !authority.contains('@') && !found.host().is_empty() => {
            Ok(authority.to_ascii_lowercase())
        }
        _ => Err(rule(format!("{authority:?} is not a host with an optional port"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_its_parts_or_refused() {
        assert_eq!(target_of("/a%20b", Some("x=1")).unwrap().as_str(), "/a%20b?x=1");
        assert_eq!(target_of("/", None).unwrap().as_str(), "/");
        for (path, query) in [
            ("", None),
            ("a", None),
            ("/a b", None),
            ("/a?b", None),
            ("/a#b", None),
            ("/\r\n", None),
            ("/ä", None),
            ("/a", Some("x#y")),
            ("/a", Some("x y")),
        ] {
            assert!(target_of(path, query).is_err(), "{path:?} {query:?}");
        }
    }

    #[test]
    fn authorities_and_methods_are_checked() {
        assert_eq!(authority_of("App.Example:8080").unwrap(), "app.example:8080");
        for wrong in ["", "user@host", "a b", "host/path", "a\r\nb"] {
            assert!(authority_of(wrong).is_err(), "{wrong:?}");
        }
        assert!(method_of("CONNECT").is_err());
        assert!(method_of("A B").is_err());
        assert_eq!(method_of("PURGE").unwrap().as_str(), "PURGE");
    }
}

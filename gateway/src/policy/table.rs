//! The policies of a whole generation: made ready once, with what is counted taken over from the
//! generation before.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::basic_auth::BasicAuth;
use super::cors::Cors;
use super::error_pages::ErrorPages;
use super::prefix::Prefix;
use super::rate_limit::Limiter;
use super::{Policy, PolicyError};
use crate::config::policies::{Policies, RateLimit, Setting};
use crate::config::{Config, PathMatch, Route, Site};

/// The policies of every site and route.
#[derive(Debug, Default)]
pub struct PolicyTable {
    sites: Vec<SitePolicies>,
    limiters: HashMap<Owner, Arc<Limiter>>,
}

/// The policies of one site.
#[derive(Debug)]
struct SitePolicies {
    site: Option<Arc<Policy>>,
    routes: Vec<Option<Arc<Policy>>>,
}

/// Whose limit it is, which of them, and what it says: the same in the next generation goes on.
type Owner = (String, usize, RateLimit);

impl PolicyTable {
    /// Makes the policies of `config` ready. Limits that are the same as in `previous` keep counting.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first.
    pub fn build(config: &Config, previous: Option<&Self>) -> Result<Self, Vec<PolicyError>> {
        let mut builder = Builder { table: Self::default(), errors: Vec::new(), previous };
        for site in &config.sites {
            let policies = builder.site(site);
            builder.table.sites.push(policies);
        }
        match builder.errors.is_empty() {
            true => Ok(builder.table),
            false => Err(builder.errors),
        }
    }

    /// What holds for requests of a site that no route took.
    pub fn of_site(&self, site: usize) -> Option<&Arc<Policy>> {
        self.sites.get(site)?.site.as_ref()
    }

    /// What holds for requests of a route.
    pub fn of_route(&self, site: usize, route: usize) -> Option<&Arc<Policy>> {
        self.sites.get(site)?.routes.get(route)?.as_ref()
    }

    /// Files that were read, a change of which asks for the next generation.
    pub fn watched(config: &Config) -> impl Iterator<Item = PathBuf> {
        let all = config.sites.iter().flat_map(|site| {
            std::iter::once(&site.policies).chain(site.routes.iter().map(|route| &route.policies))
        });
        all.flat_map(|policies| {
            let users = policies.basic_auth.on().and_then(|auth| auth.file.clone());
            let pages = policies.error_pages.on().into_iter().flatten();
            users.into_iter().chain(pages.map(|(_, path)| path.clone()))
        })
    }
}

struct Builder<'a> {
    table: PolicyTable,
    errors: Vec<PolicyError>,
    previous: Option<&'a PolicyTable>,
}

impl Builder<'_> {
    fn site(&mut self, site: &Site) -> SitePolicies {
        let owner = owner(site, None);
        let none = Policies::default();
        let whole = self.policy(&owner, &site.policies, (&owner, &none), None);
        let routes = site.routes.iter().map(|route| {
            let place = self::owner(site, Some(route));
            self.policy(&place, &route.policies, (&owner, &site.policies), Some(&whole))
        });
        let routes = routes.collect::<Vec<_>>();
        let some = |policy: Policy| (!policy.is_empty()).then(|| Arc::new(policy));
        SitePolicies { routes: routes.into_iter().map(some).collect(), site: some(whole) }
    }

    /// What holds where `own` is said within `outer`, whose policies are `ready`.
    fn policy(
        &mut self,
        place: &str,
        own: &Policies,
        (outer_place, outer): (&str, &Policies),
        ready: Option<&Policy>,
    ) -> Policy {
        let limits = match &own.rate_limits {
            Setting::Absent => self.limiters(outer_place, outer.rate_limits.on()),
            said => self.limiters(place, said.on()),
        };
        let cors = own.cors.or(&outer.cors).on().map(Cors::new);
        let cors = cors.and_then(|made| made.map_err(|error| self.errors.push(error)).ok());
        let basic_auth = match (&own.basic_auth, ready) {
            (Setting::Absent, Some(ready)) => ready.basic_auth.clone(),
            (said, _) => said.on().and_then(|policy| match BasicAuth::new(policy, place) {
                Ok(auth) => Some(Arc::new(auth)),
                Err(error) => {
                    self.errors.push(error);
                    None
                }
            }),
        };
        let error_pages = match (&own.error_pages, ready) {
            (Setting::Absent, Some(ready)) => ready.error_pages.clone(),
            (said, _) => {
                let pages = said.on().map(|pages| ErrorPages::new(pages));
                pages
                    .and_then(|made| made.map_err(|error| self.errors.push(error)).ok())
                    .map(Arc::new)
            }
        };
        let request_body_bytes_max = match own.request_body.or(&outer.request_body) {
            Setting::Absent => None,
            Setting::Off => Some(None),
            Setting::On(bytes) => Some(Some(*bytes)),
        };
        let buffer = own.buffer_request.or(&outer.buffer_request).on();
        Policy {
            addresses: own.addresses.or(&outer.addresses).on().cloned(),
            rate_limits: limits,
            cors,
            basic_auth,
            request_head_bytes_max: own.request_head.or(&outer.request_head).on().copied(),
            request_body_bytes_max,
            buffer_bytes_max: buffer.and_then(|bytes| usize::try_from(*bytes).ok()),
            forward_auth: own.forward_auth.or(&outer.forward_auth).on().cloned(),
            mirror: own.mirror.or(&outer.mirror).on().cloned(),
            security: own.security.or(&outer.security).on().copied(),
            error_pages,
            compress: own.compress.or(&outer.compress).on().cloned(),
            prefix: Prefix { strip: own.strip_prefix.clone(), add: own.add_prefix.clone() },
        }
    }

    fn limiters(&mut self, place: &str, limits: Option<&Vec<RateLimit>>) -> Vec<Arc<Limiter>> {
        let mut limiters = Vec::new();
        for (index, limit) in limits.into_iter().flatten().enumerate() {
            let key = (place.to_owned(), index, limit.clone());
            let known = self.table.limiters.get(&key);
            let known = known.or_else(|| self.previous?.limiters.get(&key)).map(Arc::clone);
            let limiter = known.unwrap_or_else(|| Arc::new(Limiter::new(limit.clone())));
            self.table.limiters.insert(key, Arc::clone(&limiter));
            limiters.push(limiter);
        }
        limiters
    }
}

impl Policy {
    fn is_empty(&self) -> bool {
        self.addresses.is_none()
            && self.rate_limits.is_empty()
            && self.cors.is_none()
            && self.basic_auth.is_none()
            && self.request_head_bytes_max.is_none()
            && self.request_body_bytes_max.is_none()
            && self.buffer_bytes_max.is_none()
            && self.compress.is_none()
            && self.forward_auth.is_none()
            && self.mirror.is_none()
            && self.security.is_none()
            && self.error_pages.is_none()
            && self.prefix == Prefix::default()
    }
}

/// What a site or route is called: by its hosts and condition, not by its line, so that an edit
/// elsewhere in the file changes nothing.
fn owner(site: &Site, route: Option<&Route>) -> String {
    let hosts: Vec<String> = site.hosts.iter().map(ToString::to_string).collect();
    let hosts = hosts.join(",");
    match route {
        None => format!("site {hosts}"),
        Some(route) => {
            let path = match &route.path {
                PathMatch::Prefix(path) => format!("{path}*"),
                PathMatch::Exact(path) => path.clone(),
            };
            let (methods, headers) = (&route.methods, &route.headers);
            let conditions =
                match methods.is_empty() && headers.is_empty() && route.query.is_empty() {
                    true => String::new(),
                    false => format!(" {methods:?} {headers:?} {:?}", route.query),
                };
            format!("site {hosts}, route {path}{conditions}")
        }
    }
}

//! The life of one request: match, decide, rewrite, connect, send, rewrite, answer, log.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{
    ACCEPT, ALT_SVC, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderValue, LOCATION,
    SET_COOKIE,
};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;

use super::answer::{self, ExchangeError};
use super::attempts::{Answered, Attempts, own_host};
use super::body::{Progress, RequestBody, ResponseBody};
use super::forward_auth::{self, Verdict};
use super::head::{ConnectionFacts, RequestHead, ResponseHead, ResponseSource};
use super::headers::{self, Forwarding, X_REQUEST_ID};
use super::hints::Hints;
use super::incoming::Incoming;
use super::tapped::reshape;
use super::tunnel::Client;
use super::websocket::Wish;
use super::{echo, files, mirror, tunnel};
use crate::bounds::{Pace, Reason};
use crate::config::policies::ForwardAuth;
use crate::config::{
    self, ForwardCertificate, OnError, Paths, RouteAction, Scheme, Server, SplitBy,
};
use crate::fault::{Fault, describe};
use crate::generation::SiteUses;
use crate::otlp;
use crate::plugin::{Called, Decision, Hooked, Mode, Placed, PluginError, Tap};
use crate::policy::{Admission, Pass, Policy};
use crate::proxy::{Ends, Origin};
use crate::route::{path, split_authority};
use crate::telemetry::{Counters, Record};
use crate::tls::TlsFacts;
use crate::upstream::{self, Lease, Upstream, UpstreamError};
use crate::worker::{View, Worker};

/// A client's connection, as its exchanges need it.
pub struct Connection {
    /// The worker it lives on.
    pub worker: Rc<Worker>,
    /// What is known about it.
    pub facts: Arc<ConnectionFacts>,
    /// How the client reached the gateway.
    pub scheme: Scheme,
    /// The address that it came to.
    pub local: SocketAddr,
    /// The forwarding fields of the authority last seen, since most connections see but one.
    pub forwarding: RefCell<Option<Forwarding>>,
    /// What tells the client of HTTP/3 (RFC 7838), where it could come over that and does not.
    pub alt_svc: Option<HeaderValue>,
}

impl Connection {
    /// The connection as servers are told of it.
    fn origin(&self) -> Origin {
        let ends = Ends { source: self.facts.client, destination: self.local };
        let name = self.facts.tls.as_ref().and_then(|tls| tls.server_name.clone());
        Origin { ends, authority: name }
    }
}

/// Where an exchange goes.
enum Target {
    Upstream(Arc<str>),
    Answer(ResponseHead, Bytes),
    Reply(ResponseHead, ResponseBody),
    Files(Arc<config::Files>),
}

/// One exchange under way.
struct Exchange<'a> {
    connection: &'a Connection,
    view: Rc<View>,
    facts: Arc<ConnectionFacts>,
    head: RequestHead,
    /// Filters that requests of this route meet, in order.
    filters: Vec<usize>,
    /// What upstreams learn of the client's certificate.
    shows: ForwardCertificate,
    /// Where interim responses go.
    hints: Option<Hints>,
    /// The policies that hold for it, until they have been asked.
    policy: Option<Arc<Policy>>,
    /// What they said, for the response.
    pass: Option<Box<Pass>>,
    record: Box<Record>,
    /// Places of use that were called with two versions at hand.
    tried: Vec<usize>,
    /// The cookie that keeps the client on its side of a split, when it has none yet.
    side: Option<HeaderValue>,
}

/// Serves one request. Every failure becomes a response here. `client` is the way to the connection
/// itself, for a request that may leave HTTP; `hints` takes interim responses, where the client can
/// have them.
pub async fn serve(
    connection: &Connection,
    request: Request<Incoming>,
    client: Option<Client>,
    hints: Option<Hints>,
) -> Response<ResponseBody> {
    let mut response = respond(connection, request, client, hints).await;
    if let Some(services) = &connection.alt_svc {
        response.headers_mut().entry(ALT_SVC).or_insert_with(|| services.clone());
    }
    response
}

async fn respond(
    connection: &Connection,
    request: Request<Incoming>,
    client: Option<Client>,
    hints: Option<Hints>,
) -> Response<ResponseBody> {
    let (mut parts, incoming) = request.into_parts();
    let worker = &connection.worker;
    let view = worker.view();
    let mut record = record(connection, &view, &parts);
    let is_head = parts.method == Method::HEAD;
    let finished = |response| if is_head { without_body(response) } else { response };
    // A connection that leaves HTTP in the middle of a body would be read in two ways.
    let client = client.filter(|_| incoming.is_end_stream());
    let wish = Wish::take(&mut parts, client);
    if view.is_short_of_memory(worker) {
        worker.notices.note(Reason::Buffers, Some(connection.facts.client.ip()));
        return finished(refuse(record, &parts.headers, &ExchangeError::Overloaded));
    }
    record.trace = otlp::begin(&mut parts.headers);
    let head = match read_head(connection, parts, Arc::clone(&record.id)) {
        Ok(head) => head,
        Err((fields, error)) => return finished(refuse(record, &fields, &error)),
    };
    record.authority.clone_from(&head.authority);
    if record.is_read() {
        head.target.as_str().clone_into(&mut record.target);
    }
    let trusted = &view.generation.config.trusted_proxies;
    let facts = facts(connection, trusted, &head.headers);
    let mut exchange = Exchange {
        connection,
        view,
        facts,
        head,
        filters: Vec::new(),
        shows: ForwardCertificate::Off,
        hints,
        policy: None,
        pass: None,
        record,
        tried: Vec::new(),
        side: None,
    };
    exchange.record.client = exchange.facts.client.ip();
    finished(exchange.run(incoming, wish).await)
}

/// The response to HEAD: what a GET would have had, but for the body (RFC 9110, section 9.3.2). Not
/// every protocol below leaves that out by itself.
fn without_body(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let length = response.body().size_hint().exact().filter(|length| *length > 0);
    if let Some(length) = length {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    response.map(ResponseBody::completed)
}

impl Exchange<'_> {
    async fn run(&mut self, incoming: Incoming, wish: Option<Wish>) -> Response<ResponseBody> {
        let limits = &self.view.generation.config.limits;
        let progress = Rc::new(Progress::default());
        // Who calls by gRPC may stream what comes now and then.
        let rate = limits.request_body_rate_min.filter(|_| !is_grpc(&self.head.headers));
        let mut body = RequestBody::new(
            incoming,
            limits.request_body_bytes_max,
            Pace::new(rate, limits.rate_grace, limits.request_body_idle),
            Rc::clone(&progress),
            self.connection.worker.shared.memory.share(),
        );
        let decided = self.decide();
        let target = match self.admit(&mut body).await {
            Ok(None) => match decided {
                Ok(target) => self.rewrite(target, &mut body, &progress).await,
                Err(error) => Err(error),
            },
            Ok(Some(answer)) => Ok(answer),
            Err(error) => Err(error),
        };
        match target {
            Ok(Target::Answer(head, body)) => self.answer(head, body),
            Ok(Target::Reply(head, body)) => self.reply(head, body),
            Ok(Target::Files(files)) => match files::answer(&files, &self.head).await {
                Ok((head, body)) => self.reply(head, body),
                Err(error) => self.fail(&error),
            },
            Ok(Target::Upstream(name)) => match self.send(&name, body, &progress, wish).await {
                Ok(response) => response,
                Err(error) => self.fail(&error),
            },
            Err(error) => self.fail(&error),
        }
    }

    /// Host and path to a site and a route; the site's router may choose before its routes do.
    fn decide(&mut self) -> Result<Target, ExchangeError> {
        let view = Rc::clone(&self.view);
        let generation = &view.generation;
        let (host, _) = split_authority(&self.head.authority);
        let site = generation.routes.site(host).ok_or(ExchangeError::UnknownHost)?;
        let uses = generation.sites.get(site).ok_or(ExchangeError::UnknownHost)?;
        let paths = generation.config.sites.get(site).map_or(Paths::Strict, |site| site.paths);
        path::check(self.head.target.path(), paths).map_err(ExchangeError::BadRequest)?;
        self.filters.extend_from_slice(&uses.filters);
        self.policy = generation.policies.of_site(site).cloned();
        self.look_at_client(site)?;
        if let Some(router) = uses.router {
            let decision = self
                .call(router, |hooks, facts, head| hooks.route(facts, head))?
                .unwrap_or(Decision::Continue);
            match decision {
                Decision::Continue => {}
                decision => return target(decision),
            }
        }
        self.route(site, uses)
    }

    /// A site that asks for certificates serves only what came over a handshake under its demand; any
    /// other site learns of none.
    fn look_at_client(&mut self, site: usize) -> Result<(), ExchangeError> {
        let view = Rc::clone(&self.view);
        let generation = &view.generation;
        let front = generation.fronts.of_sites.get(site);
        if front.is_some_and(|front| front.passthrough.is_some()) {
            return Err(ExchangeError::WrongHandshake);
        }
        let clients = front.and_then(|front| front.clients.as_ref());
        let tls = self.facts.tls.as_ref();
        match (clients, tls.and_then(|tls| tls.demand)) {
            (None, None) => return Ok(()),
            (Some(clients), Some(made_under)) if clients.demand == made_under => {}
            (Some(_), _) => return Err(ExchangeError::WrongHandshake),
            (None, Some(_)) => {
                let mut facts = ConnectionFacts::clone(&self.facts);
                facts.tls =
                    tls.map(|tls| Arc::new(TlsFacts { client: None, ..TlsFacts::clone(tls) }));
                self.facts = Arc::new(facts);
                return Ok(());
            }
        }
        let site = generation.config.sites.get(site);
        let site = site.and_then(|site| site.client_certificates.as_ref());
        self.shows = site.map_or(ForwardCertificate::Off, |clients| clients.forward);
        Ok(())
    }

    /// Tells the upstream of the client's certificate, where the site says so. Nobody else can.
    fn show_client(&self, fields: &mut HeaderMap) {
        if self.shows == ForwardCertificate::Off {
            return;
        }
        fields.remove(headers::CLIENT_CERT);
        fields.remove(headers::CLIENT_CERT_CHAIN);
        let client = self.facts.tls.as_ref().and_then(|tls| tls.client.as_ref());
        let Some([leaf, chain]) = client.map(|client| client.fields()) else { return };
        if let Some(leaf) = leaf {
            fields.insert(headers::CLIENT_CERT, leaf.clone());
        }
        if let Some(chain) = chain.as_ref().filter(|_| self.shows == ForwardCertificate::Chain) {
            fields.insert(headers::CLIENT_CERT_CHAIN, chain.clone());
        }
    }

    fn route(&mut self, site: usize, uses: &SiteUses) -> Result<Target, ExchangeError> {
        let generation = &self.view.generation;
        let sites = &generation.config.sites;
        let index = generation.routes.route(sites, site, &self.head, &self.connection.facts);
        let index = index.ok_or(ExchangeError::NoRoute)?;
        self.policy = generation.policies.of_route(site, index).cloned();
        self.filters.extend(uses.routes.get(index).into_iter().flatten().copied());
        let route = sites.get(site).and_then(|site| site.routes.get(index));
        match route.map(|route| &route.action).ok_or(ExchangeError::NoRoute)? {
            RouteAction::Upstream(name) => Ok(Target::Upstream(Arc::from(name.as_str()))),
            RouteAction::Split(split) => {
                let (fields, client) = (&self.head.headers, self.facts.client.ip());
                let key = match &split.by {
                    SplitBy::Chance => lot(&self.head.id, "split"),
                    SplitBy::Key(by) => upstream::number_of(by, fields, client),
                    SplitBy::Sticky(sticky) => {
                        match upstream::sticky::cookie(fields, &sticky.cookie) {
                            Some(drawn) => upstream::number(drawn.as_bytes()),
                            None => {
                                let drawn = format!("{:016x}", lot(&self.head.id, "split"));
                                let is_secure = self.connection.scheme == Scheme::Https;
                                self.side = upstream::sticky::set_cookie(sticky, &drawn, is_secure);
                                upstream::number(drawn.as_bytes())
                            }
                        }
                    }
                };
                let name = upstream::share(&split.shares, key);
                let name = name.ok_or(ExchangeError::Internal("a split has no shares"))?;
                Ok(Target::Upstream(Arc::from(name)))
            }
            RouteAction::Files(files) => Ok(Target::Files(Arc::clone(files))),
            RouteAction::Redirect { status, to } => {
                let (host, _) = split_authority(&self.head.authority);
                let query = self.head.target.query().map(|q| format!("?{q}")).unwrap_or_default();
                let place = fill(to, host, self.head.target.path(), &query);
                let location = HeaderValue::from_str(&place)
                    .map_err(|_| ExchangeError::BadRequest("The target cannot be redirected."))?;
                redirect(*status, location)
            }
            RouteAction::Respond { status, body, content_type } => {
                let (head, body) = fixed_response(*status, body, content_type)
                    .ok_or(ExchangeError::Internal("a route's status is no status"))?;
                Ok(Target::Answer(head, body))
            }
        }
    }

    /// Asks the policies, also about a request that leads nowhere: who may not come learns nothing
    /// else. An answer ends the exchange.
    async fn admit(&mut self, body: &mut RequestBody) -> Result<Option<Target>, ExchangeError> {
        let Some(policy) = self.policy.take() else { return Ok(None) };
        let pass = self.pass.insert(Box::new(Pass::new(policy, &self.head)));
        let admission = pass.admit(self.facts.client.ip(), &mut self.head).await;
        if let Admission::Preflight(headers) = admission.map_err(ExchangeError::Refused)? {
            let (status, source) = (StatusCode::NO_CONTENT, ResponseSource::Gateway);
            return Ok(Some(Target::Answer(
                ResponseHead { status, headers, source },
                Bytes::new(),
            )));
        }
        if let Some(bytes_max) = pass.request_body_bytes_max() {
            body.limit(bytes_max).map_err(broken_body)?;
        }
        if let Some(auth) = pass.forward_auth().cloned()
            && let Some(answer) = self.forward_auth(&auth).await?
        {
            return Ok(Some(answer));
        }
        if let Some(pass) = &mut self.pass {
            pass.rewrite(&mut self.head);
        }
        Ok(None)
    }

    /// Asks the upstream of `forward-auth`. Its no is the answer.
    async fn forward_auth(&mut self, auth: &ForwardAuth) -> Result<Option<Target>, ExchangeError> {
        let view = Rc::clone(&self.view);
        let upstream = view
            .upstream(&auth.upstream)
            .ok_or(ExchangeError::Internal("the upstream is not in this generation"))?;
        let forwarding = self
            .forwarding()
            .ok_or(ExchangeError::BadRequest("The host of the request is not valid."))?;
        let trusted = &view.generation.config.trusted_proxies;
        let is_trusted = headers::is_trusted(self.connection.facts.client.ip(), trusted);
        let show = |fields: &mut HeaderMap| self.show_client(fields);
        let (head, origin) = (&self.head, self.connection.origin());
        let asked = forward_auth::ask(auth, upstream, head, &forwarding, is_trusted, show, &origin);
        match asked.await? {
            Verdict::Yes(fields) => {
                forward_auth::admit(auth, fields, &mut self.head.headers);
                Ok(None)
            }
            Verdict::No(head, body) => Ok(Some(Target::Reply(head, body))),
        }
    }

    /// Lets the filters at the request, in order. One that answers ends the walk.
    async fn rewrite(
        &mut self,
        target: Target,
        body: &mut RequestBody,
        progress: &Rc<Progress>,
    ) -> Result<Target, ExchangeError> {
        // The list does not change under the walk; indices spare a copy of it per request.
        for position in 0..self.filters.len() {
            let Some(&index) = self.filters.get(position) else { break };
            // One that did not start is called all the same: the call says why, once.
            let hooked = self.view.hooks(index).map_or(NOT_STARTED, Placed::hooked);
            if hooked.request {
                let has_body =
                    !matches!(body, RequestBody::Empty) && matches!(target, Target::Upstream(_));
                let called =
                    self.call(index, |hooks, facts, head| hooks.on_request(facts, head, has_body))?;
                if let Some(Called { decision, tap, .. }) = called {
                    if let Some(answer) = answer_of(decision) {
                        return answer;
                    }
                    if let Some(tap) = tap {
                        if tap.mode() == Mode::Transform {
                            reshape(&mut self.head.headers);
                        }
                        let counters = Arc::clone(&self.record.counters);
                        body.tap(tap, self.is_optional(index), counters, progress);
                    }
                }
            }
            if let Some(bytes_max) = hooked.request_body_bytes_max
                && matches!(target, Target::Upstream(_))
            {
                let (prefix, is_whole) = body.prefix(bytes_max).await.map_err(broken_body)?;
                let decided = self.call(index, |hooks, facts, head| {
                    hooks.on_request_body(facts, head, &prefix, is_whole)
                })?;
                if let Some(answer) = decided.and_then(answer_of) {
                    return answer;
                }
            }
        }
        Ok(target)
    }

    /// Calls a plugin about the request. `None` when it failed and may be left out.
    fn call<T>(
        &mut self,
        index: usize,
        hook: impl FnOnce(&Placed, &Arc<ConnectionFacts>, &mut RequestHead) -> Result<T, PluginError>,
    ) -> Result<Option<T>, ExchangeError> {
        let view = Rc::clone(&self.view);
        if view.hooks(index).is_ok_and(Placed::is_on_trial) && !self.tried.contains(&index) {
            self.tried.push(index);
        }
        let outcome = match view.hooks(index) {
            Ok(hooks) => hook(hooks, &self.facts, &mut self.head).map_err(|e| describe(&e)),
            Err(why) => Err(why),
        };
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(cause) => self.excuse(index, cause).map(|()| None),
        }
    }

    /// Whether a plugin's failure leaves the exchange as if the plugin were not there.
    fn is_optional(&self, index: usize) -> bool {
        let generation = &self.view.generation;
        let plugin =
            generation.uses.get(index).and_then(|u| generation.config.plugins.get(&u.plugin));
        plugin.is_some_and(|plugin| plugin.on_error == OnError::FailOpen)
    }

    /// What a plugin's failure means for the exchange: by `on-error`.
    fn excuse(&mut self, index: usize, cause: String) -> Result<(), ExchangeError> {
        Counters::add(&self.record.counters.plugin_failures, 1);
        let generation = &self.view.generation;
        let name = generation.uses.get(index).map(|place| place.plugin.clone()).unwrap_or_default();
        let on_error = generation.config.plugins.get(&name).map(|plugin| &plugin.on_error);
        match on_error {
            Some(OnError::FailOpen) => {
                let text = format!("plugin {name} was left out: {cause}");
                self.record.failure = Some((Fault::Plugin, text));
                Ok(())
            }
            _ => Err(ExchangeError::Plugin(name, cause)),
        }
    }

    /// Sends the request to a server of the upstream and brings the response back.
    async fn send(
        &mut self,
        name: &str,
        mut body: RequestBody,
        progress: &Rc<Progress>,
        wish: Option<Wish>,
    ) -> Result<Response<ResponseBody>, ExchangeError> {
        let view = Rc::clone(&self.view);
        let upstream = view
            .upstream(name)
            .ok_or(ExchangeError::Internal("the upstream is not in this generation"))?;
        if let Some(bytes_max) = self.pass.as_ref().and_then(|pass| pass.buffer_bytes_max())
            && wish.is_none()
            && !is_grpc(&self.head.headers)
        {
            let worker = &self.connection.worker;
            let ahead = body.read_ahead(bytes_max, || !view.is_short_of_memory(worker));
            ahead.await.map_err(broken_body)?;
        }
        let key = upstream.key(&self.head.headers, self.facts.client.ip());
        let place = upstream.place(&[], &key).await.map_err(ExchangeError::Upstream)?;
        let place = place.ok_or(ExchangeError::Internal("the upstream has no server"))?;
        if matches!(place.0.address, Server::Echo) {
            self.note_server(upstream, &place.0);
            let (head, body) = echo::page(&self.head, self.forwarding().as_ref());
            return Ok(self.answer(head, body));
        }
        let mut request = self.request(body, &place.0.address, upstream.preserve_host)?;
        match &wish {
            Some(wish) => wish.ask(request.headers_mut()),
            None => self.mirror(&mut request),
        }
        // A call of gRPC is a conversation from its beginning, also while the server has not spoken yet. A
        // connection that carries nothing else is not kept for that.
        if matches!(place.0.address, Server::H2c(_) | Server::Https(_))
            && self.head.version > http::Version::HTTP_11
            && is_grpc(request.headers())
        {
            progress.talk.set(Some(upstream.timeouts.stream_idle));
        }
        let has_body = !matches!(request.body(), RequestBody::Empty);
        let hints = self.hints.clone();
        let on_interim = |status, fields| {
            if let Some(hints) = &hints {
                hints.put(status, fields);
            }
        };
        let origin = upstream.proxy_protocol.map(|_| self.connection.origin());
        let attempts = Attempts {
            upstream,
            key: &key,
            origin: origin.as_ref(),
            progress,
            on_interim: &on_interim,
            limit: upstream.timeouts.response,
            is_kept: wish.is_none() && upstream.keeps_copies(request.method(), has_body),
        };
        let mut note = |server: &upstream::Server<_>| self.note_server(upstream, server);
        let Answered { sent, server } = attempts.send(request, place, &mut note).await?;
        progress.is_answered.set(true);
        progress.talk.set(Some(upstream.timeouts.stream_idle));
        let (response, lease) = (sent.response, sent.lease);
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.tunnel(response, lease, wish);
        }
        let (parts, incoming) = response.into_parts();
        let mut fields = parts.headers;
        headers::strip_hop_by_hop(&mut fields);
        let is_secure = self.connection.scheme == Scheme::Https;
        if let Some(cookie) = upstream.cookie(&server, &key, is_secure) {
            fields.append(SET_COOKIE, cookie);
        }
        let source = ResponseSource::Upstream;
        let head = ResponseHead { status: parts.status, headers: fields, source };
        let idle = upstream.timeouts.idle;
        let mut body = ResponseBody::upstream(incoming, lease, idle, Rc::clone(progress));
        if self.head.method != Method::HEAD
            && let Err(cause) = body.begin().await
        {
            // Nothing of it has gone out, so that the client can be told.
            upstream.note(&server, None);
            let cause = UpstreamError::Protocol(Arc::clone(&server.label), cause.into());
            return Err(ExchangeError::Upstream(cause));
        }
        self.finish(head, body)
    }

    /// Sends a copy elsewhere, where the route wants that.
    fn mirror(&self, request: &mut Request<RequestBody>) {
        let Some(rules) = self.pass.as_ref().and_then(|pass| pass.mirror()) else { return };
        let who = (self.facts.client.ip(), self.connection.origin());
        let worker = &self.connection.worker;
        mirror::begin(worker, &self.view, rules, request, who, lot(&self.head.id, "mirror"));
    }

    /// Puts the server that is asked into the access-log record.
    fn note_server(
        &mut self,
        upstream: &Upstream<RequestBody>,
        server: &upstream::Server<RequestBody>,
    ) {
        self.record.upstream = Some((Arc::clone(&upstream.name), Arc::clone(&server.label)));
    }

    /// The request for an upstream: origin form, with the fields that tell about the client.
    fn request(
        &mut self,
        body: RequestBody,
        server: &Server,
        preserve_host: bool,
    ) -> Result<Request<RequestBody>, ExchangeError> {
        let trusted = &self.view.generation.config.trusted_proxies;
        let peer = self.connection.facts.client.ip();
        // Filters may still read the request when the response comes, and our own answers go by
        // what the client accepts.
        let mut fields = if self.filters.is_empty() {
            let fields = std::mem::take(&mut self.head.headers);
            if let Some(accept) = fields.get(ACCEPT) {
                self.head.headers.insert(ACCEPT, accept.clone());
            }
            fields
        } else {
            self.head.headers.clone()
        };
        let expects = fields.get(EXPECT).is_some_and(headers::is_continue);
        headers::strip_hop_by_hop(&mut fields);
        if expects && !matches!(body, RequestBody::Empty) {
            // The server has the say whether the body is worth sending (RFC 9110, section 10.1.1).
            fields.insert(EXPECT, HeaderValue::from_static("100-continue"));
        }
        let forwarding = self
            .forwarding()
            .ok_or(ExchangeError::BadRequest("The host of the request is not valid."))?;
        headers::forward(&mut fields, &forwarding, headers::is_trusted(peer, trusted));
        self.show_client(&mut fields);
        if let Some(prefix) = self.pass.as_ref().and_then(|pass| pass.stripped()) {
            fields.insert(headers::X_FORWARDED_PREFIX, prefix.clone());
        }
        if let Ok(id) = HeaderValue::from_str(&self.head.id) {
            fields.insert(X_REQUEST_ID, id);
        }
        let host = match own_host(server, preserve_host) {
            Some(host) => Ok(host),
            None if forwarding.authority == self.head.authority => Ok(forwarding.authority),
            None => HeaderValue::from_str(&self.head.authority),
        };
        let host =
            host.map_err(|_| ExchangeError::BadRequest("The host of the request is not valid."))?;
        fields.insert(HOST, host);
        let mut request = Request::new(body);
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.head.target.clone().into();
        *request.headers_mut() = fields;
        Ok(request)
    }

    /// The forwarding fields for the authority that the client asked for.
    fn forwarding(&self) -> Option<Forwarding> {
        let mut known = self.connection.forwarding.borrow_mut();
        let authority = self.record.authority.as_str();
        if known.as_ref().is_none_or(|known| known.authority != authority) {
            let peer: IpAddr = self.connection.facts.client.ip();
            *known = Forwarding::new(peer, self.record.scheme, authority);
        }
        known.clone()
    }

    /// Joins the two connections of an upgrade.
    fn tunnel(
        &mut self,
        response: Response<Incoming>,
        lease: Lease<RequestBody>,
        wish: Option<Wish>,
    ) -> Result<Response<ResponseBody>, ExchangeError> {
        let (parts, incoming) = response.into_parts();
        let mut fields = parts.headers;
        let wish = wish.filter(|wish| wish.is_granted(&fields));
        let (Some(wish), Incoming::Upgraded(upstream)) = (wish, incoming) else {
            let label = self.record.upstream.as_ref().map(|(_, server)| Arc::clone(server));
            let why = "it switched protocols without being asked".into();
            let cause = UpstreamError::Protocol(label.unwrap_or_default(), why);
            return Err(ExchangeError::Upstream(cause));
        };
        headers::strip_hop_by_hop(&mut fields);
        let status = wish.grant(&mut fields);
        let source = ResponseSource::Upstream;
        let head = ResponseHead { status, headers: fields, source };
        let (head, _) = self.filter_response(head, false)?;
        let answer = ResponseHead { status, ..head };
        let mut record = self.take_record();
        record.status = status.as_u16();
        let client = self.connection.facts.client;
        let place = self.connection.worker.open.place(Some(client), "tunnel");
        let tunnel = tunnel::join(wish.client, *upstream, lease, record, place);
        tokio::task::spawn_local(tunnel);
        Ok(answer::response(answer, ResponseBody::full(Bytes::new())))
    }

    /// Lets the filters at the response, in the opposite order. What of them wants its body comes with
    /// it, and whether it may be left out when it fails.
    fn filter_response(
        &mut self,
        mut response: ResponseHead,
        has_body: bool,
    ) -> Result<(ResponseHead, Vec<(Tap, bool)>), ExchangeError> {
        let mut taps = Vec::new();
        let mut reshapes = false;
        for position in (0..self.filters.len()).rev() {
            let Some(&index) = self.filters.get(position) else { break };
            let view = Rc::clone(&self.view);
            let outcome = match view.hooks(index) {
                Ok(hooks) if !hooks.hooked().response => continue,
                Ok(hooks) => hooks
                    .on_response(&self.facts, &mut self.head, &mut response, has_body)
                    .map_err(|e| describe(&e)),
                Err(why) => Err(why),
            };
            match outcome {
                Ok(called) => {
                    reshapes |= called.reshapes;
                    taps.extend(called.tap.map(|tap| (tap, self.is_optional(index))));
                }
                Err(cause) => self.excuse(index, cause)?,
            }
        }
        if reshapes {
            reshape(&mut response.headers);
        }
        Ok((response, taps))
    }

    fn finish(
        &mut self,
        mut head: ResponseHead,
        mut body: ResponseBody,
    ) -> Result<Response<ResponseBody>, ExchangeError> {
        if let Some(side) = self.side.take() {
            head.headers.append(SET_COOKIE, side);
        }
        let has_body = self.head.method != Method::HEAD && may_have_body(head.status);
        let (mut head, taps) = self.filter_response(head, has_body)?;
        for (tap, is_optional) in taps {
            body = body.tapped(tap, is_optional, Arc::clone(&self.record.counters));
        }
        if let Some(pass) = &self.pass {
            pass.respond(self.head.scheme, &mut head.headers);
            let bytes = http_body::Body::size_hint(&body).exact();
            // What HEAD tells is what GET would get, whose body it does not have.
            let bytes = bytes.filter(|_| self.head.method != Method::HEAD);
            if let Some(coding) = pass.compress(head.status, &mut head.headers, bytes)
                && self.head.method != Method::HEAD
            {
                let Ok(compressed) = body.compressed(coding) else {
                    // The answer about it is not compressed.
                    self.pass = None;
                    return Err(ExchangeError::Internal("there is no memory for an encoder"));
                };
                body = compressed;
            }
        }
        for index in self.tried.drain(..) {
            if let Ok(hooks) = self.view.hooks(index) {
                hooks.answered(&self.head.id, head.status.as_u16());
            }
        }
        let mut record = self.take_record();
        record.status = head.status.as_u16();
        Ok(answer::response(head, body.recorded(record)))
    }

    /// A response of the gateway's or a plugin's own.
    fn answer(&mut self, head: ResponseHead, body: Bytes) -> Response<ResponseBody> {
        self.reply(head, ResponseBody::full(body))
    }

    fn reply(&mut self, head: ResponseHead, body: ResponseBody) -> Response<ResponseBody> {
        match self.finish(head, body) {
            Ok(response) => response,
            Err(error) => {
                self.filters.clear();
                self.fail(&error)
            }
        }
    }

    /// The response for a failure. Filters see it, unless one of them is the failure.
    fn fail(&mut self, error: &ExchangeError) -> Response<ResponseBody> {
        if matches!(error, ExchangeError::Plugin(..)) {
            self.filters.clear();
        }
        self.record.failure = Some((error.fault(), describe(error)));
        if matches!(error, ExchangeError::BodyStalled) {
            let client = Some(self.facts.client.ip());
            self.connection.worker.notices.note(Reason::SlowRequest, client);
        }
        let (mut head, mut body) = match self.fallback(error) {
            Some(fallback) => fallback,
            None => error.answer(&self.head.headers, &self.head.id),
        };
        let page = self.pass.as_ref().and_then(|p| p.error_page(head.status, &self.head.id));
        if let Some(page) = page.filter(|_| !answer::wants_json(&self.head.headers)) {
            head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            body = page.into();
        }
        if let Ok(id) = HeaderValue::from_str(&self.head.id) {
            head.headers.insert(X_REQUEST_ID, id);
        }
        let mut response = self.answer(head, body);
        if matches!(error, ExchangeError::WrongHandshake) {
            response.extensions_mut().insert(answer::LastOfConnection);
        }
        response
    }

    /// What a plugin's failure is answered with, where its `on-error` says so.
    fn fallback(&self, error: &ExchangeError) -> Option<(ResponseHead, Bytes)> {
        let ExchangeError::Plugin(name, _) = error else { return None };
        let plugin = self.view.generation.config.plugins.get(name)?;
        let OnError::Respond(fixed) = &plugin.on_error else { return None };
        fixed_response(fixed.status, &fixed.body, &fixed.content_type)
    }

    fn take_record(&mut self) -> Box<Record> {
        let log = Rc::clone(&self.record.log);
        let counters = Arc::clone(&self.record.counters);
        std::mem::replace(&mut self.record, Box::new(Record::blank(log, counters)))
    }
}

/// A response that the configuration holds; none when its status or type were not checked.
fn fixed_response(status: u16, body: &str, content_type: &str) -> Option<(ResponseHead, Bytes)> {
    let mut headers = HeaderMap::new();
    if let Ok(media) = HeaderValue::from_str(content_type) {
        headers.insert(CONTENT_TYPE, media);
    }
    let status = StatusCode::from_u16(status).ok()?;
    let head = ResponseHead { status, headers, source: ResponseSource::Gateway };
    Some((head, Bytes::copy_from_slice(body.as_bytes())))
}

/// A refusal before there was a head to route by. What follows on the connection is as doubtful.
fn refuse(
    mut record: Box<Record>,
    fields: &HeaderMap,
    error: &ExchangeError,
) -> Response<ResponseBody> {
    record.failure = Some((error.fault(), describe(error)));
    let (head, body) = error.answer(fields, &record.id);
    record.status = head.status.as_u16();
    let mut response = answer::response(head, ResponseBody::full(body).recorded(record));
    response.extensions_mut().insert(answer::LastOfConnection);
    response
}

/// The response for what could not be read as a request.
pub fn refuse_unread(connection: &Connection, error: &ExchangeError) -> Response<ResponseBody> {
    let mut parts = Request::new(()).into_parts().0;
    if let Ok(unknown) = Method::from_bytes(b"-") {
        parts.method = unknown;
    }
    let record = record(connection, &connection.worker.view(), &parts);
    refuse(record, &HeaderMap::new(), error)
}

fn record(connection: &Connection, view: &View, parts: &http::request::Parts) -> Box<Record> {
    let worker = &connection.worker;
    Box::new(Record {
        log: Rc::clone(&worker.access),
        counters: Arc::clone(&worker.counters),
        format: view.generation.config.log.access,
        start: Instant::now(),
        id: worker.ids.next(),
        client: connection.facts.client.ip(),
        method: parts.method.clone(),
        scheme: scheme_text(connection.scheme),
        authority: String::new(),
        target: String::new(),
        version: parts.version,
        tls: connection.facts.tls.clone(),
        via: connection.facts.via.clone(),
        passed: None,
        status: 0,
        upstream: None,
        failure: None,
        bytes_sent: 0,
        sinks: view.generation.sinks(),
        trace: None,
    })
}

/// Checks a request's head and brings it into one form. The fields come back with the error, since
/// the answer depends on them.
#[expect(clippy::result_large_err, reason = "the fields are moved once, and only on a refusal")]
fn read_head(
    connection: &Connection,
    mut parts: http::request::Parts,
    id: Arc<str>,
) -> Result<RequestHead, (HeaderMap, ExchangeError)> {
    let outcome = known_authority(connection, &parts)
        .map_or_else(|| authority(&parts.uri, &parts.headers), Ok);
    let outcome = outcome.and_then(|authority| {
        if parts.method == Method::CONNECT {
            return Err(ExchangeError::Method);
        }
        Ok((authority, target_of(&parts)?))
    });
    let outcome = outcome.and_then(|found| {
        if parts.version > http::Version::HTTP_11 {
            fields_fit_h1(&parts.headers)?;
        }
        Ok(found)
    });
    parts.headers.remove(HOST);
    // Before anything is put in that the client could name there.
    headers::strip_named(&mut parts.headers);
    headers::join_cookies(&mut parts.headers);
    match outcome {
        Ok((authority, target)) => Ok(RequestHead {
            id,
            method: parts.method,
            scheme: connection.scheme,
            authority,
            target,
            version: parts.version,
            headers: parts.headers,
        }),
        Err(error) => Err((parts.headers, error)),
    }
}

/// The target in origin form. What is no path is good for `OPTIONS *` alone (RFC 9112, section 3.2).
fn target_of(parts: &http::request::Parts) -> Result<http::uri::PathAndQuery, ExchangeError> {
    let bad = ExchangeError::BadRequest("The target of the request is not valid.");
    if parts.uri.scheme_str().is_some_and(|scheme| scheme != "https" && scheme != "http") {
        return Err(bad);
    }
    let Some(target) = parts.uri.path_and_query() else { return Err(bad) };
    let is_path = target.path().starts_with('/');
    let is_all = target == "*" && parts.method == Method::OPTIONS;
    // HTTP/1.1 has no other bytes in its first line.
    let is_plain = target.as_str().bytes().all(|b| (0x21..=0x7e).contains(&b));
    match is_plain && (is_path || is_all) {
        // Of `https://host?query`: an empty path is `/` (RFC 9110, section 4.2.3).
        true if target.as_str().starts_with('?') => format!("/{target}").parse().map_err(|_| bad),
        true => Ok(target.clone()),
        false => Err(bad),
    }
}

/// Whether fields of HTTP/2 or HTTP/3 mean the same in HTTP/1.1 (RFC 9113, section 8.2.1).
fn fields_fit_h1(fields: &HeaderMap) -> Result<(), ExchangeError> {
    let is_space = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    let mut values = fields.values().map(HeaderValue::as_bytes);
    if values.any(|value| is_space(value.first()) || is_space(value.last())) {
        return Err(ExchangeError::BadRequest("The value of a field has space around it."));
    }
    if fields.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(ExchangeError::BadRequest("The length of the body is not valid."));
    }
    Ok(())
}

/// The authority, when it is letter by letter the one that this connection last had: it was checked then.
fn known_authority(connection: &Connection, parts: &http::request::Parts) -> Option<String> {
    let known = connection.forwarding.borrow();
    let known = known.as_ref()?.authority.to_str().ok()?;
    let mut hosts = parts.headers.get_all(HOST).iter();
    let said = match (parts.uri.authority(), hosts.next(), hosts.next()) {
        (Some(authority), None, _) => authority.as_str() == known,
        (None, Some(host), None) => host.as_bytes() == known.as_bytes(),
        _ => false,
    };
    said.then(|| known.to_owned())
}

/// The one authority of a request, in lower case: `:authority` or an absolute target, and `host` must
/// not disagree (RFC 9110, section 7.2; RFC 9113, section 8.3.1).
pub(super) fn authority(uri: &http::Uri, fields: &HeaderMap) -> Result<String, ExchangeError> {
    let bad = ExchangeError::BadRequest("The host of the request is missing or not valid.");
    let mut hosts = fields.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(ExchangeError::BadRequest("The request has more than one host."));
    }
    let host = match host.map(HeaderValue::to_str) {
        Some(Ok(text)) => Some(text),
        Some(Err(_)) => return Err(bad),
        None => None,
    };
    let text = match (uri.authority(), host) {
        (Some(authority), Some(host)) if !authority.as_str().eq_ignore_ascii_case(host) => {
            return Err(ExchangeError::BadRequest("The request names two different hosts."));
        }
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => host,
        (None, None) => return Err(bad),
    };
    let is_plain = text
        .bytes()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b':' | b'_' | b'[' | b']'));
    let (name, port) = split_authority(text);
    let has_odd_port =
        port.is_none() && text.len() > name.len() + 2 * usize::from(text.starts_with('['));
    let has_two_ports = !text.starts_with('[') && name.contains(':');
    if text.is_empty() || name.is_empty() || !is_plain || has_odd_port || has_two_ports {
        return Err(bad);
    }
    Ok(text.to_ascii_lowercase())
}

/// The connection's facts, with the client that a trusted proxy vouched for.
fn facts(
    connection: &Connection,
    trusted: &[ipnet::IpNet],
    fields: &HeaderMap,
) -> Arc<ConnectionFacts> {
    let peer: SocketAddr = connection.facts.client;
    if trusted.is_empty() {
        return Arc::clone(&connection.facts);
    }
    let client = headers::client(peer, trusted, fields);
    if client == peer {
        return Arc::clone(&connection.facts);
    }
    Arc::new(ConnectionFacts { client, ..(*connection.facts).clone() })
}

/// A number that chance gives a request, another one for each purpose.
fn lot(id: &str, purpose: &str) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(&(id, purpose), &mut hasher);
    std::hash::Hasher::finish(&hasher)
}

/// Whether this is a call of gRPC.
fn is_grpc(fields: &HeaderMap) -> bool {
    let media = fields.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    media.is_some_and(|media| media.starts_with(b"application/grpc"))
}

/// Whether a response of this status has a body (RFC 9110, section 6.4.1).
fn may_have_body(status: StatusCode) -> bool {
    !status.is_informational()
        && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

fn broken_body(error: super::body::BodyError) -> ExchangeError {
    match error {
        super::body::BodyError::Plugin(name, cause) => ExchangeError::Plugin(name, cause),
        super::body::BodyError::TooLarge => ExchangeError::BodyTooLarge,
        super::body::BodyError::Idle => ExchangeError::BodyStalled,
        super::body::BodyError::Stream(_)
        | super::body::BodyError::File(_)
        | super::body::BodyError::Encoder(_) => {
            ExchangeError::BadRequest("The body of the request broke off.")
        }
    }
}

/// A filter's decision, when it ends the walk: the answer.
fn answer_of(decision: Decision) -> Option<Result<Target, ExchangeError>> {
    match decision {
        Decision::Redirect { .. } | Decision::Respond { .. } => Some(target(decision)),
        Decision::Continue | Decision::Upstream(_) => None,
    }
}

fn target(decision: Decision) -> Result<Target, ExchangeError> {
    match decision {
        Decision::Upstream(name) => Ok(Target::Upstream(name)),
        Decision::Redirect { status, location } => {
            let answer = redirect(status, location)?;
            Ok(match answer {
                Target::Answer(head, body) => {
                    Target::Answer(ResponseHead { source: ResponseSource::Plugin, ..head }, body)
                }
                other => other,
            })
        }
        Decision::Respond { status, headers, body } => Ok(Target::Answer(
            ResponseHead { status, headers, source: ResponseSource::Plugin },
            body,
        )),
        Decision::Continue => Err(ExchangeError::NoRoute),
    }
}

fn redirect(status: u16, location: HeaderValue) -> Result<Target, ExchangeError> {
    let status = StatusCode::from_u16(status)
        .map_err(|_| ExchangeError::Internal("a redirect's status is no status"))?;
    let mut fields = HeaderMap::new();
    fields.insert(LOCATION, location);
    let head = ResponseHead { status, headers: fields, source: ResponseSource::Gateway };
    Ok(Target::Answer(head, Bytes::new()))
}

/// Fills a redirect's template in one pass, so that what a request brings in is not filled again.
fn fill(template: &str, host: &str, path: &str, query: &str) -> String {
    // A path that begins with two slashes would name another host.
    let path = format!("/{}", path.trim_start_matches('/'));
    let mut place = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        place.push_str(before);
        let known = [("host}", host), ("path}", path.as_str()), ("query}", query)];
        match known.into_iter().find_map(|(key, value)| Some((after.strip_prefix(key)?, value))) {
            Some((after, value)) => {
                place.push_str(value);
                rest = after;
            }
            None => {
                place.push('{');
                rest = after;
            }
        }
    }
    place.push_str(rest);
    place
}

fn scheme_text(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    }
}

/// What to call of a filter whose instance did not start.
const NOT_STARTED: Hooked = Hooked { request: true, request_body_bytes_max: None, response: true };

//! What the local ACME server is asked (RFC 8555, section 7), from a path and a signed body to an
//! answer.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use rcgen::{CertificateSigningRequestParams, DnType, DnValue, SanType};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::check::Look;
use super::jws::{Header, PublicKey, Unverified};
use super::problem::Problem;
use super::records::{
    ACCOUNTS, Account, Challenge, Issued, ORDERS, Order, Proof, Records, account_item, is_id,
    issued_item, key_item, order_item, random, serial_text,
};
use crate::clock::Timestamp;
use crate::config::{HostPattern, Hostname};
use crate::hex;
use crate::store::{Store, StoreError};
use crate::tls::local::{LocalCa, LocalCaError};

/// What the server works with.
pub struct Desk {
    local: Arc<LocalCa>,
    store: Arc<Store>,
    /// How names are looked at; replaced by a reload.
    pub look: Mutex<Look>,
    lately: Mutex<Lately>,
    looks: Semaphore,
}

/// What is forgotten with the process.
#[derive(Default)]
struct Lately {
    /// Nonces that were given and have not come back, the last ones last.
    nonces: VecDeque<String>,
    /// When orders were made.
    orders: VecDeque<Timestamp>,
    /// Challenges that are being looked at.
    under_way: HashSet<String>,
}

/// An answer, before it is one of HTTP.
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The body and its type; none when it is empty.
    pub body: Option<(&'static str, String)>,
    /// `location`.
    pub location: Option<String>,
    /// `retry-after`.
    pub retry_after: Option<Duration>,
    /// What it belongs to (`link`, relation `up`).
    pub up: Option<String>,
    /// Whether a nonce goes with it.
    pub has_nonce: bool,
}

/// A request whose signature is good.
struct Asked {
    /// The server's URL, as the client calls it.
    base: String,
    header: Header,
    key: PublicKey,
    /// The account; none when the request came with a key.
    account: Option<(String, Account)>,
    payload: Vec<u8>,
}

impl Desk {
    /// For a CA, with what it remembers in a store.
    pub fn new(local: Arc<LocalCa>, store: Arc<Store>, look: Look) -> Self {
        Self {
            local,
            store,
            look: Mutex::new(look),
            lately: Mutex::default(),
            looks: Semaphore::new(LOOKS_MAX),
        }
    }

    /// Answers a request that only reads and is not signed.
    ///
    /// # Errors
    /// When there is nothing at the path.
    pub fn get(&self, base: &str, path: &[&str]) -> Result<Reply, Problem> {
        match path {
            ["directory"] => Ok(Reply::json(StatusCode::OK, &directory(base))),
            ["new-nonce"] => Ok(Reply::empty(StatusCode::NO_CONTENT)),
            ["renewal-info", id] => self.renewal_info(id),
            _ => Err(Problem::new("notFound", "there is nothing here; begin at /directory")),
        }
    }

    /// Answers a signed request.
    ///
    /// # Errors
    /// What the client is told.
    pub fn post(
        self: &Arc<Self>,
        base: &str,
        path: &[&str],
        body: &[u8],
    ) -> Result<Reply, Problem> {
        let unverified = Unverified::parse(body)?;
        let header = unverified.header.clone();
        if header.url != format!("{base}/{}", path.join("/")) {
            return Err(Problem::new("unauthorized", "the signed URL is not the one asked for"));
        }
        let account = match (&header.jwk, &header.kid) {
            (Some(_), None) => None,
            (None, Some(kid)) => Some(self.account(base, kid)?),
            _ => return Err(Problem::malformed("either `jwk` or `kid` belongs in the header")),
        };
        let key = match (&account, &header.jwk) {
            (Some((_, account)), _) => PublicKey::from_jwk(&account.jwk)?,
            (None, jwk) => PublicKey::from_jwk(jwk.as_ref().unwrap_or(&Value::Null))?,
        };
        let payload = unverified.verified(&key)?;
        // Last, so that nobody else can use it up.
        self.take_nonce(header.nonce.as_deref())?;
        let base = base.to_owned();
        let asked = Asked { base, header, key, account, payload };
        match (path, asked.account.is_some()) {
            (["new-account"], false) => self.new_account(&asked),
            (["revoke-cert"], _) => self.revoke(&asked),
            (_, false) => Err(Problem::malformed("this is signed for by an account: `kid`")),
            (["new-order"], _) => self.new_order(&asked),
            (["account", _], _) => self.change_account(&asked),
            (["account", _, "orders"], _) => self.orders_of(&asked),
            (["key-change"], _) => self.change_key(&asked),
            (["order", id], _) => self.order(&asked, id).map(|order| asked.shown(&order, id)),
            (["order", id, "finalize"], _) => self.finalize(&asked, id),
            (["authorization", id, at], _) => self.authorization(&asked, id, at),
            (["challenge", id, at, kind], _) => self.challenge(&asked, id, at, kind),
            (["certificate", serial], _) => self.certificate(&asked, serial),
            _ => Err(Problem::new("notFound", "there is nothing here; begin at /directory")),
        }
    }

    /// A nonce for the next request.
    pub fn nonce(&self) -> Option<String> {
        let nonce = random()?;
        let mut lately = self.lately();
        if lately.nonces.len() >= NONCES_MAX {
            lately.nonces.pop_front();
        }
        lately.nonces.push_back(nonce.clone());
        Some(nonce)
    }

    fn take_nonce(&self, nonce: Option<&str>) -> Result<(), Problem> {
        let mut lately = self.lately();
        let known = lately.nonces.iter().position(|one| Some(one.as_str()) == nonce);
        match known.and_then(|at| lately.nonces.remove(at)) {
            Some(_) => Ok(()),
            None => Err(Problem::new("badNonce", "the nonce is used up; take the one given here")),
        }
    }

    fn lately(&self) -> MutexGuard<'_, Lately> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn records(&self) -> Records<'_> {
        Records(&self.store)
    }

    fn account(&self, base: &str, kid: &str) -> Result<(String, Account), Problem> {
        let id = kid.strip_prefix(base).and_then(|rest| rest.strip_prefix("/account/"));
        let id = id.filter(|id| is_id(id)).unwrap_or("none");
        let known = self.records().read::<Account>(&account_item(id)).map_err(internal)?;
        let unknown = || Problem::new("accountDoesNotExist", "there is no such account here");
        let account = known.ok_or_else(unknown)?;
        if account.is_deactivated {
            return Err(Problem::new("unauthorized", "the account is deactivated"));
        }
        Ok((id.to_owned(), account))
    }

    /// RFC 8555, section 7.3.
    fn new_account(&self, asked: &Asked) -> Result<Reply, Problem> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Wish {
            contact: Vec<String>,
            only_return_existing: bool,
        }
        let wish: Wish = asked.read()?;
        if let Some((id, account)) = self.records().account_of(&asked.key).map_err(internal)? {
            if account.is_deactivated {
                return Err(Problem::new("unauthorized", "the account is deactivated"));
            }
            return Ok(asked.account_shown(StatusCode::OK, &id, &account));
        }
        if wish.only_return_existing {
            return Err(Problem::new("accountDoesNotExist", "this key has no account here"));
        }
        if self.store.list(ACCOUNTS).map_err(internal)?.len() >= ACCOUNTS_MAX {
            return Err(Problem::limited("there are too many accounts", DAY));
        }
        let contact = contact(wish.contact)?;
        let account = Account { jwk: asked.key.jwk().clone(), contact, is_deactivated: false };
        let id = random().ok_or_else(no_randomness)?;
        let records = self.records();
        records.write(&account_item(&id), &account).map_err(internal)?;
        records.write(&key_item(&asked.key.thumbprint()), &id).map_err(internal)?;
        tracing::info!(account = id, "the local ACME server has a new account");
        Ok(asked.account_shown(StatusCode::CREATED, &id, &account))
    }

    /// RFC 8555, sections 7.3.2 and 7.3.6.
    fn change_account(&self, asked: &Asked) -> Result<Reply, Problem> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Wish {
            contact: Option<Vec<String>>,
            status: Option<String>,
        }
        let (id, account) = asked.member()?;
        if asked.header.url != asked.url(&format!("account/{id}")) {
            return Err(Problem::new("unauthorized", "that is another account"));
        }
        let wish: Wish = asked.read()?;
        if wish.contact.is_none() && wish.status.is_none() {
            return Ok(asked.account_shown(StatusCode::OK, id, account));
        }
        let next = Account {
            jwk: account.jwk.clone(),
            contact: wish.contact.map_or(Ok(account.contact.clone()), contact)?,
            is_deactivated: wish.status.as_deref() == Some("deactivated"),
        };
        self.records().write(&account_item(id), &next).map_err(internal)?;
        Ok(asked.account_shown(StatusCode::OK, id, &next))
    }

    /// RFC 8555, section 7.1.2.1.
    fn orders_of(&self, asked: &Asked) -> Result<Reply, Problem> {
        let (id, _) = asked.member()?;
        if asked.header.url != asked.url(&format!("account/{id}/orders")) {
            return Err(Problem::new("unauthorized", "that is another account"));
        }
        let mut urls = Vec::new();
        for item in self.store.list(ORDERS).map_err(internal)? {
            let order = self.records().read::<Order>(&item).map_err(internal)?;
            let name = item.rsplit('/').next().and_then(|name| name.strip_suffix(".json"));
            if let Some(name) = name.filter(|_| order.is_some_and(|order| order.account == *id)) {
                urls.push(asked.url(&format!("order/{name}")));
            }
        }
        Ok(Reply::json(StatusCode::OK, &json!({"orders": urls})))
    }

    /// RFC 8555, section 7.3.5.
    fn change_key(&self, asked: &Asked) -> Result<Reply, Problem> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Change {
            account: String,
            old_key: Value,
        }
        let (id, account) = asked.member()?;
        let inner = Unverified::parse(&asked.payload)?;
        let key = PublicKey::from_jwk(inner.header.jwk.as_ref().unwrap_or(&Value::Null))?;
        if inner.header.url != asked.header.url {
            return Err(Problem::malformed("the inner signature is for another URL"));
        }
        let change: Change = serde_json::from_slice(&inner.verified(&key)?)
            .map_err(|cause| Problem::malformed(cause.to_string()))?;
        let is_old = PublicKey::from_jwk(&change.old_key).is_ok_and(|old| old == asked.key);
        if change.account != asked.url(&format!("account/{id}")) || !is_old {
            return Err(Problem::malformed("the change is about another account or key"));
        }
        let records = self.records();
        if records.account_of(&key).map_err(internal)?.is_some() {
            return Err(Problem::malformed("the new key has an account already"));
        }
        let next = Account { jwk: key.jwk().clone(), ..account.clone() };
        records.write(&key_item(&key.thumbprint()), id).map_err(internal)?;
        records.write(&account_item(id), &next).map_err(internal)?;
        self.store.remove(&key_item(&asked.key.thumbprint())).map_err(internal)?;
        Ok(asked.account_shown(StatusCode::OK, id, &next))
    }

    /// RFC 8555, section 7.4.
    fn new_order(&self, asked: &Asked) -> Result<Reply, Problem> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Wish {
            identifiers: Vec<Identifier>,
            not_before: Option<String>,
            not_after: Option<String>,
            profile: Option<String>,
            replaces: Option<String>,
        }
        #[derive(Deserialize)]
        struct Identifier {
            r#type: String,
            value: String,
        }
        let wish: Wish = asked.read()?;
        let (account, _) = asked.member()?;
        if wish.not_before.is_some() || wish.not_after.is_some() {
            return Err(Problem::malformed("certificates live for a week; leave out when"));
        }
        if let Some(profile) = wish.profile {
            return Err(Problem::new("invalidProfile", format!("there is no profile {profile}")));
        }
        if wish.identifiers.is_empty() || wish.identifiers.len() > NAMES_MAX {
            return Err(Problem::malformed(format!("an order has 1 to {NAMES_MAX} names")));
        }
        let mut proofs = Vec::new();
        let mut seen = BTreeSet::new();
        for Identifier { r#type, value } in wish.identifiers {
            if !["dns", "ip"].contains(&r#type.as_str()) {
                let detail = format!("{type} is neither dns nor ip");
                return Err(Problem::new("unsupportedIdentifier", detail));
            }
            let name = self.signable(&r#type, &value)?;
            if seen.insert(name.to_string()) {
                proofs.push(proof(&name)?);
            }
        }
        let now = Timestamp::now();
        self.has_room(now)?;
        if let Some(replaced) = &wish.replaces {
            self.replace(account, replaced)?;
        }
        let id = random().ok_or_else(no_randomness)?;
        let order = Order {
            account: account.clone(),
            expires: now + ORDER_TIME,
            proofs,
            serial: None,
            replaces: wish.replaces,
        };
        self.records().write(&order_item(&id), &order).map_err(internal)?;
        let mut reply = asked.shown(&order, &id);
        reply.status = StatusCode::CREATED;
        Ok(reply)
    }

    /// A name that the CA signs, and others may have a certificate for.
    fn signable(&self, kind: &str, value: &str) -> Result<HostPattern, Problem> {
        let refused = |why: &str| Problem::new("rejectedIdentifier", why).about(value);
        let name = HostPattern::parse(value).map_err(|_| refused("it is no name of a host"))?;
        if (kind == "ip") != name.ip().is_some() || name == HostPattern::Any {
            return Err(refused("its kind is another one"));
        }
        match self.local.signs_for_others(&name) {
            true => Ok(name),
            false => Err(refused(
                "the local CA signs names of this machine and private ones, or those in \
                 `certificates.local-domains`; ask a public CA for others",
            )),
        }
    }

    /// Counts an order, when there is room for it.
    fn has_room(&self, now: Timestamp) -> Result<(), Problem> {
        let is_recent = |at: &Timestamp| *at + HOUR > now && *at <= now;
        let mut lately = self.lately();
        lately.orders.retain(is_recent);
        if lately.orders.len() >= ORDERS_PER_HOUR {
            let first = lately.orders.front().copied().unwrap_or(now);
            let detail = format!("there are no more than {ORDERS_PER_HOUR} orders in an hour");
            return Err(Problem::limited(detail, now.until(first + HOUR)));
        }
        if self.store.list(ORDERS).map_err(internal)?.len() >= ORDERS_MAX
            && self.records().sweep(now).map_err(internal)? >= ORDERS_MAX
        {
            return Err(Problem::limited("there are too many open orders", HOUR));
        }
        lately.orders.push_back(now);
        Ok(())
    }

    /// Notes that a certificate gets another in its place (RFC 9773, section 5).
    fn replace(&self, account: &str, id: &str) -> Result<(), Problem> {
        let unknown = || Problem::malformed("`replaces` names no certificate of this CA");
        let serial = serial_of(id).ok_or_else(unknown)?;
        let issued = self.records().read::<Issued>(&issued_item(&serial)).map_err(internal)?;
        let issued = issued.filter(|issued| issued.account == *account).ok_or_else(unknown)?;
        if issued.is_replaced {
            return Err(Problem::new("alreadyReplaced", "another order replaces it already"));
        }
        let change = |issued: &mut Issued| issued.is_replaced = true;
        self.records().change(&issued_item(&serial), change).map_err(internal)?;
        Ok(())
    }

    /// An order of the account's; checks that broke off are taken up.
    fn order(self: &Arc<Self>, asked: &Asked, id: &str) -> Result<Order, Problem> {
        let (account, _) = asked.member()?;
        let none = || Problem::new("notFound", "there is no such order");
        let item = if is_id(id) { order_item(id) } else { return Err(none()) };
        let order = self.records().read::<Order>(&item).map_err(internal)?.ok_or_else(none)?;
        if order.account != *account {
            return Err(Problem::new("unauthorized", "that is another account's"));
        }
        for (at, proof) in order.proofs.iter().enumerate() {
            for challenge in proof.challenges.iter().filter(|one| one.status() == "processing") {
                self.begin(&asked.key, id, at, proof, challenge);
            }
        }
        Ok(order)
    }

    /// RFC 8555, sections 7.5 and 7.5.2.
    fn authorization(
        self: &Arc<Self>,
        asked: &Asked,
        id: &str,
        at: &str,
    ) -> Result<Reply, Problem> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Wish {
            status: Option<String>,
        }
        let mut order = self.order(asked, id)?;
        let wish: Wish = asked.read()?;
        let number: usize = at.parse().unwrap_or(usize::MAX);
        if wish.status.as_deref() == Some("deactivated") {
            let changed = self.records().change(&order_item(id), |order: &mut Order| {
                if let Some(proof) = order.proofs.get_mut(number) {
                    proof.is_given_up = true;
                }
            });
            order = changed.map_err(internal)?.unwrap_or(order);
        }
        let proof = order.proofs.get(number);
        let proof = proof.ok_or_else(|| Problem::new("notFound", "there is no such name"))?;
        let now = Timestamp::now();
        let document = proof.document(&order, &asked.base, &format!("{id}/{at}"), now);
        let mut reply = Reply::json(StatusCode::OK, &document);
        reply.retry_after = (proof.status(now, &order) == "pending").then_some(SOON);
        Ok(reply)
    }

    /// RFC 8555, section 7.5.1.
    fn challenge(
        self: &Arc<Self>,
        asked: &Asked,
        id: &str,
        at: &str,
        kind: &str,
    ) -> Result<Reply, Problem> {
        let order = self.order(asked, id)?;
        let number: usize = at.parse().unwrap_or(usize::MAX);
        let find = |order: &Order| {
            let proof = order.proofs.get(number)?;
            let mut all = proof.challenges.iter();
            all.find(|one| one.kind == kind).map(|one| (proof.clone(), one.clone()))
        };
        let none = || Problem::new("notFound", "there is no such challenge");
        let (proof, mut challenge) = find(&order).ok_or_else(none)?;
        let is_open = proof.status(Timestamp::now(), &order) == "pending";
        if !asked.payload.is_empty() && is_open && !challenge.is_asked {
            let changed = self.records().change(&order_item(id), |order: &mut Order| {
                let proof = order.proofs.get_mut(number);
                let mut all = proof.into_iter().flat_map(|proof| &mut proof.challenges);
                if let Some(one) = all.find(|one| one.kind == kind) {
                    one.is_asked = true;
                }
            });
            let changed = changed.map_err(internal)?;
            (_, challenge) = changed.as_ref().and_then(find).ok_or_else(none)?;
            self.begin(&asked.key, id, number, &proof, &challenge);
        }
        let path = format!("{id}/{at}");
        let mut reply = Reply::json(StatusCode::OK, &challenge.document(&asked.base, &path));
        reply.up = Some(asked.url(&format!("authorization/{path}")));
        reply.retry_after = (challenge.status() == "processing").then_some(SOON);
        Ok(reply)
    }

    /// Begins to look, unless that is under way.
    fn begin(
        self: &Arc<Self>,
        key: &PublicKey,
        id: &str,
        at: usize,
        proof: &Proof,
        challenge: &Challenge,
    ) {
        let place = format!("{id}/{at}/{}", challenge.kind);
        if !self.lately().under_way.insert(place.clone()) {
            return;
        }
        let (desk, id, kind) = (Arc::clone(self), id.to_owned(), challenge.kind.clone());
        let (name, token) = (proof.base().to_owned(), challenge.token.clone());
        let key_authorization = format!("{token}.{}", key.thumbprint());
        let look = self.look.lock().unwrap_or_else(PoisonError::into_inner).clone();
        tokio::spawn(async move {
            let _turn = desk.looks.acquire().await;
            let found = match Hostname::parse(&name) {
                Ok(name) => look.at(&kind, &name, &token, &key_authorization).await,
                Err(_) => Err(Problem::malformed("it is no name of a host")),
            };
            tracing::info!(name, challenge = kind, found = found.is_ok(), "looked for a proof");
            let noted = desk.records().change(&order_item(&id), |order: &mut Order| {
                let proof = order.proofs.get_mut(at);
                let mut all = proof.into_iter().flat_map(|proof| &mut proof.challenges);
                if let Some(one) = all.find(|one| one.kind == kind) {
                    match &found {
                        Ok(()) => one.validated = Some(Timestamp::now()),
                        Err(problem) => one.error = Some(problem.clone().about(&name)),
                    }
                }
            });
            if let Err(cause) = noted {
                Problem::internal(&cause);
            }
            desk.lately().under_way.remove(&place);
        });
    }

    /// RFC 8555, section 7.4.
    fn finalize(self: &Arc<Self>, asked: &Asked, id: &str) -> Result<Reply, Problem> {
        #[derive(Deserialize)]
        struct Wish {
            csr: String,
        }
        let order = self.order(asked, id)?;
        let now = Timestamp::now();
        match order.status(now) {
            "ready" => {}
            "valid" => return Ok(asked.shown(&order, id)),
            status => {
                let detail = format!("the order is {status}");
                return Err(Problem::new("orderNotReady", detail));
            }
        }
        let wish: Wish = asked.read()?;
        let bad = |why: String| Problem::new("badCSR", why);
        let csr = URL_SAFE_NO_PAD.decode(&wish.csr).map_err(|cause| bad(cause.to_string()))?;
        let csr = CertificateSigningRequestParams::from_der(&csr.into())
            .map_err(|cause| bad(format!("it cannot be taken: {cause}")))?;
        let wanted: BTreeSet<String> = order.proofs.iter().map(|p| p.name.clone()).collect();
        if names_of(&csr).as_ref() != Some(&wanted) {
            let names: Vec<&str> = wanted.iter().map(String::as_str).collect();
            return Err(bad(format!("its names are not those of the order: {}", names.join(", "))));
        }
        let signed =
            self.local.sign(&order.names(), &csr.public_key).map_err(|cause| match cause {
                LocalCaError::Outside(ref name) => {
                    let name = name.to_string();
                    Problem::new("rejectedIdentifier", cause.to_string()).about(&name)
                }
                cause => Problem::internal(&cause),
            })?;
        let serial = serial_text(&signed.serial);
        let issued = Issued {
            pem: signed.pem,
            account: order.account.clone(),
            not_before: signed.not_before,
            not_after: signed.not_after,
            revoked: None,
            is_replaced: false,
        };
        self.records().write(&issued_item(&serial), &issued).map_err(internal)?;
        let changed = self.records().change(&order_item(id), |order: &mut Order| {
            order.serial = Some(serial.clone());
            order.expires = issued.not_after;
        });
        let order = changed.map_err(internal)?.unwrap_or(order);
        let names: Vec<&str> = wanted.iter().map(String::as_str).collect();
        tracing::info!(names = names.join(", "), serial, "the local CA signed for another tool");
        Ok(asked.shown(&order, id))
    }

    /// RFC 8555, section 7.4.2.
    fn certificate(&self, asked: &Asked, serial: &str) -> Result<Reply, Problem> {
        let (account, _) = asked.member()?;
        let none = || Problem::new("notFound", "there is no such certificate");
        let item = if is_id(serial) { issued_item(serial) } else { return Err(none()) };
        let issued = self.records().read::<Issued>(&item).map_err(internal)?.ok_or_else(none)?;
        if issued.account != *account {
            return Err(Problem::new("unauthorized", "that is another account's"));
        }
        let body = Some(("application/pem-certificate-chain", issued.pem));
        Ok(Reply { body, ..Reply::empty(StatusCode::OK) })
    }

    /// RFC 8555, section 7.6. Nobody asks this CA for lists of what was revoked, and certificates live
    /// for a week; but whoever asks when to renew is told: now.
    fn revoke(&self, asked: &Asked) -> Result<Reply, Problem> {
        #[derive(Deserialize)]
        struct Wish {
            certificate: String,
            reason: Option<u8>,
        }
        let wish: Wish = asked.read()?;
        if !matches!(wish.reason, None | Some(0 | 1 | 3 | 4 | 5 | 9)) {
            let detail = "a subscriber's reason is 0, 1, 3, 4, 5 or 9 (RFC 5280)";
            return Err(Problem::new("badRevocationReason", detail));
        }
        let odd = || Problem::malformed("it is no certificate of this CA");
        let der = URL_SAFE_NO_PAD.decode(&wish.certificate).map_err(|_| odd())?;
        let (_, leaf) = x509_parser::parse_x509_certificate(&der).map_err(|_| odd())?;
        let serial = hex::lower(leaf.raw_serial());
        let item = issued_item(&serial);
        let issued = self.records().read::<Issued>(&item).map_err(internal)?.ok_or_else(odd)?;
        let may = match &asked.account {
            Some((account, _)) => *account == issued.account,
            None => is_key_of(&leaf, &asked.key),
        };
        if !may {
            return Err(Problem::new("unauthorized", "it is another account's"));
        }
        if issued.revoked.is_some() {
            return Err(Problem::new("alreadyRevoked", "it is revoked already"));
        }
        let now = Timestamp::now();
        let change = |issued: &mut Issued| issued.revoked = Some(now);
        self.records().change(&item, change).map_err(internal)?;
        tracing::warn!(serial, "a certificate of the local CA was revoked by its owner");
        Ok(Reply::empty(StatusCode::OK))
    }

    /// RFC 9773, section 4.2.
    fn renewal_info(&self, id: &str) -> Result<Reply, Problem> {
        let none = || Problem::new("notFound", "there is no such certificate");
        let item = issued_item(&serial_of(id).ok_or_else(none)?);
        let issued = self.records().read::<Issued>(&item).map_err(internal)?.ok_or_else(none)?;
        let lifetime = issued.not_before.until(issued.not_after);
        let start = match issued.revoked {
            Some(at) => Timestamp(at.0 - 3600),
            None => issued.not_before + lifetime / 2,
        };
        let end = match issued.revoked {
            Some(at) => at,
            None => start + lifetime / 10,
        };
        let window = json!({"start": start.to_string(), "end": end.to_string()});
        let mut reply = Reply::json(StatusCode::OK, &json!({"suggestedWindow": window}));
        reply.retry_after = Some(6 * HOUR);
        reply.has_nonce = false;
        Ok(reply)
    }
}

impl Asked {
    fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let payload = if self.payload.is_empty() { b"{}" } else { self.payload.as_slice() };
        serde_json::from_slice(payload).map_err(|cause| Problem::malformed(cause.to_string()))
    }

    fn member(&self) -> Result<&(String, Account), Problem> {
        let none = || Problem::malformed("this is signed for by an account: `kid`");
        self.account.as_ref().ok_or_else(none)
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    fn account_shown(&self, status: StatusCode, id: &str, account: &Account) -> Reply {
        let state = if account.is_deactivated { "deactivated" } else { "valid" };
        let mut reply = Reply::json(
            status,
            &json!({
                "status": state,
                "contact": account.contact,
                "orders": self.url(&format!("account/{id}/orders")),
            }),
        );
        reply.location = Some(self.url(&format!("account/{id}")));
        reply
    }

    fn shown(&self, order: &Order, id: &str) -> Reply {
        let now = Timestamp::now();
        let mut reply = Reply::json(StatusCode::OK, &order.document(&self.base, id, now));
        reply.location = Some(self.url(&format!("order/{id}")));
        reply.retry_after = (order.status(now) == "pending").then_some(SOON);
        reply
    }
}

impl Reply {
    /// Nothing but a status.
    fn empty(status: StatusCode) -> Self {
        Self { status, body: None, location: None, retry_after: None, up: None, has_nonce: true }
    }

    fn json(status: StatusCode, body: &Value) -> Self {
        Self { body: Some(("application/json", body.to_string())), ..Self::empty(status) }
    }

    /// What a client is told of a problem.
    pub fn of(problem: &Problem) -> Self {
        let body = problem.document().to_string();
        Self {
            body: Some(("application/problem+json", body)),
            retry_after: problem.retry_after,
            ..Self::empty(problem.status())
        }
    }
}

/// RFC 8555, section 7.1.1.
fn directory(base: &str) -> Value {
    json!({
        "newNonce": format!("{base}/new-nonce"),
        "newAccount": format!("{base}/new-account"),
        "newOrder": format!("{base}/new-order"),
        "revokeCert": format!("{base}/revoke-cert"),
        "keyChange": format!("{base}/key-change"),
        "renewalInfo": format!("{base}/renewal-info"),
        "meta": {"externalAccountRequired": false},
    })
}

fn contact(contact: Vec<String>) -> Result<Vec<String>, Problem> {
    let is_fine = |one: &String| one.len() <= CONTACT_BYTES_MAX && one.starts_with("mailto:");
    match contact.len() <= CONTACTS_MAX && contact.iter().all(is_fine) {
        true => Ok(contact),
        false => Err(Problem::new("unsupportedContact", "a few mailto: URLs, or none")),
    }
}

/// What a name can be proved by (RFC 8555, section 8; RFC 8738, section 4).
fn proof(name: &HostPattern) -> Result<Proof, Problem> {
    let kinds: &[&str] = match (name, name.ip()) {
        (HostPattern::Wildcard(_), _) => &["dns-01"],
        (_, Some(_)) => &["http-01", "tls-alpn-01"],
        (_, None) => &["http-01", "tls-alpn-01", "dns-01"],
    };
    let challenges = kinds.iter().map(|kind| {
        let token = random().ok_or_else(no_randomness)?;
        let kind = (*kind).to_owned();
        Ok(Challenge { kind, token, is_asked: false, validated: None, error: None })
    });
    let challenges = challenges.collect::<Result<_, Problem>>()?;
    Ok(Proof { name: name.to_string(), challenges, is_given_up: false })
}

/// The names in a request for a certificate; none when one of them is nothing that we sign.
fn names_of(csr: &CertificateSigningRequestParams) -> Option<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for san in &csr.params.subject_alt_names {
        names.insert(match san {
            SanType::DnsName(name) => name.as_str().to_ascii_lowercase(),
            SanType::IpAddress(ip) => ip.to_string(),
            _ => return None,
        });
    }
    match csr.params.distinguished_name.get(&DnType::CommonName) {
        Some(DnValue::Utf8String(name)) => names.insert(name.to_ascii_lowercase()),
        Some(DnValue::PrintableString(name)) => names.insert(name.as_str().to_ascii_lowercase()),
        Some(_) => return None,
        None => false,
    };
    Some(names)
}

/// Whether a certificate's key is this one (RFC 8555, section 7.6).
fn is_key_of(leaf: &x509_parser::certificate::X509Certificate<'_>, key: &PublicKey) -> bool {
    key.is_in(&leaf.public_key().subject_public_key.data)
}

/// The serial number in an id of RFC 9773, section 4.1, in hexadecimal.
fn serial_of(id: &str) -> Option<String> {
    let (_, serial) = id.split_once('.')?;
    let serial = URL_SAFE_NO_PAD.decode(serial).ok()?;
    (serial.len() <= 20).then(|| hex::lower(&serial))
}

fn internal(cause: StoreError) -> Problem {
    Problem::internal(&cause)
}

fn no_randomness() -> Problem {
    Problem::new("serverInternal", "this machine gives no randomness")
}

const ACCOUNTS_MAX: usize = 1000;
const ORDERS_MAX: usize = 2000;
const ORDERS_PER_HOUR: usize = 300;
const NAMES_MAX: usize = 100;
const CONTACTS_MAX: usize = 10;
const CONTACT_BYTES_MAX: usize = 256;
const NONCES_MAX: usize = 1000;
/// Looks at the same time; others wait.
const LOOKS_MAX: usize = 16;
/// How long an order waits for its proofs.
const ORDER_TIME: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

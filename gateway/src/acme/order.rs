//! One order from beginning to end. What a kill could lose is stored before the CA hears of it: the
//! certificate's key first, then the order's address, then the certificate with its key as one item.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    AuthorizationState, AuthorizationStatus, CertificateIdentifier, ChallengeType, Identifier,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use super::account::{Member, retry_nonce};
use super::error::{AcmeError, Unvalidated, plain, short};
use super::need::Held;
use super::solve::dns_persist01::{self, Record};
use super::solve::dns01::{Dns01, DnsSolver, Presented, Wanted};
use super::solve::http01::{self, Tokens};
use super::solve::tls_alpn01;
use crate::config::{HostPattern, Hostname};
use crate::store::Store;
use crate::tls::certs::{Certificate, Certs};

/// How control is proved in one order.
#[derive(Clone)]
pub enum Proof {
    /// RFC 8555, section 8.3.
    Http01,
    /// RFC 8737.
    TlsAlpn01,
    /// RFC 8555, section 8.4: the plugin's name and the plugin.
    Dns01(String, Arc<dyn DnsSolver>),
    /// The same at a name of the account's own, where the CA offers it
    /// (draft-ietf-acme-dns-account-label).
    DnsAccount01(String, Arc<dyn DnsSolver>),
    /// A record that is there already.
    DnsPersist01,
}

impl Proof {
    /// The challenge's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Dns01(..) => "dns-01",
            Self::DnsAccount01(..) => DNS_ACCOUNT,
            Self::DnsPersist01 => dns_persist01::CHALLENGE,
        }
    }
}

/// Everything an order works with.
pub struct Desk<'a> {
    /// Where keys and certificates go.
    pub store: &'a Store,
    /// Where TLS-ALPN-01 answers go.
    pub certs: &'a Arc<Certs>,
    /// Where HTTP-01 answers go.
    pub tokens: &'a Arc<Tokens>,
    /// DNS-01.
    pub dns: &'a Dns01,
}

/// What is asked for.
pub struct Request<'a> {
    /// The certificate's name in the store.
    pub name: &'a str,
    /// The names in it.
    pub hosts: &'a [HostPattern],
    /// How control is proved.
    pub proof: Proof,
    /// The profile.
    pub profile: Option<&'a str>,
    /// The common name of the issuer of the last certificate in the chain.
    pub preferred_chain: Option<&'a str>,
    /// Whether the certificate's key is RSA.
    pub is_rsa: bool,
    /// The certificate that this one replaces (RFC 9773, section 5).
    pub replaces: Option<CertificateIdentifier<'static>>,
}

/// An order that is under way, as the store has it.
#[derive(Serialize, Deserialize)]
struct Pending {
    issuer: String,
    hosts: Vec<String>,
    key_pem: String,
    order: Option<String>,
}

/// Obtains a certificate. The result is PEM: key, then chain. Challenges are taken back whatever
/// happens.
///
/// # Errors
/// Why there is none; what was stored then serves the next try.
pub async fn obtain(
    desk: &Desk<'_>,
    member: &Member,
    request: &Request<'_>,
) -> Result<String, AcmeError> {
    let item = format!("acme/orders/{}.json", request.name);
    let (mut order, key_pem) = begin(desk, member, request, &item).await?;
    let outcome = carry_on(desk, member, request, &mut order, &key_pem).await;
    let is_final = match &outcome {
        Ok(_) => true,
        // An order that the CA has given up is of no further use; its key neither.
        Err(_) => matches!(order.state().status, OrderStatus::Invalid),
    };
    if is_final && outcome.is_err() {
        desk.store.remove(&item).map_err(AcmeError::Store)?;
    }
    let chain_pem = outcome?;
    Ok(format!("{key_pem}{chain_pem}"))
}

/// What `need` wants to know of a certificate.
pub fn held(certificate: &Certificate) -> Held {
    Held {
        names: certificate.names.clone(),
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        id: certificate.id.as_deref().map(str::to_owned),
    }
}

/// The id of a certificate (RFC 9773, section 4.1); none without an authority key identifier.
pub fn certificate_id(certificate: &Certificate) -> Option<CertificateIdentifier<'static>> {
    let leaf: &CertificateDer<'_> = certificate.key.cert.first()?;
    CertificateIdentifier::try_from(leaf).ok().map(CertificateIdentifier::into_owned)
}

/// Forgets the order of a certificate that is now stored.
///
/// # Errors
/// When the store refuses.
pub fn finish(store: &Store, name: &str) -> Result<(), AcmeError> {
    store.remove(&format!("acme/orders/{name}.json")).map_err(AcmeError::Store)
}

/// Takes up the order that was under way when the gateway ended, or begins a new one.
async fn begin(
    desk: &Desk<'_>,
    member: &Member,
    request: &Request<'_>,
    item: &str,
) -> Result<(Order, String), AcmeError> {
    let hosts: Vec<String> = request.hosts.iter().map(ToString::to_string).collect();
    let stored = desk.store.read(item).map_err(AcmeError::Store)?;
    let known = stored.and_then(|text| serde_json::from_slice::<Pending>(&text).ok());
    let known = known.filter(|p| p.issuer == member.issuer && p.hosts == hosts);
    if let Some(Pending { order: Some(url), key_pem, .. }) = &known
        && let Ok(mut order) = retry_nonce(|| member.account.order(url.clone())).await
        && !matches!(order.state().status, OrderStatus::Invalid)
    {
        tracing::info!(certificate = request.name, issuer = member.issuer, "order taken up again");
        return Ok((order, key_pem.clone()));
    }
    let key_pem = match known {
        Some(pending) => pending.key_pem,
        None if request.is_rsa => {
            KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).map_err(AcmeError::Make)?.serialize_pem()
        }
        None => KeyPair::generate().map_err(AcmeError::Make)?.serialize_pem(),
    };
    let issuer = member.issuer.clone();
    let mut pending = Pending { issuer, hosts, key_pem: key_pem.clone(), order: None };
    let save = |pending: &Pending| {
        let text = serde_json::to_vec(pending).unwrap_or_default();
        desk.store.write(item, &text).map_err(AcmeError::Store)
    };
    save(&pending)?;
    let order = new_order(member, request).await?;
    pending.order = Some(order.url().to_owned());
    save(&pending)?;
    Ok((order, key_pem))
}

async fn new_order(member: &Member, request: &Request<'_>) -> Result<Order, AcmeError> {
    let identifiers: Vec<Identifier> = request.hosts.iter().map(identifier).collect();
    let mut replaces = request.replaces.as_ref();
    loop {
        let made = retry_nonce(|| async {
            let mut new = NewOrder::new(&identifiers);
            if let Some(profile) = request.profile {
                new = new.profile(profile);
            }
            if let Some(id) = replaces {
                new = new.replaces(id.clone());
            }
            member.account.new_order(&new).await
        });
        match made.await {
            Ok(order) => return Ok(order),
            // The CA knows no renewal information, or that certificate is already replaced: the
            // order is still wanted.
            Err(cause) if replaces.is_some() && concerns_replacement(&cause) => replaces = None,
            Err(cause) => return Err(member.error(cause)),
        }
    }
}

fn concerns_replacement(cause: &instant_acme::Error) -> bool {
    match cause {
        instant_acme::Error::Unsupported(_) => true,
        instant_acme::Error::Other(text) => text.to_string().starts_with("replaces field"),
        instant_acme::Error::Api(problem) => matches!(
            short(problem.r#type.as_deref()).as_str(),
            "alreadyReplaced" | "malformed" | "serverInternal" | "unauthorized"
        ),
        _ => false,
    }
}

fn identifier(host: &HostPattern) -> Identifier {
    match host {
        HostPattern::Exact(name) => match name.ip() {
            Some(ip) => Identifier::Ip(ip),
            None => Identifier::Dns(name.to_string()),
        },
        HostPattern::Wildcard(_) | HostPattern::Any => Identifier::Dns(host.to_string()),
    }
}

async fn carry_on(
    desk: &Desk<'_>,
    member: &Member,
    request: &Request<'_>,
    order: &mut Order,
    key_pem: &str,
) -> Result<String, AcmeError> {
    if matches!(order.state().status, OrderStatus::Pending) {
        let mut answers = Answers::default();
        let proved = prove(desk, member, request, order, &mut answers).await;
        answers.take_back(desk).await;
        proved?;
    }
    if matches!(order.state().status, OrderStatus::Ready) {
        let key = KeyPair::from_pem(key_pem).map_err(AcmeError::Make)?;
        let csr = csr(request.hosts, &key)?;
        // A repeat after a lost answer finds the order already processing.
        let mut tries = FINALIZE_TRIES;
        while let Err(cause) = order.finalize_csr(&csr).await {
            tries -= 1;
            let _ = order.refresh().await;
            if !matches!(order.state().status, OrderStatus::Ready) {
                break;
            }
            if tries == 0 {
                return Err(member.error(cause));
            }
        }
    }
    let chain = poll(member, order).await?;
    let url = order.state().certificate.clone().unwrap_or_default();
    let others = member.other_chains(&url);
    match request.preferred_chain {
        Some(wanted) => Ok(preferred(member, request, chain, others, wanted).await),
        None => Ok(chain),
    }
}

/// Of the chains that the CA offers the one that ends below `wanted`; else the first, which is as good
/// for most.
async fn preferred(
    member: &Member,
    request: &Request<'_>,
    first: String,
    others: Vec<String>,
    wanted: &str,
) -> String {
    let mut tops = Vec::new();
    let mut others = others.into_iter();
    let mut next = Some(first.clone());
    while let Some(chain) = next {
        let top = top_issuer(&chain).unwrap_or_default();
        if top == wanted {
            return chain;
        }
        tops.push(top);
        next = None;
        for url in others.by_ref() {
            match member.text(&url).await {
                Ok(chain) => {
                    next = Some(chain);
                    break;
                }
                Err(cause) => tracing::warn!(certificate = request.name, "no chain {url}: {cause}"),
            }
        }
    }
    let offered = tops.join(", ");
    tracing::warn!(certificate = request.name, offered, "the CA has no chain below {wanted}");
    first
}

/// The common name of the issuer of the last certificate.
fn top_issuer(chain: &str) -> Option<String> {
    let last = CertificateDer::pem_slice_iter(chain.as_bytes()).last()?.ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&last).ok()?;
    let name = parsed.issuer().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

async fn poll(member: &Member, order: &mut Order) -> Result<String, AcmeError> {
    let policy = RetryPolicy::new().timeout(ORDER_TIME);
    let mut tries = FINALIZE_TRIES;
    loop {
        match order.poll_certificate(&policy).await {
            Ok(chain) => return Ok(chain),
            Err(instant_acme::Error::Api(_)) if tries > 0 => tries -= 1,
            Err(cause) => {
                if let Some(problem) = order.state().error.clone() {
                    return Err(member.error(instant_acme::Error::Api(problem)));
                }
                return Err(member.error(cause));
            }
        }
    }
}

/// What was put up for validation, to be taken back.
#[derive(Default)]
struct Answers {
    http: Vec<http01::Answered>,
    tls: Vec<tls_alpn01::Answered>,
    dns: Option<(Presented, Arc<dyn DnsSolver>)>,
}

impl Answers {
    async fn take_back(self, desk: &Desk<'_>) {
        if let Some((presented, solver)) = self.dns
            && let Err(cause) = desk.dns.clean(presented, &solver).await
        {
            tracing::warn!("challenge records are left for the next start: {cause}");
        }
    }
}

async fn prove(
    desk: &Desk<'_>,
    member: &Member,
    request: &Request<'_>,
    order: &mut Order,
    answers: &mut Answers,
) -> Result<(), AcmeError> {
    let wanted = request.proof.name();
    let kind = match request.proof {
        Proof::Http01 => ChallengeType::Http01,
        Proof::TlsAlpn01 => ChallengeType::TlsAlpn01,
        Proof::Dns01(..) => ChallengeType::Dns01,
        Proof::DnsAccount01(..) | Proof::DnsPersist01 => ChallengeType::Unknown(wanted.to_owned()),
    };
    let mut records: Vec<Wanted> = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|cause| member.error(cause))?;
        if matches!(authorization.status, AuthorizationStatus::Valid) {
            continue;
        }
        let host = host(&authorization.identifier().to_string())?;
        if matches!(request.proof, Proof::DnsPersist01) {
            // One record for both, in whatever order the CA names them.
            let is_below =
                |one: &HostPattern| matches!(one, HostPattern::Wildcard(base) if *base == host);
            let is_wildcard = request.hosts.iter().any(is_below);
            let missing = || AcmeError::NoChallenge { host: host.to_string(), wanted };
            let text = member.text(authorization.url()).await?;
            let record =
                Record::wanted(text.as_bytes(), host.as_str(), member.account.id(), is_wildcard);
            let record = record.ok_or_else(missing)?;
            record.look(desk.dns.resolvers()).await.map_err(AcmeError::Setup)?;
            continue;
        }
        let kind = offered(&request.proof, &kind, &authorization);
        let is_own = matches!(kind, ChallengeType::Unknown(_));
        let challenge = authorization.challenge(kind);
        let challenge =
            challenge.ok_or_else(|| AcmeError::NoChallenge { host: host.to_string(), wanted })?;
        let key_authorization = challenge.key_authorization();
        match &request.proof {
            Proof::Http01 => {
                let text = key_authorization.as_str();
                answers.http.push(desk.tokens.present(&challenge.token, text));
            }
            Proof::TlsAlpn01 => {
                let digest = key_authorization.digest();
                let made = tls_alpn01::present(desk.certs, &host, digest.as_ref());
                answers.tls.push(made.map_err(AcmeError::Make)?);
            }
            Proof::Dns01(..) | Proof::DnsAccount01(..) => records.push(Wanted {
                domain: host,
                account: is_own.then(|| member.account.id().to_owned()),
                value: key_authorization.dns_value(),
            }),
            Proof::DnsPersist01 => {}
        }
    }
    if let Proof::Dns01(credential, solver) | Proof::DnsAccount01(credential, solver) =
        &request.proof
        && !records.is_empty()
    {
        let presented = desk.dns.present(credential, solver, &records).await;
        answers.dns = Some((presented.map_err(AcmeError::Dns01)?, Arc::clone(solver)));
    }
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|cause| member.error(cause))?;
        if matches!(authorization.status, AuthorizationStatus::Valid) {
            continue;
        }
        let kind = offered(&request.proof, &kind, &authorization);
        if let Some(mut challenge) = authorization.challenge(kind) {
            let mut tries = FINALIZE_TRIES;
            while let Err(cause) = challenge.set_ready().await {
                tries -= 1;
                if tries == 0 {
                    return Err(member.error(cause));
                }
            }
        }
    }
    await_validation(member, order, wanted).await
}

/// The kind of challenge to take: that of the account's own record only where the CA offers it, since
/// few do, and the usual one proves the same.
fn offered(
    proof: &Proof,
    wanted: &ChallengeType,
    authorization: &AuthorizationState,
) -> ChallengeType {
    let is_offered = authorization.challenges.iter().any(|challenge| challenge.r#type == *wanted);
    match proof {
        Proof::DnsAccount01(..) if !is_offered => ChallengeType::Dns01,
        _ => wanted.clone(),
    }
}

async fn await_validation(
    member: &Member,
    order: &mut Order,
    challenge: &'static str,
) -> Result<(), AcmeError> {
    let policy = RetryPolicy::new().timeout(VALIDATION_TIME);
    let mut tries = FINALIZE_TRIES;
    loop {
        match order.poll_ready(&policy).await {
            Ok(OrderStatus::Invalid) => break,
            Ok(_) => return Ok(()),
            // Some CAs also write the reason into the order.
            Err(instant_acme::Error::Api(_))
                if matches!(order.state().status, OrderStatus::Invalid) =>
            {
                break;
            }
            Err(instant_acme::Error::Api(_)) if tries > 0 => tries -= 1,
            Err(cause) => return Err(member.error(cause)),
        }
    }
    // Which name it was, and why, stands in its authorization.
    let mut names = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let _ = authorization.refresh().await;
        let problem = authorization.challenges.iter().find_map(|c| c.error.clone());
        if let Some(problem) = problem {
            names.push(Unvalidated {
                host: authorization.identifier().to_string(),
                challenge,
                problem: short(problem.r#type.as_deref()),
                detail: plain(&problem.detail.unwrap_or_default()),
            });
        }
    }
    match (names.is_empty(), order.state().error.clone()) {
        // It was not about any of the names.
        (true, Some(problem)) => Err(member.error(instant_acme::Error::Api(problem))),
        _ => Err(AcmeError::NotValidated { issuer: member.issuer.clone(), names }),
    }
}

/// The name to validate, without the `*.` of a wildcard.
fn host(identifier: &str) -> Result<Hostname, AcmeError> {
    let name = identifier.strip_prefix("*.").unwrap_or(identifier);
    Hostname::parse(name).map_err(|cause| AcmeError::Setup(format!("`{name}` {cause}")))
}

fn csr(hosts: &[HostPattern], key: &KeyPair) -> Result<Vec<u8>, AcmeError> {
    let mut params = CertificateParams::default();
    // No common name: the baseline requirements discourage it, and some profiles refuse it.
    params.distinguished_name = rcgen::DistinguishedName::new();
    for host in hosts {
        let san = match host {
            HostPattern::Exact(name) if name.ip().is_some() => name.ip().map(SanType::IpAddress),
            host => host.to_string().try_into().ok().map(SanType::DnsName),
        };
        params.subject_alt_names.extend(san);
    }
    let request = params.serialize_request(key).map_err(AcmeError::Make)?;
    Ok(request.der().to_vec())
}

/// The challenge at a name of the account's own.
const DNS_ACCOUNT: &str = "dns-account-01";
const FINALIZE_TRIES: u32 = 8;
const VALIDATION_TIME: Duration = Duration::from_secs(120);
const ORDER_TIME: Duration = Duration::from_secs(120);

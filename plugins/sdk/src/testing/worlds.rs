//! Doubles for the worlds beside routers, filters and solvers: a ClientHello in hand, a certificate in
//! question.

use std::cell::RefCell;

use crate::{ClientHello, IssuancePolicy};

/// What a plugin decided about a ClientHello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HelloDecision {
    /// To this upstream, unopened.
    PassThrough(String),
    /// As if this server name had been asked for.
    TerminateAs(String),
    /// No, with this alert.
    Refuse(String),
}

/// A ClientHello: of a usual browser from 192.0.2.1, unless said otherwise.
#[derive(Debug, Clone)]
pub struct Hello {
    server_name: Option<String>,
    client_address: String,
    transport: String,
    alpn: Vec<String>,
    versions: Vec<String>,
    ja4: String,
    proxy: Vec<(String, String)>,
    decision: Option<HelloDecision>,
}

impl Hello {
    /// One that asks for this server name; an empty one is none.
    pub fn to(server_name: &str) -> Self {
        let name = server_name.to_ascii_lowercase();
        let texts = |texts: [&str; 2]| texts.map(str::to_owned).to_vec();
        Self {
            server_name: Some(name).filter(|name| !name.is_empty()),
            client_address: "192.0.2.1".to_owned(),
            transport: "tcp".to_owned(),
            alpn: texts(["h2", "http/1.1"]),
            versions: texts(["TLSv1.3", "TLSv1.2"]),
            ja4: "t13d1516h2_8daaf6152771_e5627efa2ab1".to_owned(),
            proxy: Vec::new(),
            decision: None,
        }
    }

    /// Sets the client's address.
    #[must_use]
    pub fn client(mut self, address: &str) -> Self {
        address.clone_into(&mut self.client_address);
        self
    }

    /// Sets what it came over: `tcp` or `quic`.
    #[must_use]
    pub fn over(mut self, transport: &str) -> Self {
        transport.clone_into(&mut self.transport);
        self
    }

    /// Sets the versions that it offers.
    #[must_use]
    pub fn versions(mut self, versions: &[&str]) -> Self {
        self.versions = versions.iter().map(|version| (*version).to_owned()).collect();
        self
    }

    /// Sets its fingerprint.
    #[must_use]
    pub fn ja4(mut self, ja4: &str) -> Self {
        ja4.clone_into(&mut self.ja4);
        self
    }

    /// Has a trusted balancer say something.
    #[must_use]
    pub fn proxy(mut self, key: &str, value: &str) -> Self {
        self.proxy.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Calls the plugin; returns its decision.
    pub fn decide(self, plugin: &impl ClientHello) -> Option<HelloDecision> {
        HELLO.with_borrow_mut(|current| *current = Some(self));
        plugin.on_client_hello();
        HELLO.take().and_then(|hello| hello.decision)
    }
}

/// What a policy decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssuanceDecision {
    /// Yes, by this issuer and with this profile if it names them.
    Allow {
        /// The issuer.
        issuer: Option<String>,
        /// The profile.
        profile: Option<String>,
    },
    /// No, and why.
    Deny(String),
}

/// A certificate in question: configured, by `letsencrypt`, unless said otherwise.
#[derive(Debug, Clone)]
pub struct Question {
    names: Vec<String>,
    reason: String,
    issuers: Vec<String>,
    permission: Option<Result<(), String>>,
    issuer: Option<String>,
    profile: Option<String>,
}

impl Question {
    /// For these names.
    pub fn about(names: &[&str]) -> Self {
        Self {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            reason: "configured".to_owned(),
            issuers: vec!["letsencrypt".to_owned()],
            permission: None,
            issuer: None,
            profile: None,
        }
    }

    /// Sets why it is asked for.
    #[must_use]
    pub fn reason(mut self, reason: &str) -> Self {
        reason.clone_into(&mut self.reason);
        self
    }

    /// Sets the issuers of the configuration.
    #[must_use]
    pub fn issuers(mut self, issuers: &[&str]) -> Self {
        self.issuers = issuers.iter().map(|issuer| (*issuer).to_owned()).collect();
        self
    }

    /// Calls the plugin; returns its decision.
    pub fn decide(self, plugin: &impl IssuancePolicy) -> IssuanceDecision {
        QUESTION.with_borrow_mut(|current| *current = Some(self));
        plugin.decide();
        let Some(question) = QUESTION.take() else {
            return IssuanceDecision::Deny(NOTHING.to_owned());
        };
        match question.permission {
            Some(Ok(())) => {
                IssuanceDecision::Allow { issuer: question.issuer, profile: question.profile }
            }
            Some(Err(why)) => IssuanceDecision::Deny(why),
            None => IssuanceDecision::Deny(NOTHING.to_owned()),
        }
    }
}

/// What a policy that decides nothing says.
const NOTHING: &str = "it decided nothing, which denies";

thread_local! {
    static HELLO: RefCell<Option<Hello>> = const { RefCell::new(None) };
    static QUESTION: RefCell<Option<Question>> = const { RefCell::new(None) };
    static NOTES: RefCell<Vec<(String, String)>> = const { RefCell::new(Vec::new()) };
}

/// What the plugin said with [`report::note`](crate::report::note) on this thread; forgets it.
pub fn noted() -> Vec<(String, String)> {
    NOTES.take()
}

/// The doubles, one module for each interface of `wit/`.
pub(crate) mod host {
    use super::{HELLO, Hello, HelloDecision, NOTES, QUESTION, Question};

    fn with_hello<R>(f: impl FnOnce(&mut Hello) -> R) -> R {
        HELLO.with_borrow_mut(|current| match current {
            Some(hello) => f(hello),
            None => panic!("called outside a handshake: the gateway would trap"),
        })
    }

    fn with_question<R>(f: impl FnOnce(&mut Question) -> R) -> R {
        QUESTION.with_borrow_mut(|current| match current {
            Some(question) => f(question),
            None => panic!("no certificate is in question here: the gateway would trap"),
        })
    }

    pub(crate) mod hello {
        use super::with_hello;

        pub(crate) fn transport() -> String {
            with_hello(|it| it.transport.clone())
        }
        pub(crate) fn server_name() -> Option<String> {
            with_hello(|it| it.server_name.clone())
        }
        pub(crate) fn alpn() -> Vec<String> {
            with_hello(|it| it.alpn.clone())
        }
        pub(crate) fn versions() -> Vec<String> {
            with_hello(|it| it.versions.clone())
        }
        pub(crate) fn cipher_suites() -> Vec<u16> {
            with_hello(|_| vec![0x1301, 0x1302, 0x1303, 0xc02b])
        }
        pub(crate) fn groups() -> Vec<u16> {
            with_hello(|_| vec![0x11ec, 0x001d, 0x0017])
        }
        pub(crate) fn signature_schemes() -> Vec<u16> {
            with_hello(|_| vec![0x0403, 0x0804, 0x0401])
        }
        pub(crate) fn extensions() -> Vec<u16> {
            with_hello(|_| vec![0, 10, 13, 16, 43, 51])
        }
        pub(crate) fn ja4() -> String {
            with_hello(|it| it.ja4.clone())
        }
        pub(crate) fn message() -> Vec<u8> {
            with_hello(|_| vec![1, 0, 0, 0])
        }
        pub(crate) fn client_address() -> String {
            with_hello(|it| it.client_address.clone())
        }
        pub(crate) fn client_port() -> u16 {
            with_hello(|_| 49_152)
        }
        pub(crate) fn local_address() -> String {
            with_hello(|_| "192.0.2.80".to_owned())
        }
        pub(crate) fn local_port() -> u16 {
            with_hello(|_| 443)
        }
        pub(crate) fn proxy(key: &str) -> Option<String> {
            with_hello(|it| {
                it.proxy.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone())
            })
        }
    }

    pub(crate) mod hello_decision {
        use super::{HelloDecision, with_hello};

        pub(crate) fn pass_through(upstream: &str) {
            with_hello(|it| it.decision = Some(HelloDecision::PassThrough(upstream.to_owned())));
        }
        pub(crate) fn terminate_as(name: &str) {
            with_hello(|it| it.decision = Some(HelloDecision::TerminateAs(name.to_owned())));
        }
        pub(crate) fn refuse(alert: &str) {
            with_hello(|it| it.decision = Some(HelloDecision::Refuse(alert.to_owned())));
        }
    }

    pub(crate) mod issuance {
        use super::with_question;

        pub(crate) fn names() -> Vec<String> {
            with_question(|it| it.names.clone())
        }
        pub(crate) fn reason() -> String {
            with_question(|it| it.reason.clone())
        }
        pub(crate) fn issuers() -> Vec<String> {
            with_question(|it| it.issuers.clone())
        }
        pub(crate) fn challenge() -> String {
            with_question(|_| "auto".to_owned())
        }
        pub(crate) fn not_after() -> Option<i64> {
            with_question(|_| None)
        }
        pub(crate) fn allow() {
            with_question(|it| it.permission = Some(Ok(())));
        }
        pub(crate) fn deny(why: &str) {
            with_question(|it| it.permission = Some(Err(why.to_owned())));
        }
        pub(crate) fn use_issuer(name: &str) {
            with_question(|it| {
                assert!(it.issuers.iter().any(|known| known == name), "no issuer {name}");
                it.issuer = Some(name.to_owned());
            });
        }
        pub(crate) fn use_profile(name: &str) {
            with_question(|it| it.profile = Some(name.to_owned()));
        }
    }

    pub(crate) mod report {
        pub(crate) fn note(key: &str, value: &str) {
            super::NOTES.with_borrow_mut(|notes| notes.push((key.to_owned(), value.to_owned())));
        }
    }
}

//! Where a component is tried: in an engine of the gateway's own, with a mock of its provider in the
//! place of the network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::mock::{About, Mock};
use crate::acme::solve::dns01::DnsSolver;
use crate::config::credential::Session;
use crate::config::{self, Manifest};
use crate::fault::describe;
use crate::plugin::{Engine, Plugin, Wire, WireAnswer, WireFuture, WireRequest};

/// A component, and the provider that it meets.
pub(super) struct Stage {
    pub wire: Arc<Counter>,
    pub about: About,
    pub manifest: Option<Manifest>,
    engine: Arc<Engine>,
    component: PathBuf,
    folder: PathBuf,
    secrets: BTreeMap<String, String>,
    loaded: AtomicUsize,
}

/// What is at the other end of the plugin's requests.
#[derive(Default)]
pub(super) struct Counter {
    mock: Option<Arc<Mock>>,
    /// Answers to give instead of the mock's.
    faults: Mutex<Vec<WireAnswer>>,
    /// What was wrong with requests.
    wrongs: Mutex<Vec<String>>,
    /// All that would have been sent.
    sent: Mutex<Vec<u8>>,
    /// All that went into the plugin's memory.
    inside: Mutex<Vec<u8>>,
    requests: AtomicUsize,
    is_silent: AtomicBool,
    is_echo: AtomicBool,
}

/// How a plugin is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// As it asks for.
    Whole,
    /// With nothing granted.
    Barred,
    /// With a second for each call.
    Hasty,
}

impl Stage {
    /// Prepares everything for a component; `folder` is private and empty.
    pub(super) async fn new(
        component: &Path,
        mock: Option<Arc<Mock>>,
        folder: &Path,
    ) -> Result<Self, String> {
        let about = match &mock {
            Some(mock) => mock.about().await?,
            None => About::default(),
        };
        let manifest = Manifest::of_file(component).map_err(|report| report.to_string())?;
        let wanted = manifest.iter().flat_map(|it| it.secrets.keys());
        let accounts = manifest.iter().flat_map(|it| it.sessions.values()).filter_map(account_of);
        let accounts: Vec<String> = accounts.collect();
        let codes: Vec<String> = manifest
            .iter()
            .flat_map(|it| it.sessions.values())
            .filter_map(|session| match session {
                Session::Login { unlock: Some(step), .. } => Some(step.secret.clone()),
                _ => None,
            })
            .collect();
        let secret = |name: &String| {
            let made = match accounts.contains(name) {
                true => service_account(),
                false if codes.contains(name) => "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP".to_owned(),
                false => format!("s3cret-{}", uuid::Uuid::now_v7().simple()),
            };
            (name.clone(), about.secrets.get(name).cloned().unwrap_or(made))
        };
        let engine = Engine::start(folder.join("cache")).map_err(|cause| describe(&cause))?;
        Ok(Self {
            secrets: wanted.map(secret).collect(),
            wire: Arc::new(Counter { mock, ..Counter::default() }),
            about,
            manifest,
            engine,
            component: std::path::absolute(component).map_err(|cause| cause.to_string())?,
            folder: folder.to_owned(),
            loaded: AtomicUsize::new(0),
        })
    }

    /// Loads the component, without anything that an earlier one remembered.
    pub(super) fn load(&self, how: Load) -> Result<Arc<dyn DnsSolver>, String> {
        let number = self.loaded.fetch_add(1, Ordering::Relaxed);
        let name = format!("solver-{number}");
        let own = self.manifest.as_ref().map(|it| it.grants.http.clone()).unwrap_or_default();
        let grants = match how {
            Load::Barred => Vec::new(),
            _ => self.about.grants.clone().unwrap_or(own),
        };
        let deadline = if how == Load::Hasty { "1s" } else { "30s" };
        let mut stanza = json!({
            "component": self.component,
            "secrets": self.secrets,
            "grants": {"http": grants},
            "limits": {"solver-deadline": deadline, "requests": 100},
        });
        if let (false, Some(stanza)) = (self.about.config.is_null(), stanza.as_object_mut()) {
            stanza.insert("config".to_owned(), self.about.config.clone());
        }
        let plugins = Map::from_iter([(name.clone(), stanza)]);
        let respond = json!({"respond": {"status": 200, "body": "x"}});
        let text = json!({
            "plugins": plugins,
            "sites": [{"hosts": ["kit.localhost"], "routes": [respond]}],
        });
        let file = self.folder.join(format!("{name}.yaml"));
        std::fs::write(&file, text.to_string()).map_err(|cause| cause.to_string())?;
        let config = config::load(&file).map_err(|report| report.to_string())?.config;
        let config = config.plugins.get(&name).ok_or("the stanza was not taken")?;
        let wire: Arc<dyn Wire> = Arc::clone(&self.wire) as Arc<dyn Wire>;
        let loaded = self.engine.load_over(&name, config, wire);
        let plugin: Arc<Plugin> = loaded.map_err(|cause| describe(&cause))?;
        match plugin.is("dns-solver") {
            true => Ok(plugin.solver()),
            false => Err(format!("{} is no dns-solver", self.component.display())),
        }
    }

    /// The first secret that went into the plugin's memory in any of its usual forms.
    pub(super) fn leak(&self) -> Option<&str> {
        let inside = self.wire.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let leaks = |text: &String| forms(text).iter().any(|form| holds(&inside, form));
        self.secrets.iter().find(|(_, text)| leaks(text)).map(|(name, _)| name.as_str())
    }

    /// Whether a secret, or something made of one, was sent at all.
    pub(super) fn has_used_a_secret(&self) -> bool {
        let makes = |it: &Manifest| !it.signing.is_empty() || !it.sessions.is_empty();
        let sent = self.wire.sent.lock().unwrap_or_else(PoisonError::into_inner);
        self.secrets.is_empty()
            || self.manifest.as_ref().is_some_and(makes)
            || self.secrets.values().any(|text| forms(text).iter().any(|form| holds(&sent, form)))
    }
}

impl Counter {
    pub(super) fn mock(&self) -> Result<&Arc<Mock>, String> {
        self.mock.as_ref().ok_or_else(|| super::NEEDS_MOCK.to_owned())
    }

    /// The next request gets this answer.
    pub(super) fn fail_once(&self, answer: WireAnswer) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
    }

    /// Whether nothing is answered at all.
    pub(super) fn set_silent(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::Relaxed);
    }

    /// Whether all that is sent comes back, in a field.
    pub(super) fn set_echo(&self, is_echo: bool) {
        self.is_echo.store(is_echo, Ordering::Relaxed);
    }

    /// What was wrong since the last time, and how many requests there were.
    pub(super) fn take(&self) -> (Option<String>, usize) {
        let mut wrongs = self.wrongs.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut *wrongs).into_iter().next(), self.requests.swap(0, Ordering::Relaxed))
    }

    async fn reply(&self, written: &WireRequest, sent: &WireRequest) -> WireAnswer {
        if let Some(fault) = self.faults.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return fault;
        }
        let reply = match self.mock() {
            Ok(mock) => mock.request(written, sent).await,
            Err(_) => return WireAnswer { status: 200, ..WireAnswer::default() },
        };
        let (answer, wrong) = match reply {
            Ok(reply) => reply.parts(),
            Err(why) => (WireAnswer { status: 501, ..WireAnswer::default() }, Some(why)),
        };
        if let Some(wrong) = wrong {
            let line = format!("{} {}: {wrong}", written.method, written.url);
            self.wrongs.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
        answer
    }
}

impl Wire for Counter {
    fn answer(&self, written: WireRequest, sent: WireRequest) -> WireFuture<'_> {
        Box::pin(async move {
            self.requests.fetch_add(1, Ordering::Relaxed);
            if self.is_silent.load(Ordering::Relaxed) {
                return std::future::pending().await;
            }
            let mut all = format!("{} ", sent.url).into_bytes();
            for (name, value) in &sent.headers {
                all.extend_from_slice(format!("{name}: {value} ").as_bytes());
            }
            all.extend_from_slice(&sent.body);
            self.sent.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&all);
            let mut answer = self.reply(&written, &sent).await;
            if self.is_echo.load(Ordering::Relaxed) {
                let echo = String::from_utf8_lossy(&all).replace(['\r', '\n'], " ");
                answer.headers.push(("x-echo".to_owned(), echo));
            }
            answer
        })
    }

    fn token(&self, session: &Session) -> WireAnswer {
        let token = format!("t0ken-{}", uuid::Uuid::now_v7().simple());
        let mut answer = WireAnswer { status: 200, ..WireAnswer::default() };
        let mut body = json!({"access_token": token, "expires_in": 600});
        if let Session::Login { token: at, cookie, expect, .. } = session {
            body = json!({});
            for (at, value) in expect {
                place(&mut body, at, value.clone());
            }
            if let Some(at) = at {
                place(&mut body, at, token.as_str().into());
            }
            if let Some(cookie) = cookie {
                answer.headers.push(("set-cookie".to_owned(), format!("{cookie}={token}; path=/")));
            }
        }
        answer.body = body.to_string().into_bytes();
        answer
    }

    fn handed_over(&self, answer: &WireAnswer) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, value) in &answer.headers {
            inside.extend_from_slice(format!("{name}: {value}\n").as_bytes());
        }
        inside.extend_from_slice(&answer.body);
    }
}

/// Puts a value where a JSON pointer (RFC 6901) of object keys says.
fn place(body: &mut Value, pointer: &str, value: Value) {
    let mut at = body;
    for key in pointer.split('/').skip(1) {
        if !at.is_object() {
            *at = json!({});
        }
        let Some(map) = at.as_object_mut() else { return };
        at = map.entry(key).or_insert(Value::Null);
    }
    *at = value;
}

/// The secret that holds the key of a service account.
fn account_of(session: &Session) -> Option<String> {
    match session {
        Session::JwtBearer { key, .. } => Some(key.clone()),
        _ => None,
    }
}

/// The JSON of a service account, with the example key of RFC 7515.
fn service_account() -> String {
    json!({
        "client_email": "kit@project.example",
        "private_key_id": "kit",
        "private_key": include_str!("../plugin/signing/rfc7515-a2.pem"),
    })
    .to_string()
}

/// A secret as it is, in Base64, percent-encoded, and as JSON has it.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let percent: String = secret
        .bytes()
        .map(|byte| match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect();
    let json = Value::from(secret).to_string();
    let json = json.trim_matches('"').to_owned();
    let base64 = [STANDARD.encode(secret), URL_SAFE_NO_PAD.encode(secret)];
    let mut forms = vec![secret.to_owned(), percent, json];
    forms.extend(base64);
    forms.into_iter().map(String::into_bytes).collect()
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len().max(1)).any(|window| window == part)
}

/// How long a call that is not answered may take, with its second and what a slow machine adds.
pub(super) const HASTY_MAX: Duration = Duration::from_secs(10);

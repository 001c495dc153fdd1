//! Plugins that are asked about certificates, and those that take what has happened.

use std::pin::Pin;
use std::sync::Arc;

use wasmtime::component::ComponentExportIndex;

use super::error::PluginError;
use super::host::Host;
use super::host::issuance::Case;
use super::host::report::Notes;
use super::stats::Hook;
use super::{Plugin, fiber};
use crate::acme::policy::{Denied, Policy, Question, Ruling};
use crate::feed::Taker;

type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A plugin that says which names may have a certificate.
pub(super) struct Judge(Arc<Plugin>);

impl Judge {
    pub(super) fn new(plugin: Arc<Plugin>) -> Self {
        Self(plugin)
    }

    async fn ruling(&self, question: Question) -> Result<Ruling, Denied> {
        let plugin = &*self.0;
        let failed = |error: PluginError| Denied::Unclear(masked(plugin, &error.to_string()));
        let index = export(plugin, "issuance-policy", plugin.compiled.exports.decide.as_ref());
        let index = index.map_err(failed)?;
        let prepare = |host: &mut Host| {
            let case = Case { question, permission: None, ruling: Ruling::default() };
            host.issuance = Some(case);
        };
        let take = |host: &mut Host| (host.issuance.take(), std::mem::take(&mut host.notes));
        let called = fiber::call::<(), (), _>(plugin, Hook::Decide, index, prepare, (), take).await;
        let ((), (case, notes)) = called.map_err(failed)?;
        let permission = case.map(|case| (case.permission, case.ruling));
        match permission {
            Some((Some(Ok(())), ruling)) => {
                plugin.stats.decided("allow");
                Ok(ruling)
            }
            Some((Some(Err(why)), _)) => {
                plugin.stats.decided("deny");
                Err(Denied::No(masked(plugin, &notes.added_to(why))))
            }
            _ => {
                plugin.stats.decided("deny");
                let why = "it decided nothing, which denies".to_owned();
                Err(Denied::No(masked(plugin, &notes.added_to(why))))
            }
        }
    }
}

impl Policy for Judge {
    fn label(&self) -> String {
        label(&self.0)
    }

    fn decide(&self, question: Question) -> Later<'_, Result<Ruling, Denied>> {
        Box::pin(self.ruling(question))
    }
}

/// A plugin that takes exchanges that have ended.
pub(super) struct Sink(Arc<Plugin>);

impl Sink {
    pub(super) fn new(plugin: Arc<Plugin>) -> Self {
        Self(plugin)
    }
}

impl Taker for Sink {
    fn label(&self) -> String {
        label(&self.0)
    }

    fn take(&self, batch: Arc<Vec<String>>) -> Later<'_, Result<(), String>> {
        Box::pin(async move {
            let plugin = &*self.0;
            let index = export(plugin, "access-log", plugin.compiled.exports.write.as_ref());
            let index = index.map_err(|error| error.to_string())?;
            // The guest's memory holds a copy either way.
            hand_over(plugin, Hook::Write, index, (batch.to_vec(),)).await
        })
    }

    fn dropped(&self, count: u64) {
        self.0.stats.dropped(count);
    }
}

/// A plugin that takes events.
pub(super) struct Listener(Arc<Plugin>);

impl Listener {
    pub(super) fn new(plugin: Arc<Plugin>) -> Self {
        Self(plugin)
    }
}

impl Taker for Listener {
    fn label(&self) -> String {
        label(&self.0)
    }

    fn take(&self, batch: Arc<Vec<String>>) -> Later<'_, Result<(), String>> {
        Box::pin(async move {
            let plugin = &*self.0;
            let index = export(plugin, "events", plugin.compiled.exports.on_event.as_ref());
            let index = index.map_err(|error| error.to_string())?;
            for event in batch.iter() {
                hand_over(plugin, Hook::Event, index, (event.clone(),)).await?;
            }
            Ok(())
        })
    }

    fn dropped(&self, count: u64) {
        self.0.stats.dropped(count);
    }
}

async fn hand_over<P>(
    plugin: &Plugin,
    hook: Hook,
    index: &ComponentExportIndex,
    params: P,
) -> Result<(), String>
where
    P: wasmtime::component::ComponentNamedList + wasmtime::component::Lower + Send + Sync + 'static,
{
    let take = |host: &mut Host| std::mem::take(&mut host.notes);
    type Answer = (Result<(), String>,);
    let called: Result<(Answer, Notes), _> =
        fiber::call(plugin, hook, index, |_| {}, params, take).await;
    match called {
        Ok(((Ok(()),), _)) => Ok(()),
        Ok(((Err(why),), notes)) => Err(masked(plugin, &notes.added_to(why))),
        Err(error) => Err(masked(plugin, &error.to_string())),
    }
}

fn export<'p>(
    plugin: &Plugin,
    world: &'static str,
    index: Option<&'p ComponentExportIndex>,
) -> Result<&'p ComponentExportIndex, PluginError> {
    index.ok_or_else(|| PluginError::WrongWorld {
        of: plugin.facts.subject.clone(),
        wanted: world,
        worlds: plugin.compiled.worlds.clone(),
    })
}

fn label(plugin: &Plugin) -> String {
    let subject = &plugin.facts.subject;
    format!("{} (sha256 {})", subject.name, subject.short_digest())
}

fn masked(plugin: &Plugin, text: &str) -> String {
    plugin.facts.secrets.mask_text(text).into_owned()
}

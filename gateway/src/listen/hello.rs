//! What becomes of a ClientHello: the plugin of `client-hello`, where there is one, is asked before
//! anything else is done with it, over TCP and over QUIC alike.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Caller;
use crate::config::OnError;
use crate::fault::describe;
use crate::proxy::Via;
use crate::tls::Front;
use crate::tls::fingerprint::{self, Transport};
use crate::tls::hello::{HelloFacts, HelloVerdict, Refusal, Wish};
use crate::worker::Worker;

/// Who sends a ClientHello, and how.
#[derive(Clone)]
pub(super) struct Sender {
    pub transport: Transport,
    pub client: SocketAddr,
    pub local: SocketAddr,
    pub via: Option<Arc<Via>>,
}

impl Sender {
    pub(super) fn tcp(caller: &Caller) -> Self {
        let Caller { client, local, via } = caller;
        Self { transport: Transport::Tcp, client: *client, local: *local, via: via.clone() }
    }

    /// The address whose site is meant where no name is.
    fn to(&self) -> Option<IpAddr> {
        (self.transport == Transport::Tcp).then(|| self.local.ip())
    }
}

/// What is asked of a handshake with this server name; `message` gives its ClientHello.
pub(super) fn wish(
    worker: &Worker,
    sender: &Sender,
    name: Option<&str>,
    message: impl FnOnce() -> Vec<u8>,
) -> Wish {
    let view = worker.view();
    let generation = &view.generation;
    let of_site = || Wish::Site(generation.fronts.find(name, sender.to()));
    let Some(index) = generation.client_hello else { return of_site() };
    match ask(worker, index, sender, name, message()) {
        Ok(HelloVerdict::Continue) => of_site(),
        // QUIC cannot be passed on. Clients whose connection is refused come again over TCP.
        Ok(HelloVerdict::PassThrough(_)) if sender.transport == Transport::Quic => {
            Wish::Refuse(Refusal::Plugin(NO_APPLICATION_PROTOCOL))
        }
        Ok(HelloVerdict::PassThrough(upstream)) => {
            Wish::Site(Front { passthrough: Some(upstream), ..Front::default() })
        }
        Ok(HelloVerdict::TerminateAs(other)) => {
            // It says itself that it is to be terminated.
            let front = generation.fronts.find(Some(&other), None);
            Wish::As(other, Front { passthrough: None, ..front })
        }
        Ok(HelloVerdict::Refuse(alert)) => Wish::Refuse(Refusal::Plugin(alert)),
        Err(cause) => {
            let plugin = generation.config.client_hello.as_ref().map(|place| &place.plugin);
            let stanza = plugin.and_then(|plugin| generation.config.plugins.get(plugin));
            let is_open = stanza.is_some_and(|stanza| stanza.on_error == OnError::FailOpen);
            tracing::debug!(client = %sender.client.ip(), is_open, "client-hello: {cause}");
            if is_open { of_site() } else { Wish::Refuse(Refusal::PluginFailed) }
        }
    }
}

fn ask(
    worker: &Worker,
    index: usize,
    sender: &Sender,
    name: Option<&str>,
    message: Vec<u8>,
) -> Result<HelloVerdict, String> {
    let view = worker.view();
    let hooks = view.hooks(index)?;
    let offered = fingerprint::offered(&message).ok_or("the ClientHello cannot be read")?;
    let facts = HelloFacts {
        transport: sender.transport,
        server_name: name.map(Box::from),
        ja4: offered.ja4(sender.transport),
        offered,
        message,
        client: sender.client,
        local: sender.local,
        via: sender.via.clone(),
    };
    hooks.on_client_hello(&Arc::new(facts)).map_err(|cause| describe(&cause))
}

const NO_APPLICATION_PROTOCOL: u8 = 120;

//! Tokens of Microsoft Entra, for whatever credential the daemon has.
//!
//! Promises that a token is asked for by one caller at a time and renewed before it ends, and that
//! secrets and files are read anew each time, so that a rotated one needs no restart.
//! Never sends a credential anywhere but to the authority, or to a service of this machine.

use std::time::Duration;

use reqwest::{Method, Url};

use super::auth::Auth;
use super::cloud::Place;
use crate::http::{self, Answer, Request, Settings, Wanted};
use crate::sink::DeliveryError;
use crate::sink::http::no_answer;

mod answer;
mod arc;
mod certificate;
mod entra;
mod held;
mod machine;
mod managed;

pub use held::Token;

use held::{Cache, Given};
use machine::Machine;

/// No answer of a token service is longer.
const ANSWER_CAP: usize = 256 << 10;

/// What asks for tokens, and keeps the last one.
pub struct Tokens {
    asker: Asker,
    cache: Cache,
}

/// All that it takes to ask for a token.
#[derive(Clone)]
struct Asker {
    auth: Auth,
    place: Place,
    settings: Settings,
    machine: Machine,
}

impl Tokens {
    /// Opens nothing and reads nothing yet.
    pub fn new(auth: Auth, place: Place, settings: Settings) -> Self {
        Self::on(Machine::this(), auth, place, settings)
    }

    fn on(machine: Machine, auth: Auth, place: Place, settings: Settings) -> Self {
        Self { asker: Asker { auth, place, settings, machine }, cache: Cache::default() }
    }

    /// A token that is good for now: the last one, or another when that ends within five minutes.
    /// When no other can be had, the last one as long as it is good.
    ///
    /// # Errors
    /// [`DeliveryError::Blocked`] when there is none until somebody acts, else
    /// [`DeliveryError::Retry`]; no event was sent.
    pub async fn get(&self) -> Result<Token, DeliveryError> {
        self.cache.get(|| self.asker.ask()).await
    }

    /// The service has refused this token: it is forgotten, unless another has taken its place.
    #[expect(clippy::unused_async, reason = "callers need not know that it waits for nobody")]
    pub async fn refused(&self, token: &Token) {
        self.cache.forget(token);
    }

    /// Looks at what is on this machine alone: asks nobody. Says what it will use. Blocks.
    ///
    /// # Errors
    /// What would keep it from asking for a token.
    pub fn examine(&self) -> Result<String, DeliveryError> {
        let Asker { auth, place, settings, machine } = &self.asker;
        match auth {
            Auth::ClientSecret(_) | Auth::Certificate(_) | Auth::WorkloadIdentity(_) => {
                entra::examine(auth, place, settings, machine)
            }
            Auth::ManagedIdentity(config) => managed::examine(config, machine),
            Auth::Arc(_) => arc::examine(machine),
        }
    }
}

impl Asker {
    async fn ask(&self) -> Result<Given, DeliveryError> {
        let resource = self.place.resource();
        match &self.auth {
            Auth::ClientSecret(_) | Auth::Certificate(_) | Auth::WorkloadIdentity(_) => {
                entra::ask(self).await
            }
            Auth::ManagedIdentity(config) => managed::ask(config, resource, &self.machine).await,
            Auth::Arc(_) => arc::ask(resource, &self.machine).await,
        }
    }
}

/// Does what may block, in a thread for that.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DeliveryError> + Send + 'static,
) -> Result<T, DeliveryError> {
    tokio::task::spawn_blocking(work).await.map_err(DeliveryError::passing)?
}

/// Asks a service of this machine, which is never behind a proxy.
async fn ask_here(url: Url, headers: reqwest::header::HeaderMap) -> Result<Answer, http::Error> {
    const WITHIN: Duration = Duration::from_secs(10);
    // As in Microsoft's own libraries: where there is such a service, it is near.
    const CONNECT_WITHIN: Duration = Duration::from_secs(2);
    let settings =
        Settings { ca_file: None, client_certificate: None, proxy: None, timeout: WITHIN };
    let client =
        tokio::task::spawn_blocking(move || http::client_connecting(&settings, CONNECT_WITHIN));
    let client = client.await.map_err(|err| http::Error::Setup(err.to_string()))??;
    let request = Request { method: Method::GET, url, headers, body: Vec::new() };
    http::send(&client, request, Wanted::Whole(ANSWER_CAP)).await
}

/// What there is to do without an answer of a token service, which has seen no event.
fn unanswered(err: &http::Error) -> DeliveryError {
    match no_answer(err) {
        DeliveryError::Retry { after, source, .. } => {
            DeliveryError::Retry { after, source, is_ambiguous: false }
        }
        other => other,
    }
}

/// The same of a service of this machine, with what its silence may mean.
fn unanswered_here(err: &http::Error, hint: &str) -> DeliveryError {
    if err.is_lasting() {
        return no_answer(err);
    }
    DeliveryError::passing(format!("{} ({hint})", crate::secret::redact(&err.to_string())))
}

#[cfg(test)]
mod tests;

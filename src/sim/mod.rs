//! The simulated API: Keeper's, or another's, on loopback, behind `siemferry demo` and the tests.
//!
//! By default it reads the API's documentation in the nastiest honest way: both bounds belong to
//! a window, a page holds 100 records whatever is asked, the newest come first, keys come in
//! another order each time, events come late, and tokens are bound to their request and expire.
//! It knows exactly what happened, see [`Api::truth`]; [`oracle`] judges what was delivered.
//! Not a model of the real service's speed, and never reachable from another host.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::Request;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::event::Millis;

mod dialect;
mod fault;
mod http;
mod json;
pub mod oracle;
mod rng;
mod token;
mod week;
mod wire;
mod world;

#[cfg(test)]
mod tests;

pub use dialect::{Dialect, LastToken, TimeFormat};
pub use fault::{Fault, Lie};
pub use json::canonical;
pub use rng::Rng;
pub use week::week;
pub use world::{Ask, Order, Page, Place, Record, SimEvent, World};

/// How the API behaves while nothing goes wrong.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a habit of its own of an API")]
pub struct Options {
    /// The API token that is let in.
    pub token: String,
    /// An event exactly at a window's start belongs to it.
    pub start_inclusive: bool,
    /// An event exactly at its end belongs to it.
    pub end_inclusive: bool,
    /// In which order events are listed.
    pub order: Order,
    /// How many records a page holds at most, whatever is asked.
    pub page_cap: usize,
    /// The highest limit that is not refused; none when any is taken, and [`Options::page_cap`]
    /// applied in silence.
    pub limit_max: Option<u32>,
    /// Every answer has its keys in another order.
    pub shuffle_keys: bool,
    /// After so many pages a reading's token has expired.
    pub token_pages: Option<u32>,
    /// So long after it was made, by the API's clock, a token has expired.
    pub token_lifetime: Option<Duration>,
    /// A full page always promises another, which may then be empty.
    pub trailing_empty_page: bool,
    /// Answers carry a `Date`.
    pub sends_date: bool,
    /// What everything is called.
    pub dialect: Dialect,
    /// The API's clock.
    pub clock: Clock,
    /// Everything left to chance follows from it.
    pub seed: u64,
}

/// The API's clock at the start. Either can be set and advanced later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Goes as the machine's clock does.
    Real,
    /// Stands still at this instant.
    Manual(Millis),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token: "simulated-token".into(),
            start_inclusive: true,
            end_inclusive: true,
            order: Order::Newest,
            page_cap: 100,
            limit_max: None,
            shuffle_keys: true,
            token_pages: None,
            token_lifetime: Some(Duration::from_secs(15 * 60)),
            trailing_empty_page: false,
            sends_date: true,
            dialect: Dialect::keeper(),
            clock: Clock::Real,
            seed: 1,
        }
    }
}

/// One request, as it arrived.
#[derive(Clone, Debug)]
pub struct RequestInfo {
    /// Its number, from 1.
    pub number: u64,
    /// Its method.
    pub method: String,
    /// Its path.
    pub path: String,
    /// Its parameters, decoded, in their order.
    pub query: Vec<(String, String)>,
    /// Its window, in milliseconds; none when it names none that can be read.
    pub window: Option<(Millis, Millis)>,
    /// Whether it asks for a next page.
    pub has_token: bool,
    /// Whether it carries the right API token.
    pub is_authorized: bool,
}

/// One request, and what became of it.
#[derive(Clone, Debug)]
pub struct Served {
    /// The request.
    pub request: RequestInfo,
    /// The status it was answered with; none while it waits, or when it was never answered.
    pub status: Option<u16>,
    /// Which page of its reading it got, from 1; none when it got none.
    pub page: Option<u32>,
    /// How many records it got.
    pub records: usize,
    /// Whether a fault was played on it.
    pub is_faulted: bool,
}

type FaultPlan = Box<dyn FnMut(&RequestInfo) -> Option<Fault> + Send>;

/// A handle to a simulated API; cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    options: Options,
    address: SocketAddr,
    world: Mutex<World>,
    // Milliseconds ahead of the machine's clock; of the epoch, if the clock is a manual one.
    ahead: Mutex<Millis>,
    tokens: Mutex<u64>,
    faults: Mutex<FaultPlan>,
    log: Mutex<Vec<Served>>,
    arrived: watch::Sender<u64>,
    released: watch::Sender<u64>,
}

impl Api {
    /// Opens a port of loopback. The API answers while the returned future is run.
    pub async fn bind(
        options: Options,
    ) -> io::Result<(Self, impl Future<Output = io::Result<()>> + Send + 'static)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let api = Self(Arc::new(Inner {
            address: listener.local_addr()?,
            world: Mutex::new(World::new(options.dialect.clone())),
            ahead: Mutex::new(match options.clock {
                Clock::Real => 0,
                Clock::Manual(now) => now,
            }),
            tokens: Mutex::new(0),
            faults: Mutex::new(Box::new(|_| None)),
            log: Mutex::new(Vec::new()),
            arrived: watch::Sender::new(0),
            released: watch::Sender::new(0),
            options,
        }));
        let router = Router::new().fallback(http::answer).with_state(api.clone());
        let service = router.into_make_service_with_connect_info::<wire::Line>();
        Ok((api, async move { axum::serve(wire::Door(listener), service).await }))
    }

    /// Its scheme, host and port; the path is the dialect's.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// What it was made with.
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// Its clock.
    pub fn now(&self) -> Millis {
        self.base() + *lock(&self.0.ahead)
    }

    /// Sets its clock; a real one goes on from there.
    pub fn set_now(&self, now: Millis) {
        *lock(&self.0.ahead) = now - self.base();
    }

    /// Moves its clock, back if the number is negative.
    pub fn advance(&self, millis: Millis) {
        *lock(&self.0.ahead) += millis;
    }

    /// What happened; it answers nothing while this is held.
    pub fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.0.world)
    }

    /// Makes one event happen.
    pub fn add(&self, event: SimEvent) {
        self.world().add(event);
    }

    /// Makes many happen.
    pub fn add_all(&self, events: impl IntoIterator<Item = SimEvent>) {
        self.world().add_all(events);
    }

    /// Every event that is visible now, as canonical JSON; see [`World::truth`].
    pub fn truth(&self) -> Vec<String> {
        self.truth_between(Millis::MIN, Millis::MAX)
    }

    /// Those of them that happened in `[start, end)`.
    pub fn truth_between(&self, start: Millis, end: Millis) -> Vec<String> {
        self.world().truth(start, end, self.now())
    }

    /// From now on each request is shown to this plan, which says how it fails, if it does.
    /// The plan may use the API, but not change the plan.
    pub fn fault_when(&self, plan: impl FnMut(&RequestInfo) -> Option<Fault> + Send + 'static) {
        *lock(&self.0.faults) = Box::new(plan);
    }

    /// From now on nothing fails.
    pub fn mend(&self) {
        self.fault_when(|_| None);
    }

    /// Lets every request go on that [`Fault::Hold`] holds.
    pub fn release(&self) {
        self.0.released.send_modify(|times| *times += 1);
    }

    /// Lets every token made so far expire.
    pub fn expire_tokens(&self) {
        *lock(&self.0.tokens) += 1;
    }

    /// How many requests have arrived.
    pub fn requests(&self) -> u64 {
        *self.0.arrived.borrow()
    }

    /// Waits until so many have arrived, held and stalled ones included.
    pub async fn wait_for_requests(&self, number: u64) {
        let mut arrived = self.0.arrived.subscribe();
        arrived.wait_for(|count| *count >= number).await.expect("the sender is ours");
    }

    /// Every request so far.
    pub fn log(&self) -> Vec<Served> {
        lock(&self.0.log).clone()
    }

    fn base(&self) -> Millis {
        match self.0.options.clock {
            Clock::Manual(_) => 0,
            Clock::Real => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Millis::try_from(since.as_millis()).expect("our era fits")
            }
        }
    }

    fn token_generation(&self) -> u64 {
        *lock(&self.0.tokens)
    }

    /// Numbers and logs a request, and asks the fault plan about it.
    fn arrive(
        &self,
        request: &Request,
        credential: &str,
    ) -> (RequestInfo, Option<Fault>, watch::Receiver<u64>) {
        // Held to the end, so that numbers are given in the order in which the plan is asked.
        let mut plan = lock(&self.0.faults);
        let info = self.describe(request, credential);
        let fault = plan(&info);
        // Before the arrival is told: who waits for it may release it at once.
        let released = self.0.released.subscribe();
        let is_faulted = fault.is_some();
        let entry =
            Served { request: info.clone(), status: None, page: None, records: 0, is_faulted };
        lock(&self.0.log).push(entry);
        self.0.arrived.send_replace(info.number);
        (info, fault, released)
    }

    fn describe(&self, request: &Request, credential: &str) -> RequestInfo {
        let Options { dialect, token, .. } = &self.0.options;
        let mut info = RequestInfo {
            number: self.requests() + 1,
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            query: pairs(request.uri().query().unwrap_or_default()),
            window: None,
            has_token: false,
            is_authorized: credential.strip_prefix(&dialect.auth_prefix) == Some(token),
        };
        let bound = |name| dialect.bounds.read_bound(info.parameter(name)?);
        info.window = bound(&dialect.start).zip(bound(&dialect.end));
        info.has_token = info.parameter(&dialect.token).is_some();
        info
    }

    /// Logs what became of a request.
    fn answered(&self, number: u64, reply: &http::Reply) {
        let index = usize::try_from(number - 1).expect("a request's number fits");
        let entry = &mut lock(&self.0.log)[index];
        entry.status = Some(reply.status);
        entry.page = reply.page;
        entry.records = reply.records;
    }
}

impl RequestInfo {
    /// A parameter's value.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let url = reqwest::Url::parse(&format!("http://sim/?{query}"));
    url.map(|url| url.query_pairs().into_owned().collect()).unwrap_or_default()
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

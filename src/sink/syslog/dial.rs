//! Which address is connected to: the first that takes messages.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tracing::{info, warn};

use super::address::{Address, Transport};
use super::config::Config;
use super::connect::{How, Line, connect};
use super::outcome::together;
use super::stream::{self, Proof};
use crate::sink::DeliveryError;

/// Nothing tells that UDP goes to nobody any more: so often the name is looked up again, and the
/// addresses before it are tried.
const RENEW_UDP: Duration = Duration::from_secs(60);

/// Makes connections.
pub struct Dialer {
    config: Config,
    addresses: Vec<Address>,
    /// Read at the first use, and again after a block.
    tls: tokio::sync::Mutex<Option<TlsConnector>>,
    /// How long a new stream's first event must go unopposed: less while none lasts so long.
    trial: Mutex<Duration>,
    /// The address that was told of, and whether those passed over for it were blocked.
    told: Mutex<Option<(Address, Vec<bool>)>>,
    /// The one whose connection came to nothing: the next time it comes behind the others.
    avoided: Mutex<Option<Address>>,
}

/// A connection, and where it goes.
pub struct Open {
    pub line: Line,
    pub address: Address,
    since: Instant,
}

impl Open {
    /// Whether another is to take its place, by the configuration.
    pub fn is_old(&self, config: &Config) -> bool {
        config.rebind_every.is_some_and(|most| self.since.elapsed() >= most.duration())
    }

    /// Whether another may take its place, if there is one.
    pub fn is_stale(&self) -> bool {
        self.address.transport == Transport::Udp && self.since.elapsed() >= RENEW_UDP
    }

    /// Keeps it for as long again.
    pub fn keep(&mut self) {
        self.since = Instant::now();
    }
}

impl Dialer {
    pub fn new(config: &Config) -> Self {
        Self {
            addresses: config.address.sound(),
            config: config.clone(),
            tls: tokio::sync::Mutex::default(),
            trial: stream::TRIAL.into(),
            told: Mutex::default(),
            avoided: Mutex::default(),
        }
    }

    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Connects to the first address that takes messages.
    pub async fn connect(&self) -> Result<Open, DeliveryError> {
        let mut failed = Vec::new();
        let avoided = lock(&self.avoided).take();
        let is_avoided = |address: &&Address| Some(*address) == avoided.as_ref();
        let others = self.addresses.iter().filter(|address| !is_avoided(address));
        for address in others.chain(self.addresses.iter().filter(is_avoided)) {
            match self.connect_to(address).await {
                Ok(line) => {
                    self.tell(address, &failed);
                    return Ok(Open { line, address: address.clone(), since: Instant::now() });
                }
                Err(err) => {
                    if matches!(err, DeliveryError::Blocked { .. }) {
                        self.forget_tls().await;
                    }
                    failed.push((address, err));
                }
            }
        }
        Err(together(failed.into_iter().map(|(_, err)| err).collect()))
    }

    /// Connects to this address.
    pub async fn connect_to(&self, address: &Address) -> Result<Line, DeliveryError> {
        let tls = if address.transport.is_tls() { Some(self.tls().await?) } else { None };
        let server_name = self.config.server_name(address);
        let patience = self.config.patience();
        let trial = *lock(&self.trial);
        connect(address, &How { tls: tls.as_ref(), server_name, patience, trial }).await
    }

    /// What TLS is set up with.
    pub async fn tls(&self) -> Result<TlsConnector, DeliveryError> {
        let mut held = self.tls.lock().await;
        if let Some(tls) = &*held {
            return Ok(tls.clone());
        }
        let config = self.config.clone();
        let read = tokio::task::spawn_blocking(move || config.tls()).await;
        let read = read.map_err(DeliveryError::passing)??;
        let unset = || DeliveryError::blocked("no address of this sink is within TLS", None);
        let tls = TlsConnector::from(Arc::new(read.ok_or_else(unset)?));
        Ok(held.insert(tls).clone())
    }

    /// Somebody may put another certificate there.
    pub async fn forget_tls(&self) {
        *self.tls.lock().await = None;
    }

    /// Learns from what has come of a connection's messages. Where every connection is over before its
    /// trial is, that has to be shorter.
    pub fn judge(&self, address: &Address, proof: &Proof) {
        let mut trial = lock(&self.trial);
        if proof.is_void() {
            *trial /= 2;
            *lock(&self.avoided) = Some(address.clone());
        } else {
            *trial = stream::TRIAL;
        }
    }

    /// Learns from why a connection is over: one that takes nothing any more may not be alone.
    pub fn learn(&self, address: &Address, err: &io::Error) {
        if err.kind() == ErrorKind::TimedOut {
            *lock(&self.avoided) = Some(address.clone());
        }
    }

    /// Says where the messages go, and why not to another address, when that is not as it was before.
    fn tell(&self, address: &Address, failed: &[(&Address, DeliveryError)]) {
        let is_blocked =
            |(_, err): &(_, DeliveryError)| matches!(err, DeliveryError::Blocked { .. });
        let now = Some((address.clone(), failed.iter().map(is_blocked).collect()));
        let mut told = lock(&self.told);
        if *told == now {
            return;
        }
        *told = now;
        for (address, error) in failed {
            let hint = if let DeliveryError::Blocked { hint, .. } = error {
                hint.as_deref()
            } else {
                None
            };
            warn!(%address, %error, hint, "Another address takes the events.");
        }
        info!(%address, "Connected.");
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().expect("nobody panics with it")
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use tokio::net::{UdpSocket, UnixDatagram};

    use super::super::SyslogSink;
    use super::*;
    use crate::sink::{Batch, Sink as _};

    fn one(text: &str) -> Arc<Batch> {
        let bytes = format!("{} {text}", text.len()).into_bytes();
        let ends = vec![bytes.len()];
        Arc::new(Batch { id: uuid::Uuid::nil(), bytes, ends })
    }

    async fn sends(sink: &SyslogSink, text: &str) {
        assert!(sink.deliver(&one(text)).await.is_ok(), "{text}");
    }

    #[tokio::test]
    async fn from_udp_it_comes_back_to_an_address_that_can_fail() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let lossy = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = lossy.local_addr().unwrap().port();
        let config = format!(
            "address = ['unix://{}', 'udp://127.0.0.1:{port}']\nlossy = true",
            path.display()
        );
        let sink = SyslogSink::new(&toml::from_str(&config).unwrap());
        let mut heard = [0; 100];

        sends(&sink, "first").await;
        let safe = UnixDatagram::bind(&path).unwrap();
        sends(&sink, "second").await;
        for text in ["first", "second"] {
            let length = lossy.recv(&mut heard).await.unwrap();
            assert_eq!(&heard[..length], text.as_bytes());
        }
        tokio::time::pause();
        tokio::time::advance(RENEW_UDP).await;
        tokio::time::resume();
        let batch = one("third");
        let (sent, length) = tokio::join!(sink.deliver(&batch), safe.recv(&mut heard));

        assert!(sent.is_ok());
        assert_eq!(&heard[..length.unwrap()], b"third");
    }

    #[tokio::test]
    async fn where_nothing_else_is_there_udp_stays() {
        let lossy = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = lossy.local_addr().unwrap().port();
        let config = format!("address = 'udp://127.0.0.1:{port}'\nlossy = true");
        let sink = SyslogSink::new(&toml::from_str(&config).unwrap());
        let mut heard = [0; 100];
        for text in ["first", "second", "third"] {
            sends(&sink, text).await;
            let length = lossy.recv(&mut heard).await.unwrap();
            assert_eq!(&heard[..length], text.as_bytes());
            tokio::time::pause();
            tokio::time::advance(RENEW_UDP).await;
            tokio::time::resume();
        }
    }
}

//! The token that is held, and when another is asked for. Knows nothing of where they come from.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderValue;
use tokio::time::Instant;
use tracing::warn;

use crate::secret;
use crate::sink::DeliveryError;

/// How long before its end a token is renewed.
const EARLY: Duration = Duration::from_secs(300);

/// How soon another is asked for, as long as the old one is good.
const PAUSE: Duration = Duration::from_secs(30);

/// A token is asked for anew after this, whatever it says itself.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What lets a request in, for a while.
#[derive(Clone)]
pub struct Token(Arc<Value>);

struct Value {
    header: HeaderValue,
    /// An answer may repeat the token for as long as it is used.
    _known: secret::Held,
}

impl Token {
    /// A token; none when the value is not fit for a header.
    pub fn new(value: &str) -> Option<Self> {
        let is_fit = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic());
        let mut header =
            HeaderValue::from_str(&format!("Bearer {value}")).ok().filter(|_| is_fit)?;
        header.set_sensitive(true);
        Some(Self(Arc::new(Value { header, _known: secret::hold(value) })))
    }

    /// `Authorization`
    pub fn header(&self) -> HeaderValue {
        self.0.header.clone()
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A token that was asked for, and how long it is good.
#[derive(Debug)]
pub struct Given {
    /// The token.
    pub token: Token,
    /// Counted from when it was asked for.
    pub lasts: Duration,
}

/// The token that is held, if any.
#[derive(Default)]
pub struct Cache {
    held: Mutex<Option<Held>>,
    /// Whoever asks has it.
    asking: tokio::sync::Mutex<()>,
}

struct Held {
    token: Token,
    ends: Instant,
    renew: Instant,
    /// That it could not be renewed.
    is_told: bool,
}

impl Cache {
    /// The token that is held, or another.
    ///
    /// # Errors
    /// Those of `ask`, when none is held that is still good.
    pub async fn get<F>(&self, ask: impl FnOnce() -> F) -> Result<Token, DeliveryError>
    where
        F: Future<Output = Result<Given, DeliveryError>>,
    {
        if let Some(token) = self.find(|held, now| now < held.renew) {
            return Ok(token);
        }
        let asking = self.asking.try_lock();
        // While another caller asks, the old one will do.
        if asking.is_err()
            && let Some(token) = self.find(|_, _| true)
        {
            return Ok(token);
        }
        let _asking = match asking {
            Ok(asking) => asking,
            Err(_) => self.asking.lock().await,
        };
        if let Some(token) = self.find(|held, now| now < held.renew) {
            return Ok(token);
        }
        let asked = Instant::now();
        match ask().await {
            Ok(given) => Ok(self.take(given, asked)),
            Err(err) => self.go_on(err),
        }
    }

    /// Forgets this token, unless another has taken its place.
    pub fn forget(&self, token: &Token) {
        let mut held = self.lock();
        if held.as_ref().is_some_and(|held| held.token.is(token)) {
            *held = None;
        }
    }

    /// The token that is held, if it is good and so.
    fn find(&self, is_so: impl FnOnce(&Held, Instant) -> bool) -> Option<Token> {
        let (held, now) = (self.lock(), Instant::now());
        let found = held.as_ref().filter(|held| now < held.ends && is_so(held, now));
        found.map(|held| held.token.clone())
    }

    fn take(&self, given: Given, asked: Instant) -> Token {
        let Given { token, lasts } = given;
        let lasts = lasts.min(LONGEST);
        // The service may give what it has given before, and that may be near its end.
        let renew = (asked + lasts.saturating_sub(EARLY)).max(Instant::now() + PAUSE);
        *self.lock() =
            Some(Held { token: token.clone(), ends: asked + lasts, renew, is_told: false });
        token
    }

    /// Goes on with the old token after another could not be had, as long as it is good.
    fn go_on(&self, err: DeliveryError) -> Result<Token, DeliveryError> {
        let (mut held, now) = (self.lock(), Instant::now());
        let Some(held) = held.as_mut().filter(|held| now < held.ends) else { return Err(err) };
        let after = match &err {
            DeliveryError::Retry { after, .. } => after.unwrap_or_default().min(LONGEST),
            _ => Duration::ZERO,
        };
        held.renew = now + after.max(PAUSE);
        let left = held.ends - now;
        if !std::mem::replace(&mut held.is_told, true) {
            warn!(error = %err, ?left, "The token could not be renewed; the old one is still good.");
        }
        Ok(held.token.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// What asks: counts, and gives tokens that last so long, or fails.
    struct Service {
        asked: Cell<u32>,
        lasts: Cell<Option<Duration>>,
    }

    impl Service {
        fn giving(lasts: Duration) -> Self {
            Self { asked: Cell::new(0), lasts: Cell::new(Some(lasts)) }
        }

        async fn ask(&self) -> Result<Given, DeliveryError> {
            self.asked.set(self.asked.get() + 1);
            let number = self.asked.get();
            tokio::time::sleep(SECOND).await;
            let lasts = self.lasts.get().ok_or_else(|| DeliveryError::passing("away"))?;
            Ok(Given { token: Token::new(&format!("held-token-{number}")).unwrap(), lasts })
        }

        async fn get(&self, cache: &Cache) -> Result<String, DeliveryError> {
            let token = cache.get(|| self.ask()).await?;
            Ok(token.header().to_str().unwrap().replace("Bearer held-token-", ""))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_five_minutes_early() {
        let (cache, service) = (Cache::default(), Service::giving(SECOND * 3600));
        assert_eq!(service.get(&cache).await.unwrap(), "1");

        tokio::time::advance(SECOND * 3298).await;
        assert_eq!(service.get(&cache).await.unwrap(), "1");
        tokio::time::advance(SECOND).await;

        assert_eq!(service.get(&cache).await.unwrap(), "2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_ends_soon_is_not_asked_for_all_the_time() {
        let (cache, service) = (Cache::default(), Service::giving(SECOND * 100));
        for _ in 0..3 {
            assert_eq!(service.get(&cache).await.unwrap(), "1");
            tokio::time::advance(SECOND * 9).await;
        }

        tokio::time::advance(SECOND * 3).await;

        assert_eq!(service.get(&cache).await.unwrap(), "2");
    }

    #[tokio::test(start_paused = true)]
    async fn the_old_token_is_used_while_another_cannot_be_had() {
        let (cache, service) = (Cache::default(), Service::giving(SECOND * 3600));
        service.get(&cache).await.unwrap();
        service.lasts.set(None);
        tokio::time::advance(SECOND * 3400).await;

        assert_eq!(service.get(&cache).await.unwrap(), "1");
        assert_eq!(service.asked.get(), 2);
        tokio::time::advance(SECOND * 29).await;
        assert_eq!(service.get(&cache).await.unwrap(), "1");
        assert_eq!(service.asked.get(), 2, "not so soon");
        tokio::time::advance(SECOND).await;
        assert_eq!(service.get(&cache).await.unwrap(), "1");
        assert_eq!(service.asked.get(), 3);
        tokio::time::advance(SECOND * 200).await;

        assert_eq!(service.get(&cache).await.unwrap_err().to_string(), "away");
    }

    #[tokio::test(start_paused = true)]
    async fn one_caller_asks_for_all() {
        let (cache, service) = (Cache::default(), Service::giving(SECOND * 3600));

        let (a, b, c) = tokio::join!(service.get(&cache), service.get(&cache), service.get(&cache));

        assert_eq!((a.unwrap(), b.unwrap(), c.unwrap()), ("1".into(), "1".into(), "1".into()));
        assert_eq!(service.asked.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn while_one_renews_the_others_go_on_with_the_old_token() {
        let (cache, service) = (Cache::default(), Service::giving(SECOND * 3600));
        service.get(&cache).await.unwrap();
        tokio::time::advance(SECOND * 3400).await;

        let (a, b) = tokio::join!(service.get(&cache), service.get(&cache));

        assert_eq!((a.unwrap(), b.unwrap()), ("2".into(), "1".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_token_is_forgotten_and_its_successor_is_not() {
        let (cache, service) = (Cache::default(), Service::giving(SECOND * 3600));
        let first = cache.get(|| service.ask()).await.unwrap();

        cache.forget(&first);
        assert_eq!(service.get(&cache).await.unwrap(), "2");
        cache.forget(&first);

        assert_eq!(service.get(&cache).await.unwrap(), "2");
    }

    #[test]
    fn a_token_is_hidden_for_as_long_as_it_is_used() {
        let token = Token::new("shown-canary").unwrap();

        assert!(token.header().is_sensitive());
        assert_eq!(format!("{token:?} {}", secret::redact("shown-canary")), "*** ***");
        drop(token);

        assert_eq!(secret::redact("shown-canary"), "shown-canary");
        assert!(Token::new("").is_none() && Token::new("a\nb").is_none());
    }
}

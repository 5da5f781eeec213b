//! The engine that reads any REST API a preset describes.

use std::num::NonZeroU32;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use reqwest::Url;
use serde::Deserialize;

use crate::http::url;
use crate::problem::Problem;
use crate::secret;
use crate::units::{Span, Start};

/// `[sources.<name>.keeper]`, and of every other API that a preset describes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which of the preset's hosts; `base_url` instead names any host.
    pub region: Option<String>,
    /// The API's scheme, host and port, such as `https://keepersecurity.com`.
    pub base_url: Option<String>,
    /// The API token.
    pub token: Option<secret::Config>,
    /// Part of every event's uid; the source's name unless set.
    pub tenant: Option<String>,
    /// How far back the first run reads.
    pub start: Start,
    /// How often the newest events are asked for.
    pub poll_every: Span,
    /// The ages at which the same time is read again.
    pub resweep: Vec<Span>,
    /// How far behind the server's clock the head stays.
    pub lag: Span,
    /// How many events a page may hold.
    pub page_size: NonZeroU32,
    /// The longest window asked for.
    pub max_window: Span,
    /// When nothing new has come for so long, that is told; never when 0.
    pub silence_after: Span,
    /// PEM certificates trusted besides the operating system's.
    pub ca_file: Option<PathBuf>,
    /// The HTTP proxy; none is used unless it is named here.
    pub proxy: Option<String>,
    /// How long one request may take in all.
    pub timeout: Span,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            region: None,
            base_url: None,
            token: None,
            tenant: None,
            start: Start::ago(Span::days(30)),
            poll_every: Span::seconds(30),
            resweep: vec![
                Span::minutes(1),
                Span::minutes(4),
                Span::minutes(15),
                Span::hours(1),
                Span::hours(24),
            ],
            lag: Span::seconds(0),
            page_size: NonZeroU32::new(1000).expect("1000 is not zero"),
            max_window: Span::days(1),
            silence_after: Span::hours(24),
            ca_file: None,
            proxy: None,
            timeout: Span::seconds(60),
        }
    }
}

/// More sweeps than this would spend the API's rate limit on looking back.
const MAX_SWEEPS: usize = 16;

impl Config {
    /// What is wrong beyond the form of single values, for an API that is hosted in `regions`.
    pub fn check(&self, regions: &[&str], now: DateTime<Utc>) -> Vec<Problem> {
        let host = match (&self.region, &self.base_url) {
            (Some(_), Some(_)) => Some(
                Problem::at("base_url", "stands beside `region`")
                    .hint("`region` is a short name for a `base_url`: keep one of them"),
            ),
            (Some(region), None) => check_region(region, regions),
            (None, Some(url)) => check_base_url(url),
            (None, None) => None,
        };
        let problems = [
            host,
            self.check_token(),
            url::check_proxy(self.proxy.as_deref()),
            self.check_start(now),
        ];
        problems.into_iter().flatten().chain(self.check_spans()).collect()
    }

    fn check_token(&self) -> Option<Problem> {
        match &self.token {
            None => {
                Some(Problem::at("token", "is missing").hint(
                    "name where the API token is read from, such as `token = { file = \"…\" }`",
                ))
            }
            // Others are read when they are needed: a daemon may wait for them, a check must not.
            Some(token) if token.is_plain() => {
                token.read().err().map(|e| Problem::at("token", e.to_string()).hint(e.hint()))
            }
            Some(_) => None,
        }
    }

    fn check_start(&self, now: DateTime<Utc>) -> Option<Problem> {
        let late = matches!(self.start, Start::At(second) if second > now.timestamp());
        late.then(|| {
            Problem::at("start", format!("`{}` is in the future", self.start))
                .hint("events are read from there on: name a time that is past")
        })
    }

    fn check_spans(&self) -> Vec<Problem> {
        let positive = [("poll_every", self.poll_every), ("timeout", self.timeout)]
            .into_iter()
            .filter(|(_, span)| span.is_zero())
            .map(|(key, _)| Problem::at(key, "must be more than `0s`"));
        let window = self.max_window.duration();
        let whole = window.as_secs() > 0 && window.subsec_nanos() == 0;
        let window = (!whole).then(|| {
            Problem::at(
                "max_window",
                format!("`{}` is not a number of whole seconds", self.max_window),
            )
            .hint("windows are cut on whole seconds: name at least `1s`")
        });
        positive.chain(window).chain(self.check_resweep()).collect()
    }

    fn check_resweep(&self) -> Option<Problem> {
        let ages = &self.resweep;
        if ages.len() > MAX_SWEEPS {
            let text = format!("holds {} ages, the most is {MAX_SWEEPS}", ages.len());
            return Some(
                Problem::at("resweep", text).hint("few ages, each some times the one before"),
            );
        }
        let ascending = ages.windows(2).all(|pair| pair[0] < pair[1]);
        (!ascending || ages.iter().any(|age| age.is_zero())).then(|| {
            Problem::at("resweep", "must ascend, and begin above `0s`")
                .hint(r#"such as `resweep = ["1m", "15m", "24h"]`"#)
        })
    }
}

fn check_region(region: &str, regions: &[&str]) -> Option<Problem> {
    (!regions.contains(&region)).then(|| {
        let known = regions.join("`, `");
        Problem::at("region", format!("unknown region `{}`", crate::log::escape(region)))
            .hint(format!("the regions are `{known}`; `base_url` names any other host"))
    })
}

fn check_base_url(text: &str) -> Option<Problem> {
    // The value is not shown: a URL may hold a password.
    let wrong = |text| {
        let hint = r#"scheme, host and port, such as "https://keepersecurity.com""#;
        Some(Problem::at("base_url", text).hint(hint))
    };
    let Ok(url) = Url::parse(text) else { return wrong("is not a URL") };
    match () {
        () if !url::is_web(&url) => wrong("is not a URL of the web"),
        () if url::has_user(&url) => wrong("holds a user name or a password"),
        () if url.path() != "/" => wrong("holds a path"),
        () if url.query().is_some() || url.fragment().is_some() => wrong("holds a query"),
        () if url.scheme() == "http" && !url::is_loopback(&url) => {
            wrong("would send the token unencrypted: plain `http://` is for loopback")
        }
        () => None,
    }
}

//! Serves one sink alone, to see whether it takes an event.

use std::time::Duration;

use tokio::sync::watch;

use crate::config::Config;
use crate::deliver::{Courier, End, Orders};
use crate::own::OwnEvent;
use crate::sink;
use crate::store::{Error, Store};

/// What has become of the event.
#[derive(Debug, PartialEq, Eq)]
pub enum Trial {
    /// The sink has it.
    Delivered {
        /// How many others it has taken before; none when nobody has counted.
        others: Option<u64>,
    },
    /// It is a dead letter.
    Refused {
        /// Why.
        reason: String,
    },
    /// The sink cannot go on until somebody acts.
    Blocked {
        /// By what.
        error: String,
        /// What to do.
        hint: Option<String>,
        /// How many events wait.
        pending: u64,
    },
    /// There was no time left.
    Waiting {
        /// The sink's newest error.
        error: Option<String>,
        /// How many events wait.
        pending: u64,
    },
}

/// Puts an event into the spool for one sink, and serves that sink, no longer than `patience`, until
/// nothing waits for it.
///
/// # Errors
/// When the store cannot be opened, such as while a daemon uses it, or fails.
pub async fn try_sink(
    config: &Config,
    name: &str,
    event: OwnEvent,
    patience: Duration,
) -> Result<Trial, anyhow::Error> {
    let store = Store::open(&config.state)?;
    let tried = serve(&store, config, name, event, patience).await;
    let closing = store.clone();
    // It only makes the next start quick.
    let _ = tokio::task::spawn_blocking(move || closing.close()).await;
    Ok(tried?)
}

async fn serve(
    store: &Store,
    config: &Config,
    name: &str,
    event: OwnEvent,
    patience: Duration,
) -> Result<Trial, Error> {
    let sink = &config.sinks[name];
    let mut registered = store.register_sink(name, sink.from() == sink::From::Kept).await?;
    let id = registered.id;
    let others = store.pending(id).await?;
    let seq = store.send_to(id, event).await?;
    let stop = watch::Sender::new(false);
    let (_finish, finish) = watch::channel(true);
    let orders = Orders { stop: stop.subscribe(), finish, reopen: watch::channel(()).1 };
    let bookmark = registered.bookmark.take();
    let courier =
        Courier::new(name, sink.build(), sink.delivery(), store.clone(), &registered, orders);
    let mut run = std::pin::pin!(courier.run(bookmark));
    let ended = if let Ok(ended) = tokio::time::timeout(patience, &mut run).await {
        Some(ended?)
    } else {
        stop.send_replace(true);
        let grace = config.shutdown.grace.duration();
        tokio::time::timeout(grace, run).await.ok().transpose()?
    };
    let fate = store.fate_of(id, seq).await?;
    Ok(match (fate.refused, ended) {
        (Some(reason), _) => Trial::Refused { reason },
        _ if fate.is_settled => Trial::Delivered { others: Some(others) },
        (_, Some(End::Blocked { error, hint, pending })) => Trial::Blocked { error, hint, pending },
        _ => Trial::Waiting { error: fate.error, pending: fate.pending },
    })
}

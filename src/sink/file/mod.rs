//! The file sink: whole lines, appended and flushed, each exactly once.
//!
//! Promises that no reader sees a whole line vanish: after a crash, lines that equal the upcoming
//! events are adopted, and only the torn beginning of a line is cut. Follows no symbolic link and
//! writes into no directory that others may write to.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::{
    Batch, BatchLimits, BoxError, DeliveryError, Encoded, From, Receipt, Resumed, Sink, Upcoming,
};
use crate::encode::Format;
use crate::event::{Event, Uid};
use crate::position::Bookmark;
use crate::problem::Problem;
use crate::units::word;

mod adopt;
mod output;

use adopt::Tail;
use output::{Output, Position};

/// Changes whenever the bytes of a line for the same event do.
const ENCODING: u32 = 1;

/// `[sinks.<name>.file]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The file that lines are appended to.
    pub path: PathBuf,
    /// What a line looks like.
    #[serde(deserialize_with = "word")]
    pub format: Format,
    /// When a batch is full.
    pub batch: BatchLimits,
    /// Where the sink begins when it is new.
    #[serde(deserialize_with = "word")]
    pub from: From,
}

impl Config {
    /// What is wrong beyond the form of single values.
    pub fn check(&self) -> Vec<Problem> {
        let path = self.path.as_os_str().is_empty().then(|| {
            Problem::at("path", "is missing").hint("name the file that events are appended to")
        });
        path.into_iter().chain(self.batch.check()).collect()
    }
}

/// The bookmark: enough to know the file again, wherever it has been moved meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    path: PathBuf,
    at: Position,
    format: Format,
    encoding: u32,
}

/// Appends to one file.
pub struct FileSink {
    config: Config,
    hand: Mutex<Hand>,
}

/// What the sink holds while it writes.
#[derive(Default)]
struct Hand {
    output: Option<Output>,
    /// How many messages of a batch that failed stand in files that were moved away since.
    elsewhere: usize,
}

impl FileSink {
    /// A sink that has opened nothing yet.
    pub fn new(config: Config) -> Self {
        Self { config, hand: Mutex::default() }
    }

    fn bookmark(&self, at: &Position) -> Bookmark {
        let mark = Mark {
            path: self.config.path.clone(),
            at: at.clone(),
            format: self.config.format,
            encoding: ENCODING,
        };
        Bookmark(serde_json::to_string(&mark).expect("a mark is plain data"))
    }

    fn failed(&self, err: output::Error) -> DeliveryError {
        if err.is_passing() {
            return DeliveryError::Retry { after: None, source: err.into() };
        }
        let hint = Some(err.hint(&self.config.path));
        DeliveryError::Blocked { source: err.into(), hint }
    }

    fn open(&self) -> Result<Output, DeliveryError> {
        Output::open(&self.config.path).map_err(|err| self.failed(err))
    }

    /// Compares what follows the bookmark with the upcoming events, in the file that the bookmark
    /// names and then in the one that stands at the path now.
    async fn compare(
        &self,
        mark: &Mark,
        output: &mut Output,
        upcoming: &mut dyn Upcoming,
    ) -> Result<u64, DeliveryError> {
        let mut tail = Tail::new(mark.format, mark.encoding != ENCODING, upcoming);
        let moved = Output::moved(&mark.path, &mark.at, output).map_err(|err| self.failed(err))?;
        if let Some(mut moved) = moved {
            info!(path = %moved.path().display(), "The file was moved; its end is compared first.");
            tail.adopt(&mut moved, mark.at.length, true).await.map_err(retry)?;
        }
        let known = output.takes_up(&mark.at).map_err(|err| self.failed(err))?;
        let from = if known { mark.at.length } else { 0 };
        tail.adopt(output, from, known).await.map_err(retry)?;
        Ok(tail.report())
    }

    /// Finds out which messages of the batch an earlier attempt has written; says how many, and
    /// stands behind them. When it fails, all that is known is kept for the next attempt.
    async fn catch_up(&self, hand: &mut Hand, batch: &Batch) -> Result<usize, DeliveryError> {
        let failed = |err| self.failed(err);
        let Some(output) = &mut hand.output else {
            hand.output = Some(self.open()?);
            return Ok(hand.elsewhere);
        };
        let mut upcoming = Messages { batch, next: hand.elsewhere };
        let mut tail = Tail::new(self.config.format, false, &mut upcoming);
        let is_there = output.is_still_there();
        if is_there && output.is_dirty().map_err(failed)? {
            let from = output.position().length;
            tail.adopt(output, from, true).await.map_err(retry)?;
        } else if !is_there {
            warn!("The file was moved or removed; a new one is begun.");
            let new = self.open()?;
            if let Some(mut moved) = output.left_behind(&new).map_err(failed)? {
                let from = output.position().length;
                tail.adopt(&mut moved, from, true).await.map_err(retry)?;
            }
            let adopted = usize::try_from(tail.report()).expect("no more than the batch holds");
            hand.elsewhere += adopted;
            hand.output = Some(new);
            return Ok(hand.elsewhere);
        }
        let adopted = usize::try_from(tail.report_again()).expect("no more than the batch holds");
        Ok(hand.elsewhere + adopted)
    }
}

#[async_trait]
impl Sink for FileSink {
    async fn resume(
        &mut self,
        bookmark: Option<&Bookmark>,
        upcoming: &mut dyn Upcoming,
    ) -> Result<Resumed, DeliveryError> {
        // An earlier attempt that failed half-way would hold the lock against us.
        *self.hand.lock().await = Hand::default();
        let mut output = self.open()?;
        let mark: Option<Mark> =
            bookmark.and_then(|bookmark| serde_json::from_str(&bookmark.0).ok());
        let adopted = match mark {
            Some(mark) => self.compare(&mark, &mut output, upcoming).await?,
            None => 0,
        };
        output.stand_at_end().map_err(|err| self.failed(err))?;
        let bookmark = Some(self.bookmark(output.position()));
        self.hand.lock().await.output = Some(output);
        Ok(Resumed { adopted, bookmark })
    }

    fn encode(&self, event: &Event<'_>, out: &mut Vec<u8>) {
        self.config.format.encode(event, out);
        out.push(b'\n');
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Result<Receipt, DeliveryError> {
        let mut hand = self.hand.lock().await;
        let done = self.catch_up(&mut hand, batch).await?;
        let mut output = hand.output.take().expect("catching up has left one open");
        let batch = Arc::clone(batch);
        let work = move || {
            let appended = output.append(&batch, done);
            (output, appended)
        };
        let (output, appended) =
            tokio::task::spawn_blocking(work).await.map_err(|err| retry(err.into()))?;
        let output = hand.output.insert(output);
        appended.map_err(|err| self.failed(err))?;
        let bookmark = self.bookmark(output.position());
        hand.elsewhere = 0;
        Ok(Receipt { bookmark: Some(bookmark) })
    }
}

fn retry(source: BoxError) -> DeliveryError {
    DeliveryError::Retry { after: None, source }
}

/// The messages of a batch whose first attempt failed, as events to be found in the file.
struct Messages<'a> {
    batch: &'a Batch,
    next: usize,
}

#[async_trait]
impl Upcoming for Messages<'_> {
    async fn next(&mut self, _format: Format) -> Result<Option<Encoded>, BoxError> {
        let message = self.batch.messages().nth(self.next);
        self.next += 1;
        let line = message.map(|message| message.strip_suffix(b"\n").unwrap_or(message));
        Ok(line.map(|line| Encoded { seq: 0, uid: Uid([0; 16]), bytes: line.to_vec() }))
    }
}

//! The file sink: whole lines, appended and flushed, each exactly once.
//!
//! Promises that no reader sees a whole line vanish: after a crash, lines that equal the upcoming
//! events are adopted, and only the torn beginning of a line is cut. Follows no symbolic link and
//! writes into no directory that others may write to. Rotates the file itself, or notices that
//! somebody else does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tracing::{Span, info, warn};

use super::{
    Batch, BatchLimits, BoxError, DeliveryError, Encoded, From, Receipt, Resumed, Route, Sink,
    Unencodable, Upcoming,
};
use crate::encode::Format;
use crate::event::{Event, Millis, Uid};
use crate::position::Bookmark;
use crate::problem::Problem;
use crate::units::word;

mod adopt;
mod compress;
mod examine;
mod output;
mod rotate;
mod rotated;
mod search;
mod upkeep;

use adopt::Tail;
use output::{Output, Position};
use rotate::Rotation;
use upkeep::Upkeep;

pub use rotate::{Compress, Config as Rotate, Keep};

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
    /// Which events are for it.
    pub route: Route,
    /// Where the sink begins when it is new.
    #[serde(deserialize_with = "word")]
    pub from: From,
    /// When the file is rotated; never, unless set.
    pub rotate: Option<Rotate>,
}

impl Config {
    /// What is wrong beyond the form of single values.
    pub fn check(&self) -> Vec<Problem> {
        let path = self.path.as_os_str().is_empty().then(|| {
            Problem::at("path", "is missing").hint("name the file that events are appended to")
        });
        let rotate = self.rotate.iter().flat_map(Rotate::check);
        let rotate = rotate.map(|problem| problem.under("rotate"));
        path.into_iter().chain(self.batch.check()).chain(rotate).collect()
    }

    /// Looks for what would block the sink, without opening anything.
    pub fn examine(&self) -> Result<String, DeliveryError> {
        examine::examine(&self.path).map_err(|err| failed(err, &self.path))
    }
}

/// The bookmark: enough to know the file again, wherever it has been moved meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    path: PathBuf,
    at: Position,
    format: Format,
    encoding: u32,
    /// When the file's first line was written.
    #[serde(default)]
    begun: Option<Millis>,
    /// The highest number of a rotated file.
    #[serde(default)]
    rotated: u64,
}

/// Appends to one file.
pub struct FileSink {
    config: Config,
    upkeep: Option<Upkeep>,
    hand: Mutex<Hand>,
}

/// What the sink holds while it writes.
#[derive(Default)]
struct Hand {
    output: Option<Output>,
    /// How many messages of a batch that failed stand in files that were moved away since.
    elsewhere: usize,
    /// True while a batch may have been written in part.
    is_unfinished: bool,
    rotation: Option<Rotation>,
}

impl FileSink {
    /// A sink that has opened nothing yet.
    pub fn new(config: Config) -> Self {
        let upkeep = config.rotate.as_ref().map(|rotate| Upkeep::new(&config.path, rotate));
        Self { config, upkeep, hand: Mutex::default() }
    }

    fn bookmark(&self, output: &Output, rotation: Option<&Rotation>) -> Bookmark {
        let mark = Mark {
            path: self.config.path.clone(),
            at: output.position().clone(),
            format: self.config.format,
            encoding: ENCODING,
            begun: output.begun(),
            rotated: rotation.map_or(0, |rotation| rotation.last),
        };
        Bookmark(serde_json::to_string(&mark).expect("a mark is plain data"))
    }

    fn failed(&self, err: output::Error) -> DeliveryError {
        failed(err, &self.config.path)
    }

    fn open(&self) -> Result<Output, DeliveryError> {
        Output::open(&self.config.path).map_err(|err| self.failed(err))
    }

    /// Compares what follows the bookmark with the upcoming events: in the file that the bookmark
    /// names, in those that were begun and moved away after it, and in the one that stands at the
    /// path now.
    async fn compare(
        &self,
        mark: &Mark,
        output: &mut Output,
        upcoming: &mut dyn Upcoming,
    ) -> Result<u64, DeliveryError> {
        let mut tail = Tail::new(mark.format, mark.encoding != ENCODING, upcoming);
        let failed = |err| self.failed(err);
        let mut moved = Output::moved(&mark.path, &mark.at, output).map_err(failed)?;
        if let Some(moved) = &mut moved {
            info!(path = %moved.path().display(), "The file was moved; its end is compared first.");
            tail.adopt(moved, mark.at.length, true).await.map_err(retry)?;
        }
        if !mark.at.is_in(output.position()) {
            self.compare_others(mark, moved.as_ref(), output, &mut tail).await?;
        }
        let known = output.takes_up(&mark.at).map_err(failed)?;
        let from = if known { mark.at.length } else { 0 };
        tail.adopt(output, from, known).await.map_err(retry)?;
        if known {
            output.remember(mark.begun);
        }
        Ok(tail.report())
    }

    /// Adopts the siblings that begin with the next event, as long as the file at the path does not.
    async fn compare_others(
        &self,
        mark: &Mark,
        moved: Option<&Output>,
        output: &Output,
        tail: &mut Tail<'_>,
    ) -> Result<(), DeliveryError> {
        let since = moved.and_then(Output::written);
        // Where equal events are equal lines, an old file may well begin with the next one.
        if mark.format == Format::Raw && since.is_none() {
            return Ok(());
        }
        let others = Output::others(&mark.path, since, [moved, Some(output)]);
        let mut others = others.map_err(|err| self.failed(err))?;
        while !others.is_empty() && !tail.is_begun_by(output).await.map_err(retry)? {
            let mut next = None;
            for (index, other) in others.iter().enumerate() {
                if next.is_none() && tail.is_begun_by(other).await.map_err(retry)? {
                    next = Some(index);
                }
            }
            let Some(index) = next else { break };
            let mut next = others.remove(index);
            info!(path = %next.path().display(), "A file that was moved holds later lines.");
            tail.adopt(&mut next, 0, false).await.map_err(retry)?;
        }
        Ok(())
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
    async fn probe(&self) -> Result<String, DeliveryError> {
        examine::probe(&self.config.path).map_err(|err| self.failed(err))
    }

    async fn resume(
        &mut self,
        bookmark: Option<&Bookmark>,
        upcoming: &mut dyn Upcoming,
    ) -> Result<Resumed, DeliveryError> {
        // An earlier attempt that failed half-way would hold the lock against us.
        *self.hand.lock().await = Hand::default();
        let failed = |err| self.failed(err);
        let mut output = self.open()?;
        let mark: Option<Mark> =
            bookmark.and_then(|bookmark| serde_json::from_str(&bookmark.0).ok());
        let adopted = match &mark {
            Some(mark) => self.compare(mark, &mut output, upcoming).await?,
            None => 0,
        };
        output.stand_at_end().map_err(failed)?;
        let path = &self.config.path;
        let last = mark.filter(|mark| mark.path == *path).map_or(0, |mark| mark.rotated);
        let rotation = self.config.rotate.as_ref().map(|rotate| Rotation::new(rotate, path, last));
        let rotation = rotation.transpose().map_err(failed)?;
        let bookmark = Some(self.bookmark(&output, rotation.as_ref()));
        *self.hand.lock().await = Hand { output: Some(output), rotation, ..Hand::default() };
        Ok(Resumed { adopted, bookmark })
    }

    fn encode(&self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        self.config.format.encode(event, out);
        out.push(b'\n');
        Ok(())
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Result<Receipt, DeliveryError> {
        let mut hand = self.hand.lock().await;
        let done = self.catch_up(&mut hand, batch).await?;
        hand.is_unfinished = true;
        let mut output = hand.output.take().expect("catching up has left one open");
        let mut rotation = hand.rotation.clone();
        let (batch, span) = (Arc::clone(batch), Span::current());
        let work = move || {
            let _inside = span.entered();
            let turned = match &mut rotation {
                Some(rotation) if done == 0 => rotation.turn(&mut output, batch.bytes.len()),
                // The rest of a batch follows its beginning.
                _ => Ok(()),
            };
            let appended = turned.and_then(|()| output.append(&batch, done));
            (output, rotation, appended)
        };
        let (output, rotation, appended) =
            tokio::task::spawn_blocking(work).await.map_err(|err| retry(err.into()))?;
        let bookmark = appended.is_ok().then(|| self.bookmark(&output, rotation.as_ref()));
        (hand.output, hand.rotation) = (Some(output), rotation);
        appended.map_err(|err| self.failed(err))?;
        (hand.elsewhere, hand.is_unfinished) = (0, false);
        Ok(Receipt { bookmark, ..Receipt::default() })
    }

    async fn settled(&self) {
        let hand = self.hand.lock().await;
        let (Some(upkeep), Some(output), Some(rotation)) =
            (&self.upkeep, &hand.output, &hand.rotation)
        else {
            return;
        };
        // What somebody has moved may have a name of ours and still be the bookmark's.
        if output.is_still_there() {
            upkeep.look_after(rotation.last);
        }
    }

    async fn reopen(&self) {
        let mut hand = self.hand.lock().await;
        let is_there = hand.output.as_ref().is_none_or(Output::is_still_there);
        // Where a batch is written in part, the next attempt looks for it first.
        if is_there || hand.is_unfinished {
            return;
        }
        info!("The file was moved; a new one is begun, as asked.");
        // What is wrong, if anything, is told by the next delivery.
        hand.output = self.open().ok();
    }

    async fn close(&self, in_a_hurry: bool) {
        if let Some(upkeep) = &self.upkeep {
            upkeep.close(in_a_hurry).await;
        }
    }
}

fn failed(err: output::Error, path: &Path) -> DeliveryError {
    if err.is_passing() {
        return DeliveryError::passing(err);
    }
    let hint = err.hint(path);
    DeliveryError::blocked(err, hint)
}

fn retry(source: BoxError) -> DeliveryError {
    DeliveryError::passing(source)
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

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use siemferry::encode::Format;
use siemferry::event::{Event, Seq, Uid};
use siemferry::position::Bookmark;
use siemferry::sink::{
    Batch, BoxError, Config, DeliveryError, Encoded, Resumed, Sink, Upcoming, file,
};
use tempfile::TempDir;

use crate::store::shelf;

/// A file, and the sink that writes it.
pub struct Pen {
    pub dir: TempDir,
    /// Where the file is: in `dir`, unless a test says otherwise.
    pub home: PathBuf,
    pub format: Format,
    pub rotate: Option<file::Rotate>,
    pub sink: Box<dyn Sink>,
    /// What the store would hold.
    pub bookmark: Option<Bookmark>,
    /// How many events are settled.
    pub settled: usize,
    /// The records, of which the first is event 1.
    pub records: Vec<String>,
}

impl Pen {
    /// A new sink that has opened its new file, with so many events to be delivered.
    pub async fn new(format: Format, records: Vec<String>) -> Self {
        let mut pen = Self::closed(format, records);
        pen.start().await.unwrap();
        pen
    }

    /// A sink that has opened nothing yet.
    pub fn closed(format: Format, records: Vec<String>) -> Self {
        let dir = shelf::directory();
        let sink = sink(dir.path().join("events.ndjson"), format);
        let home = dir.path().to_owned();
        Self { dir, home, format, rotate: None, sink, bookmark: None, settled: 0, records }
    }

    /// One that has opened nothing yet and rotates as this TOML says.
    pub fn rotating(rotate: &str, records: Vec<String>) -> Self {
        let mut pen = Self::closed(Format::Json, records);
        pen.rotate = Some(toml::from_str(rotate).unwrap());
        pen.crash();
        pen
    }

    pub fn path(&self) -> PathBuf {
        self.sibling("events.ndjson")
    }

    pub fn sibling(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    pub fn read(&self) -> Vec<u8> {
        std::fs::read(self.path()).unwrap()
    }

    /// As after a crash: what was in memory is gone.
    pub fn crash(&mut self) {
        let (path, format, rotate) = (self.path(), self.format, self.rotate.clone());
        let config = file::Config { path, format, rotate, ..file::Config::default() };
        self.sink = Config::File(config).build();
    }

    /// Resumes, and settles what the sink holds already; returns how many events that is.
    pub async fn start(&mut self) -> Result<usize, DeliveryError> {
        let upcoming = &mut Coming { records: &self.records, next: self.settled };
        let Resumed { adopted, bookmark } =
            self.sink.resume(self.bookmark.as_ref(), upcoming).await?;
        let adopted = usize::try_from(adopted).unwrap();
        (self.bookmark, self.settled) = (bookmark, self.settled + adopted);
        Ok(adopted)
    }

    /// Delivers the next events, up to number `to`, and settles them.
    pub async fn deliver(&mut self, to: usize) -> Result<(), DeliveryError> {
        self.bookmark = self.deliver_unsettled(to).await?;
        self.settled = to;
        Ok(())
    }

    /// As the courier does after a settle; and waits for what that begins.
    pub async fn look_after(&self) {
        self.sink.settled().await;
        self.sink.close(false).await;
    }

    /// Delivers them, but the store does not come to know.
    pub async fn deliver_unsettled(&self, to: usize) -> Result<Option<Bookmark>, DeliveryError> {
        let batch = self.batch(to);
        Ok(self.sink.deliver(&batch).await?.bookmark)
    }

    pub async fn deliver_rest(&mut self) {
        if self.settled < self.records.len() {
            self.deliver(self.records.len()).await.unwrap();
        }
    }

    pub fn batch(&self, to: usize) -> Arc<Batch> {
        let mut batch = Batch::default();
        for index in self.settled..to {
            self.sink.encode(&event(&self.records[index], index), &mut batch.bytes).unwrap();
            batch.ends.push(batch.bytes.len());
        }
        Arc::new(batch)
    }

    /// The events' lines in a format, without their line breaks.
    pub fn expected(&self, format: Format) -> Vec<String> {
        let line = |(index, record): (usize, &String)| {
            let mut line = Vec::new();
            format.encode(&event(record, index), &mut line);
            String::from_utf8(line).unwrap()
        };
        self.records.iter().enumerate().map(line).collect()
    }

    /// Every event is a whole line of these files, once.
    pub fn assert_each_once(&self, files: &[&[u8]], context: &str) {
        for line in self.expected(self.format) {
            let whole = files.iter().flat_map(|file| file.split(|byte| *byte == b'\n'));
            let times = whole.filter(|found| *found == line.as_bytes()).count();
            let shown: Vec<_> = files.iter().map(|file| String::from_utf8_lossy(file)).collect();
            assert_eq!(times, 1, "{context}: {line}\n{shown:#?}");
        }
    }
}

pub fn sink(path: PathBuf, format: Format) -> Box<dyn Sink> {
    Config::File(file::Config { path, format, ..file::Config::default() }).build()
}

/// So many different records.
pub fn records(count: usize) -> Vec<String> {
    (1..=count).map(|n| format!(r#"{{"n":{n},"who":"user {n}"}}"#)).collect()
}

fn event(record: &str, index: usize) -> Event<'_> {
    let seq = index as Seq + 1;
    let mut uid = [0x5a; 16];
    uid[8..].copy_from_slice(&seq.to_be_bytes());
    Event {
        seq,
        uid: Uid(uid),
        time: Some(1_767_323_045_678),
        event_type: Some("login"),
        raw: record.as_bytes(),
        source: "acme",
        api: "keeper",
        received: 1_767_323_046_000,
    }
}

/// The events behind the settled ones, as the courier would give them.
struct Coming<'a> {
    records: &'a [String],
    next: usize,
}

#[async_trait]
impl Upcoming for Coming<'_> {
    async fn next(&mut self, format: Format) -> Result<Option<Encoded>, BoxError> {
        let Some(record) = self.records.get(self.next) else { return Ok(None) };
        let event = event(record, self.next);
        self.next += 1;
        let mut bytes = Vec::new();
        format.encode(&event, &mut bytes);
        Ok(Some(Encoded { seq: event.seq, uid: event.uid, bytes }))
    }
}

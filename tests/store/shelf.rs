use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::Arc;

use siemferry::event::{Digest, Event, Millis, Page, Paging, Record, Repeats, Seq, Uid};
use siemferry::position::{PageToken, PassId, Second, Window};
use siemferry::store::dead_letters::{Configured, Letters, Refused, Retried};
use siemferry::store::seen::Counts;
use siemferry::store::sources::{Drained, Origin, PageCommit, Reader, StoredSweep};
use siemferry::store::{self, Config, Error, SinkId, Store};
use tempfile::TempDir;

/// When the first window begins.
pub const T0: Second = 1_790_000_000;
pub const HOUR: Second = 3600;
pub const DAY: Second = 86_400;

pub const STABLE: Repeats = Repeats { paging: Paging::Stable, unique: false };
pub const UNSTABLE: Repeats = Repeats { paging: Paging::Unstable, unique: false };
pub const UNIQUE: Repeats = Repeats { paging: Paging::Stable, unique: true };

/// A directory, in memory where the system has such: no test here cuts the power.
pub fn directory() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// A store with one source, `acme`.
pub struct Shelf {
    dir: TempDir,
    store: Option<Store>,
    pub origin: Arc<Origin>,
    ages: Vec<Millis>,
}

/// A record that an API shows: its text, and its second if it has one.
pub type Shown<'a> = (&'a str, Option<Second>);

/// An event of the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub seq: Seq,
    pub uid: Uid,
    pub raw: String,
}

impl Shelf {
    /// With a head and a sweep an hour behind it.
    pub async fn new(repeats: Repeats) -> Self {
        Self::with_ages(repeats, &[0, HOUR * 1000]).await
    }

    pub async fn with_ages(repeats: Repeats, ages: &[Millis]) -> Self {
        let dir = directory();
        let store = Store::open(&Config { dir: dir.path().to_owned() }).unwrap();
        let registered = store.register_source("acme", ages, T0).await.unwrap();
        let origin = Origin {
            id: registered.id,
            name: "acme".into(),
            api: "keeper".into(),
            tenant: "acme".into(),
            repeats,
            seen_keep: 7 * DAY * 1000,
        };
        Self { dir, store: Some(store), origin: Arc::new(origin), ages: ages.to_vec() }
    }

    pub fn config(&self) -> Config {
        Config { dir: self.dir.path().to_owned() }
    }

    pub fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// As after a stop and a start.
    pub async fn reopen(&mut self) {
        let ages = self.ages.clone();
        self.reopen_with(&ages).await;
    }

    pub async fn reopen_with(&mut self, ages: &[Millis]) {
        let store = self.store.take().unwrap();
        store.close();
        drop(store);
        let store = Store::open(&Config { dir: self.dir.path().to_owned() }).unwrap();
        store.register_source("acme", ages, T0).await.unwrap();
        self.ages = ages.to_vec();
        self.store = Some(store);
    }

    /// Reads `window` with the reader of that age.
    pub fn reading(&self, age: Millis, window: Window) -> Reading {
        let (origin, counts) = (Arc::clone(&self.origin), Counts::default());
        Reading { origin, age, window, pass: None, counts, now: window.end * 1000 }
    }

    /// Reads all of a window at once: one page with these records, and the watermark to its end.
    pub async fn read(&self, age: Millis, start: Second, seconds: i64, shown: &[Shown<'_>]) -> u64 {
        let mut reading = self.reading(age, Window { start, end: start + seconds });
        reading.last(self.store(), shown).await.unwrap()
    }

    /// Commits `count` events of this many bytes each, which do not shrink, on one page.
    pub async fn fill(&self, from: u64, count: u64, bytes: usize) {
        let texts: Vec<String> = (from..from + count)
            .map(|n| format!("{{\"n\":{n},\"x\":\"{}\"}}", noise(n, bytes)))
            .collect();
        let shown: Vec<Shown<'_>> = texts.iter().map(|text| (text.as_str(), Some(T0))).collect();
        let mut reading = self.reading(0, Window { start: T0, end: T0 + 1 });
        assert_eq!(reading.page(self.store(), &shown, "next").await.unwrap(), count);
    }

    /// Puts an event into the spool for one sink alone, as another process does: by the retry of a
    /// dead letter. Returns its number.
    pub async fn send_again(&self, sink: SinkId) -> Seq {
        let event = Event {
            seq: 1,
            uid: Uid([9; 16]),
            time: None,
            event_type: None,
            raw: b"{\"again\":true}",
            source: "acme",
            api: "keeper",
            received: T0 * 1000,
        };
        let refused = Refused::new(sink, &event, "too long", 1);
        let id = self.store().bury(refused).await.unwrap();
        let mut letters = Letters::edit(self.dir.path()).unwrap();
        match &letters.retry(&[id], &AllSinks).unwrap()[..] {
            [(_, Retried::SentAgain(seq))] => *seq,
            other => panic!("{other:?}"),
        }
    }

    /// All events that the spool holds.
    pub async fn events(&self) -> Vec<Stored> {
        let (mut events, mut seq) = (Vec::new(), 0);
        while let Some(page) = self.store().page_after(seq).await.unwrap() {
            while let Some(event) = page.first_after(seq) {
                let raw = String::from_utf8(event.raw.to_vec()).unwrap();
                events.push(Stored { seq: event.seq, uid: event.uid, raw });
                seq = event.seq;
            }
        }
        events
    }

    /// One number out of the database, as another connection sees it.
    pub fn ask(&self, sql: &str) -> i64 {
        let conn = rusqlite::Connection::open(store::database(self.dir.path())).unwrap();
        conn.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// Changes the database, as another process does.
    pub fn tell(&self, sql: &str) {
        let conn = rusqlite::Connection::open(store::database(self.dir.path())).unwrap();
        conn.execute_batch(sql).unwrap();
    }

    pub fn watermark(&self, age: Millis) -> Second {
        self.ask(&format!("SELECT watermark FROM sweeps WHERE age_ms = {age}"))
    }
}

/// A configuration that has every sink.
struct AllSinks;

impl Configured for AllSinks {
    fn has_sink(&self, _: &str) -> bool {
        true
    }

    fn read_again(&self, _: &str, _: &[u8]) -> Option<(Origin, Page)> {
        None
    }
}

/// One pass, with what its poller would hold in memory.
pub struct Reading {
    origin: Arc<Origin>,
    pub age: Millis,
    pub window: Window,
    pub pass: Option<PassId>,
    counts: Counts,
    pub now: Millis,
}

impl Reading {
    /// Commits a page that is not the last; returns how many of its records were new.
    pub async fn page(
        &mut self,
        store: &Store,
        shown: &[Shown<'_>],
        next: &str,
    ) -> Result<u64, Error> {
        let commit = self.commit(shown, Some(next), Vec::new());
        self.absorb(store, commit).await
    }

    /// Commits the last page, and with it the watermark of the reader.
    pub async fn last(&mut self, store: &Store, shown: &[Shown<'_>]) -> Result<u64, Error> {
        let end = self.window.end;
        self.last_to(store, shown, end).await
    }

    /// The same, with another watermark than the window's end.
    pub async fn last_to(
        &mut self,
        store: &Store,
        shown: &[Shown<'_>],
        watermark: Second,
    ) -> Result<u64, Error> {
        let moved = StoredSweep { age: self.age, watermark, read_at: Some(self.now) };
        let commit = self.commit(shown, None, vec![moved]);
        self.absorb(store, commit).await
    }

    pub fn commit(
        &self,
        shown: &[Shown<'_>],
        next: Option<&str>,
        drained: Vec<StoredSweep>,
    ) -> PageCommit {
        let next = next.map(|token| PageToken(token.into()));
        PageCommit {
            origin: Arc::clone(&self.origin),
            pass: self.pass,
            reader: Reader::Sweep(self.age),
            window: self.window,
            begun_at: self.now,
            scope: "scope".into(),
            counts: self.counts.clone(),
            page: Page { next, ..page(shown) },
            fetched_at: self.now,
            skew: 0,
            now: self.now,
            drained: (!drained.is_empty()).then_some(Drained::Swept(drained)),
        }
    }

    async fn absorb(&mut self, store: &Store, commit: PageCommit) -> Result<u64, Error> {
        let committed = store.commit_page(commit).await?;
        self.pass = Some(committed.pass);
        self.counts.merge(committed.delta);
        Ok(committed.events)
    }
}

/// A page of records; equal texts are equal records.
pub fn page(shown: &[Shown<'_>]) -> Page {
    let mut page = Page::default();
    for (text, second) in shown {
        let start = page.bytes.len();
        page.bytes.extend_from_slice(text.as_bytes());
        page.records.push(Record {
            span: start..page.bytes.len(),
            event_type: None,
            time: second.map(|second| second * 1000 + 7),
            digest: digest(text),
        });
    }
    page
}

fn digest(text: &str) -> Digest {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, text).hash(&mut hasher);
        hasher.finish().to_be_bytes()
    };
    Digest([half(1), half(2)].concat().try_into().unwrap())
}

/// Text that does not shrink.
fn noise(seed: u64, bytes: usize) -> String {
    let mut random = siemferry::sim::Rng::new(seed);
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..bytes).map(|_| char::from(*random.pick(letters))).collect()
}

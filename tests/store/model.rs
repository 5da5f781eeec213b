//! A world of records with copies, read by passes that are cut off, resumed, repeated and mixed,
//! against the count of what is true.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use siemferry::position::Window;
use siemferry::sim::Rng;
use siemferry::store::Prune;
use siemferry::store::sinks::Settlement;

use super::shelf::{HOUR, Reading, STABLE, Shelf, Shown, T0};

/// The records of the world lie in so many seconds.
const SECONDS: i64 = 8;
const AGES: [i64; 3] = [0, 60_000, HOUR * 1000];

/// How often each record is true.
type World = BTreeMap<(u8, i64), u32>;

#[derive(Clone, Debug)]
enum Step {
    /// A record comes into the world, perhaps late, perhaps another copy.
    Appear { record: u8, second: i64 },
    /// A reader begins a window; what it was reading is cut off.
    Begin { reader: usize, start: i64, seconds: i64, page: usize, order: u64 },
    /// A reader commits its next page.
    Page { reader: usize },
    /// The commit of a reader's next page fails.
    Fail { reader: usize },
    /// A reader goes on by its token as a new pass; what it had counted is gone.
    Resume { reader: usize },
    /// The daemon stops and starts: all readers are resumed.
    Restart,
    /// A sink settles all, and the spool is emptied.
    Prune,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let reader = || 0..AGES.len();
    let step = prop_oneof![
        6 => (0..5u8, 0..SECONDS).prop_map(|(record, second)| Step::Appear { record, second }),
        4 => (reader(), 0..SECONDS, 1..=SECONDS, 1..5usize, any::<u64>()).prop_map(
            |(reader, start, seconds, page, order)| Step::Begin { reader, start, seconds, page, order }),
        12 => reader().prop_map(|reader| Step::Page { reader }),
        2 => reader().prop_map(|reader| Step::Fail { reader }),
        2 => reader().prop_map(|reader| Step::Resume { reader }),
        1 => Just(Step::Restart),
        1 => Just(Step::Prune),
    ];
    proptest::collection::vec(step, 1..60)
}

/// A pass under way, and the pages it has yet to show.
struct Under {
    reading: Reading,
    pages: Vec<Vec<(u8, i64)>>,
}

struct Play {
    shelf: Shelf,
    sink: i64,
    settled: u64,
    world: World,
    under: [Option<Under>; AGES.len()],
    raised: World,
    uids: BTreeMap<String, (u8, i64)>,
    last_seq: u64,
}

impl Play {
    async fn new() -> Self {
        let shelf = Shelf::with_ages(STABLE, &AGES).await;
        let sink = shelf.store().register_sink("s", true).await.unwrap().id;
        Self {
            shelf,
            sink,
            settled: 0,
            world: World::new(),
            under: [const { None }; AGES.len()],
            raised: World::new(),
            uids: BTreeMap::new(),
            last_seq: 0,
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Appear { record, second } => {
                *self.world.entry((record, second)).or_default() += 1;
            }
            Step::Begin { reader, start, seconds, page, order } => {
                let window = Window { start, end: (start + seconds).min(SECONDS) };
                self.begin(reader, window, page, order);
            }
            Step::Page { reader } => self.page(reader).await,
            Step::Fail { reader } => self.fail(reader).await,
            Step::Resume { reader } => self.resume(reader),
            Step::Restart => {
                self.shelf.reopen().await;
                self.sink = self.shelf.store().register_sink("s", true).await.unwrap().id;
                (0..AGES.len()).for_each(|reader| self.resume(reader));
            }
            Step::Prune => self.prune().await,
        }
    }

    /// What the API shows of a window is what is true when the pass begins, each record once.
    fn begin(&mut self, reader: usize, window: Window, page: usize, order: u64) {
        let inside = self.world.iter().filter(|((_, second), _)| window.contains(*second));
        let mut shown: Vec<_> = inside
            .flat_map(|(record, copies)| std::iter::repeat_n(*record, *copies as usize))
            .collect();
        let mut random = Rng::new(order);
        for at in (1..shown.len()).rev() {
            shown.swap(at, random.index(at + 1));
        }
        let pages = shown.chunks(page).map(<[_]>::to_vec).collect();
        let window = Window { start: T0 + window.start, end: T0 + window.end };
        let reading = self.shelf.reading(AGES[reader], window);
        self.under[reader] = Some(Under { reading, pages });
    }

    async fn page(&mut self, reader: usize) {
        let Some(under) = self.under[reader].as_mut().filter(|under| !under.pages.is_empty())
        else {
            return;
        };
        let page = under.pages.remove(0);
        let texts = texts(&page);
        let token = format!("after-{}", under.pages.len());
        under.reading.page(self.shelf.store(), &shown(&texts), &token).await.unwrap();
        self.look().await;
    }

    /// The commit fails, and the page is asked for again later.
    async fn fail(&mut self, reader: usize) {
        let Some(under) = &self.under[reader] else { return };
        let Some(page) = under.pages.first() else { return };
        let texts = texts(page);
        let fallen = siemferry::store::sources::StoredSweep {
            age: AGES[reader],
            watermark: T0 - 1,
            read_at: None,
        };
        let commit = under.reading.commit(&shown(&texts), None, vec![fallen]);
        self.shelf.store().commit_page(commit).await.unwrap_err();
        self.look().await;
    }

    fn resume(&mut self, reader: usize) {
        if let Some(under) = &mut self.under[reader] {
            under.reading = self.shelf.reading(AGES[reader], under.reading.window);
        }
    }

    async fn prune(&mut self) {
        let store = self.shelf.store();
        store.settle(Settlement::of(self.sink, self.settled, self.last_seq, 0)).await.unwrap();
        self.settled = self.last_seq;
        while store.prune(Prune::Bytes(u64::MAX)).await.unwrap() > 0 {}
        assert_eq!(store.spool_bytes(), 0);
    }

    /// Takes in what is new in the spool, and compares it with what is true.
    async fn look(&mut self) {
        let mut seq = self.last_seq;
        while let Some(page) = self.shelf.store().page_after(seq).await.unwrap() {
            while let Some(event) = page.first_after(seq) {
                assert_eq!(event.seq, seq + 1, "numbers are contiguous and never used again");
                let record = record(event.raw);
                *self.raised.entry(record).or_default() += 1;
                let earlier = self.uids.insert(event.uid.to_string(), record);
                assert_eq!(earlier, None, "a uid is one event's");
                seq = event.seq;
            }
        }
        self.last_seq = seq;
        for (record, raised) in &self.raised {
            let copies = self.world.get(record).copied().unwrap_or(0);
            assert!(*raised <= copies, "{record:?}: {raised} events of {copies}");
        }
    }

    async fn read_all(&mut self, page: usize, order: u64) {
        self.under = [const { None }; AGES.len()];
        self.begin(2, Window { start: 0, end: SECONDS }, page, order);
        while self.under[2].as_ref().is_some_and(|under| !under.pages.is_empty()) {
            self.page(2).await;
        }
    }
}

fn texts(page: &[(u8, i64)]) -> Vec<(String, i64)> {
    page.iter()
        .map(|(record, second)| (format!("{{\"r\":{record},\"s\":{second}}}"), *second))
        .collect()
}

fn shown(texts: &[(String, i64)]) -> Vec<Shown<'_>> {
    // The first record has no time of its own.
    let second = |text: &str, second| (!text.contains("\"r\":0")).then_some(T0 + second);
    texts.iter().map(|(text, at)| (text.as_str(), second(text, *at))).collect()
}

fn record(raw: &[u8]) -> (u8, i64) {
    let record: serde_json::Value = serde_json::from_slice(raw).unwrap();
    (u8::try_from(record["r"].as_u64().unwrap()).unwrap(), record["s"].as_i64().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn each_true_event_is_stored_once_whatever_the_passes_do(
        steps in steps(), page in 1..6usize, order in any::<u64>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut play = Play::new().await;
            for step in steps {
                play.step(step).await;
            }
            play.read_all(page, order).await;
            assert_eq!(play.raised, play.world, "one undisturbed pass finds all");
            play.read_all(page + 1, order ^ 1).await;
            assert_eq!(play.raised, play.world, "and the next one nothing more");

            let mut fresh = Play::new().await;
            fresh.world.clone_from(&play.world);
            fresh.read_all(page + 2, order ^ 2).await;
            let uids = |play: &Play| play.uids.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(uids(&fresh), uids(&play), "the same world has the same identities");
        });
    }
}

//! Which window next: pure, told the time.
//!
//! A source has a watermark per age: the head's, and one for each trailing sweep, which reads the
//! same time again, later; a backfill reads what somebody asked for. Promises that the head leaves
//! no instant unread, that watermarks only rise, and that no window is empty, backwards, or ends
//! after `now`.
//! Knows neither pages nor errors.

use crate::event::Millis;
use crate::position::{Second, Window};
use crate::store::sources::StoredSweep;

/// How far a backfill's window ends before the sweep in front of it, in seconds: requests reach one
/// second beyond their windows on each side, and two passes must not count the same second at once.
const APART: Second = 2;

/// A head that is further behind than this, in seconds, has been away.
const LONG_BACKLOG: Second = 300;

/// The readers of one source, the head first, and the rules they follow.
#[derive(Clone, Debug)]
pub struct Plan {
    sweeps: Vec<Sweep>,
    backfill: Option<Backfill>,
    rules: Rules,
}

/// How often and how much is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How often the newest events are asked for.
    pub poll_every: Millis,
    /// The longest window, in seconds.
    pub max_window: i64,
    /// How far behind the clock the head stays.
    pub lag: Millis,
}

#[derive(Clone, Copy, Debug)]
struct Sweep {
    stored: StoredSweep,
    /// The longest window that the API lets this sweep read; `max_window` unless it was halved.
    span: i64,
    /// True when the last window was cut short by its length: the next one follows at once.
    behind: bool,
}

/// A span that somebody asked to be read again, and how much of it is left.
#[derive(Clone, Copy, Debug)]
struct Backfill {
    left: Window,
    span: i64,
}

/// Who reads a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// A sweep, by its place in the order of ages; 0 is the head.
    Sweep(usize),
    /// The backfill that is under way.
    Backfill,
}

/// The newest events come first, whatever else is due.
pub const HEAD: Reader = Reader::Sweep(0);

/// A window to be read by one of the readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Which reader.
    pub reader: Reader,
    /// What it is to read.
    pub window: Window,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Read this window.
    Read(Task),
    /// Nothing is due before this moment of the server's clock.
    Wait(Millis),
}

impl Plan {
    /// Takes up where the store stands; `sweeps` are in the order of their age.
    pub fn new(sweeps: &[StoredSweep], rules: Rules) -> Self {
        let sweep =
            |stored: &StoredSweep| Sweep { stored: *stored, span: rules.max_window, behind: false };
        Self { sweeps: sweeps.iter().map(sweep).collect(), backfill: None, rules }
    }

    /// All readers in the order of their urgency: the head, the backfill, the younger sweeps first.
    pub fn readers(&self) -> impl Iterator<Item = Reader> + use<> {
        let older = (1..self.sweeps.len()).map(Reader::Sweep);
        [HEAD, Reader::Backfill].into_iter().chain(older)
    }

    /// The next window at `now`, by the server's clock, of the readers that are `ready`. `turn` is
    /// the one asked first: the head, unless its last attempt failed and another must not starve.
    /// An `eager` plan reads what is behind that second without waiting for its time.
    pub fn next(
        &self,
        now: Millis,
        turn: Reader,
        eager: Option<Second>,
        ready: impl Fn(Reader) -> bool,
    ) -> Next {
        let mut earliest = now + self.rules.poll_every;
        let older = (1..self.sweeps.len()).map(Reader::Sweep);
        let older = older.filter(|_| self.due_at(HEAD, eager) <= now);
        for reader in older.filter(|reader| ready(*reader)) {
            match self.window(reader, now) {
                Some(window) if self.precedes_head(reader, now) => {
                    return Next::Read(Task { reader, window });
                }
                _ => {}
            }
        }
        let before = self.readers().take_while(|reader| *reader != turn);
        let from = self.readers().skip_while(|reader| *reader != turn);
        for reader in from.chain(before).filter(|reader| ready(*reader)) {
            let due = self.due_at(reader, eager);
            match self.window(reader, now) {
                Some(window) if due <= now => return Next::Read(Task { reader, window }),
                Some(_) => earliest = earliest.min(due),
                None => {}
            }
        }
        Next::Wait(earliest)
    }

    /// True when a sweep is to close its gap to the head before the head reads a long backlog: the
    /// head's windows then take the sweep along, and the backlog is read once.
    pub fn precedes_head(&self, reader: Reader, now: Millis) -> bool {
        let Reader::Sweep(index @ 1..) = reader else { return false };
        let head = self.watermark(0);
        let backlog = now.div_euclid(1000) - head;
        let (gap, begins_below) = (head - self.watermark(index), self.watermark(index - 1) == head);
        let is_old_enough = now - self.age(index) >= head * 1000;
        let is_long = backlog > LONG_BACKLOG.max(2 * self.rules.poll_every / 1000);
        is_long && is_old_enough && begins_below && 0 < gap && gap < backlog
    }

    /// True when the newest events are to be asked for.
    pub fn head_is_due(&self, now: Millis, eager: Option<Second>) -> bool {
        self.due_at(HEAD, eager) <= now && self.window(HEAD, now).is_some()
    }

    /// Where the watermarks go when `window` was drained by a pass of sweep `index`, begun at
    /// `begun_at` by the server's clock. The first is the sweep's own.
    ///
    /// An older sweep that stands in the window moves along as far as the pass was older than its
    /// age: a first read of thirty days is read once, and so is the backlog after an outage. Not so
    /// after a pass that is not whole, which may have taken a copy for a repeat.
    pub fn moves(
        &self,
        index: usize,
        window: Window,
        begun_at: Millis,
        is_whole: bool,
    ) -> Vec<StoredSweep> {
        let mut ceiling = Second::MAX;
        let mut moves = Vec::new();
        for (at, sweep) in self.sweeps.iter().enumerate().skip(index) {
            let stored = sweep.stored;
            let along = is_whole && window.contains(stored.watermark);
            if at > index && !along {
                break;
            }
            let read_to = (begun_at - self.trails(at)).div_euclid(1000).min(window.end);
            let watermark = stored.watermark.max(read_to.min(ceiling));
            ceiling = watermark;
            moves.push(StoredSweep { watermark, read_at: Some(begun_at), ..stored });
        }
        moves
    }

    /// Takes over what was committed after sweep `index` had drained `window`; `now` as it was when
    /// the window was given.
    pub fn moved(&mut self, index: usize, window: Window, moves: &[StoredSweep], now: Millis) {
        for (sweep, stored) in self.sweeps[index..].iter_mut().zip(moves) {
            sweep.stored = *stored;
        }
        let cut = window.end < self.end(index, now);
        let max_window = self.rules.max_window;
        let sweep = &mut self.sweeps[index];
        let progressed = sweep.stored.watermark == window.end;
        sweep.behind = cut && progressed;
        sweep.span = sweep.span.saturating_mul(2).min(max_window);
    }

    /// Takes up a backfill of what is left of its span, or none.
    pub fn set_backfill(&mut self, left: Option<Window>) {
        let span = self.rules.max_window;
        self.backfill = left.map(|left| Backfill { left, span });
    }

    /// What is left of the backfill once it has come to `position`; none when it is done.
    ///
    /// What the head is still to read, or has just read, needs no backfill.
    pub fn left_from(&self, position: Second) -> Option<Window> {
        let end = self.backfill?.left.end;
        let needed = position < end.min(self.watermark(0) - APART);
        needed.then_some(Window { start: position, end })
    }

    /// Takes over that a window of the backfill was drained.
    pub fn filled(&mut self, left: Option<Window>) {
        let max_window = self.rules.max_window;
        let span = self.backfill.map_or(max_window, |backfill| backfill.span.saturating_mul(2));
        self.backfill = left.map(|left| Backfill { left, span: span.min(max_window) });
    }

    /// Halves what `task` reads; false when it is down to one second already.
    pub fn halve(&mut self, task: Task) -> bool {
        let half = task.window.seconds() / 2;
        self.shorten(task.reader, half);
        half >= 1
    }

    /// Has a reader's next window be no longer than this, in seconds.
    pub fn shorten(&mut self, reader: Reader, seconds: i64) {
        let span = match reader {
            Reader::Sweep(index) => Some(&mut self.sweeps[index].span),
            Reader::Backfill => self.backfill.as_mut().map(|backfill| &mut backfill.span),
        };
        if let Some(span) = span {
            *span = seconds.clamp(1, *span);
        }
    }

    /// True when no later reading can repair what this reader counts wrong.
    pub fn is_last(&self, reader: Reader) -> bool {
        match reader {
            Reader::Sweep(index) => index + 1 == self.sweeps.len(),
            Reader::Backfill => true,
        }
    }

    /// How far a sweep has come.
    pub fn watermark(&self, sweep: usize) -> Second {
        self.sweeps[sweep].stored.watermark
    }

    /// How far a sweep trails the clock.
    pub fn age(&self, sweep: usize) -> Millis {
        self.sweeps[sweep].stored.age
    }

    /// The sweep of this age.
    pub fn sweep_of(&self, age: Millis) -> Option<usize> {
        self.sweeps.iter().position(|sweep| sweep.stored.age == age)
    }

    fn trails(&self, index: usize) -> Millis {
        if index == 0 { self.rules.lag } else { self.age(index) }
    }

    fn end(&self, index: usize, now: Millis) -> Second {
        let by_age = (now - self.trails(index)).div_euclid(1000);
        match index.checked_sub(1) {
            Some(younger) => by_age.min(self.watermark(younger)),
            None => by_age,
        }
    }

    /// The window that a reader would read now, due or not.
    pub fn window(&self, reader: Reader, now: Millis) -> Option<Window> {
        let (start, end) = match reader {
            Reader::Sweep(index) => {
                let start = self.watermark(index);
                let span = self.sweeps[index].span;
                (start, self.end(index, now).min(start.saturating_add(span)))
            }
            Reader::Backfill => {
                let Backfill { left, span } = self.backfill?;
                let front = self.sweeps.iter().map(|sweep| sweep.stored.watermark - APART);
                let front = front.filter(|front| *front > left.start).min()?;
                (left.start, left.end.min(left.start.saturating_add(span)).min(front))
            }
        };
        (start < end).then_some(Window { start, end })
    }

    fn due_at(&self, reader: Reader, eager: Option<Second>) -> Millis {
        let Reader::Sweep(index) = reader else { return Millis::MIN };
        let sweep = &self.sweeps[index];
        let hurried = eager.is_some_and(|target| index == 0 && sweep.stored.watermark < target);
        if sweep.behind || hurried {
            return Millis::MIN;
        }
        let interval = self.rules.poll_every.max(sweep.stored.age / 4);
        sweep.stored.read_at.map_or(Millis::MIN, |read_at| read_at.saturating_add(interval))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 86_400;
    const T0: Second = 1_790_000_000;

    fn plan(ages: &[i64], watermark: Second) -> Plan {
        let sweeps: Vec<_> = std::iter::once(&0)
            .chain(ages)
            .map(|age| StoredSweep { age: age * 1000, watermark, read_at: None })
            .collect();
        Plan::new(&sweeps, Rules { poll_every: 30_000, max_window: DAY, lag: 0 })
    }

    fn next(plan: &Plan, now: Millis) -> Next {
        plan.next(now, HEAD, None, |_| true)
    }

    fn index(task: Task) -> usize {
        match task.reader {
            Reader::Sweep(index) => index,
            Reader::Backfill => panic!("there is no backfill"),
        }
    }

    /// Has a pass begun at `begun_at` drain the window that was given at `now`.
    fn finish(plan: &mut Plan, task: Task, begun_at: Millis, now: Millis, is_whole: bool) {
        let moves = plan.moves(index(task), task.window, begun_at, is_whole);
        plan.moved(index(task), task.window, &moves, now);
    }

    /// Reads whatever is due at `now`, as an API without faults lets it; returns what was read.
    fn drain(plan: &mut Plan, now: Millis) -> Vec<Task> {
        let mut read = Vec::new();
        while let Next::Read(task) = next(plan, now) {
            finish(plan, task, now, now, true);
            read.push(task);
            assert!(read.len() < 1000, "a plan at a standing clock comes to rest");
        }
        read
    }

    #[test]
    fn a_first_read_of_thirty_days_is_read_once() {
        let mut plan = plan(&[60, 3600, DAY], T0 - 30 * DAY);

        let read = drain(&mut plan, T0 * 1000);

        assert_eq!(read.len(), 30, "a window a day, by the head alone: {read:?}");
        assert!(read.iter().all(|task| task.reader == HEAD));
        let watermarks: Vec<_> = (0..4).map(|sweep| T0 - plan.watermark(sweep)).collect();
        assert_eq!(watermarks, [0, 60, 3600, DAY]);
    }

    #[test]
    fn every_instant_is_read_once_by_every_sweep() {
        let mut plan = plan(&[60, 240], T0);
        let mut read = vec![Vec::new(); 3];
        for now in (T0..T0 + 3600).step_by(10) {
            for task in drain(&mut plan, now * 1000) {
                read[index(task)].push(task.window);
            }
        }

        for (sweep, windows) in read.iter().enumerate() {
            assert_eq!(windows[0].start, T0, "sweep {sweep}");
            let gapless = windows.windows(2).all(|pair| pair[0].end == pair[1].start);
            assert!(gapless, "sweep {sweep} reads one window behind the other: {windows:?}");
        }
        assert!((T0 + 3600 - plan.watermark(2)) < 240 + 60 + 40);
    }

    #[test]
    fn a_sweep_waits_a_quarter_of_its_age() {
        let mut plan = plan(&[3600], T0);
        let mut times = Vec::new();
        for now in (T0..T0 + 4 * 3600).step_by(30) {
            if drain(&mut plan, now * 1000).iter().any(|task| task.reader == Reader::Sweep(1)) {
                times.push(now);
            }
        }

        assert!(times.len() > 5);
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 900), "{times:?}");
    }

    #[test]
    fn a_clock_that_stands_behind_the_watermark_gives_no_window() {
        let plan = plan(&[60], T0);

        assert!(matches!(next(&plan, (T0 - DAY) * 1000), Next::Wait(_)));
        assert!(matches!(next(&plan, T0 * 1000 + 999), Next::Wait(_)));
        assert!(matches!(next(&plan, T0 * 1000 + 1000), Next::Read(_)));
    }

    #[test]
    fn a_server_behind_our_clock_caps_the_watermark() {
        let mut plan = plan(&[60], T0);
        let ahead = (T0 + 7200) * 1000;
        let Next::Read(task) = next(&plan, ahead) else { panic!("a window is due") };

        finish(&mut plan, task, (T0 + 10) * 1000, ahead, true);

        assert_eq!(plan.watermark(0), T0 + 10);
        assert_eq!(plan.watermark(1), T0);
    }

    #[test]
    fn what_a_pass_has_not_read_whole_is_read_again() {
        let mut plan = plan(&[60, 3600], T0 - 7200);
        let Next::Read(task) = next(&plan, T0 * 1000) else { panic!("a window is due") };

        finish(&mut plan, task, T0 * 1000, T0 * 1000, false);

        let again = drain(&mut plan, T0 * 1000);
        let window = Window { start: T0 - 7200, end: T0 - 60 };
        assert_eq!(again, [Task { reader: Reader::Sweep(1), window }], "once, by the next sweep");
        assert_eq!(plan.watermark(2), T0 - 3600);
    }

    #[test]
    fn a_halved_window_grows_back() {
        let mut plan = plan(&[], T0 - DAY);
        let first = |plan: &Plan| match next(plan, T0 * 1000) {
            Next::Read(task) => task,
            Next::Wait(_) => panic!("a window is due"),
        };
        let whole = first(&plan);
        assert!(plan.halve(whole));
        let half = first(&plan);
        assert_eq!(half.window, Window { start: T0 - DAY, end: T0 - DAY / 2 });

        finish(&mut plan, half, T0 * 1000, T0 * 1000, true);

        assert_eq!(first(&plan).window, Window { start: T0 - DAY / 2, end: T0 });
    }

    #[test]
    fn one_second_cannot_be_halved() {
        let mut plan = plan(&[], T0);
        let task = Task { reader: HEAD, window: Window { start: T0, end: T0 + 1 } };

        assert!(!plan.halve(task));
        assert!(
            matches!(next(&plan, (T0 + 9) * 1000), Next::Read(task) if task.window.seconds() == 1)
        );
    }

    #[test]
    fn a_backlog_is_read_once_after_an_outage() {
        let mut plan = plan(&[60, 240, 3600], T0 - DAY);
        drain(&mut plan, T0 * 1000);
        let before: Vec<_> = (1..4).map(|sweep| plan.watermark(sweep)).collect();

        let read = drain(&mut plan, (T0 + 4 * DAY) * 1000);

        let of_backlog = read.iter().filter(|task| task.window.end > T0);
        assert!(of_backlog.clone().all(|task| task.reader == HEAD), "{read:?}");
        assert_eq!(of_backlog.count(), 4, "a window a day");
        for (sweep, from) in (1..).zip(before) {
            let gap =
                Task { reader: Reader::Sweep(sweep), window: Window { start: from, end: T0 } };
            assert!(read.contains(&gap), "its own gap is read by each sweep: {read:?}");
        }
    }

    #[test]
    fn a_backfill_comes_behind_the_head_and_before_the_older_sweeps() {
        let mut plan = plan(&[60, 3600], T0 - 7200);
        plan.set_backfill(Some(Window { start: T0 - 9000, end: T0 - 8000 }));
        let window = Window { start: T0 - 9000, end: T0 - 8000 };

        let Next::Read(first) = next(&plan, T0 * 1000) else { panic!("the head is due") };
        assert_eq!(first.reader, HEAD);
        finish(&mut plan, first, T0 * 1000, T0 * 1000, false);

        assert_eq!(next(&plan, T0 * 1000), Next::Read(Task { reader: Reader::Backfill, window }));
        assert_eq!(plan.left_from(window.end), None);
        plan.filled(None);
        assert!(matches!(next(&plan, T0 * 1000), Next::Read(task) if index(task) == 1));
    }

    #[test]
    fn a_backfill_never_counts_a_second_together_with_a_sweep() {
        let mut plan = plan(&[60, 3600], T0 - 7200);
        drain(&mut plan, T0 * 1000);
        plan.set_backfill(Some(Window { start: T0 - 9000, end: T0 + 50 }));
        let mut read = Vec::new();
        while let Next::Read(task) = next(&plan, T0 * 1000) {
            let left = plan.left_from(task.window.end);
            plan.filled(left);
            read.push((task.window.start - T0, task.window.end - T0));
        }

        let borders = [(-9000, -3602), (-3602, -62), (-62, -2)];
        assert_eq!(read, borders, "each ends two seconds before the sweep in front of it");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Advance(i64),
        JumpOurClock(i64),
        Drain,
        Fail,
        Halve,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..100_000i64).prop_map(Step::Advance),
            1 => (-40_000_000_000..40_000_000_000i64).prop_map(Step::JumpOurClock),
            8 => Just(Step::Drain),
            2 => Just(Step::Fail),
            1 => Just(Step::Halve),
        ];
        proptest::collection::vec(step, 1..200)
    }

    proptest! {
        /// The server's clock only rises; ours errs by any amount until the next answer.
        #[test]
        fn every_instant_is_covered_and_watermarks_only_rise(steps in steps(), lag in 0..5_000i64) {
            let mut plan = plan(&[60, 240, 3600], T0);
            plan.rules.lag = lag;
            let (mut server, mut error, mut turn) = (T0 * 1000, 0, HEAD);
            let mut covered = vec![T0; plan.sweeps.len()];
            for step in steps {
                match step {
                    Step::Advance(by) => server += by,
                    Step::JumpOurClock(by) => error = by,
                    Step::Drain | Step::Fail | Step::Halve => {
                        let now = server + error;
                        let Next::Read(task) = plan.next(now, turn, None, |_| true) else { continue };
                        let index = index(task);
                        let Window { start, end } = task.window;
                        prop_assert!(start < end && end <= now.div_euclid(1000));
                        prop_assert!(task.window.seconds() <= DAY);
                        prop_assert_eq!(start, covered[index], "a gap before the window");
                        match step {
                            Step::Fail => { turn = Reader::Sweep((index + 1) % plan.sweeps.len()); continue }
                            Step::Halve => { plan.halve(task); continue }
                            _ => turn = HEAD,
                        }
                        error = 0;
                        let moves = plan.moves(index, task.window, server, true);
                        prop_assert_eq!(moves[0].age, plan.age(index));
                        for (offset, moved) in moves.iter().enumerate() {
                            let sweep = index + offset;
                            prop_assert!(moved.watermark >= plan.watermark(sweep), "it fell");
                            let limit = (server - moved.age).div_euclid(1000).max(covered[sweep]);
                            prop_assert!(moved.watermark <= limit, "beyond what the server could know");
                            if moved.watermark > covered[sweep] {
                                prop_assert!(start <= covered[sweep] && moved.watermark <= end);
                            }
                            covered[sweep] = moved.watermark;
                        }
                        plan.moved(index, task.window, &moves, now);
                    }
                }
                let order = (1..plan.sweeps.len()).all(|k| plan.watermark(k) <= plan.watermark(k - 1));
                prop_assert!(order, "an older sweep overtook a younger one");
            }
        }
    }
}

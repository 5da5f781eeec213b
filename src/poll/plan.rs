//! Which window next: pure, told the time.
//!
//! A source has a watermark per age: the head's, and one for each trailing sweep, which reads the
//! same time again, later. Promises that the head leaves no instant unread, that watermarks only
//! rise, and that no window is empty, backwards, or ends after `now`.
//! Knows neither pages nor errors.

use crate::event::Millis;
use crate::position::{Second, Window};
use crate::store::sources::StoredSweep;

/// The readers of one source, the head first, and the rules they follow.
#[derive(Clone, Debug)]
pub struct Plan {
    sweeps: Vec<Sweep>,
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

/// A window to be read by one of the sweeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Which sweep; 0 is the head.
    pub sweep: usize,
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
        Self { sweeps: sweeps.iter().map(sweep).collect(), rules }
    }

    /// The next window at `now`, by the server's clock. `turn` is the sweep asked first: the head,
    /// unless its last attempt failed and another must not starve. An `eager` plan reads what is
    /// behind that second without waiting for its time.
    pub fn next(&self, now: Millis, turn: usize, eager: Option<Second>) -> Next {
        let count = self.sweeps.len();
        let mut earliest = now + self.rules.poll_every;
        for index in (0..count).map(|offset| (turn + offset) % count) {
            let due = self.due_at(index, eager);
            match self.window(index, now) {
                Some(window) if due <= now => return Next::Read(Task { sweep: index, window }),
                Some(_) => earliest = earliest.min(due),
                None => {}
            }
        }
        Next::Wait(earliest)
    }

    /// Where the watermarks go when `task` was drained by a pass begun at `begun_at`, by the
    /// server's clock. The first is the task's own.
    ///
    /// An older sweep that stands in the window moves along as far as the pass was older than its
    /// age: a first read of thirty days is read once, and so is the backlog after an outage. Not so
    /// after a pass that is not whole, which may have taken a copy for a repeat.
    pub fn moves(&self, task: Task, begun_at: Millis, is_whole: bool) -> Vec<StoredSweep> {
        let mut ceiling = Second::MAX;
        let mut moves = Vec::new();
        for (index, sweep) in self.sweeps.iter().enumerate().skip(task.sweep) {
            let stored = sweep.stored;
            let along = is_whole && task.window.contains(stored.watermark);
            if index > task.sweep && !along {
                break;
            }
            let read_to = (begun_at - self.trails(index)).div_euclid(1000).min(task.window.end);
            let watermark = stored.watermark.max(read_to.min(ceiling));
            ceiling = watermark;
            moves.push(StoredSweep { watermark, read_at: Some(begun_at), ..stored });
        }
        moves
    }

    /// Takes over what was committed after `task`; `now` as it was when the task was given.
    pub fn moved(&mut self, task: Task, moves: &[StoredSweep], now: Millis) {
        for (sweep, stored) in self.sweeps[task.sweep..].iter_mut().zip(moves) {
            sweep.stored = *stored;
        }
        let cut = task.window.end < self.end(task.sweep, now);
        let max_window = self.rules.max_window;
        let sweep = &mut self.sweeps[task.sweep];
        let progressed = sweep.stored.watermark == task.window.end;
        sweep.behind = cut && progressed;
        sweep.span = sweep.span.saturating_mul(2).min(max_window);
    }

    /// Halves what `task` reads; false when it is down to one second already.
    pub fn halve(&mut self, task: Task) -> bool {
        let half = task.window.seconds() / 2;
        self.sweeps[task.sweep].span = half.max(1);
        half >= 1
    }

    /// True when no later sweep can repair what this one counts wrong.
    pub fn is_oldest(&self, sweep: usize) -> bool {
        sweep + 1 == self.sweeps.len()
    }

    /// How far a sweep has come.
    pub fn watermark(&self, sweep: usize) -> Second {
        self.sweeps[sweep].stored.watermark
    }

    /// How far a sweep trails the clock.
    pub fn age(&self, sweep: usize) -> Millis {
        self.sweeps[sweep].stored.age
    }

    /// How far each sweep trails the clock, the head first.
    pub fn ages(&self) -> impl Iterator<Item = Millis> {
        self.sweeps.iter().map(|sweep| sweep.stored.age)
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

    fn window(&self, index: usize, now: Millis) -> Option<Window> {
        let start = self.watermark(index);
        let end = self.end(index, now).min(start.saturating_add(self.sweeps[index].span));
        (start < end).then_some(Window { start, end })
    }

    fn due_at(&self, index: usize, eager: Option<Second>) -> Millis {
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

    /// Reads whatever is due at `now`, as an API without faults lets it; returns what was read.
    fn drain(plan: &mut Plan, now: Millis) -> Vec<Task> {
        let mut read = Vec::new();
        while let Next::Read(task) = plan.next(now, 0, None) {
            let moves = plan.moves(task, now, true);
            plan.moved(task, &moves, now);
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
        assert!(read.iter().all(|task| task.sweep == 0));
        let watermarks: Vec<_> = (0..4).map(|sweep| T0 - plan.watermark(sweep)).collect();
        assert_eq!(watermarks, [0, 60, 3600, DAY]);
    }

    #[test]
    fn every_instant_is_read_once_by_every_sweep() {
        let mut plan = plan(&[60, 240], T0);
        let mut read = vec![Vec::new(); 3];
        for now in (T0..T0 + 3600).step_by(10) {
            for task in drain(&mut plan, now * 1000) {
                read[task.sweep].push(task.window);
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
            if drain(&mut plan, now * 1000).iter().any(|task| task.sweep == 1) {
                times.push(now);
            }
        }

        assert!(times.len() > 5);
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 900), "{times:?}");
    }

    #[test]
    fn a_clock_that_stands_behind_the_watermark_gives_no_window() {
        let plan = plan(&[60], T0);

        assert!(matches!(plan.next((T0 - DAY) * 1000, 0, None), Next::Wait(_)));
        assert!(matches!(plan.next(T0 * 1000 + 999, 0, None), Next::Wait(_)));
        assert!(matches!(plan.next(T0 * 1000 + 1000, 0, None), Next::Read(_)));
    }

    #[test]
    fn a_server_behind_our_clock_caps_the_watermark() {
        let mut plan = plan(&[60], T0);
        let ahead = (T0 + 7200) * 1000;
        let Next::Read(task) = plan.next(ahead, 0, None) else { panic!("a window is due") };

        let moves = plan.moves(task, (T0 + 10) * 1000, true);
        plan.moved(task, &moves, ahead);

        assert_eq!(plan.watermark(0), T0 + 10);
        assert_eq!(plan.watermark(1), T0);
    }

    #[test]
    fn what_a_pass_has_not_read_whole_is_read_again() {
        let mut plan = plan(&[60, 3600], T0 - 7200);
        let Next::Read(task) = plan.next(T0 * 1000, 0, None) else { panic!("a window is due") };

        let moves = plan.moves(task, T0 * 1000, false);
        plan.moved(task, &moves, T0 * 1000);

        let again = drain(&mut plan, T0 * 1000);
        let window = Window { start: T0 - 7200, end: T0 - 60 };
        assert_eq!(again, [Task { sweep: 1, window }], "once, by the next sweep");
        assert_eq!(plan.watermark(2), T0 - 3600);
    }

    #[test]
    fn a_halved_window_grows_back() {
        let mut plan = plan(&[], T0 - DAY);
        let first = |plan: &Plan| match plan.next(T0 * 1000, 0, None) {
            Next::Read(task) => task,
            Next::Wait(_) => panic!("a window is due"),
        };
        let whole = first(&plan);
        assert!(plan.halve(whole));
        let half = first(&plan);
        assert_eq!(half.window, Window { start: T0 - DAY, end: T0 - DAY / 2 });

        let moves = plan.moves(half, T0 * 1000, true);
        plan.moved(half, &moves, T0 * 1000);

        assert_eq!(first(&plan).window, Window { start: T0 - DAY / 2, end: T0 });
    }

    #[test]
    fn one_second_cannot_be_halved() {
        let mut plan = plan(&[], T0);
        let task = Task { sweep: 0, window: Window { start: T0, end: T0 + 1 } };

        assert!(!plan.halve(task));
        assert!(
            matches!(plan.next((T0 + 9) * 1000, 0, None), Next::Read(task) if task.window.seconds() == 1)
        );
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
            let (mut server, mut error, mut turn) = (T0 * 1000, 0, 0);
            let mut covered = vec![T0; plan.sweeps.len()];
            for step in steps {
                match step {
                    Step::Advance(by) => server += by,
                    Step::JumpOurClock(by) => error = by,
                    Step::Drain | Step::Fail | Step::Halve => {
                        let now = server + error;
                        let Next::Read(task) = plan.next(now, turn, None) else { continue };
                        let Window { start, end } = task.window;
                        prop_assert!(start < end && end <= now.div_euclid(1000));
                        prop_assert!(task.window.seconds() <= DAY);
                        prop_assert_eq!(start, covered[task.sweep], "a gap before the window");
                        match step {
                            Step::Fail => { turn = (task.sweep + 1) % plan.sweeps.len(); continue }
                            Step::Halve => { plan.halve(task); continue }
                            _ => turn = 0,
                        }
                        error = 0;
                        let moves = plan.moves(task, server, true);
                        prop_assert_eq!(moves[0].age, plan.age(task.sweep));
                        for (offset, moved) in moves.iter().enumerate() {
                            let sweep = task.sweep + offset;
                            prop_assert!(moved.watermark >= plan.watermark(sweep), "it fell");
                            let limit = (server - moved.age).div_euclid(1000).max(covered[sweep]);
                            prop_assert!(moved.watermark <= limit, "beyond what the server could know");
                            if moved.watermark > covered[sweep] {
                                prop_assert!(start <= covered[sweep] && moved.watermark <= end);
                            }
                            covered[sweep] = moved.watermark;
                        }
                        plan.moved(task, &moves, now);
                    }
                }
                let order = (1..plan.sweeps.len()).all(|k| plan.watermark(k) <= plan.watermark(k - 1));
                prop_assert!(order, "an older sweep overtook a younger one");
            }
        }
    }
}

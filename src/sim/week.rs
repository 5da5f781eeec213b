//! A week of a company's events, with everything in it that makes forwarding hard.
//!
//! Office hours, late arrivals, groups of equal events, a burst, odd text, whole seconds.
//! The shapes are those of real events, the types those of Keeper's catalogue; nobody in it exists.

use super::dialect::TimeFormat;
use super::json::{self, Member};
use super::rng::Rng;
use super::world::{SimEvent, quoted};
use crate::event::Millis;

const SAMPLES: &str = include_str!("data/samples.ndjson");
const TYPES: &str = include_str!("data/types.csv");

const SECOND: Millis = 1000;
const MINUTE: Millis = 60 * SECOND;
const HOUR: Millis = 60 * MINUTE;
const DAY: Millis = 24 * HOUR;
const ENTERPRISE: &str = "260753";

/// How busy each hour of a working day is, in percent of the busiest.
const OFFICE_HOURS: [u64; 24] =
    [2, 1, 1, 1, 1, 2, 5, 20, 70, 95, 100, 95, 60, 80, 95, 100, 90, 70, 30, 12, 8, 6, 4, 3];

/// What people do all day.
const DAILY: [&str; 8] = [
    "login",
    "open_record",
    "copy_password",
    "fast_fill",
    "record_update",
    "record_add",
    "login_console",
    "app_client_access",
];

const CLIENTS: [&str; 5] = [
    "Web App.17.2.2",
    "Browser Extensions.16.4.7",
    "EMConsole.17.3.0",
    "SecretsManager/JS.16.6.2",
    "CLI.5.3.1",
];

const FIRST_NAMES: [&str; 8] =
    ["ana", "björn", "chloe", "dmitri", "e.j", "fatima+keeper", "george", "hana"];
const LAST_NAMES: [&str; 6] = ["o'brien", "silva", "kowalski", "ito", "van-dijk", "nguyen"];

/// Texts, as JSON, that a forwarder may trip over.
const ODD_TEXTS: [&str; 8] = [
    r#""Zoë’s Büro-Laptop 💼""#,
    r#""caf\u00e9 \ud83d\ude00 \/ \"quoted\"""#,
    r#""line one\nline two\r\n\ttab \\ backslash""#,
    r#""C:\\Users\\ana\\{curly} [square] , : comma""#,
    r#""東京オフィス 管理者""#,
    r#""\u0000\u0007\u001b[31mred\u001b[0m\u007f""#,
    r#""<14>1 - - CEF:0|a\\|b=c|\u2028|\ufeff""#,
    r#""""#,
];

/// The `count` events of the seven days before `end`, by time. Equal arguments give equal weeks.
///
/// About 2 % are late, so some of the last ones become visible only after `end`.
pub fn week(seed: u64, end: Millis, count: usize) -> Vec<SimEvent> {
    let mut company = Company::found(seed);
    let start = end - 7 * DAY;
    let mut events = Vec::with_capacity(count);
    company.burst(start, end, count * 15 / 100, &mut events);
    company.groups(start, end, count / 40, &mut events);
    while events.len() < count {
        let time = company.moment(start, end);
        events.push(company.event(time));
    }
    for event in &mut events {
        event.visible_at = event.time + company.delay();
    }
    events.sort_by_key(|event| event.time);
    events
}

/// Who and what events tell of, and the dice.
struct Company {
    rng: Rng,
    staff: Vec<Person>,
    uids: Vec<String>,
    samples: Vec<Vec<Member<'static>>>,
    types: Vec<(&'static str, &'static str)>,
}

#[derive(Clone)]
struct Person {
    username: String,
    address: String,
    client: &'static str,
}

type Members = Vec<(&'static str, String)>;

impl Company {
    fn found(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let names = LAST_NAMES.iter().flat_map(|last| FIRST_NAMES.map(|first| (first, last)));
        Self {
            staff: names.map(|(first, last)| Person::hire(first, last, &mut rng)).collect(),
            uids: (0..400).map(|_| quoted(&uid(&mut rng))).collect(),
            samples: SAMPLES.lines().filter_map(json::members).collect(),
            types: TYPES.lines().skip(1).filter_map(|line| line.split_once(',')).collect(),
            rng,
        }
    }

    /// One person imports records by script: many events within five minutes.
    fn burst(&mut self, start: Millis, end: Millis, count: usize, events: &mut Vec<SimEvent>) {
        let begin = self.moment(start, end - 5 * MINUTE);
        let who = self.rng.pick(&self.staff).clone();
        for _ in 0..count {
            let offset = self.rng.between(0, 5 * MINUTE - 1);
            let time = self.whole_now_and_then(begin + offset);
            let members = self.act(time, &who, ("record_add", "usage"));
            events.push(finish(time, &members));
        }
    }

    /// Events of which there are 2 to 50 that cannot be told apart.
    fn groups(&mut self, start: Millis, end: Millis, count: usize, events: &mut Vec<SimEvent>) {
        let mut left = count;
        while left >= 2 {
            let copies = (2 + self.rng.index(49)).min(left);
            let time = self.moment(start, end);
            let event = self.event(time);
            events.extend(std::iter::repeat_n(event, copies));
            left -= copies;
        }
    }

    /// An instant in `[start, end)`, likelier in office hours.
    fn moment(&mut self, start: Millis, end: Millis) -> Millis {
        loop {
            let time = self.rng.between(start, end - 1);
            if self.rng.chance(business(time), 100) {
                return self.whole_now_and_then(time).max(start);
            }
        }
    }

    /// Every fiftieth instant as a whole second: where windows are cut.
    fn whole_now_and_then(&mut self, time: Millis) -> Millis {
        if self.rng.chance(1, 50) { time - time.rem_euclid(SECOND) } else { time }
    }

    /// How much later than it happens an event is shown: 2 % are late, most under ten minutes.
    fn delay(&mut self) -> Millis {
        if !self.rng.chance(2, 100) {
            return 0;
        }
        if self.rng.chance(85, 100) {
            return self.rng.between(20 * SECOND, 10 * MINUTE - 1);
        }
        let most = (10 * MINUTE) << self.rng.between(1, 7);
        self.rng.between(10 * MINUTE, most.min(12 * HOUR))
    }

    fn event(&mut self, time: Millis) -> SimEvent {
        let who = self.rng.pick(&self.staff).clone();
        let mut members = if self.rng.chance(1, 4) {
            self.as_sampled(time, &who)
        } else {
            let kind = self.kind();
            self.act(time, &who, kind)
        };
        self.adorn(&mut members);
        finish(time, &members)
    }

    fn kind(&mut self) -> (&'static str, &'static str) {
        if self.rng.chance(1, 5) {
            return *self.rng.pick(&self.types);
        }
        let name = *self.rng.pick(&DAILY);
        let known = self.types.iter().find(|(known, _)| *known == name);
        *known.expect("what people do is in the catalogue")
    }

    /// A real event, told of somebody else.
    fn as_sampled(&mut self, time: Millis, who: &Person) -> Members {
        let sample = self.rng.pick(&self.samples).clone();
        let mut members: Members = Vec::with_capacity(sample.len() + 1);
        for Member { name, value } in sample {
            members.push((
                name,
                match name {
                    "username" => who.username.clone(),
                    "remote_address" => who.address.clone(),
                    "timestamp" => TimeFormat::Rfc3339.record(time),
                    "enterprise_id" => ENTERPRISE.to_owned(),
                    "record_uid" | "app_uid" => self.rng.pick(&self.uids).clone(),
                    _ => value.to_owned(),
                },
            ));
        }
        // Two samples were pushed by syslog, which tells the time outside the record.
        if !members.iter().any(|(name, _)| *name == "timestamp") {
            members.push(("timestamp", TimeFormat::Rfc3339.record(time)));
        }
        members
    }

    fn act(
        &mut self,
        time: Millis,
        who: &Person,
        (kind, category): (&'static str, &str),
    ) -> Members {
        let is_by_server = self.rng.chance(1, 20);
        let client = if is_by_server { "Server.0.0.0" } else { who.client };
        let mut members: Members = Vec::with_capacity(9);
        if matches!(category, "usage" | "share" | "ksm") {
            members.push(("record_uid", self.rng.pick(&self.uids).clone()));
        }
        members.push(("audit_event", quoted(kind)));
        if !is_by_server {
            members.push(("remote_address", who.address.clone()));
        }
        if !category.is_empty() {
            members.push(("category", quoted(category)));
        }
        members.push(("client_version", quoted(client)));
        members.push(("enterprise_id", ENTERPRISE.to_owned()));
        members.push(("timestamp", TimeFormat::Rfc3339.record(time)));
        members.push(("username", who.username.clone()));
        members
    }

    /// Odd text on one event of fifty, a long value on one of five hundred.
    fn adorn(&mut self, members: &mut Members) {
        if members.iter().any(|(name, _)| *name == "value") {
            return;
        }
        if self.rng.chance(1, 50) {
            let name = *self.rng.pick(&["value", "device_name", "report_name"]);
            members.push((name, (*self.rng.pick(&ODD_TEXTS)).to_owned()));
        } else if self.rng.chance(1, 500) {
            let length = 2000 + self.rng.index(6000);
            members.push(("value", quoted(&"äx".repeat(length / 2))));
        }
    }
}

impl Person {
    fn hire(first: &str, last: &str, rng: &mut Rng) -> Self {
        let address = if rng.chance(1, 8) {
            format!("2001:db8:{:x}::{:x}", rng.below(65536), rng.below(65536))
        } else {
            format!("198.51.{}.{}", rng.between(100, 101), rng.between(1, 254))
        };
        Self {
            username: quoted(&format!("{first}.{last}@company.example")),
            address: quoted(&address),
            client: CLIENTS[rng.index(CLIENTS.len())],
        }
    }
}

fn finish(time: Millis, members: &[(&str, String)]) -> SimEvent {
    let members = members.iter().map(|(name, value)| Member { name, value });
    SimEvent::object(time, json::object(members))
}

/// 128 random bits, as Keeper writes them: 22 characters for use in URLs.
fn uid(rng: &mut Rng) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..22).map(|_| char::from(*rng.pick(ALPHABET))).collect()
}

/// How busy the company is, in percent.
fn business(time: Millis) -> u64 {
    let hour = usize::try_from(time.rem_euclid(DAY) / HOUR).expect("a day has 24 hours");
    // The epoch was a Thursday.
    let weekday = (time.div_euclid(DAY) + 4).rem_euclid(7);
    let is_weekend = weekday == 0 || weekday == 6;
    if is_weekend { OFFICE_HOURS[hour].div_ceil(10) } else { OFFICE_HOURS[hour] }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::sim::Record;

    const END: Millis = 1_767_323_045_678;
    const COUNT: usize = 20_000;

    fn text(event: &SimEvent) -> &str {
        match &event.record {
            Record::Object(text) => text,
            Record::Raw(_) => panic!("a week holds objects alone"),
        }
    }

    fn count(events: &[SimEvent], is_so: impl Fn(&SimEvent) -> bool) -> usize {
        events.iter().filter(|event| is_so(event)).count()
    }

    #[test]
    fn equal_seeds_give_equal_weeks_of_the_size_asked_for() {
        assert_eq!(week(1, END, 500), week(1, END, 500));
        assert_ne!(week(1, END, 500), week(2, END, 500));
        for size in [0, 1, 2, 99] {
            assert_eq!(week(1, END, size).len(), size);
        }
    }

    #[test]
    fn every_record_is_an_object_that_tells_its_own_time() {
        for event in week(3, END, COUNT) {
            let value: serde_json::Value = serde_json::from_str(text(&event)).unwrap();

            assert_eq!(value["timestamp"].to_string(), TimeFormat::Rfc3339.record(event.time));
            assert!((END - 7 * DAY..END).contains(&event.time));
        }
    }

    #[test]
    fn two_in_a_hundred_are_late_and_most_of_them_under_ten_minutes() {
        let events = week(4, END, COUNT);
        let delays: Vec<Millis> =
            events.iter().map(|e| e.visible_at - e.time).filter(|delay| *delay > 0).collect();

        assert!((300..500).contains(&delays.len()), "{}", delays.len());
        assert!(delays.iter().all(|delay| (20 * SECOND..=12 * HOUR).contains(delay)));
        let soon = delays.iter().filter(|delay| **delay < 10 * MINUTE).count();
        assert!(soon * 100 > delays.len() * 75);
        assert!(delays.iter().any(|delay| *delay > 2 * HOUR));
    }

    #[test]
    fn some_events_are_equal_up_to_fifty_times() {
        let events = week(5, END, COUNT);
        let mut copies: HashMap<&str, usize> = HashMap::new();
        for event in &events {
            *copies.entry(text(event)).or_default() += 1;
        }

        let most = copies.values().max().copied().unwrap();
        assert!((40..=50).contains(&most), "{most}");
        assert!(copies.values().filter(|n| **n > 1).count() > 10);
    }

    #[test]
    fn one_burst_holds_a_seventh_of_the_week_in_five_minutes() {
        let events = week(6, END, COUNT);
        let times: Vec<Millis> = events.iter().map(|event| event.time).collect();

        let densest = (0..times.len())
            .map(|i| times.partition_point(|time| *time < times[i] + 5 * MINUTE) - i)
            .max()
            .unwrap();

        assert!((COUNT * 15 / 100..COUNT * 18 / 100).contains(&densest), "{densest}");
    }

    #[test]
    fn nights_are_quiet_and_whole_seconds_frequent() {
        let events = week(7, END, COUNT);

        let at_night = count(&events, |e| e.time.rem_euclid(DAY) < 5 * HOUR);
        assert!(at_night * 50 < COUNT, "{at_night}");
        assert!(count(&events, |e| e.time % SECOND == 0) > COUNT / 80);
    }

    #[test]
    fn the_known_oddities_of_real_events_are_in_it() {
        let events = week(8, END, COUNT);
        let with = |part: &str| count(&events, |e| text(e).contains(part));

        assert!(with(r#""from_username":20365479"#) > 0);
        assert!(with(r#""role_id":"261822/"#) > 0);
        assert!(with("東京") > 0 && with(r"\ud83d\ude00") > 0 && with("björn") > 0);
        assert!(with("Server.0.0.0") > 0);
        assert!(count(&events, |e| !text(e).contains("remote_address")) > 0);
        assert!(count(&events, |e| !text(e).contains("category")) > 0);
        assert!(count(&events, |e| text(e).len() > 3000) > 5);
        assert!(count(&events, |e| text(e).len() > 16_384) == 0);
    }
}

//! Rotation by the daemon itself and by `logrotate`: over all files together nothing is lost, and
//! nothing is doubled.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use siemferry::sim::oracle::{self, Report};
use siemferry::sim::{self, Clock, Options, Rng, SimEvent};

use crate::kills::kills;
use crate::rig::{Home, Running, Sim, eventually};
use crate::told::{home_of, week_of};

const EVENTS: usize = 20_000;
const DAY: i64 = 86_400_000;
const END: i64 = 1_790_000_000_000;
const REQUESTS_A_KILL: u64 = 24;

/// The live file and those that were rotated, the oldest first; not those that are being made.
pub fn files(live: &Path) -> Vec<PathBuf> {
    let entries = live.parent().unwrap().read_dir().unwrap().map(|entry| entry.unwrap().path());
    let name = live.file_name().unwrap().to_str().unwrap();
    let is_ours = |path: &PathBuf| {
        path != live && path.file_name().unwrap().to_str().unwrap().starts_with(name)
    };
    let mut files: Vec<_> = entries.filter(is_ours).collect();
    files.sort();
    files.extend(live.exists().then(|| live.to_owned()));
    files
}

/// What a file holds, compressed or not.
pub fn contents(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    let mut plain = Vec::new();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("zst") => plain = zstd::decode_all(&*bytes).unwrap(),
        Some("gz") => {
            flate2::read::MultiGzDecoder::new(&*bytes).read_to_end(&mut plain).unwrap();
        }
        _ => plain = bytes,
    }
    plain
}

/// The lines of all files together.
pub fn lines_of_all(live: &Path) -> Vec<String> {
    let lines = |path: PathBuf| {
        let text = String::from_utf8(contents(&path)).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    files(live).into_iter().flat_map(lines).collect()
}

/// A week that passes with the requests, and a home that reads it.
struct Flow {
    sim: Sim,
    home: Home,
    kills: usize,
    under_way: usize,
    written: u64,
}

impl Flow {
    fn new(sink: &str) -> Self {
        let kills = kills();
        let options = Options {
            clock: Clock::Manual(END - 7 * DAY + 1),
            page_cap: 20,
            token_lifetime: Some(Duration::from_secs(4 * 3600)),
            ..Options::default()
        };
        let sim = Sim::start(options);
        sim.api.add_all(sim::week(13, END, EVENTS));
        let clock = sim.api.clone();
        let step = 7 * DAY * 10 / i64::try_from(kills as u64 * REQUESTS_A_KILL).unwrap();
        sim.api.fault_when(move |request| {
            let pages = request.number % 10 == 0;
            if clock.now() < END {
                clock.advance(if pages { step } else { 1100 });
            }
            None
        });
        let start = chrono::DateTime::from_timestamp_millis(END - 7 * DAY).unwrap().to_rfc3339();
        let source = format!(
            "start = \"{start}\"\npoll_every = \"10ms\"\nmax_window = \"12h\"\n\
             resweep = [\"10m\", \"1h\", \"13h\"]"
        );
        let home = Home::new(&sim.api.url(), &source, sink);
        Self { sim, home, kills, under_way: 0, written: 0 }
    }

    /// Waits for some more requests.
    fn flows(&self, random: &mut Rng) {
        let asked = self.sim.api.requests();
        self.sim.wait_for_requests(asked + 1 + random.below(REQUESTS_A_KILL));
        std::thread::park_timeout(Duration::from_micros(random.below(6000)));
    }

    fn count_kill(&mut self) {
        // The last line that is whole tells how far it has come.
        let seq = |line: &str| line.rsplit_once("\"seq\":")?.1.strip_suffix("}}")?.parse().ok();
        let last = self.home.lines().iter().rev().find_map(|line| seq(line));
        self.written = last.unwrap_or(self.written);
        self.under_way += usize::from(self.written > 0 && self.written < EVENTS as u64);
    }

    /// Lets everything arrive.
    #[track_caller]
    fn ends_exact(&self) {
        self.sim.api.mend();
        let settled_at = self.sim.api.world().settled_at(END).unwrap();
        self.sim.api.set_now(settled_at.max(END) + DAY);
        self.home.run_once_well();
        let report = self.report();
        let (lost, doubled) = (&report.lost_examples, &report.doubled_examples);
        assert!(report.is_exact(), "{report}\n{lost:?}\n{doubled:?}");
        assert_eq!(report.held, EVENTS);
        let (kills, under_way) = (self.kills, self.under_way);
        assert!(under_way * 4 >= kills * 3, "{under_way} of {kills} kills hit the flow");
    }

    fn report(&self) -> Report {
        oracle::compare(&self.sim.api.truth(), lines_of_all(&self.home.file()))
    }
}

#[test]
fn whenever_the_daemon_is_killed_the_files_that_it_rotates_hold_every_event_once() {
    let mut flow = Flow::new(
        "batch = { events = 50 }\nrotate = { size = \"64KiB\", every = \"1d\", compress = \"zstd\" }",
    );
    let mut random = Rng::new(7);

    for _ in 0..flow.kills {
        let mut daemon = flow.home.spawn();
        flow.flows(&mut random);
        daemon.kill();
        flow.count_kill();
    }
    flow.ends_exact();

    let home = &flow.home;
    let names: Vec<_> = files(&home.file());
    let (rotated, live) = names.split_at(names.len() - 1);
    assert!(rotated.iter().all(|path| path.extension().is_some_and(|ending| ending == "zst")));
    let numbers: Vec<_> = rotated.iter().map(|path| number(path)).collect();
    assert_eq!(numbers, (1..=rotated.len()).collect::<Vec<_>>(), "no number is left out");
    let longest = names.iter().map(|path| contents(path).len()).max().unwrap();
    assert!(longest <= 64 << 10, "{longest}");
    assert!(live[0].metadata().unwrap().len() > 0);
    assert!(
        !fs::read_dir(home.path(""))
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_str().unwrap().ends_with(".partial") })
    );
    let counted = [
        ("rotations", home.logged("Rotated the file.")),
        ("compressed", home.logged("Rotated file compressed.")),
        ("adopted in a moved file", home.logged("The file was moved; its end is compared first.")),
        ("adopted lines", home.logged("Adopted lines")),
        ("torn ends", home.logged("Cut the torn end")),
    ];
    println!("{} kills, {} under way: {counted:?}", flow.kills, flow.under_way);
    assert!(rotated.len() >= 50 && counted[0].1 > 0, "{}: {counted:?}", rotated.len());
}

/// The number in the name of a rotated file.
fn number(path: &Path) -> usize {
    let name = path.file_name().unwrap().to_str().unwrap();
    name["events.ndjson.".len()..].split('-').next().unwrap().parse().unwrap()
}

/// `logrotate` with a configuration for one home.
struct Logrotate {
    config: PathBuf,
    state: PathBuf,
}

impl Logrotate {
    /// The daemon's process number is expected in the file `pid`.
    fn new(home: &Home, rules: &str) -> Self {
        let (config, state) = (home.path("logrotate.conf"), home.path("logrotate.state"));
        fs::write(&config, format!("{} {{\n{rules}\n}}\n", home.file().display())).unwrap();
        Self { config, state }
    }

    fn command(&self) -> Command {
        // A plain user's path may leave it out.
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap());
        let mut command = Command::new("logrotate");
        command.env("PATH", path).arg("--force").arg("--state").args([&self.state, &self.config]);
        command
    }

    #[track_caller]
    fn run(&self) {
        let output = self.command().output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && told.is_empty(), "{told}");
    }
}

/// What wakes the daemon whose number is in the file `pid`, if there is one.
fn hang_up(home: &Home) -> String {
    let pid = home.path("pid").display().to_string();
    format!("[ ! -s {pid} ] || kill -s HUP $(cat {pid})")
}

#[test]
fn whenever_the_daemon_is_killed_the_files_that_logrotate_rotates_hold_every_event_once() {
    let mut flow = Flow::new("batch = { events = 100 }");
    let rules = format!(
        "rotate 1000\nnodateext\ncreate 0640\nmissingok\npostrotate\n{}\nendscript",
        hang_up(&flow.home)
    );
    let logrotate = Logrotate::new(&flow.home, &rules);
    let mut random = Rng::new(8);

    let mut rotations = 0;
    for _ in 0..flow.kills {
        let mut daemon = flow.home.spawn();
        flow.flows(&mut random);
        let choice = random.below(5);
        flow.home.write("pid", &daemon.id().to_string());
        if [0, 1, 4].contains(&choice) {
            logrotate.run();
            rotations += 1;
        }
        match choice {
            1 => flow.flows(&mut random),
            // Perhaps the first batch in the new file is not settled yet.
            4 => std::thread::park_timeout(Duration::from_micros(random.below(20_000))),
            _ => {}
        }
        // Its number stays its own until it is waited for.
        let mut rotating = (choice == 2).then(|| logrotate.command().spawn().unwrap());
        daemon.signal("KILL");
        if let Some(rotating) = &mut rotating {
            rotations += 1;
            assert!(rotating.wait().unwrap().success());
        }
        assert_eq!(daemon.wait().signal(), Some(9), "nothing else ends it");
        flow.home.write("pid", "");
        if choice >= 3 {
            logrotate.run();
            rotations += 1;
        }
        flow.count_kill();
    }
    flow.ends_exact();

    let home = &flow.home;
    let counted = [
        ("adopted in a moved file", home.logged("The file was moved; its end is compared first.")),
        ("later files", home.logged("A file that was moved holds later lines.")),
        ("reopened", home.logged("The file was moved; a new one is begun, as asked.")),
        ("adopted lines", home.logged("Adopted lines")),
    ];
    println!(
        "{} kills, {} under way, {rotations} rotations: {counted:?}",
        flow.kills, flow.under_way
    );
    assert!(rotations * 4 > flow.kills && files(&home.file()).len() > rotations / 2);
    assert!(flow.kills < 200 || counted[0].1 > 0 && counted[2].1 > 0, "{counted:?}");
}

/// The names of the sink's files that the daemon holds open.
fn held(daemon: &Running) -> Vec<String> {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", daemon.id())).unwrap();
    let open = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let name = |path: PathBuf| path.file_name()?.to_str().map(str::to_owned);
    open.filter_map(name).filter(|name| name.starts_with("events.ndjson")).collect()
}

#[test]
fn a_hang_up_has_an_idle_daemon_let_go_of_a_file_that_was_moved() {
    let sim = week_of(300);
    let home = home_of(&sim);
    home.edit("poll_every = \"50ms\"", "poll_every = \"1h\"");
    let mut daemon = home.spawn();
    eventually("all is delivered", || home.lines().len() == 300);
    let moved = home.path("events.ndjson.1");
    fs::rename(home.file(), &moved).unwrap();
    assert_eq!(held(&daemon), ["events.ndjson.1"]);

    daemon.signal("HUP");

    eventually("it holds the new file", || held(&daemon) == ["events.ndjson"]);
    assert_eq!(home.logged("The file was moved; a new one is begun, as asked."), 1);
    assert!(home.lines().is_empty());
    // Without a reason, nothing happens.
    daemon.signal("HUP");
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    assert_eq!(home.logged("a new one is begun"), 1);
    assert!(oracle::compare(&sim.api.truth(), lines_of_all(&home.file())).is_exact());
}

/// The example of the README, with this home's file and without a service manager.
fn readme_rules(home: &Home) -> String {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, example) = readme.split_once("/var/log/siemferry/events.ndjson {\n").unwrap();
    let (rules, _) = example.split_once("\n}\n").unwrap();
    let wake = "systemctl kill --signal=HUP siemferry.service";
    assert!(rules.contains(wake), "{rules}");
    rules.replace(wake, &hang_up(home))
}

#[test]
fn the_logrotate_example_of_the_readme_works() {
    let sim = Sim::start(Options { clock: Clock::Manual(END), ..Options::default() });
    let start = chrono::DateTime::from_timestamp_millis(END - DAY).unwrap().to_rfc3339();
    let home =
        Home::new(&sim.api.url(), &format!("start = \"{start}\"\npoll_every = \"10ms\""), "");
    let logrotate = Logrotate::new(&home, &readme_rules(&home));
    let mut daemon = home.spawn();
    home.write("pid", &daemon.id().to_string());

    for round in 1..=4 {
        for _ in 0..50 {
            sim.api.add(SimEvent::new(sim.api.now(), "login"));
        }
        sim.api.advance(60_000);
        eventually("they are delivered", || lines_of_all(&home.file()).len() == round * 50);
        logrotate.run();
        eventually("it holds the new file", || held(&daemon) == ["events.ndjson"]);
    }

    daemon.signal("TERM");
    assert!(daemon.wait().success());
    let report = oracle::compare(&sim.api.truth(), lines_of_all(&home.file()));
    assert!(report.is_exact(), "{report}");
    let files = files(&home.file());
    let compressed = files.iter().filter(|path| path.extension().is_some_and(|end| end == "gz"));
    assert_eq!((files.len(), compressed.count()), (5, 3), "{files:?}");
    let mode = |path: &PathBuf| path.metadata().unwrap().permissions().mode() & 0o7777;
    assert!(files.iter().all(|path| mode(path) == 0o640));
}

#[test]
fn a_single_run_ends_with_its_files_compressed_and_the_oldest_removed() {
    let sim = week_of(2000);
    let home = home_of(&sim);
    let more = "[sinks.archive.file]\nbatch = { events = 100 }\n\
                rotate = { size = \"64KiB\", compress = \"gzip\", keep = 30 }";
    home.edit("[sinks.archive.file]", more);
    home.run_once_well();

    let all = files(&home.file());
    let (rotated, _) = all.split_at(all.len() - 1);
    assert!((5..=30).contains(&rotated.len()), "{all:?}");
    assert!(rotated.iter().all(|path| path.extension().is_some_and(|end| end == "gz")), "{all:?}");
    assert!(oracle::compare(&sim.api.truth(), lines_of_all(&home.file())).is_exact());

    home.edit("keep = 30", "keep = { count = 2, age = \"30d\" }");
    home.run_once_well();
    assert_eq!(files(&home.file()), all[all.len() - 3..]);
}

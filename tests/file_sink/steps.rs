//! The sink in a process of its own, killed before each of the steps that change a file or a name.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use siemferry::position::Bookmark;

use super::pen::{Pen, records};
use super::retries::is_child;
use crate::rotation::lines_of_all;
use crate::store::shelf;

const EVENTS: usize = 7;

/// The calls that make names and lines final. A file that is created is flushed, or locked, before
/// anything else happens. Not every machine has those with a question mark.
const CALLS: [&str; 8] =
    ["?rename", "?renameat", "renameat2", "?unlink", "?unlinkat", "fsync", "fdatasync", "flock"];

const SIGKILL: i32 = 9;

/// A place for the file and for what the store would hold.
struct Scene {
    home: PathBuf,
    store: PathBuf,
    rotate: String,
}

impl Scene {
    fn new(dir: &Path, rotate: &str) -> Self {
        let scene =
            Self { home: dir.join("home"), store: dir.join("store"), rotate: rotate.to_owned() };
        fs::create_dir_all(&scene.home).unwrap();
        scene
    }

    /// The next process, where the last one has ended.
    fn pen(&self) -> Pen {
        let mut pen = Pen::rotating(&self.rotate, records(EVENTS));
        pen.home.clone_from(&self.home);
        pen.crash();
        if let Ok(stored) = fs::read_to_string(&self.store) {
            let (settled, bookmark) = stored.split_once(' ').unwrap();
            pen.settled = settled.parse().unwrap();
            pen.bookmark = Some(Bookmark(bookmark.to_owned()));
        }
        pen
    }

    /// Makes the settle final at once, as the store does.
    async fn settle(&self, pen: &Pen) {
        let text = format!("{} {}", pen.settled, pen.bookmark.as_ref().unwrap().0);
        let (store, new) = (self.store.clone(), self.store.with_extension("new"));
        // In the thread that writes, so that its steps are counted with the others.
        let commit = move || {
            fs::write(&new, text).unwrap();
            fs::rename(new, store).unwrap();
        };
        tokio::task::spawn_blocking(commit).await.unwrap();
        pen.look_after().await;
    }

    /// Delivers whatever is left, as the courier does.
    async fn run(&self) {
        let mut pen = self.pen();
        pen.start().await.unwrap();
        self.settle(&pen).await;
        while pen.settled < EVENTS {
            pen.deliver(pen.settled + 1).await.unwrap();
            self.settle(&pen).await;
        }
    }

    /// The command that runs it in a process of its own, under `strace` with these arguments.
    fn traced(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("strace");
        command
            .args(["-f", "-qq"])
            .args(arguments)
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "file_sink::steps::child_runs"])
            .env("RIG_CHILD", &self.home)
            .env("RIG_ROTATE", &self.rotate);
        command
    }

    /// Runs in a process of its own; true when that was killed before its `nth` call of that name.
    fn is_killed_at(&self, call: &str, nth: usize) -> bool {
        let (trace, inject) =
            (format!("trace={call}"), format!("inject={call}:signal=KILL:when={nth}"));
        let mut command = self.traced(&["-o", "/dev/null", "-e", &trace, "-e", &inject]);
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        let is_killed = output.status.signal() == Some(SIGKILL);
        let passed = output.status.success() && told.contains("1 passed");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(is_killed || passed, "{}: {told}{stderr}", output.status);
        is_killed
    }
}

#[test]
#[ignore = "is started by the tests below, which kill it"]
fn child_runs() {
    if !is_child() {
        return;
    }
    let home = PathBuf::from(std::env::var_os("RIG_CHILD").unwrap());
    let rotate = std::env::var("RIG_ROTATE").unwrap();
    let scene = Scene::new(home.parent().unwrap(), &rotate);
    // Calls are counted by thread, so that one must make them all.
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build();
    runtime.unwrap().block_on(scene.run());
}

/// Kills it at each step, and each time again at some step of the next run; says how many steps
/// there are.
async fn killed_at_every_step(rotate: &str, check: impl Fn(&Scene, &str)) -> usize {
    let mut steps = 0;
    for call in CALLS {
        for nth in 1.. {
            let dir = shelf::directory();
            let scene = Scene::new(dir.path(), rotate);
            if !scene.is_killed_at(call, nth) {
                break;
            }
            let (other, then) = (CALLS[(steps * 5 + nth) % CALLS.len()], 1 + steps % 3);
            scene.is_killed_at(other, then);
            scene.run().await;

            check(&scene, &format!("killed at {call} {nth}, and then at {other} {then}"));
            steps += 1;
        }
    }
    steps
}

/// A power cut may take any name that was not flushed; here the order of the flushes is looked at.
#[test]
fn every_name_is_on_stable_storage_before_the_next_step() {
    let dir = shelf::directory();
    let scene = Scene::new(dir.path(), "size = '500B'\ncompress = 'zstd'");
    let log = dir.path().join("trace");
    let trace = "trace=?rename,?renameat,renameat2,?unlink,?unlinkat,fsync,fdatasync,openat";

    let mut command = scene.traced(&["-y", "-o", log.to_str().unwrap(), "-e", trace]);
    assert!(command.output().unwrap().status.success());

    let log = fs::read_to_string(log).unwrap();
    let changes = |line: &&str| !line.contains("openat(") || line.contains("O_CREAT");
    let lines: Vec<_> = log.lines().filter(changes).collect();
    let of_home = format!("<{}>)", scene.home.display());
    let mut steps = 0;
    for pair in lines.windows(2) {
        let [call, follows] = [pair[0], pair[1]];
        if !call.contains("events.ndjson.0") || call.contains("openat(") {
            continue;
        }
        steps += 1;
        let is_file = call.contains("fsync(");
        let is_flush = follows.contains("fsync(") && follows.contains(&of_home);
        // What is compressed is flushed before it gets its name.
        assert!(is_flush || is_file && follows.contains("renameat2("), "{call}\n{follows}\n{log}");
    }
    // Three files are renamed, compressed, given their name and removed.
    assert_eq!(steps, 12, "{log}");
}

/// A power cut soon after the start would else take lines that the store takes for delivered.
#[test]
fn what_is_adopted_is_on_stable_storage_before_it_is_settled() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::new(dir.path(), "");
    assert!(scene.is_killed_at("fdatasync", 1), "behind the write of the first line");
    let written = fs::read_to_string(scene.pen().path()).unwrap();
    assert_eq!(written.lines().count(), 1);
    let log = dir.path().join("trace");
    let trace = "trace=fdatasync,?rename,?renameat,renameat2";

    let mut command = scene.traced(&["-y", "-o", log.to_str().unwrap(), "-e", trace]);
    assert!(command.output().unwrap().status.success());

    let log = fs::read_to_string(log).unwrap();
    let steps: Vec<&str> = log.lines().collect();
    let settle = steps.iter().position(|step| step.contains("store.new")).unwrap();
    let flushed = steps[..settle]
        .iter()
        .any(|step| step.contains("fdatasync(") && step.contains("events.ndjson>"));
    assert!(flushed, "{log}");
}

fn names(scene: &Scene) -> Vec<String> {
    let entries = scene.home.read_dir().unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn between_any_two_steps_of_a_rotation_a_kill_loses_and_doubles_nothing() {
    let rotate = "size = '500B'\ncompress = 'zstd'";
    let steps = killed_at_every_step(rotate, |scene, context| {
        let pen = scene.pen();
        let (names, lines) = (names(scene), lines_of_all(&pen.path()));
        assert_eq!(lines, pen.expected(pen.format), "{context}: {names:?}");
        let live = |name: &&String| *name == "events.ndjson";
        let rest = names.iter().filter(|name| !live(name));
        assert!(rest.clone().all(|name| name.ends_with("Z.zst")), "{context}: {names:?}");
        assert!(rest.count() >= 3 && names.iter().any(|name| live(&name)), "{context}: {names:?}");
    })
    .await;
    assert!(steps > 30, "{steps}");
}

#[tokio::test]
async fn between_any_two_steps_of_the_removal_of_the_oldest_a_kill_takes_no_other_line() {
    let rotate = "size = '200B'\nkeep = 2\ncompress = 'gzip'";
    let steps = killed_at_every_step(rotate, |scene, context| {
        let pen = scene.pen();
        let (names, lines) = (names(scene), lines_of_all(&pen.path()));
        let expected = pen.expected(pen.format);
        assert!(lines.len() >= 3 && expected.ends_with(&lines), "{context}: {names:?} {lines:?}");
        assert_eq!(names.len(), 3, "{context}: {names:?}");
    })
    .await;
    assert!(steps > 30, "{steps}");
}

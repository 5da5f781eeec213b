//! What the benchmarks of the whole binary share: a simulated API in another process, and the binary
//! as a child that is measured.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use siemferry::sim::{Api, Clock, Options, Order, SimEvent};

pub const END: i64 = 1_790_000_000_000;
pub const SPAN: i64 = 7 * 86_400_000;
pub const PAGE: usize = 1000;

/// This program once more, as another process, which ends with its standard input.
pub struct Other {
    child: Child,
    /// The first line that it has written.
    pub told: String,
    rest: BufReader<std::process::ChildStdout>,
}

impl Other {
    pub fn start(arguments: &[&str]) -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again");
        let mut rest = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut told = String::new();
        rest.read_line(&mut told).expect("it tells its address");
        Self { child, told: told.trim().to_owned(), rest }
    }

    /// Has it end; returns what it has written last.
    pub fn end(mut self) -> String {
        drop(self.child.stdin.take());
        let mut told = String::new();
        self.rest.read_to_string(&mut told).expect("a pipe");
        self.child.wait().expect("it is our child");
        told.trim().to_owned()
    }
}

/// One event of about 400 bytes, as Keeper sends them.
pub fn event(number: i64, of: i64, [record, shared_folder, folder]: [&str; 3]) -> SimEvent {
    let time = END - SPAN + SPAN / of * number;
    let at = chrono::DateTime::from_timestamp_millis(time).expect("a time of ours");
    let at = at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let text = format!(
        r#"{{"audit_event":"open_record","timestamp":"{at}","username":"someone.with.a.name{}@company.example","remote_address":"198.51.100.{}","category":"usage","client_version":"Browser Extensions.17.4.{}","enterprise_id":261822,"record_uid":"{record}","shared_folder_uid":"{shared_folder}","folder_uid":"{folder}","device_name":"notebook of somebody {}","result_code":"success"}}"#,
        number % 997,
        number % 250,
        number % 10,
        number % 89,
    );
    SimEvent::object(time, text)
}

#[tokio::main]
pub async fn serve(events: impl Iterator<Item = SimEvent>) {
    let options = Options {
        clock: Clock::Manual(END + 1000),
        page_cap: PAGE,
        shuffle_keys: false,
        order: Order::Oldest,
        token_lifetime: None,
        ..Options::default()
    };
    let (api, serve) = Api::bind(options).await.expect("a free port");
    api.add_all(events);
    println!("{}", api.url());
    std::thread::spawn(|| {
        std::io::stdin().read_to_end(&mut Vec::new()).expect("a pipe");
        std::process::exit(0);
    });
    serve.await.expect("it serves until it is to end");
}

/// `[sources.bench.keeper]`, and what every run has.
pub fn config(home: &Path, url: &str, start: i64) -> String {
    let start = siemferry::position::rfc3339(start / 1000);
    format!(
        "own_events.enabled = false\n[state]\ndir = \"{}/state\"\n[sources.bench.keeper]\nbase_url = \"{url}\"\n\
         token = {{ env = \"BENCH_TOKEN\" }}\nstart = \"{start}\"\nmax_window = \"30d\"\n",
        home.display()
    )
}

pub struct Measured {
    pub wall: Duration,
    pub cpu: f64,
    pub peak_mib: f64,
}

/// Runs the binary once with this configuration.
pub fn run_once(home: &Path, config: &str) -> Measured {
    std::fs::write(home.join("c.toml"), config).expect("room on the disk");
    let mut binary = Command::new(env!("CARGO_BIN_EXE_siemferry"));
    binary
        .args(["run", "--once", "--config"])
        .arg(home.join("c.toml"))
        .env("BENCH_TOKEN", "simulated-token")
        .stderr(File::create(home.join("log")).expect("a new file"));
    let (measured, status) =
        measure(&mut binary, |child| child.try_wait().expect("it is our child"));
    assert!(status.success(), "{}", std::fs::read_to_string(home.join("log")).unwrap_or_default());
    measured
}

/// Starts this, and looks at it every few milliseconds until `ended` has waited for it.
pub fn measure(
    program: &mut Command,
    mut ended: impl FnMut(&mut Child) -> Option<ExitStatus>,
) -> (Measured, ExitStatus) {
    let (begun, cpu_before) = (Instant::now(), of_children());
    let mut child = program.spawn().expect("the program starts");
    let mut peak_mib = 0.0;
    let status = loop {
        peak_mib = peak(&child).unwrap_or(peak_mib);
        if let Some(status) = ended(&mut child) {
            break status;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    };
    let (wall, cpu) = (begun.elapsed(), of_children() - cpu_before);
    (Measured { wall, cpu, peak_mib }, status)
}

/// Seconds of both kinds that those of our children took that have ended and were waited for.
fn of_children() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("we are a process");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("our name").1.split_whitespace().collect();
    fields[13..15].iter().map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / 100.0
}

/// The most memory so far.
fn peak(child: &Child) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = peak.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib / 1024.0)
}

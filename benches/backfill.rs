//! How fast a backlog is read, stored and written to a file, everything durable.
//!
//! `cargo bench --bench backfill [-- EVENTS]` starts the simulated API in another process, reads the
//! same pages bare, writes the same bytes bare, and then lets the real binary run once.

use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use siemferry::sim::{Api, Clock, Options, Order, SimEvent};

const END: i64 = 1_790_000_000_000;
const SPAN: i64 = 7 * 86_400_000;
const PAGE: usize = 1000;

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", events] => serve(events.parse().expect("a number of events")),
        [] => compare(1_000_000),
        [events] => compare(events.parse().expect("a number of events")),
        _ => panic!("usage: cargo bench --bench backfill [-- EVENTS]"),
    }
}

/// One event of about 400 bytes, as Keeper sends them.
fn event(number: i64, of: i64) -> SimEvent {
    let time = END - SPAN + SPAN / of * number;
    let at = chrono::DateTime::from_timestamp_millis(time).expect("a time of ours");
    let at = at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let text = format!(
        r#"{{"audit_event":"open_record","timestamp":"{at}","username":"someone.with.a.name{}@company.example","remote_address":"198.51.100.{}","category":"usage","client_version":"Browser Extensions.17.4.{}","enterprise_id":261822,"record_uid":"Dm_l4bk34Rj62ef-{number:08}","shared_folder_uid":"L2Dbp4JkF8m-qPgwU1yFwQ","folder_uid":"XUPv3gDm_l4bk34Rj62efA","device_name":"notebook of somebody {}","result_code":"success"}}"#,
        number % 997,
        number % 250,
        number % 10,
        number % 89,
    );
    SimEvent::object(time, text)
}

#[tokio::main]
async fn serve(events: i64) {
    let options = Options {
        clock: Clock::Manual(END + 1000),
        page_cap: PAGE,
        shuffle_keys: false,
        order: Order::Oldest,
        token_lifetime: None,
        ..Options::default()
    };
    let (api, serve) = Api::bind(options).await.expect("a free port");
    api.add_all((0..events).map(|number| event(number, events)));
    println!("{}", api.url());
    serve.await.expect("it serves until it is killed");
}

fn compare(events: u64) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let program = std::env::current_exe().expect("this program has a path");
    let mut server = Command::new(program)
        .args(["serve", &events.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the simulated API starts");
    let mut url = String::new();
    BufReader::new(server.stdout.take().expect("it is piped"))
        .read_line(&mut url)
        .expect("it tells its address");

    println!("{:<28}{:>12}{:>10}{:>14}{:>10}", "", "events/s", "s", "CPU s/million", "peak MiB");
    let (bytes, read) = bare_read(url.trim());
    row("bare read over HTTP", events, read, None);
    let written = siemferry(&dir.path().join("run"), url.trim(), events);
    let size =
        std::fs::metadata(dir.path().join("run/events.ndjson")).expect("it was written").len();
    let write = bare_write(&dir.path().join("bare"), size, events);
    row("bare write and fdatasync", events, write, None);
    row("siemferry run --once", events, written.wall, Some(&written));
    println!("{} MB read, {} MB written", bytes / 1_000_000, size / 1_000_000);
    server.kill().and_then(|()| server.wait().map(drop)).expect("it was running");
}

#[tokio::main]
async fn bare_read(url: &str) -> (usize, Duration) {
    let client = siemferry::http::client(&siemferry::http::Settings {
        ca_file: None,
        client_certificate: None,
        proxy: None,
        timeout: Duration::from_secs(60),
    })
    .expect("a client");
    let begun = Instant::now();
    let (mut bytes, mut token) = (0, None::<String>);
    loop {
        let mut url = reqwest::Url::parse(url).expect("a URL");
        url.set_path("/api/rest/public/events");
        url.query_pairs_mut()
            .append_pair("start_date", &siemferry::position::rfc3339((END - SPAN) / 1000 - 1))
            .append_pair("end_date", &siemferry::position::rfc3339(END / 1000 + 1))
            .append_pair("limit", "1000");
        if let Some(token) = &token {
            url.query_pairs_mut().append_pair("continuation_token", token);
        }
        let request = client.get(url).header("x-api-token", "Bearer simulated-token");
        let body = request.send().await.expect("an answer").bytes().await.expect("a body");
        bytes += body.len();
        // The token stands before or behind the records: only those ends are looked at.
        let ends = [&body[..body.len().min(2000)], &body[body.len().saturating_sub(2000)..]];
        token = ends.iter().find_map(|end| token_in(&String::from_utf8_lossy(end)));
        if token.is_none() {
            return (bytes, begun.elapsed());
        }
    }
}

fn token_in(text: &str) -> Option<String> {
    let rest = text.split_once(r#""continuation_token":""#)?.1;
    Some(rest.split_once('"')?.0.to_owned())
}

/// As many bytes as the run has written, in chunks of a page.
fn bare_write(path: &Path, size: u64, events: u64) -> Duration {
    let chunk = vec![b'x'; usize::try_from(size / (events / PAGE as u64).max(1)).expect("fits")];
    let mut file = File::create(path).expect("a new file");
    let begun = Instant::now();
    for _ in 0..(events / PAGE as u64).max(1) {
        file.write_all(&chunk).and_then(|()| file.sync_data()).expect("room on the disk");
    }
    begun.elapsed()
}

struct Measured {
    wall: Duration,
    cpu: f64,
    peak_mib: f64,
}

fn siemferry(home: &Path, url: &str, events: u64) -> Measured {
    std::fs::create_dir(home).expect("a new directory");
    let start = siemferry::position::rfc3339((END - SPAN) / 1000);
    let config = format!(
        "own_events.enabled = false\n[state]\ndir = \"{0}/state\"\n[sources.bench.keeper]\nbase_url = \"{url}\"\n\
         token = {{ env = \"BENCH_TOKEN\" }}\nstart = \"{start}\"\nmax_window = \"30d\"\n\
         [sinks.file.file]\npath = \"{0}/events.ndjson\"\n",
        home.display()
    );
    std::fs::write(home.join("c.toml"), config).expect("room on the disk");
    let begun = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_siemferry"))
        .args(["run", "--once", "--config"])
        .arg(home.join("c.toml"))
        .env("BENCH_TOKEN", "simulated-token")
        .stderr(File::create(home.join("log")).expect("a new file"))
        .spawn()
        .expect("the binary starts");
    let (mut cpu, mut peak_mib) = (0.0, 0.0);
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            break status;
        }
        (cpu, peak_mib) = usage(&child).unwrap_or((cpu, peak_mib));
        std::thread::park_timeout(Duration::from_millis(5));
    };
    let wall = begun.elapsed();
    assert!(status.success(), "{}", std::fs::read_to_string(home.join("log")).unwrap_or_default());
    let lines = BufReader::new(File::open(home.join("events.ndjson")).expect("it was written"));
    assert_eq!(lines.lines().count() as u64, events, "every event is in the file");
    Measured { wall, cpu, peak_mib }
}

/// Seconds of both kinds, and the most memory, so far.
fn usage(child: &Child) -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = peak.trim().trim_end_matches(" kB").parse().ok()?;
    Some((ticks / 100.0, kib / 1024.0))
}

#[allow(clippy::cast_precision_loss)]
fn row(label: &str, events: u64, wall: Duration, measured: Option<&Measured>) {
    let (seconds, events) = (wall.as_secs_f64(), events as f64);
    let cpu = measured.map_or_else(String::new, |of| format!("{:.2}", of.cpu * 1e6 / events));
    let peak = measured.map_or_else(String::new, |of| format!("{:.1}", of.peak_mib));
    println!("{label:<28}{:>12.0}{seconds:>10.2}{cpu:>14}{peak:>10}", events / seconds);
}

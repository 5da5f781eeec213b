//! How fast a backlog is read, stored and written to a file, everything durable.
//!
//! `cargo bench --bench backfill [-- EVENTS]` starts the simulated API in another process, reads the
//! same pages bare, writes the same bytes bare, and then lets the real binary run once.

use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

mod rig;

use rig::{END, Measured, Other, PAGE, SPAN};

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

fn serve(events: i64) {
    rig::serve((0..events).map(|number| {
        let record = format!("Dm_l4bk34Rj62ef-{number:08}");
        rig::event(number, events, [&record, "L2Dbp4JkF8m-qPgwU1yFwQ", "XUPv3gDm_l4bk34Rj62efA"])
    }));
}

fn compare(events: u64) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Other::start(&["serve", &events.to_string()]);
    let url = server.told.clone();

    println!("{:<28}{:>12}{:>10}{:>14}{:>10}", "", "events/s", "s", "CPU s/million", "peak MiB");
    let (bytes, read) = bare_read(&url);
    row("bare read over HTTP", events, read, None);
    let written = siemferry(&dir.path().join("run"), &url, events);
    let size =
        std::fs::metadata(dir.path().join("run/events.ndjson")).expect("it was written").len();
    let write = bare_write(&dir.path().join("bare"), size, events);
    row("bare write and fdatasync", events, write, None);
    row("siemferry run --once", events, written.wall, Some(&written));
    println!("{} MB read, {} MB written", bytes / 1_000_000, size / 1_000_000);
    server.end();
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

fn siemferry(home: &Path, url: &str, events: u64) -> Measured {
    std::fs::create_dir(home).expect("a new directory");
    let config = rig::config(home, url, END - SPAN);
    let sink = format!("[sinks.file.file]\npath = \"{}/events.ndjson\"\n", home.display());
    let measured = rig::run_once(home, &(config + &sink));
    let lines = BufReader::new(File::open(home.join("events.ndjson")).expect("it was written"));
    assert_eq!(lines.lines().count() as u64, events, "every event is in the file");
    measured
}

#[allow(clippy::cast_precision_loss)]
fn row(label: &str, events: u64, wall: Duration, measured: Option<&Measured>) {
    let (seconds, events) = (wall.as_secs_f64(), events as f64);
    let cpu = measured.map_or_else(String::new, |of| format!("{:.2}", of.cpu * 1e6 / events));
    let peak = measured.map_or_else(String::new, |of| format!("{:.1}", of.peak_mib));
    println!("{label:<28}{:>12.0}{seconds:>10.2}{cpu:>14}{peak:>10}", events / seconds);
}

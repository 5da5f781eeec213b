//! `siemferry forget`: what is gone from the configuration goes from the store, and nothing else.

use serde_json::Value;

use crate::rig::{Home, Sim, eventually};
use crate::told::{Told, home_of, week_of};

/// A home with another sink, and that sink's part of the configuration.
fn given() -> (Sim, Home, String) {
    let sim = week_of(120);
    let home = home_of(&sim);
    let other = home.path("other.ndjson");
    let sink = format!("[sinks.other.file]\npath = \"{}\"\n", other.display());
    let config = std::fs::read_to_string(home.config()).unwrap();
    home.write("siemferry.toml", &(config + &sink));
    (sim, home, sink)
}

fn forget(home: &Home, arguments: &[&str]) -> Told {
    home.told(home.command(&[&["forget"], arguments].concat()))
}

fn names(home: &Home, what: &str) -> Vec<String> {
    let status: Value = home.status();
    status[what].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn a_sink_that_is_gone_holds_up_nothing_and_is_listed_until_it_is_forgotten() {
    let (sim, home, other) = given();
    // The other sink never takes anything.
    std::fs::create_dir(home.path("other.ndjson")).unwrap();
    home.impatient();
    home.edit(&other, "");
    home.edit(
        "[sources.acme.keeper]",
        "[spool]\nkeep = \"0s\"\nmax_bytes = \"1B\"\n[sources.acme.keeper]",
    );
    sim.api.advance(86_400_000 * 2);
    home.delivers_all(&sim);
    assert_eq!(names(&home, "sinks"), ["archive", "other"]);
    assert_eq!(home.status()["spool"]["events"], 0, "it pins nothing");

    let refused = forget(&home, &["sink", "other"]);
    refused.is(
        2,
        "error: forget sink `other`: 120 events that were not delivered and 0 dead letters would be lost with it\n\
         hint: add `--yes` if nobody needs them, or put the sink back into the configuration\n",
    );
    assert_eq!(names(&home, "sinks"), ["archive", "other"]);

    let told = forget(&home, &["sink", "other", "--yes"]);

    let said = "sink `other` is forgotten, and with it 120 events that were not delivered and 0 dead letters\n";
    assert_eq!((told.code, told.stdout.as_str()), (Some(0), said));
    assert_eq!(names(&home, "sinks"), ["archive"]);
    home.delivers_all(&sim);
}

#[test]
fn a_sink_that_has_everything_needs_no_agreement() {
    let (sim, home, other) = given();
    home.run_once_well();
    home.edit(&other, "");

    let told = forget(&home, &["sink", "other"]);

    assert_eq!((told.code, told.said.as_str()), (Some(0), ""));
    home.holds_all(&sim);
}

#[test]
fn a_source_that_is_forgotten_is_read_again_from_its_start_with_the_same_uids() {
    let (sim, home, _) = given();
    home.run_once_well();
    let uids = |lines: &[String]| {
        let uid = |line: &String| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["siemferry"]["uid"].as_str().unwrap().to_owned()
        };
        let mut uids: Vec<_> = lines.iter().map(uid).collect();
        uids.sort();
        uids
    };
    let first = home.lines();
    // Under another name, though the same tenant.
    let before = home.edit("[sources.acme.keeper]", "[sources.beta.keeper]\ntenant = \"acme\"");
    forget(&home, &["source", "acme"]).is(0, "");
    assert_eq!(names(&home, "sources"), [""; 0]);
    home.write("siemferry.toml", &before);

    home.run_once_well();

    let lines = home.lines();
    assert_eq!(lines.len(), 2 * first.len());
    assert_eq!(uids(&lines[first.len()..]), uids(&first));
    drop(sim);
}

#[test]
fn what_is_in_use_or_unknown_is_not_forgotten() {
    let (sim, home, other) = given();
    home.run_once_well();

    forget(&home, &["sink", "other"]).is(
        2,
        "error: forget sink `other`: it is configured\nhint: take the sink out of the configuration first\n",
    );
    forget(&home, &["source", "acme"]).is(
        2,
        "error: forget source `acme`: it is configured\nhint: take the source out of the configuration first\n",
    );
    home.edit(&other, "");
    forget(&home, &["sink", "others"]).is(
        2,
        "error: forget sink `others`: the store does not know it\nhint: it knows `archive`, `other`\n",
    );
    forget(&home, &["source", "other"])
        .is(2, "error: forget source `other`: the store does not know it\nhint: it knows `acme`\n");
    let daemon = home.spawn();
    let asked = sim.api.requests();
    eventually("it runs", || sim.api.requests() > asked);
    let told = forget(&home, &["sink", "other"]);
    let said = format!(
        "error: lock state directory `HOME/state`: it is in use by process {}\nhint: stop the daemon first, and start it again afterwards\n",
        daemon.id()
    );
    told.is(1, &said);
    assert_eq!(names(&home, "sinks"), ["archive", "other"]);
}

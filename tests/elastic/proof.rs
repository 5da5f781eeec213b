//! The simulator is what the official client expects a server to be.

use std::path::Path;
use std::process::Command;

use crate::bulk::{Access, Bulk, Options, Tries};

#[test]
fn the_official_client_finds_a_server_of_its_kind() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/python/bin/python");
    assert!(python.exists(), "`tests/run` installs what this test needs: {}", python.display());
    let key = "VnVhQ2ZHY0JDZGJrUW0tZTVhT3g6dWkybHAyYXhUTm1zeWFrdzl0dk5udw==";
    let access = Some(Access::ApiKey(key.to_owned()));
    let search = Bulk::start(Options { access, ..Options::default() });
    search.refuse_text("p0is0n");

    let output = Command::new(python)
        .arg(root.join("tests/proof/elastic.py"))
        .args([&search.url(), key, "d3Jvbmc6d3Jvbmc="])
        .arg(root.join("config/elastic-template.json"))
        .output()
        .unwrap();

    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.ends_with("checks hold\n"), "{said}");
    // The same as the client saw, seen from inside.
    assert_eq!(search.tries("id-1000"), Tries { tried: 1, created: 1 });
    assert_eq!(search.tries("id-7"), Tries { tried: 4, created: 2 }, "in the index, in the stream");
    assert_eq!(search.tries("id-1201"), Tries { tried: 1, created: 0 });
}

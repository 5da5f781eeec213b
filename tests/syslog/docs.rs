//! What the page about syslog shows is taken by the programs that it is for.

use std::path::Path;

use crate::receivers::{rsyslog_accepts, syslog_ng_accepts};
use crate::tls::Authority;

/// The blocks of the page in a language, with the files that they name where there are some.
fn blocks(language: &str, authority: &Authority) -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/syslog.md");
    let page = std::fs::read_to_string(page).unwrap();
    let ours = authority.client("log.example.com").display().to_string();
    let ca = authority.file().display().to_string();
    let fence = format!("```{language}\n");
    let fences = page.split(&*fence).skip(1);
    let block = |text: &str| {
        let mut block = text.split("```").next().unwrap().to_owned();
        for dir in ["/etc/rsyslog.d/tls", "/etc/syslog-ng/tls"] {
            block = block.replace(&format!("{dir}/ca.pem"), &ca);
            for file in ["pem", "key"] {
                block = block.replace(&format!("{dir}/log.example.com.{file}"), &ours);
            }
        }
        block
    };
    fences.map(block).collect()
}

#[test]
fn rsyslog_takes_every_configuration_that_the_page_shows() {
    let authority = Authority::new();
    let blocks = blocks("rsyslog", &authority);

    assert!(blocks.len() >= 5, "{blocks:?}");
    for block in blocks {
        // What only receives is written for a machine that has an action of its own.
        let rest = if block.contains("action(") { "" } else { "*.* /dev/null\n" };
        rsyslog_accepts(&(block.clone() + rest)).unwrap_or_else(|told| panic!("{told}\n{block}"));
    }
}

#[test]
fn syslog_ng_takes_every_configuration_that_the_page_shows() {
    let authority = Authority::new();
    let blocks = blocks("syslog-ng", &authority);

    assert!(blocks.len() >= 2, "{blocks:?}");
    for block in blocks {
        syslog_ng_accepts(&block).unwrap_or_else(|told| panic!("{told}\n{block}"));
    }
}

#[test]
fn a_configuration_with_a_misspelt_key_is_not_taken() {
    let authority = Authority::new();
    let misspelt = |block: &str, key: &str| {
        assert!(block.contains(key), "{block}");
        block.replacen(key, "misspelt", 1)
    };

    let rsyslog = misspelt(&blocks("rsyslog", &authority)[0], "maxMessageSize");
    assert!(rsyslog_accepts(&rsyslog).is_err());
    let syslog_ng = misspelt(&blocks("syslog-ng", &authority)[0], "log-msg-size");
    assert!(syslog_ng_accepts(&syslog_ng).is_err());
}

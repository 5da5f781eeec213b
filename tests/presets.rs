//! One engine reads every API that a preset describes: each test is run for two that share nothing.

use std::path::Path;
use std::time::Duration;

use siemferry::daemon::{Outcome, Waiting};
use siemferry::sim::{Api, Clock, Dialect, Fault, Options};
use siemferry::source::preset::Preset;

use crate::inside::{Inside, assert_exact, block_on, for_each, serve};
use crate::rig::read;
use crate::tenant::{self, FIRST_RUN};

const OTHER: &str = include_str!("fixtures/presets/other.toml");

const PAGE_CAP: usize = 7;

/// Longer than any wait before a second attempt.
const PATIENCE: Duration = Duration::from_secs(5);

fn each_api(test: impl AsyncFn(Preset, Dialect) + Sync) {
    let other = Preset::parse(OTHER).unwrap();
    let apis = [(Preset::keeper(), Dialect::keeper()), (other, Dialect::other())];
    for_each(apis.into_iter(), |(preset, dialect)| block_on(test(preset, dialect)));
}

async fn start(preset: Preset, options: Options) -> (Api, Inside) {
    let api =
        serve(Options { clock: Clock::Manual(FIRST_RUN), page_cap: PAGE_CAP, ..options }).await;
    api.add_all(tenant::events(12));
    let inside = Inside::new(&api, preset, &tenant::source());
    (api, inside)
}

#[test]
fn equal_late_and_border_events_are_delivered_once() {
    each_api(async |preset, dialect| {
        let name = preset.name.clone();
        let (api, inside) = start(preset, Options { dialect, ..Options::default() }).await;

        tenant::live_through(&inside, &api).await;

        assert_exact(&name, &inside.compare(&api));
        let line = read(&inside.file()).lines().next().unwrap().to_owned();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let ours = &line["siemferry"];
        assert_eq!(ours["api"], name);
        assert!(ours["type"].is_string() && ours["time"].is_string(), "{ours}");
    });
}

#[test]
fn a_window_whose_tokens_expire_too_soon_is_read_in_halves() {
    each_api(async |preset, dialect| {
        let name = preset.name.clone();
        // As many as the fullest second needs.
        let pages = tenant::densest(&tenant::events(12)).div_ceil(PAGE_CAP);
        let token_pages = Some(u32::try_from(pages).unwrap());
        let options = Options { dialect, token_pages, ..Options::default() };
        let (api, inside) = start(preset, options).await;

        tenant::live_through(&inside, &api).await;

        assert_exact(&name, &inside.compare(&api));
        let expired = api.log().into_iter().filter(|served| served.status == Some(400));
        assert!(expired.clone().count() > 0 && expired.clone().all(|it| it.request.has_token));
    });
}

#[test]
fn a_throttled_page_is_asked_for_again() {
    each_api(async |preset, dialect| {
        let name = preset.name.clone();
        let (api, inside) = start(preset, Options { dialect, ..Options::default() }).await;
        api.fault_when(|request| {
            let throttled = Fault::status(429, "slow down").with_header("retry-after", "1");
            (request.number == 3).then_some(throttled)
        });

        tenant::live_through(&inside, &api).await;

        assert_exact(&name, &inside.compare(&api));
        let log = api.log();
        assert_eq!((log[2].status, log[2].request.has_token), (Some(429), true));
        let again = &log[3..].iter().find(|served| served.request.has_token).unwrap().request;
        assert_eq!(again.query, log[2].request.query, "the same page");
    });
}

#[test]
fn a_refused_token_blocks_the_source_until_it_is_accepted() {
    each_api(async |preset, dialect| {
        let (api, inside) = start(preset, Options { dialect, ..Options::default() }).await;
        api.fault_when(|_| Some(Fault::status(401, r#"{"message":"who are you?"}"#)));

        let blocked = inside.run().await;

        let Outcome::Waiting(waiting) = blocked else { panic!("it is not blocked") };
        let [Waiting { text, hint }] = &waiting[..] else { panic!("{waiting:?}") };
        assert!(text.starts_with("source `acme` is blocked: GET /"), "{text}");
        assert!(text.ends_with(": 401 Unauthorized: who are you?"), "{text}");
        assert!(hint.as_ref().is_some_and(|hint| hint.contains("token")), "{hint:?}");
        assert_eq!(inside.status().sources["acme"].state, "blocked");

        api.mend();
        tenant::live_through(&inside, &api).await;

        assert_exact("mended", &inside.compare(&api));
        assert_eq!(inside.status().sources["acme"].state, "ok");
    });
}

#[test]
fn an_answer_that_is_no_page_moves_nothing() {
    each_api(async |preset, dialect| {
        let (api, inside) = start(preset, Options { dialect, ..Options::default() }).await;
        api.fault_when(|_| Some(Fault::WrongEnvelope));

        let stuck = inside.run_for(PATIENCE).await;

        assert!(matches!(stuck, Outcome::Waiting(_)));
        let status = inside.status().sources.remove("acme").unwrap();
        assert_eq!((status.state.as_str(), status.events), ("retrying", 0));
        assert_eq!(status.watermark, tenant::rfc3339(tenant::START).replace("+00:00", "Z"));
        let error = status.last_error.unwrap();
        assert!(error.contains("breaks the API's contract: the body has no array"), "{error}");

        api.mend();
        tenant::live_through(&inside, &api).await;

        assert_exact("mended", &inside.compare(&api));
    });
}

/// The lines of a source file that are compiled into the daemon and are no comment.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

fn rust_files(path: &Path, found: &mut Vec<std::path::PathBuf>) {
    if path.is_file() {
        found.push(path.to_owned());
        return;
    }
    for entry in std::fs::read_dir(path).unwrap() {
        rust_files(&entry.unwrap().path(), found);
    }
}

#[test]
fn the_engine_knows_no_api_by_name() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    for place in ["source/rest.rs", "source/records.rs", "source/records", "source/json.rs"]
        .into_iter()
        .chain(["source/json", "source/identity.rs", "poll", "http.rs", "position.rs", "store"])
    {
        rust_files(&src.join(place), &mut files);
    }

    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let named = code(&text).find(|line| line.to_lowercase().contains("keeper"));
        assert_eq!(named, None, "{}", file.display());
    }
}

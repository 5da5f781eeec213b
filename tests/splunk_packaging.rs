//! The Splunk app and its page fit each other, the catalogue of types and what siemferry sends.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The settings of one stanza.
type Stanza = BTreeMap<String, String>;

/// A file of Splunk's: its stanzas by their names.
type Conf = BTreeMap<String, Stanza>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn app() -> PathBuf {
    root().join("packaging/splunk/siemferry")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn page() -> String {
    read(&root().join("docs/splunk.md"))
}

/// Reads a file as Splunk does, and refuses what Splunk would take silently.
fn parse(text: &str) -> Result<Conf, String> {
    let mut conf = Conf::new();
    let mut stanza = None;
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let at = |what: &str| format!("line {}: {what}", number + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            let name = name.strip_suffix(']').ok_or_else(|| at("a stanza without its end"))?;
            if conf.insert(name.to_owned(), Stanza::new()).is_some() {
                return Err(at("a stanza is there twice"));
            }
            stanza = Some(name);
            continue;
        }
        let (key, value) = line.split_once(" = ").ok_or_else(|| at("neither key nor stanza"))?;
        let mut value = value.to_owned();
        while let Some(begun) = value.strip_suffix('\\') {
            let (_, next) = lines.next().ok_or_else(|| at("goes on after the end"))?;
            value = format!("{begun}{next}");
        }
        if key.trim() != key || value.trim_end() != value {
            return Err(at("blanks where they count"));
        }
        let stanza = stanza.ok_or_else(|| at("a setting before the first stanza"))?;
        let settings = conf.get_mut(stanza).expect("it was inserted");
        if settings.insert(key.to_owned(), value).is_some() {
            return Err(at("a setting is there twice"));
        }
    }
    Ok(conf)
}

fn conf(name: &str) -> Conf {
    let path = app().join(name);
    parse(&read(&path)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The rows of the lookup, by their columns.
fn lookup() -> Vec<BTreeMap<String, String>> {
    let text = read(&app().join("lookups/keeper_event_types.csv"));
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned));
    let columns: Vec<String> = lines.next().unwrap().collect();
    let row = |cells: Vec<String>| {
        assert_eq!(cells.len(), columns.len(), "{cells:?}");
        columns.iter().cloned().zip(cells).collect()
    };
    lines.map(|cells| row(cells.collect())).collect()
}

/// The types whose row says so.
fn types(of: impl Fn(&BTreeMap<String, String>) -> bool) -> BTreeSet<String> {
    lookup().iter().filter(|row| of(row)).map(|row| row["audit_event"].clone()).collect()
}

/// What stands between double quotes.
fn quoted(text: &str) -> BTreeSet<String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The data set that each event type of Keeper's asks for.
fn datasets() -> BTreeMap<String, String> {
    let asked = conf("default/eventtypes.conf").into_iter().filter_map(|(name, stanza)| {
        let (_, dataset) = stanza["search"].split_once("keeper_dataset=")?;
        Some((name, dataset.to_owned()))
    });
    asked.collect()
}

/// The fenced blocks of the page in a language, without their indentation.
fn blocks(language: &str) -> Vec<String> {
    let page = page();
    let mut lines = page.lines().map(str::trim_start);
    let mut found = Vec::new();
    while lines.by_ref().any(|line| line == format!("```{language}")) {
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        found.push(block.join("\n"));
    }
    assert!(!found.is_empty(), "{language}");
    found
}

/// The cells of the rows of a table of the page that begins with these columns.
fn table(head: &str) -> Vec<Vec<String>> {
    let page = page();
    let rows = page.lines().skip_while(|line| !line.starts_with(head)).skip(2);
    let cells = |line: &str| line.split('|').skip(1).map(|it| it.trim().to_owned()).collect();
    rows.take_while(|line| line.starts_with('|')).map(cells).collect()
}

#[test]
fn the_parser_refuses_what_splunk_takes_silently() {
    let refused = |text: &str| parse(text).unwrap_err();

    assert_eq!(refused("[a]\n[a]"), "line 2: a stanza is there twice");
    assert_eq!(refused("[a]\nb = 1\nb = 2"), "line 3: a setting is there twice");
    assert_eq!(refused("b = 1"), "line 1: a setting before the first stanza");
    assert_eq!(refused("[a]\nb = 1 \\ \n2"), "line 2: blanks where they count");
    assert_eq!(refused("[a]\nb"), "line 2: neither key nor stanza");
    assert_eq!(refused("[a]\nb = 1 \\"), "line 2: goes on after the end");
    assert_eq!(parse("[a]\n# c\nb = 1, \\\n  2").unwrap()["a"]["b"], "1,   2");
}

#[test]
fn the_files_of_the_app_name_only_settings_that_splunk_knows() {
    // Source: the specifications of Splunk Enterprise 9.0.
    let known = [
        (
            "default/app.conf",
            "author build check_for_updates description id is_visible label name version",
        ),
        (
            "default/props.conf",
            "description SHOULD_LINEMERGE LINE_BREAKER TRUNCATE KV_MODE FIELDALIAS- EVAL- LOOKUP-",
        ),
        ("default/transforms.conf", "filename max_matches"),
        ("default/eventtypes.conf", "search"),
        ("default/tags.conf", "access account audit authentication change data error privileged"),
        ("default/macros.conf", "definition iseval"),
        ("metadata/default.meta", "access export"),
    ];
    for (file, known) in known {
        for (stanza, settings) in conf(file) {
            assert!(!settings.is_empty(), "{file}: [{stanza}]");
            for (key, value) in settings {
                let kind = key.split_once('-').map_or(key.clone(), |(kind, _)| format!("{kind}-"));
                assert!(known.split(' ').any(|it| it == kind), "{file}: [{stanza}] {key}");
                assert_eq!(value.matches('"').count() % 2, 0, "{file}: [{stanza}] {key}");
                let (open, closed) = (value.matches('(').count(), value.matches(')').count());
                assert_eq!(open, closed, "{file}: [{stanza}] {key}");
            }
        }
    }
}

#[test]
fn the_app_has_the_version_of_siemferry() {
    let app = conf("default/app.conf");

    for stanza in ["id", "launcher"] {
        assert_eq!(app[stanza]["version"], env!("CARGO_PKG_VERSION"));
    }
    assert_eq!(app["package"]["id"], "siemferry");
}

#[test]
fn json_is_read_once() {
    for (name, stanza) in conf("default/props.conf") {
        let read = if name == "keeper:audit" { "json" } else { "none" };

        assert_eq!(stanza["KV_MODE"], read, "{name}");
        assert!(!stanza.contains_key("INDEXED_EXTRACTIONS"), "{name}");
        // As much as HEC takes of one event.
        assert_eq!(stanza["TRUNCATE"], (5 * 1024 * 1024).to_string(), "{name}");
    }
}

#[test]
fn each_event_type_has_tags_and_each_tag_an_event_type() {
    let named: BTreeSet<String> = conf("default/eventtypes.conf").into_keys().collect();

    let tags = conf("default/tags.conf");

    let tagged: BTreeSet<String> =
        tags.keys().map(|it| it.strip_prefix("eventtype=").unwrap().to_owned()).collect();
    assert_eq!(tagged, named);
    assert!(tags.values().flat_map(Stanza::values).all(|it| it == "enabled"));
}

#[test]
fn each_type_of_the_catalogue_is_in_the_lookup_once_and_in_one_event_type_at_most() {
    let catalogue = read(&root().join("tests/fixtures/keeper-event-types.csv"));
    let catalogue: BTreeMap<&str, &str> = catalogue
        .lines()
        .skip(1)
        .map(|line| line.split(',').collect::<Vec<_>>())
        .map(|cells| (cells[0], cells[1]))
        .collect();
    assert_eq!(catalogue.len(), 319);

    let rows = lookup();

    assert_eq!(rows.len(), catalogue.len());
    for row in &rows {
        let title = catalogue[row["audit_event"].as_str()];
        assert!(title.is_empty() || title == row["signature"], "{row:?}");
        assert!(row.values().all(|cell| !cell.is_empty()), "{row:?}");
    }
    let types: BTreeSet<&str> = rows.iter().map(|row| row["audit_event"].as_str()).collect();
    assert_eq!(types, catalogue.keys().copied().collect());
    // A row has one data set, and a data set one event type.
    let asked = datasets();
    let distinct: BTreeSet<&str> = asked.values().map(String::as_str).collect();
    assert_eq!(distinct.len(), asked.len());
    let mut there: BTreeSet<&str> = rows.iter().map(|row| row["keeper_dataset"].as_str()).collect();
    assert!(there.remove("other"), "what is in no data model, and no event type asks for");
    assert_eq!(there, distinct);
}

#[test]
fn each_value_is_one_that_the_data_model_of_its_tags_knows() {
    // Source: Splunk Common Information Model 8.5, the prescribed values of `action`.
    let logins = "success failure pending error";
    let changes = "acl_modified cleared created deleted modified stopped lockout read logoff \
                   updated started restarted unlocked";
    let accesses = "copied downloaded read shared unshared uploaded";
    let tags = conf("default/tags.conf");
    for (event_type, dataset) in datasets() {
        let tags = &tags[&format!("eventtype={event_type}")];
        let models = [("authentication", logins), ("change", changes), ("access", accesses)];
        let models = models.into_iter().filter(|(tag, _)| tags.contains_key(*tag));

        let [(_, known)] = models.collect::<Vec<_>>()[..] else { panic!("{event_type}") };

        for row in lookup().iter().filter(|row| row["keeper_dataset"] == dataset) {
            assert!(known.split(' ').any(|it| it == row["action"]), "{row:?}");
            assert!(["success", "failure"].contains(&row["status"].as_str()), "{row:?}");
        }
    }
}

#[test]
fn whose_account_it_is_follows_the_lookup() {
    let keeper = &conf("default/props.conf")["keeper:audit"];
    let listed = |key: &str| {
        let (_, rest) = keeper[key].split_once("in(audit_event, ").unwrap();
        quoted(rest.split_once(')').unwrap().0)
    };

    let (others, logins) = (listed("EVAL-user"), listed("EVAL-src_user"));

    assert!(lookup().iter().all(|row| ["actor", "other"].contains(&row["target"].as_str())));
    assert_eq!(others, types(|row| row["target"] == "other"));
    let login = |row: &str| ["authentication", "console"].contains(&row);
    assert_eq!(logins, types(|row| login(&row["keeper_dataset"])));
    // What is named in an expression is a type.
    let method = quoted(&keeper["EVAL-authentication_method"]);
    let method: BTreeSet<_> = method.into_iter().filter(|it| it.contains('_')).collect();
    assert!(method.is_subset(&logins), "{method:?}");
}

#[test]
fn the_lookup_is_asked_for_columns_that_it_has() {
    let props = conf("default/props.conf");
    let asked = &props["keeper:audit"]["LOOKUP-keeper_event_types"];

    let words: Vec<&str> = asked.split_whitespace().collect();

    let ["keeper_event_types", "audit_event", "OUTPUT", columns @ ..] = &words[..] else {
        panic!("{asked}")
    };
    let rows = lookup();
    assert!(columns.iter().all(|column| rows[0].contains_key(*column)), "{columns:?}");
    assert!(columns.contains(&"keeper_dataset"));
    let transform = &conf("default/transforms.conf")["keeper_event_types"];
    assert!(app().join("lookups").join(&transform["filename"]).exists());
}

#[test]
fn an_object_without_a_name_is_called_by_its_id() {
    let props = conf("default/props.conf");
    let words = |key: &str| -> Vec<String> {
        let text = &props["keeper:audit"][key];
        let text = text.strip_prefix("coalesce(").unwrap().strip_suffix(')').unwrap();
        text.split(',').map(|it| it.trim().to_owned()).collect()
    };

    let (object, id) = (words("EVAL-object"), words("EVAL-object_id"));

    assert!(object.windows(id.len()).any(|some| some == id), "{object:?}");
}

#[test]
fn what_siemferry_tells_of_itself_is_read_by_name() {
    let source = read(&root().join("src/own.rs"));
    let (source, _) = source.split_once("#[cfg(test)]").unwrap();
    let after = |what| source.split(what).skip(1).map(|it| it.split_once('"').unwrap().0);
    let always = ["event", "host", "version", "instance"];
    let members = after(".with(\"").chain(after(".quoting(\"")).chain(always);
    let members: BTreeSet<String> = members.map(str::to_owned).collect();

    let own = &conf("default/props.conf")["siemferry:audit"];

    let of = |(key, value): (&String, &String)| {
        let member = value.strip_prefix("spath(_raw, \"")?.strip_suffix("\")")?.to_owned();
        // These would hide what Splunk itself means by the name.
        let meddles = ["source", "host"].contains(&member.as_str());
        let name = match member.as_str() {
            "event" => "event_type".to_owned(),
            _ if meddles => format!("siemferry_{member}"),
            _ => member.clone(),
        };
        assert_eq!(*key, format!("EVAL-{name}"));
        Some(member)
    };
    assert_eq!(own.iter().filter_map(of).collect::<BTreeSet<_>>(), members);
    let trouble = &conf("default/eventtypes.conf")["siemferry_trouble"]["search"];
    let (_, kinds) = trouble.split_once("IN (").unwrap();
    for kind in kinds.trim_end_matches(')').split(',').map(str::trim) {
        assert!(source.contains(&format!("\"{kind}\"")), "{kind}");
    }
}

#[test]
fn a_macro_is_written_with_backquotes_and_exists() {
    let macros = conf("default/macros.conf");
    let named = |text: &str| -> Vec<String> {
        assert_eq!(text.matches('`').count() % 2, 0, "{text}");
        text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let bare = |text: &str| text.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    let definitions = macros.values().map(|it| it["definition"].clone());

    let searches: Vec<String> = blocks("spl").into_iter().chain(definitions).collect();

    for search in &searches {
        for name in named(search) {
            assert!(macros.contains_key(&name), "{name}: {search}");
        }
        let bare = bare(search);
        let words: Vec<&str> = bare.split(|it: char| !it.is_alphanumeric() && it != '_').collect();
        assert!(!words.iter().any(|word| macros.contains_key(*word)), "{search}");
    }
    let used: BTreeSet<String> = searches.iter().flat_map(|it| named(it)).collect();
    assert_eq!(used, macros.into_keys().collect());
}

#[test]
fn the_page_shows_the_tags_of_each_event_type() {
    let tags = conf("default/tags.conf");
    let asked = datasets();

    let rows = table("| event type | tags |");

    let ticked = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let shown: BTreeMap<String, BTreeSet<String>> =
        rows.iter().map(|row| (row[0].trim_matches('`').to_owned(), ticked(&row[1]))).collect();
    let expected = asked.keys().map(|name| {
        let tags = tags[&format!("eventtype={name}")].keys().cloned().collect();
        (name.clone(), tags)
    });
    assert_eq!(shown, expected.collect());
}

#[test]
fn the_page_tells_of_each_code_once() {
    let rows = table("| code | HTTP |");

    let codes = rows.iter().flat_map(|row| row[0].split(", "));
    let mut codes: Vec<u32> = codes.map(|it| it.parse().unwrap()).collect();

    codes.sort_unstable();
    assert_eq!(codes, (0..=28).collect::<Vec<_>>());
}

#[test]
fn the_configurations_of_the_page_are_toml_of_known_keys() {
    let known = "url token index host source sourcetype flavor ack ack_timeout ca_file";
    for block in blocks("toml") {
        let parsed: toml::Table = block.parse().unwrap();

        let sinks = parsed["sinks"].as_table().unwrap();

        for sink in sinks.values() {
            let keys = sink["splunk"].as_table().unwrap();
            assert!(keys.contains_key("url") && keys.contains_key("token"), "{block}");
            assert!(keys.keys().all(|key| known.split(' ').any(|it| it == key)), "{block}");
        }
    }
}

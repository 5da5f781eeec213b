//! The table of design decisions, enforced on the text of the sources. Each rule is a function from
//! a text to its findings, so that each is also shown to find something.

use std::path::{Path, PathBuf};

/// What a module may import besides the leaves.
const MAY_IMPORT: [(&str, &[&str]); 12] = [
    ("main", &["cli"]),
    ("cli", &["config", "daemon", "poll", "sim", "sink", "source", "store"]),
    ("daemon", &["config", "deliver", "poll", "sink", "source", "store"]),
    // Composes each module's own `Config`.
    ("config", &["sink", "source", "store"]),
    ("poll", &["source", "store"]),
    ("deliver", &["encode", "sink", "store"]),
    ("store", &[]),
    ("source", &[]),
    ("sink", &["encode"]),
    ("encode", &[]),
    ("sim", &[]),
    ("service", &[]),
];

/// What everybody above may import, and what each of them may.
const LEAVES: [(&str, &[&str]); 12] = [
    ("event", &["position"]),
    ("own", &["event", "secret", "sys"]),
    ("position", &[]),
    ("http", &["backoff", "event", "problem", "secret", "tls", "units"]),
    ("tls", &["secret", "units"]),
    ("backoff", &[]),
    ("secret", &["sys", "units"]),
    ("units", &[]),
    ("health", &["backoff"]),
    ("problem", &[]),
    ("sys", &[]),
    ("log", &["secret", "units"]),
];

const LONGEST_FUNCTION: usize = 60;
const LONGEST_FILE: usize = 400;

/// A source file without its tests, its comments and the contents of its strings.
struct Source {
    /// Below `src`, with slashes.
    path: String,
    lines: Vec<Line>,
}

struct Line {
    /// Code alone.
    code: String,
    /// As it stands.
    text: String,
}

/// What a rule has found, and in which line, from 1.
type Finding = (usize, String);

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let code = without_comments_and_strings(text);
        let end = end_of_production(&code);
        let lines = code.lines().zip(text.lines()).take(end);
        let line =
            |(code, text): (&str, &str)| Line { code: code.to_owned(), text: text.to_owned() };
        Self { path: path.to_owned(), lines: lines.map(line).collect() }
    }

    /// The first part of its path: `store` of `store/seen.rs`, `config` of `config.rs`.
    fn module(&self) -> &str {
        self.path.split(['/', '.']).next().expect("a split gives one part at least")
    }

    fn is_in(&self, modules: &[&str]) -> bool {
        modules.contains(&self.module())
    }

    /// The lines whose code contains one of these, whatever they are.
    fn code_with(&self, needles: &[&str]) -> Vec<Finding> {
        let numbered = self.lines.iter().enumerate();
        let found = numbered.filter_map(|(index, line)| {
            let needle = needles.iter().find(|needle| line.code.contains(**needle))?;
            Some((index + 1, format!("`{needle}`")))
        });
        found.collect()
    }
}

/// All but the files of tests.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    list(&root, &mut files);
    files.sort();
    let mut sources = Vec::new();
    for file in files {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
        let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
        // Included by `cfg(test)` modules alone.
        if !is_test && path != "source/json/arbitrary.rs" {
            sources.push(Source::new(&path, &std::fs::read_to_string(&file).unwrap()));
        }
    }
    assert!(sources.len() > 50, "the sources are found");
    sources
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in dir.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The same text, with comments and the insides of strings and characters made of spaces.
fn without_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let end = match rest {
            [b'/', b'/', ..] => at + until(rest, 0, b"\n"),
            [b'/', b'*', ..] => at + until(rest, 2, b"*/") + 2,
            [b'r', b'"' | b'#', ..] if !is_word_before(bytes, at) => match raw_string(rest) {
                Some(len) => at + len,
                None => at + 1,
            },
            [b'"', ..] => at + quoted(rest, b'"'),
            [b'\'', b'\\', ..] => at + quoted(rest, b'\''),
            [b'\'', _, b'\'', ..] => at + 3,
            _ => at + 1,
        }
        .min(bytes.len());
        if end > at + 1 {
            blank(&mut out[at..end]);
        }
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn is_word_before(bytes: &[u8], at: usize) -> bool {
    let before = at.checked_sub(1).map(|before| bytes[before]);
    before.is_some_and(|byte| (byte.is_ascii_alphanumeric() && byte != b'b') || byte == b'_')
}

fn until(rest: &[u8], from: usize, end: &[u8]) -> usize {
    let found = rest[from..].windows(end.len()).position(|window| window == end);
    found.map_or(rest.len(), |found| from + found)
}

fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    (rest.get(1 + hashes) == Some(&b'"')).then(|| {
        let end = [&b"\""[..], &vec![b'#'; hashes]].concat();
        until(rest, hashes + 2, &end) + end.len()
    })
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

fn blank(bytes: &mut [u8]) {
    let (first, last) = (bytes[0], bytes[bytes.len() - 1]);
    bytes.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
    if first == b'"' && last == b'"' {
        (bytes[0], *bytes.last_mut().expect("it has a first")) = (first, last);
    }
}

/// How many lines stand before the tests. A `cfg(test)` on a single item does not end the code.
fn end_of_production(code: &str) -> usize {
    let lines: Vec<&str> = code.lines().collect();
    let begins = |index: &usize| {
        lines[*index].starts_with("#[cfg(test)]")
            && lines[*index + 1..]
                .iter()
                .find(|line| !line.starts_with("#["))
                .is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
    };
    (0..lines.len()).find(begins).unwrap_or(lines.len())
}

/// The modules of the crate that a file names.
fn imports(source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, line) in source.lines.iter().enumerate() {
        for (at, path) in
            line.code.match_indices("crate::").chain(line.code.match_indices("siemferry::"))
        {
            let rest = &line.code[at + path.len()..];
            let names = match rest.strip_prefix('{') {
                // What follows on other lines is caught by formatting: a list of modules is short.
                Some(list) => list.split('}').next().unwrap_or(list).split(',').collect(),
                None => vec![rest],
            };
            for name in names {
                let word: String =
                    name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if word.starts_with(char::is_lowercase) {
                    found.push((index + 1, word));
                }
            }
        }
    }
    found
}

fn upward_imports(source: &Source) -> Vec<Finding> {
    let module = source.module();
    if module == "lib" {
        return imports(source);
    }
    let row = |table: &[(&str, &'static [&'static str])]| {
        table.iter().find(|(name, _)| *name == module).map(|(_, allowed)| *allowed)
    };
    let (leaf, upper) = (row(&LEAVES), row(&MAY_IMPORT));
    let Some(allowed) = leaf.or(upper) else {
        return vec![(1, format!("`{module}` has no row in the table of imports"))];
    };
    let is_leaf = |name: &str| LEAVES.iter().any(|(leaf, _)| *leaf == name);
    let may =
        |name: &str| name == module || allowed.contains(&name) || leaf.is_none() && is_leaf(name);
    imports(source).into_iter().filter(|(_, name)| !may(name)).collect()
}

fn sql_elsewhere(source: &Source) -> Vec<Finding> {
    const SQL: [&str; 9] = [
        "SELECT ",
        "INSERT INTO",
        "UPDATE ",
        "DELETE FROM",
        "PRAGMA ",
        "CREATE TABLE",
        "rusqlite",
        "ROLLBACK",
        "BEGIN IMMEDIATE",
    ];
    if source.is_in(&["store"]) {
        return Vec::new();
    }
    let quoted = |line: &Line| !line.text.trim_start().starts_with("//");
    let numbered = source.lines.iter().enumerate().filter(|(_, line)| quoted(line));
    let found = numbered.filter_map(|(index, line)| {
        SQL.iter()
            .find(|word| line.text.contains(**word))
            .map(|word| (index + 1, format!("`{word}`")))
    });
    found.collect()
}

fn tasks_elsewhere(source: &Source) -> Vec<Finding> {
    // Threads and child processes are no tasks.
    const OF_THREADS: [&str; 3] = ["store/writer.rs", "secret/command.rs", "sys.rs"];
    if source.is_in(&["daemon"]) {
        return Vec::new();
    }
    let mut words = vec!["tokio::spawn", "task::spawn(", "JoinSet", "spawn_local", "TaskTracker"];
    if !OF_THREADS.contains(&source.path.as_str()) {
        words.push(".spawn(");
    }
    source.code_with(&words)
}

fn environment_elsewhere(source: &Source) -> Vec<Finding> {
    const READS: [&str; 2] = ["env::var", "env::vars"];
    match source.module() {
        "secret" => Vec::new(),
        "config" => source.code_with(&["env::var(", "env::var_os("]),
        "log" => {
            let no_color =
                |(line, _): &Finding| !source.lines[line - 1].text.contains("\"NO_COLOR\"");
            source.code_with(&READS).into_iter().filter(no_color).collect()
        }
        _ => source.code_with(&READS),
    }
}

fn http_clients_elsewhere(source: &Source) -> Vec<Finding> {
    let words = ["Client::builder", "Client::new", "ClientBuilder", "reqwest::get"];
    if source.is_in(&["http"]) { Vec::new() } else { source.code_with(&words) }
}

fn stdout_elsewhere(source: &Source) -> Vec<Finding> {
    let words = ["println!", "print!(", "stdout()", "io::stdout", "dbg!"];
    if source.is_in(&["cli", "main"]) {
        return Vec::new();
    }
    let found = source.code_with(&words).into_iter();
    found.filter(|(line, _)| !source.lines[line - 1].code.contains("eprint")).collect()
}

fn systems_elsewhere(source: &Source) -> Vec<Finding> {
    let words =
        ["cfg(unix", "cfg(windows", "cfg(not(", "cfg(target_", "cfg!(", "os::unix", "os::windows"];
    if source.is_in(&["sys", "service"]) {
        return Vec::new();
    }
    // What is in `cfg(test)` modules was taken away before; a single item of theirs is left.
    let found = source.code_with(&words).into_iter();
    let of_tests = |line: usize| {
        source.lines[line..].iter().take(2).any(|line| line.code.contains("mod tests"))
    };
    found.filter(|(line, _)| !of_tests(*line)).collect()
}

/// The few system calls that no library has are in one place.
fn unsafe_code(source: &Source) -> Vec<Finding> {
    if source.is_in(&["sys"]) {
        return Vec::new();
    }
    source.code_with(&[
        "unsafe {",
        "unsafe fn",
        "unsafe impl",
        "unsafe extern",
        "allow(unsafe_code",
        "expect(unsafe_code",
    ])
}

fn unwraps(source: &Source) -> Vec<Finding> {
    source.code_with(&[".unwrap()", ".unwrap_err()", "todo!", "unimplemented!"])
}

fn long_functions(source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut begun: Option<(usize, usize, String)> = None;
    for (index, line) in source.lines.iter().enumerate() {
        let code = line.code.trim_end();
        let indent = code.len() - code.trim_start().len();
        match &begun {
            None => {
                if let Some(name) = function(code.trim_start())
                    && !code.ends_with(';')
                    && !code.ends_with('}')
                {
                    begun = Some((index, indent, name));
                }
            }
            Some((first, outer, name)) => {
                let ends = indent == *outer && code.trim_start().starts_with('}');
                // A declaration over several lines has no body.
                let bodiless = indent == *outer && code.ends_with(';');
                if ends || bodiless {
                    let length = index - first + 1;
                    if ends && length > LONGEST_FUNCTION {
                        found.push((first + 1, format!("`{name}` has {length} lines")));
                    }
                    begun = None;
                }
            }
        }
    }
    found
}

/// The name of the function that the line begins.
fn function(code: &str) -> Option<String> {
    const BEFORE: [&str; 6] =
        ["pub ", "pub(crate) ", "pub(super) ", "const ", "async ", "extern \"C\" "];
    let mut rest = code;
    while let Some(shorter) = BEFORE.iter().find_map(|word| rest.strip_prefix(word)) {
        rest = shorter;
    }
    let name = rest.strip_prefix("fn ")?;
    Some(name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
}

fn long_files(source: &Source) -> Vec<Finding> {
    let lines = source.lines.len();
    if lines > LONGEST_FILE {
        vec![(lines, format!("{lines} lines before its tests"))]
    } else {
        Vec::new()
    }
}

fn machine_paths(source: &Source) -> Vec<Finding> {
    const WORDS: [&str; 5] = ["/home/", "/Users/", "/root/", "/tmp/", "C:\\Users"];
    let numbered = source.lines.iter().enumerate();
    let found = numbered.filter_map(|(index, line)| {
        WORDS
            .iter()
            .find(|word| line.text.contains(**word))
            .map(|word| (index + 1, format!("`{word}`")))
    });
    found.collect()
}

/// Applies a rule to all sources; what it finds is told with file and line.
fn enforce(told: &str, rule: impl Fn(&Source) -> Vec<Finding>) {
    let found: Vec<String> = sources()
        .iter()
        .flat_map(|source| {
            let path = source.path.clone();
            rule(source).into_iter().map(move |(line, what)| format!("src/{path}:{line}: {what}"))
        })
        .collect();
    assert!(found.is_empty(), "{told}:\n{}", found.join("\n"));
}

/// The lines in which a rule finds something in a made-up file.
fn found(rule: impl Fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
    rule(&Source::new(path, text)).into_iter().map(|(line, _)| line).collect()
}

#[test]
fn modules_import_downwards_only() {
    enforce("an import that the table does not allow", upward_imports);
}

#[test]
fn an_upward_import_is_found() {
    let text = "use crate::event::Seq;\n// use crate::store;\nuse crate::store::Store;\n\
                use crate::{event, poll};\nfn f() { crate::sink::g() }\n\
                #[cfg(test)]\nmod tests {\n    use crate::daemon;\n}\n";
    assert_eq!(found(upward_imports, "source/rest.rs", text), [3, 4, 5]);
    assert_eq!(found(upward_imports, "sink/file.rs", "use crate::source::Page;"), [1]);
    assert_eq!(found(upward_imports, "poll/mod.rs", "use crate::sink::Sink;"), [1]);
    assert_eq!(found(upward_imports, "units.rs", "use crate::store;"), [1]);
    assert_eq!(found(upward_imports, "encode/json.rs", "use crate::log;\nuse crate::sink;"), [2]);
    assert_eq!(found(upward_imports, "novel.rs", ""), [1]);
    assert_eq!(found(upward_imports, "store/seen.rs", "use crate::store::Store;"), [0; 0]);
}

#[test]
fn the_table_of_imports_has_no_circle() {
    // Each round takes away the modules that import none of those left.
    let mut left: Vec<_> = MAY_IMPORT.iter().chain(&LEAVES).collect();
    while !left.is_empty() {
        let names: Vec<_> = left.iter().map(|(name, _)| *name).collect();
        let before = left.len();
        left.retain(|(_, allowed)| allowed.iter().any(|name| names.contains(name)));
        assert!(left.len() < before, "a circle among {names:?}");
    }
}

#[test]
fn sql_is_in_the_store_alone() {
    enforce("SQL outside of `store`", sql_elsewhere);
}

#[test]
fn sql_elsewhere_is_found() {
    let text = "// SELECT a FROM b\nlet a = \"SELECT a\n UPDATE b\";\nuse rusqlite::Connection;";
    assert_eq!(found(sql_elsewhere, "poll/mod.rs", text), [2, 3, 4]);
    assert_eq!(found(sql_elsewhere, "store/seen.rs", text), [0; 0]);
}

#[test]
fn tasks_are_started_by_the_daemon_alone() {
    enforce("a task that no stop can wait for", tasks_elsewhere);
}

#[test]
fn a_task_elsewhere_is_found() {
    let text = "tokio::spawn(f());\nset.spawn(f());\nlet s = JoinSet::new();\n\
                tokio::task::spawn_blocking(f);";
    assert_eq!(found(tasks_elsewhere, "cli/demo.rs", text), [1, 2, 3]);
    assert_eq!(found(tasks_elsewhere, "store/writer.rs", text), [1, 3]);
    assert_eq!(found(tasks_elsewhere, "daemon.rs", text), [0; 0]);
}

#[test]
fn the_environment_is_read_where_it_is_expected() {
    enforce("an environment variable that nobody expects", environment_elsewhere);
}

#[test]
fn a_read_of_the_environment_is_found() {
    let text = "std::env::var(\"A\");\nstd::env::vars_os();\nstd::env::var_os(\"NO_COLOR\");\nenv!(\"B\");";
    assert_eq!(found(environment_elsewhere, "http.rs", text), [1, 2, 3]);
    assert_eq!(found(environment_elsewhere, "config/layers.rs", text), [1, 3]);
    assert_eq!(found(environment_elsewhere, "log.rs", text), [1, 2]);
    assert_eq!(found(environment_elsewhere, "secret.rs", text), [0; 0]);
}

#[test]
fn http_clients_are_built_in_one_place() {
    enforce("an HTTP client without the settings of `http`", http_clients_elsewhere);
}

#[test]
fn an_http_client_elsewhere_is_found() {
    let text = "let c = reqwest::Client::new();\nreqwest::get(url);\nfn f(client: &Client) {}";
    assert_eq!(found(http_clients_elsewhere, "sink/webhook.rs", text), [1, 2]);
    assert_eq!(found(http_clients_elsewhere, "http.rs", text), [0; 0]);
}

#[test]
fn stdout_belongs_to_the_command_line() {
    enforce("something printed that is no answer of a verb", stdout_elsewhere);
}

#[test]
fn a_print_elsewhere_is_found() {
    let text = "println!(\"a\");\neprintln!(\"b\");\nio::stdout().lock();\n\"println!\";\ndbg!(x);";
    assert_eq!(found(stdout_elsewhere, "daemon.rs", text), [1, 3, 5]);
    assert_eq!(found(stdout_elsewhere, "cli/status.rs", text), [0; 0]);
}

#[test]
fn systems_differ_in_one_place() {
    enforce("a difference between systems outside of `sys`", systems_elsewhere);
}

#[test]
fn a_difference_between_systems_elsewhere_is_found() {
    let text =
        "#[cfg(unix)]\nfn f() {}\nuse std::os::unix::fs::PermissionsExt;\n#[cfg(test)]\nfn g() {}";
    assert_eq!(found(systems_elsewhere, "sink/file.rs", text), [1, 3]);
    assert_eq!(found(systems_elsewhere, "sys.rs", text), [0; 0]);
    assert_eq!(
        found(systems_elsewhere, "config.rs", "#[cfg(unix)]\n#[cfg(test)]\nmod tests;"),
        [0; 0]
    );
}

#[test]
fn nothing_is_unsafe_but_system_calls() {
    enforce("unsafe code", unsafe_code);
}

#[test]
fn unsafe_code_is_found() {
    let text = "// unsafe {\nunsafe { f() }\n#![deny(unsafe_code)]\nfn is_unsafe() {}\nunsafe impl Send for A {}";
    assert_eq!(found(unsafe_code, "http.rs", text), [2, 5]);
    assert_eq!(found(unsafe_code, "sys/socket.rs", text), [0; 0]);
}

#[test]
fn nothing_is_unwrapped() {
    enforce("a panic that no sentence explains", unwraps);
}

#[test]
fn an_unwrap_is_found() {
    let text = "a.unwrap();\nb.unwrap_or(1);\nc.expect(\"it is\");\ntodo!();\n#[cfg(test)]\nmod tests {\n d.unwrap();\n}";
    assert_eq!(found(unwraps, "poll/mod.rs", text), [1, 4]);
}

#[test]
fn functions_fit_on_a_screen() {
    enforce("a function of more than 60 lines", long_functions);
}

#[test]
fn a_long_function_is_found() {
    let of = |lines: usize| {
        format!(
            "    pub async fn f(\n        &self,\n    ) -> A {{\n{}    }}\n",
            "        a();\n".repeat(lines - 4)
        )
    };
    let text = format!("impl A {{\n    fn short();\n{}{}}}\n", of(60), of(61));
    assert_eq!(found(long_functions, "poll/mod.rs", &text), [63]);
}

#[test]
fn files_can_be_read_in_one_go() {
    enforce("a file of more than 400 lines", long_files);
}

#[test]
fn a_long_file_is_found_and_its_tests_do_not_count() {
    let code = "fn f() {}\n";
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", code.repeat(500));
    assert_eq!(found(long_files, "a.rs", &code.repeat(401)), [401]);
    assert_eq!(found(long_files, "a.rs", &format!("{}{tests}", code.repeat(400))), [0; 0]);
    let included = format!("#[cfg(test)]\nmod tests;\n{}", code.repeat(400));
    assert_eq!(found(long_files, "a.rs", &included), [402], "a module elsewhere ends nothing");
}

#[test]
fn no_source_knows_the_machine_it_was_written_on() {
    enforce("a path of one machine", machine_paths);
}

#[test]
fn a_path_of_one_machine_is_found() {
    let text = "// see /home/me/notes\nlet a = \"/var/lib/siemferry\";\nlet b = \"/tmp/x\";";
    assert_eq!(found(machine_paths, "a.rs", text), [1, 3]);
}

#[test]
fn comments_and_strings_are_no_code() {
    let text = r##"a("b // c"); // d
/* e
f */ g('"', 'h', "i\"j", r#"k"l"#, b"m"); let n: &'o str = "p
q"; r"#;"##;
    let code = without_comments_and_strings(text);
    let words: String = code.chars().filter(|c| c.is_alphabetic()).collect();
    assert_eq!(code.lines().count(), 4);
    assert_eq!(words, "agbletnostr");
}

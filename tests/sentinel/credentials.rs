//! What the daemon proves itself with: each kind delivers, what is wrong is told with its remedy, and
//! what is replaced needs no restart.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use siemferry::sim::{self, SimEvent};

use crate::azure::{AppState, Azure, KEEPER, Kind, Options};
use crate::peer::{Peer as _, an_hour_passes, api_of, holds_each_once, home_for, numbered};
use crate::rig::{Home, Running, Sim, eventually};
use crate::told::home_of;

const PASSWORD: &str = "fixture-password";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/azure").join(name)
}

/// The certificate of most fixtures, as Azure is given it.
fn certificate() -> String {
    fs::read_to_string(fixture("no-key.pem")).unwrap()
}

/// That of `chain.pem`, which has its issuer's first.
fn leaf() -> String {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let chain = fs::read_to_string(fixture("chain.pem")).unwrap();
    chain[chain.rfind(BEGIN).unwrap()..].to_owned()
}

/// Puts a file there at once, as something that renews it does, for its owner alone.
fn put(home: &Home, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let (new, path) = (home.path(&format!("{name}.new")), home.path(name));
    fs::write(&new, bytes).unwrap();
    fs::set_permissions(&new, Permissions::from_mode(0o600)).unwrap();
    fs::rename(new, &path).unwrap();
    path
}

/// Adds the sink `peer` to a home; `keys` are more lines of it.
fn add_sink(home: &Home, azure: &Azure, keys: &str) {
    let config = fs::read_to_string(home.config()).unwrap();
    let Options { rule, .. } = Options::default();
    let (url, stream) = (azure.url(), KEEPER.name);
    let sink = format!(
        "[sinks.peer.sentinel]\nendpoint = \"{url}\"\nrule = \"{rule}\"\nstream = \"{stream}\"\n{keys}\n"
    );
    home.write("siemferry.toml", &format!("{config}\n{sink}"));
}

/// The keys of an application that the simulator knows; `proof` is what differs by the kind.
fn application(azure: &Azure, kind: &str, proof: &str) -> String {
    let Options { tenant, client, .. } = Options::default();
    format!(
        "authority = \"{}\"\nauth = {{ {kind} = {{ tenant = \"{tenant}\", client = \"{client}\", {proof} }} }}",
        azure.url()
    )
}

fn by_secret(azure: &Azure, file: &Path) -> String {
    application(azure, "client_secret", &format!("secret = {{ file = \"{}\" }}", file.display()))
}

fn by_certificate(azure: &Azure, file: &Path) -> String {
    application(azure, "certificate", &format!("file = \"{}\"", file.display()))
}

/// An API whose clock goes as this machine's does, with something in the second asked for.
fn timely() -> Sim {
    let sim = Sim::start(sim::Options::default());
    let now = sim.api.now();
    sim.api.add_all((0..600).map(|tenth| SimEvent::new(now - 130_000 + tenth * 200, "login")));
    sim
}

/// The check fails at the sink alone, with this code of Entra's and this hint.
#[track_caller]
fn is_told(azure: &Azure, keys: impl FnOnce(&Home) -> String, code: &str, hint: &str) {
    let sim = timely();
    let home = home_of(&sim);
    add_sink(&home, azure, &keys(&home));

    let told = home.told(home.command(&["check", "--online"]));

    let lines: Vec<_> = told.stdout.lines().collect();
    let failed: Vec<_> = (0..lines.len()).filter(|at| lines[*at].starts_with("failed")).collect();
    let [at] = failed[..] else { panic!("{}", told.stdout) };
    assert_eq!(told.code, Some(1), "{}", told.stdout);
    assert!(lines[at].starts_with("failed  sink `peer`: "), "{}", told.stdout);
    assert!(lines[at].contains(code), "{}", told.stdout);
    assert_eq!(lines[at + 1], format!("hint: {hint}"), "{}", told.stdout);
    assert_eq!(azure.asked(), 0, "nothing is sent without a token");
}

fn with_secret<'a>(azure: &'a Azure, secret: &'a str) -> impl FnOnce(&Home) -> String + 'a {
    move |home| by_secret(azure, &put(home, "secret", secret))
}

#[test]
fn a_secret_that_is_wrong_is_told_apart_from_one_that_has_expired() {
    let azure = Azure::start(Options::default());
    azure.app(|app| app.secret("expired~secret", AppState::Expired));

    is_told(
        &azure,
        with_secret(&azure, "wrong~secret"),
        "AADSTS7000215",
        "store the value of a client secret of this application, which is not the secret's id",
    );
    is_told(
        &azure,
        with_secret(&azure, "expired~secret"),
        "AADSTS7000222",
        "the client secret has expired: make a new one in the app registration, and store its value",
    );
}

#[test]
fn an_application_and_a_tenant_that_do_not_exist_are_told() {
    const NOBODY: &str = "00000000-1111-2222-3333-444444444444";
    let azure = Azure::start(Options::default());
    let Options { tenant, client, secrets, .. } = Options::default();
    let but = |known: String| {
        let (azure, secret) = (azure.clone(), secrets[0].clone());
        move |home: &Home| by_secret(&azure, &put(home, "secret", &secret)).replace(&known, NOBODY)
    };

    is_told(
        &azure,
        but(client),
        "AADSTS700016",
        "the tenant has no such application: check `client` and `tenant`",
    );
    is_told(
        &azure,
        but(tenant),
        "AADSTS90002",
        "there is no such tenant: check `tenant` and `cloud`",
    );
}

#[test]
fn a_certificate_that_is_not_registered_is_told() {
    let azure = Azure::start(Options::default());
    azure.app(|app| app.add_certificate(&leaf()));

    is_told(
        &azure,
        |home| {
            by_certificate(&azure, &put(home, "app.pem", fs::read(fixture("pkcs8.pem")).unwrap()))
        },
        "AADSTS700027",
        "upload this certificate to the app registration, under `Certificates & secrets`",
    );
}

#[test]
fn a_scope_that_the_cloud_does_not_know_is_told() {
    let azure = Azure::start(Options::default());
    let Options { secrets, .. } = Options::default();

    is_told(
        &azure,
        |home| {
            let keys = by_secret(&azure, &put(home, "secret", &secrets[0]));
            format!("scope = \"https://monitor.example/.default\"\n{keys}")
        },
        "AADSTS500011",
        "this cloud gives no token for that: check `cloud` and `scope`",
    );
}

/// Runs once, and expects every event in the table.
#[track_caller]
fn delivers(azure: &Azure, keys: impl FnOnce(&Home) -> String, change: impl FnOnce(&mut Command)) {
    let sim = api_of(numbered(120, |n| format!("text {n}")), 50);
    let home = home_for(&sim, "");
    let keys = keys(&home);
    add_sink(&home, azure, &keys);
    let mut command = home.command(&["run", "--once", "--patience", "20s"]);
    change(&mut command);

    let told = home.told(command);

    assert_eq!(told.code, Some(0), "{keys}: {}{}", told.said, told.log);
    holds_each_once(azure, &sim, &keys);
}

#[test]
fn an_application_delivers_by_its_secret() {
    let azure = Azure::start(Options::default());
    let Options { secrets, .. } = Options::default();

    delivers(&azure, with_secret(&azure, &secrets[0]), |_| {});

    assert!(azure.asked_of(Kind::Token) > 0);
}

#[test]
fn an_application_delivers_by_its_certificate_in_whichever_file() {
    let with_password = format!(", password = {{ command = [\"/bin/echo\", \"{PASSWORD}\"] }}");
    for (name, more, registered) in [
        ("pkcs8.pem", "", certificate()),
        ("pkcs1.pem", "", certificate()),
        ("chain.pem", "", leaf()),
        ("modern.pfx", &with_password, certificate()),
        ("legacy.pfx", &with_password, certificate()),
        ("chain.pfx", &with_password, leaf()),
    ] {
        let azure = Azure::start(Options { secrets: Vec::new(), ..Options::default() });
        azure.app(|app| app.add_certificate(&registered));
        let keys = |home: &Home| {
            let file = put(home, name, fs::read(fixture(name)).unwrap());
            application(&azure, "certificate", &format!("file = {file:?}{more}"))
        };

        delivers(&azure, keys, |_| {});

        assert!(azure.asked_of(Kind::Token) > 0);
    }
}

#[test]
fn an_application_delivers_by_the_token_of_another_issuer() {
    const TOKEN: &str = "subject.of.issuer";
    let Options { tenant, client, .. } = Options::default();
    let start = || {
        let azure = Azure::start(Options { secrets: Vec::new(), ..Options::default() });
        azure.app(|app| app.subject_token(TOKEN, AppState::Good));
        azure
    };

    let azure = start();
    let keys = |home: &Home| {
        let file = put(home, "token", TOKEN);
        application(&azure, "workload_identity", &format!("file = \"{}\"", file.display()))
    };
    delivers(&azure, keys, |_| {});

    let azure = start();
    // The platform's file is for others to read too.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, TOKEN).unwrap();
    delivers(
        &azure,
        |_| "auth = { workload_identity = {} }".into(),
        |command| {
            command
                .env("AZURE_AUTHORITY_HOST", azure.url())
                .env("AZURE_TENANT_ID", &tenant)
                .env("AZURE_CLIENT_ID", &client)
                .env("AZURE_FEDERATED_TOKEN_FILE", &file);
        },
    );
    assert!(azure.asked_of(Kind::Token) > 0);
}

#[test]
fn a_virtual_machine_delivers_by_its_identity() {
    let options = || Options { secrets: Vec::new(), ..Options::default() };
    for (auth, options) in [
        ("{ managed_identity = {} }", options()),
        (
            "{ managed_identity = { client = \"5f0c2d8e-0000-4c0c-9a53-3b7a2f5f6b10\" } }",
            Options {
                has_system_identity: false,
                user_identities: vec!["5f0c2d8e-0000-4c0c-9a53-3b7a2f5f6b10".to_owned()],
                ..options()
            },
        ),
    ] {
        let azure = Azure::start(options);

        delivers(
            &azure,
            |_| format!("auth = {auth}"),
            |command| {
                command.env("AZURE_POD_IDENTITY_AUTHORITY_HOST", azure.url());
            },
        );

        assert_eq!(azure.asked_of(Kind::Token), 0, "no application is needed");
    }
}

/// A daemon that delivers, whose tokens soon end.
struct Flow {
    azure: Azure,
    sim: Sim,
    home: Home,
    daemon: Running,
}

impl Flow {
    fn start(azure: Azure, keys: impl FnOnce(&Azure, &Home) -> String) -> Self {
        let sim = api_of(numbered(20, |n| format!("text {n}")), 50);
        let home = home_for(&sim, "");
        let keys = keys(&azure, &home);
        add_sink(&home, &azure, &format!("batch = {{ wait = \"0s\" }}\n{keys}"));
        let daemon = home.spawn();
        let flow = Self { azure, sim, home, daemon };
        flow.is_settled();
        flow
    }

    fn is_settled(&self) {
        let events = self.sim.api.truth().len();
        eventually("all is delivered", || self.azure.count() >= events);
    }

    /// Events come and are delivered until another token is asked for.
    fn outlives_its_token(&self) {
        let asked = self.azure.asked_of(Kind::Token);
        eventually("the token ends", || {
            an_hour_passes(&self.sim, 2);
            self.is_settled();
            self.azure.asked_of(Kind::Token) > asked
        });
    }

    /// Events come until the sink can prove itself no more.
    fn is_shut_out(&self) {
        let asked = self.azure.asked_of(Kind::Token);
        eventually("the token ends", || {
            let held = self.azure.count();
            an_hour_passes(&self.sim, 2);
            eventually("it delivers or is blocked", || {
                self.azure.count() > held || self.home.logged("Sink is blocked") > 0
            });
            self.home.logged("Sink is blocked") > 0
        });
        assert!(self.azure.asked_of(Kind::Token) > asked);
    }

    /// What was replaced in time is not noticed; what is replaced late, after a hang-up.
    fn goes_on(mut self, blocks: usize) {
        self.outlives_its_token();
        self.outlives_its_token();

        assert!(!self.daemon.has_ended());
        assert_eq!(self.home.logged("Sink is blocked"), blocks);
        eventually("it says so", || self.home.logged("Sink works again.") == blocks);
        self.daemon.signal("TERM");
        assert!(self.daemon.wait().success());
        holds_each_once(&self.azure, &self.sim, "all the time");
    }
}

fn short_lived(secrets: Vec<String>) -> Azure {
    let token_lifetime = Duration::from_secs(5);
    Azure::start(Options { secrets, token_lifetime, ..Options::default() })
}

const OLD: &str = "old~secret";
const NEW: &str = "new~secret";

fn flow_by_secret() -> Flow {
    Flow::start(short_lived(vec![OLD.to_owned()]), |azure, home| {
        by_secret(azure, &put(home, "secret", OLD))
    })
}

#[test]
fn a_secret_that_is_replaced_in_time_is_used_without_a_restart() {
    let flow = flow_by_secret();
    flow.outlives_its_token();

    flow.azure.app(|app| app.secret(NEW, AppState::Good));
    put(&flow.home, "secret", NEW);
    flow.azure.app(|app| app.remove_secret(OLD));

    flow.goes_on(0);
}

#[test]
fn a_secret_that_is_replaced_late_is_used_without_a_restart() {
    let flow = flow_by_secret();

    flow.azure.app(|app| app.remove_secret(OLD));
    flow.is_shut_out();
    flow.azure.app(|app| app.secret(NEW, AppState::Good));
    put(&flow.home, "secret", NEW);
    // Ends the pause before the next probe.
    flow.daemon.signal("HUP");

    flow.goes_on(1);
}

fn flow_by_certificate() -> Flow {
    let azure = short_lived(Vec::new());
    azure.app(|app| app.add_certificate(&certificate()));
    Flow::start(azure, |azure, home| {
        by_certificate(azure, &put(home, "app.pem", fs::read(fixture("pkcs8.pem")).unwrap()))
    })
}

#[test]
fn a_certificate_that_is_replaced_in_time_is_used_without_a_restart() {
    let flow = flow_by_certificate();
    flow.outlives_its_token();

    flow.azure.app(|app| app.add_certificate(&leaf()));
    put(&flow.home, "app.pem", fs::read(fixture("chain.pem")).unwrap());
    flow.azure.app(|app| app.remove_certificate(&certificate()));

    flow.goes_on(0);
}

#[test]
fn a_certificate_that_is_replaced_late_is_used_without_a_restart() {
    let flow = flow_by_certificate();

    flow.azure.app(|app| app.remove_certificate(&certificate()));
    flow.is_shut_out();
    flow.azure.app(|app| app.add_certificate(&leaf()));
    put(&flow.home, "app.pem", fs::read(fixture("chain.pem")).unwrap());
    flow.daemon.signal("HUP");

    flow.goes_on(1);
}

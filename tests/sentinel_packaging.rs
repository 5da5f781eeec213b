//! What is deployed in Azure for the Sentinel sink fits what the sink sends.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use siemferry::encode::sentinel;

/// A name and a type, as Azure names it.
type Column<'a> = (&'a str, &'a str);

/// A profile of the sink: what it sends, and what the data collection rule makes of it.
struct Profile {
    name: &'static str,
    stream: &'static str,
    sent: &'static [Column<'static>],
    table: &'static str,
    kept: &'static [Column<'static>],
    transform: &'static str,
}

const KEEPER_SOLUTION: Profile = Profile {
    name: "keeper-solution",
    stream: "Custom-KeeperSecurityEventNewLogs",
    sent: &[
        ("TimeGenerated", "datetime"),
        ("audit_event", "string"),
        ("remote_address", "string"),
        ("category", "string"),
        ("client_version", "string"),
        ("enterprise_id", "int"),
        ("username", "string"),
        ("timestamp", "datetime"),
        ("data", "dynamic"),
    ],
    table: "KeeperSecurityEventNewLogs_CL",
    kept: &[
        ("TimeGenerated", "datetime"),
        ("AuditEvent", "string"),
        ("RemoteAddress", "string"),
        ("Category", "string"),
        ("ClientVersion", "string"),
        ("EnterpriseId", "int"),
        ("Username", "string"),
        ("Timestamp", "datetime"),
        ("Data", "dynamic"),
    ],
    // That of the Content Hub solution, word for word.
    transform: "source | extend TimeGenerated = now() | project-rename AuditEvent = audit_event, \
                RemoteAddress = remote_address, Category = category, ClientVersion = client_version, \
                EnterpriseId = enterprise_id, Username = username, Timestamp = timestamp, Data = data",
};

const FULL: Profile = Profile {
    name: "full",
    stream: "Custom-SiemferryEvents",
    sent: &[
        ("TimeGenerated", "datetime"),
        ("EventUid", "string"),
        ("EventTime", "datetime"),
        ("Type", "string"),
        ("Category", "string"),
        ("Actor", "string"),
        ("SourceIp", "string"),
        ("Source", "string"),
        ("Api", "string"),
        ("Raw", "dynamic"),
    ],
    table: "SiemferryEvents_CL",
    kept: &[
        ("TimeGenerated", "datetime"),
        ("EventUid", "string"),
        ("EventTime", "datetime"),
        ("EventType", "string"),
        ("Category", "string"),
        ("Actor", "string"),
        ("SourceIp", "string"),
        ("Source", "string"),
        ("Api", "string"),
        ("Raw", "dynamic"),
    ],
    transform: "source | project-rename EventType = Type",
};

const PROFILES: [Profile; 2] = [KEEPER_SOLUTION, FULL];

const FUNCTIONS: [&str; 4] = [
    "KeeperEvents",
    "ASimAuthenticationKeeper",
    "ASimAuditEventKeeper",
    "ASimUserManagementKeeper",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn packaging() -> PathBuf {
    root().join("packaging/sentinel")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

impl Profile {
    fn template(&self) -> Value {
        serde_json::from_str(&read(&packaging().join(format!("{}.json", self.name)))).unwrap()
    }

    /// The one resource of a type that ends so.
    fn resource(&self, kind: &str) -> Value {
        let template = self.template();
        let mut found = template["resources"].as_array().unwrap().iter();
        let found = found.find(|it| it["type"].as_str().unwrap().ends_with(kind));
        found.unwrap().clone()
    }

    fn query(&self, name: &str) -> String {
        let own = packaging().join(self.name).join(format!("{name}.kql"));
        let shared = packaging().join("functions").join(format!("{name}.kql"));
        read(if own.exists() { &own } else { &shared })
    }
}

fn columns(declared: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = declared["columns"].as_array().unwrap().iter();
    list.map(|it| (text(&it["name"]), text(&it["type"]))).collect()
}

fn owned(columns: &[Column<'_>]) -> Vec<(String, String)> {
    columns.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect()
}

#[test]
fn the_encoder_sends_what_the_templates_declare() {
    let encoders = [sentinel::Profile::KeeperSolution, sentinel::Profile::Full];

    for (profile, encoder) in PROFILES.iter().zip(encoders) {
        let columns = encoder.columns().iter();
        let sent: Vec<_> = columns.map(|(name, kind)| (*name, kind.name())).collect();
        assert_eq!(sent, profile.sent, "{}", profile.name);
    }
}

#[test]
fn a_template_makes_a_table_a_rule_a_role_functions_and_an_alert() {
    for profile in PROFILES {
        let template = profile.template();

        let made = template["resources"].as_array().unwrap().iter();
        let made: Vec<_> = made
            .map(|it| (it["type"].as_str(), it["apiVersion"].as_str(), it["kind"].as_str()))
            .collect();

        let expected = [
            ("Microsoft.OperationalInsights/workspaces/tables", "2022-10-01", None),
            ("Microsoft.Insights/dataCollectionRules", "2023-03-11", Some("Direct")),
            ("Microsoft.Authorization/roleAssignments", "2022-04-01", None),
            ("Microsoft.OperationalInsights/workspaces/savedSearches", "2020-08-01", None),
            ("Microsoft.SecurityInsights/alertRules", "2023-11-01", Some("Scheduled")),
        ];
        let expected = expected.map(|(kind, version, sort)| (Some(kind), Some(version), sort));
        assert_eq!(made, expected, "{}", profile.name);
    }
}

#[test]
fn a_rule_declares_what_the_sink_sends() {
    for profile in PROFILES {
        let rule = &profile.resource("/dataCollectionRules")["properties"];

        let streams = rule["streamDeclarations"].as_object().unwrap();

        assert_eq!(streams.keys().collect::<Vec<_>>(), [profile.stream]);
        assert_eq!(columns(&streams[profile.stream]), owned(profile.sent));
        let flow = &rule["dataFlows"][0];
        assert_eq!(flow["streams"][0], profile.stream);
        assert_eq!(flow["transformKql"], profile.transform);
        assert_eq!(flow["outputStream"], format!("Custom-{}", profile.table));
    }
}

#[test]
fn the_transform_makes_each_column_of_the_table_of_one_of_the_stream() {
    for profile in PROFILES {
        let (_, renamed) = profile.transform.split_once("project-rename ").unwrap();
        let renamed: BTreeMap<&str, &str> = renamed
            .split(", ")
            .map(|pair| pair.split_once(" = ").unwrap())
            .map(|(new, old)| (old, new))
            .collect();

        let made: Vec<Column<'_>> = profile
            .sent
            .iter()
            .map(|(name, kind)| (*renamed.get(name).unwrap_or(name), *kind))
            .collect();

        assert_eq!(made, profile.kept, "{}", profile.name);
        assert!(renamed.keys().all(|old| profile.sent.iter().any(|(name, _)| name == old)));
    }
}

#[test]
fn a_table_has_the_columns_that_the_transform_makes_under_legal_names() {
    // Source: Azure Monitor, "Create a custom table".
    let reserved =
        ["_ResourceId", "id", "_SubscriptionId", "TenantId", "Type", "UniqueId", "Title"];
    for profile in PROFILES {
        let table = &profile.resource("/tables")["properties"];

        let kept = columns(&table["schema"]);

        assert_eq!(kept, owned(profile.kept));
        assert_eq!(table["schema"]["name"], profile.table);
        assert!(profile.table.ends_with("_CL"));
        assert_eq!(table["plan"], "Analytics");
        for (name, _) in &kept {
            assert!(name.len() <= 45 && name.starts_with(|it: char| it.is_ascii_alphabetic()));
            assert!(name.chars().all(|it| it.is_ascii_alphanumeric() || it == '_'), "{name}");
            assert!(!reserved.iter().any(|it| it.eq_ignore_ascii_case(name)), "{name}");
        }
    }
}

#[test]
fn a_template_embeds_the_queries_of_the_files() {
    for profile in PROFILES {
        let template = profile.template();
        let functions = template["variables"]["functions"].as_array().unwrap();

        let named: Vec<_> = functions.iter().map(|it| it["name"].as_str().unwrap()).collect();

        assert_eq!(named, FUNCTIONS);
        for function in functions {
            let name = function["name"].as_str().unwrap();
            let hint = "`python3 tests/proof/templates.py --embed packaging/sentinel` embeds it";
            assert_eq!(function["query"], profile.query(name), "{name}: {hint}");
            let parameters = if name.starts_with("ASim") { "disabled:bool=False" } else { "" };
            assert_eq!(function["parameters"], parameters, "{name}");
        }
        let alert = profile.resource("/alertRules");
        assert_eq!(alert["properties"]["query"], profile.query("alert"));
    }
}

#[test]
fn the_table_of_the_solution_can_be_left_alone() {
    let table = KEEPER_SOLUTION.resource("/tables");

    let parameter = &KEEPER_SOLUTION.template()["parameters"]["deployTable"];

    assert_eq!(table["condition"], "[parameters('deployTable')]");
    assert_eq!(parameter["defaultValue"], true);
    assert_eq!(FULL.resource("/tables")["condition"], Value::Null);
}

#[test]
fn functions_that_are_there_already_are_written_anew() {
    for profile in PROFILES {
        assert_eq!(profile.resource("/savedSearches")["etag"], "*");
    }
}

#[test]
fn the_outputs_are_what_the_configuration_asks_for() {
    for profile in PROFILES {
        let outputs = profile.template()["outputs"].clone();

        let said = |name: &str| outputs[name]["value"].as_str().unwrap().to_owned();

        let rule = "reference(resourceId('Microsoft.Insights/dataCollectionRules', \
                    parameters('ruleName')), '2023-03-11')";
        assert_eq!(said("endpoint"), format!("[{rule}.endpoints.logsIngestion]"));
        assert_eq!(said("rule"), format!("[{rule}.immutableId]"));
        assert_eq!(said("stream"), profile.stream);
    }
}

#[test]
fn the_role_is_given_for_the_rule_alone_and_only_where_somebody_is_named() {
    for profile in PROFILES {
        let role = profile.resource("/roleAssignments");

        let publisher = &profile.template()["variables"]["publisherRole"];

        assert_eq!(publisher, "3913510d-42f4-4e42-8a64-420c390055eb");
        assert_eq!(role["condition"], "[not(empty(parameters('principalId')))]");
        let scope =
            "[format('Microsoft.Insights/dataCollectionRules/{0}', parameters('ruleName'))]";
        assert_eq!(role["scope"], scope);
    }
}

/// The rows of the `types` of a parser, and those that it leaves to the others.
fn types_of(parser: &str) -> (Vec<Vec<String>>, BTreeSet<String>) {
    let text = FULL.query(parser);
    let words = |line: &str| -> Vec<String> {
        line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let between = |from: &str, to: &str| {
        let (_, rest) = text.split_once(from)?;
        Some(rest.split_once(to)?.0.to_owned())
    };
    let rows = between("\n[\n", "\n];").unwrap();
    let elsewhere = between("let elsewhere = dynamic([", "]);").unwrap_or_default();
    (rows.lines().map(words).collect(), words(&elsewhere).into_iter().collect())
}

#[test]
fn each_type_of_the_catalogue_is_in_exactly_one_parser() {
    let catalogue = read(&root().join("tests/fixtures/keeper-event-types.csv"));
    let catalogue: BTreeSet<&str> =
        catalogue.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(catalogue.len(), 319);

    let parsers = ["ASimAuthenticationKeeper", "ASimUserManagementKeeper", "ASimAuditEventKeeper"];
    let [logins, users, audit] = parsers.map(|parser| types_of(parser).0);

    let all: Vec<&str> = [&logins, &users, &audit]
        .iter()
        .flat_map(|rows| rows.iter().map(|row| row[0].as_str()))
        .collect();
    let distinct: BTreeSet<&str> = all.iter().copied().collect();
    assert_eq!(distinct.len(), all.len(), "a type is there twice");
    assert_eq!(distinct, catalogue);
    // What is in none of the three tables is in the third parser.
    let (_, elsewhere) = types_of("ASimAuditEventKeeper");
    let others = [logins, users].concat().into_iter().map(|row| row[0].clone());
    assert_eq!(elsewhere, others.collect());
}

#[test]
fn each_value_is_one_that_its_schema_knows() {
    // Source: Microsoft Sentinel, "ASIM schemas", versions 0.1.3, 0.1.2 and 0.1.
    let known: [(&str, &[&[&str]]); 3] = [
        (
            "ASimAuthenticationKeeper",
            &[
                &["Logon", "Logoff", "Elevate"],
                &["Success", "Failure"],
                &["", "Other", "Logon violates policy"],
                &["", "Interactive", "Service"],
            ],
        ),
        (
            "ASimUserManagementKeeper",
            &[
                &[
                    "UserCreated",
                    "UserDeleted",
                    "UserModified",
                    "UserLocked",
                    "UserUnlocked",
                    "UserEnabled",
                    "PasswordChanged",
                    "PasswordReset",
                    "GroupCreated",
                    "GroupDeleted",
                    "GroupModified",
                    "UserAddedToGroup",
                    "UserRemovedFromGroup",
                ],
                &["Informational", "Low", "Medium"],
                &["", "Role", "Team"],
            ],
        ),
        (
            "ASimAuditEventKeeper",
            &[
                &[
                    "Set", "Read", "Create", "Delete", "Execute", "Install", "Clear", "Enable",
                    "Disable", "Other",
                ],
                &["Cloud Resource", "Configuration Atom", "Policy Rule", "Other"],
                &["Success", "Failure"],
            ],
        ),
    ];
    for (parser, values) in known {
        let (rows, _) = types_of(parser);

        for row in rows {
            assert_eq!(row.len(), values.len() + 1, "{parser}: {row:?}");
            for (value, known) in row[1..].iter().zip(values) {
                assert!(known.contains(&value.as_str()), "{parser}: {row:?}");
            }
        }
    }
}

#[test]
fn parsers_of_bicep_and_of_kql_take_it_and_the_queries_answer() {
    let python = root().join("target/python/bin/python");
    assert!(python.exists(), "`tests/run` installs what this test needs: {}", python.display());

    let output = Command::new(python)
        .arg(root().join("tests/proof/templates.py"))
        .args([packaging(), root().join("docs/sentinel.md")])
        .output()
        .unwrap();

    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.ends_with("checks hold\n"), "{said}");
}

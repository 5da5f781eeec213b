"""Reads what is deployed in Azure with parsers of Bicep and of KQL, and runs the KQL on a few rows.

usage: templates.py DIRECTORY PAGE...     the directory of the templates; pages with blocks of `kusto`
       templates.py --embed DIRECTORY     writes the .kql files into the ARM templates
"""

import datetime
import json
import pathlib
import re
import sys

checks = 0
PROFILES = ["keeper-solution", "full"]
PARSERS = ["ASimAuthenticationKeeper", "ASimAuditEventKeeper", "ASimUserManagementKeeper"]


def check(what, found, expected):
    global checks
    checks += 1
    assert found == expected, f"{what}: {found!r}, expected {expected!r}"


def embed(root):
    for profile in PROFILES:
        path = root / f"{profile}.json"
        template = json.loads(path.read_text())
        for function in template["variables"]["functions"]:
            function["query"] = query_file(root, profile, function["name"]).read_text()
        rule = next(it for it in template["resources"] if it["type"].endswith("/alertRules"))
        rule["properties"]["query"] = (root / profile / "alert.kql").read_text()
        path.write_text(json.dumps(template, indent=2, ensure_ascii=False) + "\n")


def query_file(root, profile, name):
    own = root / profile / f"{name}.kql"
    return own if own.exists() else root / "functions" / f"{name}.kql"


class Expression(str):
    """What Azure works out when it deploys."""


class Bicep:
    """The declarations of one file."""

    def __init__(self, path):
        import tree_sitter
        import tree_sitter_bicep

        self.path = path
        language = tree_sitter.Language(tree_sitter_bicep.language())
        tree = tree_sitter.Parser(language).parse(path.read_bytes())
        broken = [node for node in walk(tree.root_node) if node.is_error or node.is_missing]
        check(f"{path.name}: what is no Bicep", [str(node.start_point) for node in broken], [])
        self.kinds = {}
        for node in tree.root_node.named_children:
            self.kinds.setdefault(node.type, []).append(node)

    def resources(self):
        """Type and API version, whether there is a condition, and the body, in order."""
        found = []
        for node in self.kinds["resource_declaration"]:
            if any(child.type == "existing" for child in node.children):
                continue
            kind = next(child for child in node.named_children if child.type == "string")
            body = node.named_children[-1]
            conditional = body.type == "if_statement"
            if body.type in ("if_statement", "for_statement"):
                body = next(child for child in body.named_children if child.type == "object")
            found.append((self.value(kind), conditional, self.value(body)))
        return found

    def names(self, kind):
        declared = self.kinds[kind]
        return [next(it for it in node.named_children if it.type == "identifier").text.decode() for node in declared]

    def variable(self, name):
        found = dict(zip(self.names("variable_declaration"), self.kinds["variable_declaration"]))
        return self.value(found[name].named_children[-1])

    def value(self, node):
        text = node.text.decode()
        match node.type:
            case "object":
                pairs = [it.named_children for it in node.named_children if it.type == "object_property"]
                return {str(self.value(key)): self.value(value) for key, value in pairs}
            case "array":
                return [self.value(child) for child in node.named_children if child.type != "comment"]
            case "string" if not any(child.type == "interpolation" for child in node.named_children):
                return re.sub(r"\\(.)", r"\1", text[1:-1])
            case "number" | "boolean":
                return json.loads(text)
            case "call_expression" if text.startswith("loadTextContent("):
                return (self.path.parent / text.split("'")[1]).read_text()
        return Expression(text)


def walk(node):
    yield node
    for child in node.children:
        yield from walk(child)


def alike(what, bicep, arm):
    """The same, where both say it and neither leaves it to Azure."""
    if isinstance(bicep, Expression):
        return check(f"{what} is an expression in both", isinstance(arm, str) and arm.startswith("["), True)
    if isinstance(bicep, dict):
        check(f"{what}: keys", sorted(bicep), sorted(arm))
        for key in bicep:
            alike(f"{what}.{key}", bicep[key], arm[key])
    elif isinstance(bicep, list) and any(isinstance(it, (dict, list)) for it in bicep):
        check(f"{what}: length", len(bicep), len(arm))
        for at, (one, other) in enumerate(zip(bicep, arm)):
            alike(f"{what}[{at}]", one, other)
    else:
        check(what, bicep, arm)


def the_bicep_is_the_arm(root, profile):
    bicep = Bicep(root / f"{profile}.bicep")
    arm = json.loads((root / f"{profile}.json").read_text())
    found = bicep.resources()
    check("resources", [kind for kind, *_ in found], [f"{it['type']}@{it['apiVersion']}" for it in arm["resources"]])
    for (kind, conditional, body), other in zip(found, arm["resources"]):
        check(f"{kind}: condition", conditional, "condition" in other)
        for key in ("kind", "etag"):
            alike(f"{kind}: {key}", body.get(key), other.get(key))
        alike(kind, body["properties"], other["properties"])
    # A child bears the name of its parent in ARM.
    check("the table", f"[format('{{0}}/{found[0][2]['name']}', parameters('workspaceName'))]", arm["resources"][0]["name"])
    alike("functions", bicep.variable("functions"), arm["variables"]["functions"])
    check("the role", bicep.variable("publisherRole"), arm["variables"]["publisherRole"])
    check("parameters", bicep.names("parameter_declaration"), list(arm["parameters"]))
    check("outputs", bicep.names("output_declaration"), list(arm["outputs"]))
    return arm


def the_kql_is_kql(root, pages):
    import duckdb_kql

    texts = {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*.kql"))}
    for page in pages:
        blocks = re.findall(r"```kusto\n(.*?)```", page.read_text(), re.DOTALL)
        texts |= {f"{page.name}, query {at}": block for at, block in enumerate(blocks, 1)}
    for name, text in texts.items():
        check(name, [str(problem) for problem in duckdb_kql.validate(text)], [])
    check("what is no KQL is noticed", len(duckdb_kql.validate("Rows | where (Type ==")) > 0, True)


class Workspace:
    """Tables and functions that answer as those of a workspace do."""

    def __init__(self, root, profile, arm):
        import duckdb_kql

        self.root, self.profile, self.run = root, profile, duckdb_kql.query
        self.database = duckdb_kql.connect()
        table, rule = arm["resources"][0]["properties"]["schema"], arm["resources"][1]["properties"]
        self.transform = rule["dataFlows"][0]["transformKql"]
        self.declared = columns(next(iter(rule["streamDeclarations"].values())))
        self.table, self.columns = table["name"], columns(table)

    def receive(self, rows):
        """Rows of the stream go through the transform of the rule into the table."""
        self.create("Received", self.declared)
        for row in rows:
            marks = ", ".join("?" * len(self.declared))
            values = [row.get(name) for name in self.declared]
            self.database.execute(f"INSERT INTO Received VALUES ({marks})", values)
        made = self.run(self.database, f"let source = Received;\n{self.transform}")
        check("what the transform makes", sorted(made.columns), sorted(self.columns))
        rows = [dict(zip(made.columns, row)) for row in made.fetchall()]
        self.create(self.table, self.columns)
        for row in rows:
            marks = ", ".join("?" * len(self.columns))
            values = [row[name] for name in self.columns]
            self.database.execute(f"INSERT INTO {self.table} VALUES ({marks})", values)

    def create(self, table, declared):
        kinds = {"string": "VARCHAR", "datetime": "TIMESTAMP", "int": "INTEGER", "dynamic": "JSON"}
        body = ", ".join(f'"{name}" {kinds[kind]}' for name, kind in declared.items())
        self.database.execute(f'CREATE TABLE "{table}" ({body})')

    def events(self, then=""):
        head, tail = re.split(r"(?m)^union", self.text("KeeperEvents"), maxsplit=1)
        return self.rows(f"{head}let KeeperEvents = union{tail.rstrip()};\n" + (then or "KeeperEvents"))

    def parse(self, parser, disabled="false"):
        """The function without its frame, which the runner does not know."""
        framed = re.fullmatch(
            r"(.*)let parser = \(disabled: bool = false\) \{\n(.*)\};\nparser\(disabled=disabled\)\n",
            self.text(parser), re.DOTALL)
        return self.events(f"{framed[1]}let disabled = {disabled};\n{framed[2]}")

    def text(self, name):
        return query_file(self.root, self.profile, name).read_text()

    def rows(self, query):
        answer = self.run(self.database, query)
        return [dict(zip(answer.columns, row)) for row in answer.fetchall()]


def columns(declared):
    return {column["name"]: column["type"] for column in declared["columns"]}


def of_profile(profile, record, uid, **flags):
    """A record as the sink sends it."""
    time, api = "2026-01-02 03:04:05.678", flags.pop("api", "keeper")
    ours = {"uid": uid, "source": "acme", "api": api, "type": record["audit_event"],
            "time": "2026-01-02T03:04:05.678Z", "received": "2026-01-02T03:05:00Z", "seq": 1} | flags
    envelope = ["audit_event", "remote_address", "category", "client_version", "enterprise_id", "username"]
    if profile == "keeper-solution":
        data = {key: value for key, value in record.items() if key not in envelope}
        return {key: record.get(key) for key in envelope} | {
            "TimeGenerated": time, "timestamp": time, "data": json.dumps(data | {"siemferry": ours})}
    raw = record | ({"siemferry": flags} if flags else {})
    return {"TimeGenerated": time, "EventUid": uid, "EventTime": time, "Type": record["audit_event"],
            "Category": record.get("category"), "Actor": record.get("username"), "SourceIp": record.get("remote_address"),
            "Source": "acme", "Api": api, "Raw": json.dumps(raw)}


def record(event, **more):
    return {"audit_event": event, "category": "security", "username": "a@example.com", "remote_address": "192.0.2.7",
            "client_version": "EMConsole.17.3.0", "enterprise_id": 1234} | more


def the_functions_answer(root, profile, arm):
    sent = [
        (record("login"), "u1", {}),
        (record("login"), "u1", {}),
        (record("login_failed_ip_whitelist", result_code="ip_blocked"), "u2", {"backfilled": True}),
        (record("pending_added_to_role", role_id="77", value="new@example.com"), "u3", {}),
        (record("set_two_factor_off"), "u4", {"truncated": True}),
        (record("delete_user", email="gone@example.com"), "u5", {}),
        (record("open_record", record_uid="R1"), "u6", {}),
        (record("role_enforcement_changed", role_id="77", enforcement="two_factor_duration", value="30"), "u7", {}),
        (record("a_type_of_next_year"), "u8", {}),
    ]
    rows = [of_profile(profile, one, uid, **flags) for one, uid, flags in sent]
    # Of a backfilled event each copy has the time of its own receipt.
    rows[1] |= {"TimeGenerated": "2026-01-05 00:00:00"}
    if profile == "keeper-solution":
        pushed = of_profile(profile, record("open_record"), "") | {"data": '{"record_uid":"R2"}'}
        rows += [pushed, pushed]
    rows.append(of_profile(profile, record("test"), "u9", api="siemferry"))
    workspace = Workspace(root, profile, arm)
    workspace.receive(rows)
    foreign = 2 if profile == "keeper-solution" else 0

    events = workspace.events()
    check("a repeat is there once", [row["EventUid"] for row in events].count("u1"), 1)
    check("rows without a uid stay", [row["EventUid"] or "" for row in events].count(""), foreign)
    check("events", len(events), 8 + foreign)
    first = next(row for row in events if row["EventUid"] == "u2")
    shown = {key: value for key, value in first.items() if key not in ("TimeGenerated", "Record")}
    check("one event", shown, {
        "EventUid": "u2", "EventTime": datetime.datetime(2026, 1, 2, 3, 4, 5, 678000),
        "EventType": "login_failed_ip_whitelist", "Category": "security", "Actor": "a@example.com",
        "SourceIp": "192.0.2.7", "ClientVersion": "EMConsole.17.3.0", "EnterpriseId": 1234, "Source": "acme",
        "Api": "keeper", "Backfilled": True, "Truncated": False})
    check("its record", json.loads(first["Record"])["result_code"], "ip_blocked")
    check("cut ones", [row["EventUid"] for row in events if row["Truncated"]], ["u4"])

    logins, audit, users = (by_uid(workspace.parse(name)) for name in
                            ["ASimAuthenticationKeeper", "ASimAuditEventKeeper", "ASimUserManagementKeeper"])
    check("logins", sorted(logins), ["u1", "u2"])
    pick(logins["u1"], EventType="Logon", EventResult="Success", TargetUsername="a@example.com", TargetUsernameType="UPN",
         SrcIpAddr="192.0.2.7", Dvc="Keeper", EventCount=1, EventSchema="Authentication", EventSchemaVersion="0.1.3")
    pick(logins["u2"], EventResult="Failure", EventResultDetails="Logon violates policy",
         EventOriginalResultDetails="ip_blocked")
    check("users", sorted(users), ["u3", "u4", "u5"])
    pick(users["u3"], EventType="UserAddedToGroup", GroupId="77", GroupIdType="UID", TargetUsername="new@example.com",
         ActorUsername="a@example.com", EventSchema="UserManagement", EventSchemaVersion="0.1.2")
    pick(users["u4"], EventType="UserModified", EventSeverity="Medium", TargetUsername="a@example.com")
    pick(users["u5"], EventType="UserDeleted", TargetUsername="gone@example.com", EventResult="Success")
    check("the rest", sorted(audit), ["u6", "u7", "u8"] if not foreign else ["", "u6", "u7", "u8"])
    pick(audit["u6"], EventType="Read", Object="R1", ObjectType="Other", Operation="open_record")
    pick(audit["u7"], EventType="Set", Object="two_factor_duration", ObjectType="Policy Rule", NewValue="30")
    pick(audit["u8"], EventType="Other", Object="Keeper", EventResult="NA", EventSchema="AuditEvent", EventSchemaVersion="0.1")
    check("disabled", [workspace.parse(name, "true") for name in PARSERS], [[], [], []])


def by_uid(rows):
    return {row["EventOriginalUid"] or "": row for row in rows}


def pick(row, **expected):
    check(row["EventOriginalType"], {name: row[name] for name in expected}, expected)


def main(arguments):
    if arguments[0] == "--embed":
        return embed(pathlib.Path(arguments[1]))
    root, *pages = map(pathlib.Path, arguments)
    the_kql_is_kql(root, pages)
    for profile in PROFILES:
        the_functions_answer(root, profile, the_bicep_is_the_arm(root, profile))
    print(f"{checks} checks hold")


main(sys.argv[1:])

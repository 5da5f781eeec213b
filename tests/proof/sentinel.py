"""Drives the simulated Azure with Microsoft's own clients: what those expect of the service holds.

usage: sentinel.py URL URL_WITHOUT_ROLE TENANT CLIENT SECRET RULE DIRECTORY
"""

import gzip
import json
import pathlib
import ssl
import sys
import urllib.error
import urllib.request
import uuid
from datetime import datetime, timezone

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.identity import CertificateCredential, ClientSecretCredential, WorkloadIdentityCredential
from azure.monitor.ingestion import LogsIngestionClient

url, no_role_url, tenant, client_id, secret, rule, directory = sys.argv[1:]
directory = pathlib.Path(directory)
stream = "Custom-KeeperSecurityEventNewLogs"
settings = {"authority": url, "disable_instance_discovery": True, "retry_total": 0}
scope = "https://monitor.azure.com/.default"
checks = 0


def check(what, found, expected):
    global checks
    checks += 1
    assert found == expected, f"{what}: {found!r}, expected {expected!r}"


def row(kind, **more):
    now = datetime.now(timezone.utc).isoformat()
    return {"TimeGenerated": now, "audit_event": kind, "enterprise_id": 7, "data": {"n": 1}, **more}


def by_secret(**other):
    known = {"tenant_id": tenant, "client_id": client_id, "client_secret": secret} | other
    return ClientSecretCredential(**known, **settings)


def ingestion(credential):
    return LogsIngestionClient(url, credential, retry_total=0)


def unauthenticated(what, code, credential, scope=scope):
    """The token is refused with this code."""
    try:
        credential.get_token(scope)
    except ClientAuthenticationError as err:
        found = f"AADSTS{code}:" in str(err)
        check(f"{what}: {err}", found, True)
        return
    raise AssertionError(f"{what}: it was not refused")


def refused(what, status, kind, call):
    try:
        call()
    except HttpResponseError as err:
        check(f"{what}: status", err.status_code, status)
        check(f"{what}: code", json.loads(err.response.text())["error"]["code"], kind)
        return
    raise AssertionError(f"{what}: it was not refused")


def post(path, body, headers, method="POST"):
    """The status and the answer of a request that the clients would never send."""
    request = urllib.request.Request(url + path, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, context=ssl.create_default_context()) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as err:
        return err.code, err.read()


def raw(body, method="POST", query="?api-version=2023-01-01", path=None, **headers):
    known = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()}
    path = path or f"/dataCollectionRules/{rule}/streams/{stream}"
    status, answer = post(path + query, body, known, method)
    return status, json.loads(answer)["error"]["code"] if answer else None


# Tokens.
good = by_secret()
token = good.get_token(scope).token
check("two slashes", bool(by_secret().get_token("https://monitor.azure.com//.default").token), True)
unauthenticated("a wrong secret", 7000215, by_secret(client_secret="wrong"))
unauthenticated("an expired secret", 7000222, by_secret(client_secret="expired~secret"))
unauthenticated("an unknown application", 700016, by_secret(client_id=str(uuid.uuid4())))
unauthenticated("another resource", 500011, by_secret(), "https://vault.azure.net/.default")
unauthenticated("no default scope", 1002012, by_secret(), "https://monitor.azure.com/Logs.Read")


def by_certificate(name):
    return CertificateCredential(tenant, client_id, str(directory / name), **settings)


unauthenticated("a certificate nobody registered", 700027, by_certificate("unknown.pem"))
certified = by_certificate("known.pem")
check("a certificate", bool(certified.get_token(scope).token), True)


def by_federation(text):
    path = directory / "subject"
    path.write_text(text)
    return WorkloadIdentityCredential(tenant_id=tenant, client_id=client_id, token_file_path=str(path), **settings)


check("a federated token", bool(by_federation("subject.of.issuer").get_token(scope).token), True)
unauthenticated("a token that is no assertion", 50027, by_federation("another"))

# Uploads.
client = ingestion(good)
client.upload(rule, stream, [row("by_secret"), row("by_secret")])
ingestion(certified).upload(rule, stream, [row("by_certificate")])
ingestion(by_federation("subject.of.issuer")).upload(rule, stream, [row("by_federation")])
refused("an unknown rule", 404, "NotFound", lambda: client.upload("dcr-" + "f" * 32, stream, [row("never")]))
refused("no rule at all", 400, "InvalidDataCollectionRuleId", lambda: client.upload("dcr-1", stream, [row("never")]))
refused("an unknown stream", 400, "InvalidStream", lambda: client.upload(rule, "Custom-Nothing", [row("never")]))
refused("a refused text", 400, "InvalidPayload", lambda: client.upload(rule, stream, [row("never", username="p0is0n")]))
# The client adds up the rows without what stands between them.
small = [{"data": "0123456789"}] * 60_000
refused("many small rows", 413, "ContentLengthLimitExceeded", lambda: client.upload(rule, stream, small))
refused("one big row", 413, "ContentLengthLimitExceeded", lambda: client.upload(rule, stream, [row("never", username="x" * 1_100_000)]))

# The role.
settings["authority"] = no_role_url
unprivileged = LogsIngestionClient(no_role_url, by_secret(), retry_total=0)
refused("no role", 403, "OperationFailed", lambda: unprivileged.upload(rule, stream, [row("never")]))

# What the clients never send.
body = json.dumps([row("by_secret")]).encode()
never = json.dumps([row("never")]).encode()
check("uncompressed", raw(body), (204, None))
check("an empty array", raw(b"[]"), (204, None))
check("no content type of JSON", raw(never, Content_Type="text/plain"), (415, "UnsupportedMediaType"))
check("no version", raw(never, query=""), (400, "MissingApiVersionParameter"))
check("another version", raw(never, query="?api-version=2016-04-01"), (400, "UnsupportedApiVersion"))
check("broken gzip", raw(gzip.compress(never)[:-9], Content_Encoding="gzip"), (400, "InvalidPayload"))
check("no gzip", raw(never, Content_Encoding="gzip"), (400, "InvalidPayload"))
check("another compression", raw(never, Content_Encoding="zstd"), (415, "UnsupportedMediaType"))
check("big when it is plain", raw(gzip.compress(b"[" + b" " * 1_000_000 + b"]"), Content_Encoding="gzip"),
      (413, "ContentLengthLimitExceeded"))
check("as big as it may be", raw(b"[" + b" " * 999_998 + b"]"), (204, None))
check("an object", raw(b'{"audit_event":"never"}'), (400, "InvalidPayload"))
check("no objects in the array", raw(b"[1]"), (400, "InvalidPayload"))
check("no UTF-8", raw(b'[{"audit_event":"\xff"}]'), (400, "InvalidPayload"))
check("a body that ends early", raw(never[:-1]), (400, "InvalidPayload"))
check("another method", raw(never, method="PUT"), (405, "MethodNotAllowed"))
check("another path", raw(never, path="/dataCollectionRules"), (404, "NotFound"))
check("another token", raw(never, Authorization="Bearer x"), (401, "InvalidToken"))
check("another kind of credential", raw(never, Authorization="Basic x"), (401, "InvalidToken"))


def asked(text, path=f"/{tenant}/oauth2/v2.0/token", method="POST"):
    """The status, the error and the code of a request for a token."""
    status, answer = post(path, text.encode(), {"Content-Type": "application/x-www-form-urlencoded"}, method)
    answer = json.loads(answer)
    missing = {"error_description", "timestamp", "trace_id", "correlation_id"} - answer.keys()
    check(f"the members of {answer}", missing, set())
    return status, answer["error"], answer["error_codes"]


known = f"client_id={client_id}&client_secret={secret}&scope={scope}"
check("no grant type", asked(known), (400, "invalid_request", [900144]))
check("another grant type", asked(known + "&grant_type=password"), (400, "unsupported_grant_type", [70003]))
check("two scopes", asked(f"{known}%20a&grant_type=client_credentials"), (400, "invalid_scope", [70011]))
check("no proof", asked(f"client_id={client_id}&scope={scope}&grant_type=client_credentials"),
      (401, "invalid_client", [7000218]))
check("no method for a token", asked(known, method="PUT"), (400, "invalid_request", [900561]))
# The client asks what it is to ask, and is told nothing for such tenants.
granted = known + "&grant_type=client_credentials"
check("an unknown tenant", asked(granted, f"/{uuid.uuid4()}/oauth2/v2.0/token"), (400, "invalid_request", [90002]))
check("no tenant at all", asked(granted, "/nobody/oauth2/v2.0/token"), (400, "invalid_request", [900023]))

print(f"{checks} checks hold")

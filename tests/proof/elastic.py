"""Drives the simulated Elasticsearch with the official client: what that expects of a server holds.

usage: elastic.py URL API_KEY WRONG_KEY TEMPLATE
"""

import json
import sys
import urllib.error
import urllib.request

from elasticsearch import (
    ApiError,
    AuthenticationException,
    BadRequestError,
    Elasticsearch,
    NotFoundError,
    helpers,
)

url, api_key, wrong_key, template = sys.argv[1:]
checks = 0


def check(what, found, expected):
    global checks
    checks += 1
    assert found == expected, f"{what}: {found!r}, expected {expected!r}"


def refused(what, error, status, kind, call):
    try:
        call()
    except error as err:
        check(f"{what}: status", err.meta.status, status)
        if kind:
            check(f"{what}: type", err.body["error"]["type"], kind)
        return
    raise AssertionError(f"{what}: it was not refused")


def raw(body, content_type="application/x-ndjson", **headers):
    """The status of a request that the client would never send."""
    headers |= {"Authorization": f"ApiKey {api_key}", "Content-Type": content_type}
    request = urllib.request.Request(f"{url}/raw/_bulk", body, headers, method="POST")
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as err:
        return err.code, json.load(err)


def event(number, **more):
    return {"@timestamp": "2026-01-02T03:04:05.678Z", "audit_event": "login", "n": number, **more}


def create(index, number, **more):
    return {"_op_type": "create", "_index": index, "_id": f"id-{number}", "_source": event(number, **more)}


# Credentials.
refused("a wrong key", AuthenticationException, 401, "security_exception",
        lambda: Elasticsearch(url, api_key=wrong_key).info())
refused("no credential", AuthenticationException, 401, "security_exception",
        lambda: Elasticsearch(url).info())
client = Elasticsearch(url, api_key=api_key, http_compress=True)
check("the product", client.info()["tagline"], "You Know, for Search")

# A plain index.
check("no index yet", bool(client.indices.exists(index="plain")), False)
done, failed = helpers.bulk(client, (create("plain", n) for n in range(1200)), chunk_size=500)
check("created", (done, failed), (1200, []))
check("an index now", bool(client.indices.exists(index="plain")), True)
check("counted", client.count(index="plain")["count"], 1200)

# Partial results: a duplicate, a document that does not fit, a text that the mapping refuses.
client.indices.refresh(index="plain")
actions = [create("plain", 1200), create("plain", 7), create("plain", 1201, poison="p0is0n"),
           create("plain", 1202) | {"_source": {"@timestamp": "no time"}}, create("plain", 1203)]
outcomes = list(helpers.streaming_bulk(client, actions, raise_on_error=False))
check("which succeeded", [ok for ok, _ in outcomes], [True, False, False, False, True])
check("the statuses", [item["create"]["status"] for _, item in outcomes], [201, 409, 400, 400, 201])
check("the ids", [item["create"]["_id"] for _, item in outcomes], [f"id-{n}" for n in (1200, 7, 1201, 1202, 1203)])
check("a duplicate", outcomes[1][1]["create"]["error"]["type"], "version_conflict_engine_exception")
check("no fit", outcomes[2][1]["create"]["error"]["type"], "document_parsing_exception")
check("no time", outcomes[3][1]["create"]["error"]["caused_by"]["type"], "illegal_argument_exception")
try:
    helpers.bulk(client, [create("plain", 7)])
    raise AssertionError("a duplicate is no error to the helper")
except helpers.BulkIndexError as err:
    check("the helper's error", err.errors[0]["create"]["status"], 409)
check("counted", client.count(index="plain")["count"], 1202)

# A key that stands twice, and what is no object.
lines = ['{"create":{"_id":"twice"}}', '{"a":1,"a":2}', '{"create":{"_id":"list"}}', "[1]", '{"create":{}}', '{"a":1}']
answer = client.bulk(index="plain", operations=lines)
check("errors are told", answer["errors"], True)
check("a key twice", [item["create"]["status"] for item in answer["items"]], [400, 400, 201])
check("a key twice, why", answer["items"][0]["create"]["error"]["type"], "document_parsing_exception")

# Filtered answers keep every item and their order.
actions = [json.dumps({"create": {"_id": "id-3"}}), json.dumps(event(3)), '{"create":{"_id":"new"}}', json.dumps(event(4))]
answer = client.bulk(index="plain", operations=actions, filter_path="errors,items.*.status,items.*.error")
check("filtered", [sorted(item["create"]) for item in answer["items"]], [["error", "status"], ["status"]])
check("filtered, the rest", sorted(answer), ["errors", "items"])
answer = client.bulk(index="plain", operations=actions, filter_path="items.*.error")
check("filtered to the errors", len(answer["items"]), 2)
answer = client.bulk(index="plain", operations=['{"create":{}}', "{}"], filter_path="items.*.error")
check("filtered to nothing", dict(answer), {})

# A data stream, made by a template.
with open(template, encoding="utf-8") as file:
    body = json.load(file)
body |= {"index_patterns": ["logs-keeper.audit-*"], "data_stream": {}}
client.indices.put_index_template(name="siemferry", **body)
refused("no stream yet", NotFoundError, 404, "index_not_found_exception",
        lambda: client.indices.get_data_stream(name="logs-keeper.audit-default"))
stream = "logs-keeper.audit-default"
check("streamed", helpers.bulk(client, (create(stream, n) for n in range(10))), (10, []))
check("a stream", client.indices.get_data_stream(name=stream)["data_streams"][0]["name"], stream)
answer = client.bulk(index=stream, operations=['{"index":{"_id":"a"}}', json.dumps(event(1)), '{"create":{"_id":"b"}}', "{}"])
check("a stream takes creation and time alone", [next(iter(it.values()))["status"] for it in answer["items"]], [400, 400])
refused("an unknown field of a template", BadRequestError, 400, "x_content_parse_exception",
        lambda: client.perform_request("PUT", "/_index_template/x", body={"index_patterns": ["x"], "colour": 1},
                                       headers={"accept": "application/json", "content-type": "application/json"}))

# Whole requests.
refused("no action", BadRequestError, 400, "illegal_argument_exception",
        lambda: client.bulk(index="plain", operations=['{"destroy":{}}', "{}"]))
refused("no JSON", BadRequestError, 400, "x_content_parse_exception",
        lambda: client.bulk(index="plain", operations=["create", "{}"]))
refused("no index", BadRequestError, 400, "action_request_validation_exception",
        lambda: client.bulk(operations=['{"create":{}}', "{}"]))
refused("a long id", BadRequestError, 400, "action_request_validation_exception",
        lambda: client.bulk(index="plain", operations=[json.dumps({"create": {"_id": "x" * 513}}), "{}"]))
answer = client.bulk(operations=[json.dumps({"create": {"_index": "Upper"}}), "{}", json.dumps({"create": {"_id": "y" * 512, "_index": "a"}}), "{}"])
check("a bad name of an index", [it["create"]["status"] for it in answer["items"]], [400, 201])
answer = client.bulk(index="plain", operations=['{"create":{}}', "{}"], pipeline="nobody")
check("no pipeline", answer["items"][0]["create"]["error"]["reason"], "pipeline with id [nobody] does not exist")
status, answer = raw(b'{"create":{}}\n{"a":1}')
check("no last newline", (status, answer["error"]["reason"]),
      (400, "The bulk request must be terminated by a newline [\\n]"))
check("no bulk content", raw(b'{"create":{}}\n{}\n', "text/plain")[0], 406)
check("compressed in an unknown way", raw(b'\x28\xb5\x2f\xfd\x04\x58', **{"Content-Encoding": "zstd"})[0], 400)
check("as it should be", raw(b'{"create":{}}\n{"a":1}\n')[0], 200)
refused("a wrong method", ApiError, 405, None,
        lambda: client.perform_request("DELETE", "/_bulk", headers={"accept": "application/json"}))

print(f"{checks} checks hold")

//! What each request is answered with, when nothing breaks.

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::http::{Answer, Seen};
use super::lines::{self, Action, Operation};
use super::{Access, ItemError, Product, Shared, State, document};

/// Which of the items fail by script.
pub type Failing = dyn Fn(usize) -> Option<ItemError> + Send + Sync;

const NDJSON: [&str; 2] = ["application/x-ndjson", "application/json"];
const VENDOR: &str = "application/vnd.elasticsearch+";

/// A whole request that is refused.
pub struct Refusal {
    status: u16,
    kind: String,
    reason: String,
    header: Option<(&'static str, String)>,
}

impl Refusal {
    pub fn new(status: u16, kind: &str, reason: &str) -> Self {
        Self { status, kind: kind.to_owned(), reason: reason.to_owned(), header: None }
    }

    pub fn body(&self) -> String {
        let cause = json!({ "type": self.kind, "reason": self.reason });
        let mut error = cause.clone();
        error["root_cause"] = json!([cause]);
        json!({ "error": error, "status": self.status }).to_string()
    }

    pub fn answer(self) -> Answer {
        let body = self.body();
        let mut headers = vec![("content-type", "application/json".to_owned())];
        headers.extend(self.header);
        Answer { status: self.status, headers, body }
    }
}

/// Answers a request whose body is plain again.
pub fn answer(shared: &Shared, request: &Seen, body: &[u8], failing: Option<&Failing>) -> Answer {
    match route(shared, request, body, failing) {
        Ok(answer) => answer,
        Err(refusal) if refusal.status == 401 && shared.options.product == Product::OpenSearch => {
            let headers = vec![("content-type", "text/plain".to_owned())];
            let challenge = ("www-authenticate", "Basic realm=\"OpenSearch Security\"".to_owned());
            let headers = headers.into_iter().chain([challenge]).collect();
            Answer { status: 401, headers, body: "Unauthorized".to_owned() }
        }
        Err(refusal) => refusal.answer(),
    }
}

fn route(
    shared: &Shared,
    request: &Seen,
    body: &[u8],
    failing: Option<&Failing>,
) -> Result<Answer, Refusal> {
    authenticate(shared, request)?;
    let accepted = accepted(request)?;
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let method = request.method.as_str();
    let ok = |body: String| Answer {
        status: 200,
        headers: vec![("content-type", accepted.clone())],
        body,
    };
    match (method, path.as_slice()) {
        ("POST" | "PUT", ["_bulk"]) => Ok(ok(bulk(shared, request, None, body, failing)?)),
        ("POST" | "PUT", [index, "_bulk"]) => {
            Ok(ok(bulk(shared, request, Some(index), body, failing)?))
        }
        (_, ["_bulk"] | [_, "_bulk"]) => Err(wrong_method(request, "POST,PUT")),
        ("PUT", ["_index_template", name]) => {
            let template = serde_json::from_slice(body)
                .map_err(|err| Refusal::new(400, "parse_exception", &err.to_string()))?;
            check_template(&template)?;
            shared.state.lock().unwrap().templates.insert((*name).to_owned(), template);
            Ok(ok(json!({ "acknowledged": true }).to_string()))
        }
        ("GET" | "HEAD", []) => Ok(ok(about(shared.options.product).to_string())),
        ("GET" | "HEAD", ["_index_template"]) => {
            Ok(ok(filtered(request, &templates(&shared.state.lock().unwrap()))))
        }
        ("GET" | "HEAD", ["_data_stream", name]) => {
            Ok(ok(filtered(request, &stream(&shared.state.lock().unwrap(), name)?)))
        }
        ("GET" | "HEAD", [name]) if !name.starts_with('_') => {
            Ok(ok(filtered(request, &index(&shared.state.lock().unwrap(), name)?)))
        }
        ("GET" | "POST", [name, "_count"]) => {
            let count = documents_in(&shared.state.lock().unwrap(), name)?;
            Ok(ok(json!({ "count": count, "_shards": shards() }).to_string()))
        }
        ("GET" | "POST", [_, "_refresh"]) => Ok(ok(json!({ "_shards": shards() }).to_string())),
        _ => {
            let text = format!("no handler found for uri [{path:?}] and method [{method}]");
            let headers = vec![("content-type", accepted)];
            Ok(Answer { status: 400, headers, body: json!({ "error": text }).to_string() })
        }
    }
}

fn authenticate(shared: &Shared, request: &Seen) -> Result<(), Refusal> {
    let Some(access) = &shared.options.access else { return Ok(()) };
    let expected = match access {
        Access::ApiKey(encoded) => format!("ApiKey {encoded}"),
        Access::Basic { user, password } => {
            format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
        }
        Access::Bearer(token) => format!("Bearer {token}"),
    };
    let reason = match request.header("authorization") {
        Some(given) if given == expected => return Ok(()),
        Some(_) => "unable to authenticate with provided credentials".to_owned(),
        None => format!(
            "missing authentication credentials for REST request [/{}]",
            request.path.join("/")
        ),
    };
    let header = ("www-authenticate", "ApiKey, Basic realm=\"security\", Bearer".to_owned());
    Err(Refusal { header: Some(header), ..Refusal::new(401, "security_exception", &reason) })
}

/// The content type of the answer.
fn accepted(request: &Seen) -> Result<String, Refusal> {
    let accept = request.header("accept").unwrap_or("*/*");
    let first = accept.split(',').next().unwrap_or_default().trim();
    let plain = first.split(';').next().unwrap_or_default().trim();
    match plain {
        "*/*" | "application/json" | "application/*" => Ok("application/json".to_owned()),
        vendor if vendor.starts_with(VENDOR) => {
            Ok(first.replace("; ", ";").replace("x-ndjson", "json"))
        }
        _ => {
            let reason = format!("Invalid media-type value on headers [Accept={accept}]");
            Err(Refusal::new(406, "media_type_header_exception", &reason))
        }
    }
}

fn wrong_method(request: &Seen, allowed: &str) -> Refusal {
    let reason = format!(
        "Incorrect HTTP method for uri [/{}] and method [{}], allowed: [{allowed}]",
        request.path.join("/"),
        request.method
    );
    let header = Some(("allow", allowed.to_owned()));
    Refusal { header, ..Refusal::new(405, "illegal_argument_exception", &reason) }
}

fn bulk(
    shared: &Shared,
    request: &Seen,
    index: Option<&str>,
    body: &[u8],
    failing: Option<&Failing>,
) -> Result<String, Refusal> {
    check_content_type(request)?;
    for (name, _) in &request.query {
        let known = ["filter_path", "pipeline", "refresh", "timeout", "error_trace", "pretty"];
        if !known.contains(&name.as_str()) {
            let reason = format!("request [/_bulk] contains unrecognized parameter: [{name}]");
            return Err(Refusal::new(400, "illegal_argument_exception", &reason));
        }
    }
    let operations = lines::operations(body, index)?;
    let mut outcomes: Vec<Outcome> =
        operations.iter().map(|operation| look_at(shared, request, operation)).collect();
    let mut state = shared.state.lock().unwrap();
    for (number, (operation, outcome)) in operations.iter().zip(&mut outcomes).enumerate() {
        if let Some(error) = failing.and_then(|failing| failing(number)) {
            *outcome = Outcome::Failed(error);
        }
        store(shared, &mut state, operation, outcome);
    }
    let created = outcomes.iter().filter(|it| matches!(it, Outcome::Stored { .. })).count();
    drop(state);
    shared.created.send_modify(|count| *count += created as u64);
    Ok(told(request, &operations, &outcomes, shared.options.product))
}

fn check_content_type(request: &Seen) -> Result<(), Refusal> {
    let given = request.header("content-type").unwrap_or_default();
    let plain = given.split(';').next().unwrap_or_default().trim();
    if NDJSON.contains(&plain) || plain == format!("{VENDOR}x-ndjson") {
        return Ok(());
    }
    let reason = format!("Content-Type header [{given}] is not supported");
    Err(Refusal::new(406, "media_type_header_exception", &reason))
}

/// What became of one operation.
enum Outcome {
    /// Nothing yet; it may be stored.
    Fit,
    Stored {
        index: Arc<str>,
        sequence: u64,
        is_new: bool,
    },
    Failed(ItemError),
}

/// What is wrong with an operation, whatever is stored.
fn look_at(shared: &Shared, request: &Seen, operation: &Operation<'_>) -> Outcome {
    if let Some(why) = bad_name(&operation.index) {
        let reason = format!("Invalid index name [{}], {why}", operation.index);
        return Outcome::Failed(ItemError::new(400, "invalid_index_name_exception", &reason));
    }
    let pipeline = request.query("pipeline").filter(|name| *name != "_none");
    if let Some(name) =
        pipeline.filter(|name| !shared.options.pipelines.iter().any(|it| it == name))
    {
        let reason = format!("pipeline with id [{name}] does not exist");
        return Outcome::Failed(ItemError::new(400, "illegal_argument_exception", &reason));
    }
    match document::check(operation.source, false) {
        Ok(()) => Outcome::Fit,
        Err(error) => Outcome::Failed(error),
    }
}

fn bad_name(name: &str) -> Option<&'static str> {
    if name.chars().any(char::is_uppercase) {
        return Some("must be lowercase");
    }
    if name.contains([' ', '"', '*', '\\', '<', '|', ',', '>', '/', '?']) {
        return Some(
            "must not contain the following characters [' ','\"','*','\\','<','|',',','>','/','?']",
        );
    }
    if name.contains(['#', ':']) {
        return Some("must not contain '#' or ':'");
    }
    if name.starts_with(['_', '-', '+']) {
        return Some("must not start with '_', '-', or '+'");
    }
    if name.is_empty() || name == "." || name == ".." {
        return Some("must not be empty, '.' or '..'");
    }
    (name.len() > 255).then_some("index name is too long")
}

fn store(shared: &Shared, state: &mut State, operation: &Operation<'_>, outcome: &mut Outcome) {
    let id = operation.id.clone().unwrap_or_else(|| format!("generated-{}", state.sequence));
    state.ids.entry(id.clone()).or_default().tries.tried += 1;
    if matches!(outcome, Outcome::Fit) {
        *outcome = match commit(shared, state, operation, &id) {
            Ok(stored) => stored,
            Err(error) => Outcome::Failed(error),
        };
    }
    // Older versions and the other product have another word for it.
    if let (Outcome::Failed(error), Product::OpenSearch) = (outcome, shared.options.product)
        && error.kind == "document_parsing_exception"
    {
        "mapper_parsing_exception".clone_into(&mut error.kind);
    }
}

fn commit(
    shared: &Shared,
    state: &mut State,
    operation: &Operation<'_>,
    id: &str,
) -> Result<Outcome, ItemError> {
    let (index, is_stream) = match state.target(&operation.index) {
        Some(found) => found,
        None if shared.options.auto_create => state.make(&operation.index),
        None => {
            let reason = format!(
                "no such index [{}] and [action.auto_create_index] is [false]",
                operation.index
            );
            return Err(ItemError::new(404, "index_not_found_exception", &reason));
        }
    };
    if is_stream && operation.action != Action::Create {
        let reason = "only write ops with an op_type of create are allowed in data streams";
        return Err(ItemError::new(400, "illegal_argument_exception", reason));
    }
    if is_stream {
        document::check(operation.source, true)?;
    }
    let text = state
        .refused_texts
        .iter()
        .find(|text| memchr::memmem::find(operation.source, text.as_bytes()).is_some());
    if let Some(text) = text {
        let reason = format!(
            "[1:2] failed to parse field [value] of type [long] in document with id '{id}'. Preview of field's value: '{text}'"
        );
        let error = ItemError::new(400, "document_parsing_exception", &reason);
        let cause = format!("For input string: \"{text}\"");
        return Err(error.caused_by("illegal_argument_exception", &cause));
    }
    let sequence = state.sequence;
    let entry = state.ids.get_mut(id).expect("the try was counted");
    let known = entry.stored.iter_mut().find(|(known, _)| *known == index);
    if known.is_some() && operation.action == Action::Create {
        let reason =
            format!("[{id}]: version conflict, document already exists (current version [1])");
        return Err(ItemError::new(409, "version_conflict_engine_exception", &reason));
    }
    let source = String::from_utf8_lossy(operation.source).into_owned().into_boxed_str();
    let source = shared.options.keeps_documents.then_some(source);
    let is_new = known.is_none();
    if let Some(known) = known {
        known.1 = source;
    } else {
        entry.stored.push((Arc::clone(&index), source));
        entry.tries.created += 1;
        *state.indices.entry(Arc::clone(&index)).or_default() += 1;
    }
    state.sequence += 1;
    Ok(Outcome::Stored { index, sequence, is_new })
}

/// The answer's text, filtered as asked.
fn told(
    request: &Seen,
    operations: &[Operation<'_>],
    outcomes: &[Outcome],
    product: Product,
) -> String {
    let filter = Filter::of(request);
    let errors = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Failed(_)));
    let mut members = vec![
        filter.member("errors", &json!(errors)),
        filter.member("took", &json!(outcomes.len() / 100)),
    ];
    if product == Product::OpenSearch {
        members.reverse();
    }
    let like = |id: &str, outcome| filter.item(&item(Action::Create, "", id, outcome));
    let [one, other] = [1, 2].map(|sequence| Outcome::Stored {
        index: Arc::from(format!("index-{sequence}")),
        sequence,
        is_new: true,
    });
    // What is left of an item is often the same for all that were created.
    let same = like("a", &one).filter(|same| like("b", &other).as_ref() == Some(same));
    let mut items = Vec::with_capacity(operations.len());
    for (operation, outcome) in operations.iter().zip(outcomes) {
        let is_usual = operation.action == Action::Create
            && matches!(outcome, Outcome::Stored { is_new: true, .. });
        let text = match &same {
            Some(same) if is_usual => Some(same.clone()),
            _ => {
                let id = operation.id.as_deref().unwrap_or("generated");
                filter.item(&item(operation.action, &operation.index, id, outcome))
            }
        };
        items.extend(text);
    }
    if !items.is_empty() {
        members.push(Some(format!("\"items\":[{}]", items.join(","))));
    }
    format!("{{{}}}", members.into_iter().flatten().collect::<Vec<_>>().join(","))
}

fn item(action: Action, index: &str, id: &str, outcome: &Outcome) -> Value {
    let told = match outcome {
        Outcome::Fit => unreachable!("it was stored or has failed"),
        Outcome::Stored { index, sequence, is_new } => json!({
            "_index": **index, "_id": id, "_version": if *is_new { 1 } else { 2 },
            "result": if *is_new { "created" } else { "updated" },
            "_shards": { "total": 2, "successful": 1, "failed": 0 },
            "_seq_no": sequence, "_primary_term": 1, "status": if *is_new { 201 } else { 200 },
        }),
        Outcome::Failed(error) => {
            let mut told = json!({ "type": error.kind, "reason": error.reason });
            if let Some((kind, reason)) = &error.cause {
                told["caused_by"] = json!({ "type": kind, "reason": reason });
            }
            json!({ "_index": index, "_id": id, "status": error.status, "error": told })
        }
    };
    json!({ action.word(): told })
}

/// `filter_path`: what is left of an answer.
struct Filter(Option<Vec<Vec<String>>>);

impl Filter {
    fn of(request: &Seen) -> Self {
        let parts = |path: &str| path.split('.').map(str::to_owned).collect();
        Self(request.query("filter_path").map(|paths| paths.split(',').map(parts).collect()))
    }

    fn apply(&self, value: &Value) -> Option<Value> {
        let Some(paths) = &self.0 else { return Some(value.clone()) };
        left(value, &paths.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    /// A member of the answer itself.
    fn member(&self, name: &str, value: &Value) -> Option<String> {
        let left = self.apply(&json!({ name: value }))?;
        Some(format!("\"{name}\":{}", left[name]))
    }

    /// One of the items; none when nothing of it is left.
    fn item(&self, item: &Value) -> Option<String> {
        Some(self.apply(&json!({ "items": [item] }))?["items"][0].to_string())
    }
}

/// What the paths leave of a value. Lists are passed through, and what nothing is left of goes.
fn left(value: &Value, paths: &[&[String]]) -> Option<Value> {
    if paths.iter().any(|path| path.is_empty()) {
        return Some(value.clone());
    }
    match value {
        Value::Object(members) => {
            let mut kept = serde_json::Map::new();
            for (name, value) in members {
                let mut inner: Vec<&[String]> = Vec::new();
                for path in paths {
                    let (first, rest) = path.split_first().expect("none is empty");
                    if first == "**" {
                        inner.push(path);
                        inner.extend(
                            rest.split_first()
                                .filter(|(next, _)| super::is_match(next, name))
                                .map(|it| it.1),
                        );
                    } else if super::is_match(first, name) {
                        inner.push(rest);
                    }
                }
                if let Some(value) = left(value, &inner).filter(|_| !inner.is_empty()) {
                    kept.insert(name.clone(), value);
                }
            }
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        Value::Array(list) => {
            let kept: Vec<Value> = list.iter().filter_map(|value| left(value, paths)).collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        _ => None,
    }
}

fn filtered(request: &Seen, value: &Value) -> String {
    Filter::of(request).apply(value).unwrap_or_else(|| json!({})).to_string()
}

fn about(product: Product) -> Value {
    let version = match product {
        Product::Elasticsearch => json!({ "number": "9.5.1", "build_flavor": "default" }),
        Product::OpenSearch => json!({ "number": "2.19.1", "distribution": "opensearch" }),
    };
    let tagline = match product {
        Product::Elasticsearch => "You Know, for Search",
        Product::OpenSearch => "The OpenSearch Project: https://opensearch.org/",
    };
    json!({ "name": "simulated", "cluster_name": "simulation", "version": version, "tagline": tagline })
}

fn templates(state: &State) -> Value {
    let listed = state.templates.iter();
    let listed = listed.map(|(name, it)| json!({ "name": name, "index_template": it }));
    json!({ "index_templates": listed.collect::<Vec<_>>() })
}

fn missing(name: &str) -> Refusal {
    Refusal::new(404, "index_not_found_exception", &format!("no such index [{name}]"))
}

fn stream(state: &State, name: &str) -> Result<Value, Refusal> {
    let generation = state.streams.get(name).ok_or_else(|| missing(name))?;
    Ok(json!({ "data_streams": [{ "name": name, "generation": generation, "status": "YELLOW" }] }))
}

fn index(state: &State, name: &str) -> Result<Value, Refusal> {
    let (index, _) = state.target(name).ok_or_else(|| missing(name))?;
    Ok(json!({ &*index: { "aliases": {}, "mappings": {}, "settings": {} } }))
}

fn documents_in(state: &State, name: &str) -> Result<u64, Refusal> {
    state.target(name).ok_or_else(|| missing(name))?;
    let mut backing = String::new();
    write!(backing, ".ds-{name}-").expect("a string takes every text");
    let indices = state.indices.iter();
    let of_name = indices.filter(|(index, _)| ***index == *name || index.starts_with(&backing));
    Ok(of_name.map(|(_, count)| count).sum())
}

fn shards() -> Value {
    json!({ "total": 1, "successful": 1, "skipped": 0, "failed": 0 })
}

/// Refuses what no template may hold.
pub fn check_template(template: &Value) -> Result<(), Refusal> {
    let only = |value: &Value, place: &str, known: &[&str]| {
        let Some(members) = value.as_object() else {
            let reason = format!("[{place}] is not an object");
            return Err(Refusal::new(400, "x_content_parse_exception", &reason));
        };
        match members.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => {
                let reason = format!("[{place}] unknown field [{key}]");
                Err(Refusal::new(400, "x_content_parse_exception", &reason))
            }
        }
    };
    let top = [
        "index_patterns",
        "data_stream",
        "template",
        "priority",
        "version",
        "_meta",
        "composed_of",
    ];
    only(template, "index_template", &top)?;
    if template["index_patterns"].as_array().is_none_or(Vec::is_empty) {
        let reason = "Required [index_patterns]";
        return Err(Refusal::new(400, "x_content_parse_exception", reason));
    }
    let empty = json!({});
    let inner = template.get("template").unwrap_or(&empty);
    only(inner, "template", &["settings", "mappings", "aliases"])?;
    let mappings = inner.get("mappings").unwrap_or(&empty);
    let known = [
        "dynamic",
        "dynamic_templates",
        "date_detection",
        "numeric_detection",
        "properties",
        "_meta",
    ];
    only(mappings, "mappings", &known)?;
    check_fields(mappings.get("properties").unwrap_or(&empty))?;
    for named in mappings["dynamic_templates"].as_array().into_iter().flatten() {
        for (name, rule) in named.as_object().into_iter().flatten() {
            only(rule, name, &["match_mapping_type", "match", "path_match", "mapping"])?;
            check_fields(&json!({ name: rule["mapping"] }))?;
        }
    }
    Ok(())
}

fn check_fields(fields: &Value) -> Result<(), Refusal> {
    for (name, field) in fields.as_object().into_iter().flatten() {
        let kind = field.get("type").and_then(Value::as_str).unwrap_or("object");
        let known: &[&str] = match kind {
            "object" => &["type", "properties", "dynamic"],
            "keyword" => &["type", "ignore_above"],
            "date" | "ip" | "long" => &["type", "ignore_malformed"],
            _ => {
                let reason = format!("No handler for type [{kind}] declared on field [{name}]");
                return Err(Refusal::new(400, "mapper_parsing_exception", &reason));
            }
        };
        for key in field.as_object().into_iter().flatten().map(|(key, _)| key) {
            if !known.contains(&key.as_str()) {
                let reason =
                    format!("unknown parameter [{key}] on mapper [{name}] of type [{kind}]");
                return Err(Refusal::new(400, "mapper_parsing_exception", &reason));
            }
        }
        check_fields(field.get("properties").unwrap_or(&Value::Null))?;
    }
    Ok(())
}

//! From a request to its answer: who asks, may they, and what the store says.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::Core;
use super::access::{Attributes, User};
use super::fault::Fault;
use super::fields::Force;
use super::journal::Recorded;
use super::resources;
use super::route::{self, Query, Route};
use super::select::Selector;
use super::status::{FieldProblem, Status};
use super::store::{self, Collection, Keep, Patch, Preconditions, Write, Written};
use super::watch::{Start, Watch};
use crate::sandbox::http::{Hangup, Limits, Outcome, Reply, cut_off, empty, from_stream, full};

const PATCH_TYPES: &str = "application/json-patch+json, application/merge-patch+json, \
    application/strategic-merge-patch+json, application/apply-patch+yaml";

/// Longest field manager (`apimachinery/pkg/apis/meta/v1/validation`).
const MANAGER: usize = 128;

enum Answer {
    Document(u16, Value),
    Text(u16, &'static str),
    Watch(Box<Watch>),
}

impl Answer {
    fn code(&self) -> u16 {
        match self {
            Self::Document(code, _) | Self::Text(code, _) => *code,
            Self::Watch(_) => 200,
        }
    }
}

/// One request, taken apart.
struct Asked {
    method: Method,
    path: String,
    query: Query,
    headers: HeaderMap,
    body: Bytes,
}

impl Asked {
    fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn content_type(&self) -> Option<&str> {
        self.header(CONTENT_TYPE).map(|text| text.split(';').next().unwrap_or_default().trim())
    }

    fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    fn flag(&self, name: &str) -> bool {
        matches!(self.parameter(name), "true" | "1")
    }

    fn json(&self) -> Result<Value, Status> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Status::bad_request(format!("the body is not valid JSON: {error}")))
    }

    /// The body of a POST or PUT.
    fn document(&self) -> Result<Value, Status> {
        match self.content_type() {
            None | Some("" | "application/json") => self.json(),
            Some(_) => Err(Status::unsupported_media_type("application/json (`kubectl apply` sends it)")),
        }
    }
}

/// Answers `request`, and remembers it.
pub(super) async fn serve(core: Arc<Core>, request: Request<Bytes>) -> Outcome {
    let (head, body) = request.into_parts();
    let query = route::query(head.uri.query().unwrap_or_default());
    let path = head.uri.path().to_owned();
    let asked = Asked { method: head.method, path, query, headers: head.headers, body };

    core.running().await;
    let fault = core.state().faults.take(&asked.method, &asked.path);
    let user = identify(&core, &asked);
    let known = user.as_ref().ok().map(|user| user.name.clone());
    match fault {
        Some(Fault::Answer { code, headers, body }) => {
            core.record(recorded(&asked, known, Some(code)), asked.body.len());
            return Ok(prescribed(code, &headers, body));
        }
        Some(Fault::Hang) => {
            core.record(recorded(&asked, known, None), asked.body.len());
            return std::future::pending().await;
        }
        Some(hangup @ (Fault::Close | Fault::Reset)) => {
            core.record(recorded(&asked, known, None), asked.body.len());
            return Err(if hangup == Fault::Close { Hangup::Close } else { Hangup::Reset });
        }
        Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
        _ => {}
    }

    let answer = match user.and_then(|user| answer(&core, &asked, &user)) {
        Ok(answer) => answer,
        Err(status) => Answer::Document(status.code, status.body()),
    };
    let lost = fault == Some(Fault::LoseAnswer);
    core.record(recorded(&asked, known, (!lost).then(|| answer.code())), asked.body.len());
    if lost {
        return Err(Hangup::Reset);
    }
    Ok(respond(answer, fault.as_ref()))
}

fn recorded(asked: &Asked, user: Option<String>, status: Option<u16>) -> Recorded {
    let body = match asked.body.as_ref() {
        [] => Value::Null,
        bytes => serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into()),
    };
    Recorded {
        number: 0,
        method: asked.method.to_string(),
        path: asked.path.clone(),
        query: asked.query.clone(),
        content_type: asked.content_type().map(str::to_owned),
        agent: asked.header(USER_AGENT).map(str::to_owned),
        user,
        body,
        status,
    }
}

// === Responses ===

/// The response to a body that is too large, as a `Status`.
pub(super) fn too_large() -> Response<Reply> {
    let status = Status::too_large(Limits::default().body);
    respond(Answer::Document(status.code, status.body()), None)
}

fn respond(answer: Answer, fault: Option<&Fault>) -> Response<Reply> {
    let code = answer.code();
    let (bytes, kind) = match answer {
        Answer::Watch(_) if fault == Some(&Fault::CutOff) => (Bytes::from_static(b"{\"type\":\"ADDED\",\"obj"), "json"),
        Answer::Watch(watch) => return response(code, "application/json", from_stream(watch.events())),
        Answer::Document(_, document) => {
            let mut bytes = document.to_string().into_bytes();
            bytes.push(b'\n');
            (Bytes::from(bytes), "json")
        }
        Answer::Text(_, text) => (Bytes::from_static(text.as_bytes()), "text"),
    };
    let half = bytes.slice(..bytes.len() / 2);
    let body = match fault {
        Some(Fault::CutOff) => cut_off(half),
        Some(Fault::Truncate) => full(half),
        Some(Fault::EmptyBody) => empty(),
        _ => full(bytes),
    };
    response(code, if kind == "json" { "application/json" } else { "text/plain; charset=utf-8" }, body)
}

fn response(code: u16, kind: &'static str, body: Reply) -> Response<Reply> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert("cache-control", HeaderValue::from_static("no-cache, private"));
    response
}

fn prescribed(code: u16, headers: &[(String, String)], body: Vec<u8>) -> Response<Reply> {
    let mut response = response(code, "application/json", full(body));
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

// === Who asks ===

fn identify(core: &Core, asked: &Asked) -> Result<User, Status> {
    let state = core.state();
    let user = match asked.header(AUTHORIZATION) {
        None => User::anonymous(),
        Some(header) => {
            let token = header.strip_prefix("Bearer ").map(str::trim);
            token.and_then(|token| state.users.owner(token)).cloned().ok_or_else(Status::unauthorized)?
        }
    };
    let Some(name) = asked.headers.get("impersonate-user").and_then(|value| value.to_str().ok()) else {
        return Ok(user);
    };
    let groups = asked.headers.get_all("impersonate-group").iter().filter_map(|value| value.to_str().ok());
    let groups: Vec<&str> = groups.collect();
    let impersonated = [("users", name)].into_iter().chain(groups.iter().map(|group| ("groups", *group)));
    for (resource, name) in impersonated {
        let wanted = attributes("impersonate", "", resource, "", name);
        if !state.users.allows(&user, &wanted) {
            return Err(wanted.forbidden(&user));
        }
    }
    Ok(User::new(name, &groups))
}

fn attributes(verb: &str, group: &str, resource: &str, namespace: &str, name: &str) -> Attributes {
    let [verb, group, resource, namespace, name] = [verb, group, resource, namespace, name].map(str::to_owned);
    Attributes { verb, group, resource, namespace, name }
}

// === What they get ===

fn answer(core: &Arc<Core>, asked: &Asked, user: &User) -> Result<Answer, Status> {
    let route = Route::parse(&asked.path).ok_or_else(Status::no_such_path);
    let is_get = asked.method == Method::GET || asked.method == Method::HEAD;
    match &route {
        Ok(Route::Objects { of, name }) => return objects(core, asked, user, of, name.as_deref()),
        Ok(Route::Review { group, plural, kind }) => return review(core, asked, user, (group, plural, kind)),
        Ok(Route::Probe) if is_get => return Ok(Answer::Text(200, "ok")),
        Ok(Route::Version) if is_get => return Ok(Answer::Document(200, resources::version())),
        _ => {}
    }
    if *user == User::anonymous() {
        let (name, verb) = (&user.name, asked.method.as_str().to_lowercase());
        let what = format!("User {name:?} cannot {verb} path {:?}", asked.path);
        return Err(Status::forbidden("", "", "", &what));
    }
    let route = route?;
    if !is_get {
        return Err(Status::method_not_allowed());
    }
    let document = match route {
        Route::CoreVersions => Some(resources::core_versions(&core.address)),
        Route::Groups => Some(resources::groups()),
        Route::Group(name) => (!name.is_empty() && resources::exists(&name, "v1")).then(|| resources::group(&name)),
        Route::Resources { group, version } => Some(resources::list(&group, &version)),
        Route::OpenApiIndex => Some(resources::openapi_index()),
        Route::OpenApi(path) => resources::openapi(&path),
        _ => None,
    };
    document.map(|document| Answer::Document(200, document)).ok_or_else(Status::no_such_path)
}

fn review(
    core: &Core,
    asked: &Asked,
    user: &User,
    (group, plural, kind): (&str, &str, &str),
) -> Result<Answer, Status> {
    if asked.method != Method::POST {
        return Err(Status::method_not_allowed());
    }
    let wanted = attributes("create", group, plural, "", "");
    let state = core.state();
    // Everybody with a token may ask about themselves (`system:basic-user`).
    let about_oneself = kind.starts_with("Self") && *user != User::anonymous();
    if !about_oneself && !state.users.allows(user, &wanted) {
        return Err(wanted.forbidden(user));
    }
    let document = asked.document()?;
    Ok(Answer::Document(201, state.users.review(user, kind, &document)?))
}

fn objects(
    core: &Arc<Core>,
    asked: &Asked,
    user: &User,
    of: &Collection,
    name: Option<&str>,
) -> Result<Answer, Status> {
    let selector = Selector::parse(of.resource, asked.parameter("fieldSelector"), asked.parameter("labelSelector"))?;
    let verb = match (&asked.method, name) {
        (&(Method::GET | Method::HEAD), Some(_)) => "get",
        (&Method::GET, None) if asked.flag("watch") => "watch",
        (&(Method::GET | Method::HEAD), None) => "list",
        (&Method::POST, None) => "create",
        (&Method::PUT, Some(_)) => "update",
        (&Method::PATCH, Some(_)) => "patch",
        (&Method::DELETE, Some(_)) => "delete",
        (&Method::DELETE, None) => "deletecollection",
        _ => return Err(Status::method_not_allowed()),
    };
    let (group, plural) = (of.resource.group, of.resource.plural);
    let namespace = of.namespace.as_deref().unwrap_or_default();
    let wanted = attributes(verb, group, plural, namespace, name.or(selector.name()).unwrap_or_default());
    if !core.state().users.allows(user, &wanted) {
        return Err(wanted.forbidden(user));
    }
    if asked.header(ACCEPT).is_some_and(|kinds| !kinds.contains("json") && !kinds.contains("*/*")) {
        return Err(Status::not_acceptable());
    }
    if of.resource.namespaced && namespace.is_empty() && !matches!(verb, "list" | "watch") {
        return Err(Status::method_not_allowed());
    }

    let name = name.unwrap_or_default();
    let write = || write(core, asked);
    match verb {
        "get" => match core.state().store.get(of, name) {
            Ok(object) => Ok(whole(200, &object)),
            // Nobody has to make namespaces here; `kubectl` asks for them after a 404 in one.
            Err(_) if of.resource.kind == "Namespace" => Ok(Answer::Document(200, namespace_document(name))),
            Err(status) => Err(status),
        },
        "list" => list(core, asked, of, &selector),
        "watch" => watch(core, asked, of, selector),
        "create" => {
            let (document, write) = (asked.document()?, write()?);
            core.change(|store| store.create(of, document, &write)).map(|object| whole(201, &object))
        }
        "update" => {
            let (document, write) = (asked.document()?, write()?);
            core.change(|store| store.update(of, name, document, &write)).map(|written| outcome(&written))
        }
        "patch" => {
            let (patch, write) = (patch(asked)?, write()?);
            core.change(|store| store.patch(of, name, &patch, &write)).map(|written| outcome(&written))
        }
        _ => {
            let options = if asked.body.is_empty() { json!({}) } else { asked.document()? };
            let mut write = write()?;
            if options["dryRun"].as_array().is_some_and(|list| !list.is_empty()) {
                write.keep = Keep::DryRun;
            }
            delete(core, of, name, &selector, &options, &write)
        }
    }
}

fn namespace_document(name: &str) -> Value {
    let metadata = json!({"name": name, "labels": {"kubernetes.io/metadata.name": name}});
    json!({"kind": "Namespace", "apiVersion": "v1", "metadata": metadata, "status": {"phase": "Active"}})
}

fn whole(code: u16, object: &Value) -> Answer {
    Answer::Document(code, object.clone())
}

fn outcome(written: &Written) -> Answer {
    let code = if matches!(written, Written::Created(_)) { 201 } else { 200 };
    whole(code, written.object())
}

fn write(core: &Core, asked: &Asked) -> Result<Write, Status> {
    let agent = || asked.header(USER_AGENT).and_then(|agent| agent.split('/').next()).filter(|name| !name.is_empty());
    let manager = match asked.parameter("fieldManager") {
        "" => agent().unwrap_or("unknown").chars().take(MANAGER).collect(),
        manager if manager.len() > MANAGER => {
            let problem = FieldProblem::too_long("fieldManager", MANAGER);
            return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", &[problem]));
        }
        manager => manager.to_owned(),
    };
    let keep = match asked.parameter("dryRun") {
        "" => Keep::Yes,
        "All" => Keep::DryRun,
        other => return Err(Status::bad_request(format!("Invalid value: [{other:?}]: supported values: All"))),
    };
    Ok(core.write(manager, keep))
}

fn patch(asked: &Asked) -> Result<Patch, Status> {
    let invalid = |problem| Err(Status::invalid("meta.k8s.io", "PatchOptions", "", &[problem]));
    let kind = asked.content_type().unwrap_or_default();
    if kind != "application/apply-patch+yaml" && asked.query.contains_key("force") {
        return invalid(FieldProblem::forbidden("force", "may not be specified for non-apply patch"));
    }
    Ok(match kind {
        "application/json-patch+json" => Patch::Json(asked.json()?),
        "application/merge-patch+json" => Patch::Merge(asked.json()?),
        "application/strategic-merge-patch+json" => Patch::Strategic(asked.json()?),
        "application/apply-patch+yaml" => {
            if asked.parameter("fieldManager").is_empty() {
                return invalid(FieldProblem::required("fieldManager", "is required for apply patch"));
            }
            let config = asked.json().map_err(|_| {
                Status::bad_request("error decoding YAML: the sandbox reads apply patches only when they are JSON")
            })?;
            if config["metadata"].get("managedFields").is_some_and(|fields| !fields.is_null()) {
                return Err(Status::bad_request("metadata.managedFields must be nil"));
            }
            Patch::Apply(config, if asked.flag("force") { Force::Yes } else { Force::No })
        }
        _ => return Err(Status::unsupported_media_type(PATCH_TYPES)),
    })
}

fn delete(
    core: &Core,
    of: &Collection,
    name: &str,
    selector: &Selector,
    options: &Value,
    write: &Write,
) -> Result<Answer, Status> {
    if name.is_empty() {
        return core.change(|store| {
            let page = store.list(of, selector, None, 0);
            for object in &page.items {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                store.delete(of, name, &Preconditions::default(), write)?;
            }
            Ok(Answer::Document(200, store::list_document(of, &page, store.version(), None)))
        });
    }
    let text = |field: &str| options["preconditions"][field].as_str().map(str::to_owned);
    let only = Preconditions { uid: text("uid"), resource_version: text("resourceVersion") };
    let object = core.change(|store| store.delete(of, name, &only, write))?;
    if object["metadata"]["deletionTimestamp"].is_string() {
        return Ok(whole(200, &object));
    }
    let details = json!({
        "name": name, "group": of.resource.group, "kind": of.resource.plural, "uid": object["metadata"]["uid"],
    });
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    Ok(Answer::Document(200, status))
}

// === Lists and watches ===

fn version_parameter(asked: &Asked) -> Result<u64, Status> {
    match asked.parameter("resourceVersion") {
        "" => Ok(0),
        text => text.parse().map_err(|_| {
            let problem = FieldProblem::invalid("resourceVersion", &text.into(), "strconv.ParseUint: invalid syntax");
            Status::invalid("", "", "", &[problem])
        }),
    }
}

fn list(core: &Core, asked: &Asked, of: &Collection, selector: &Selector) -> Result<Answer, Status> {
    let (asked_version, state) = (version_parameter(asked)?, core.state());
    let current = state.store.version();
    if asked_version > current {
        return Err(Status::too_large_version(asked_version, current));
    }
    let limit = asked.parameter("limit").parse().unwrap_or(0);
    let (version, start) = match asked.parameter("continue") {
        "" => (current, None),
        token => {
            let bytes = BASE64.decode(token).ok();
            let read = bytes.and_then(|bytes| serde_json::from_slice::<(u64, String, String)>(&bytes).ok());
            let (version, namespace, name) = read.ok_or_else(|| Status::bad_request("continue key is not valid"))?;
            // Pages of one list must not show what was written meanwhile; this store keeps no old objects.
            if version != current {
                return Err(Status::continue_expired());
            }
            (version, Some((namespace, name)))
        }
    };
    let page = state.store.list(of, selector, start.as_ref(), limit);
    let next = page.next.as_ref().map(|(namespace, name)| BASE64.encode(json!([version, namespace, name]).to_string()));
    Ok(Answer::Document(200, store::list_document(of, &page, version, next)))
}

fn watch(core: &Arc<Core>, asked: &Asked, of: &Collection, selector: Selector) -> Result<Answer, Status> {
    let version = version_parameter(asked)?;
    let start = match (version, asked.parameter("sendInitialEvents")) {
        (_, "true") => Start::StateThenBookmark,
        (0, _) => Start::State,
        (version, _) => Start::After(version),
    };
    let seconds = asked.parameter("timeoutSeconds").parse().ok().filter(|seconds| *seconds > 0);
    let watch = Watch::new(Arc::clone(core), of.clone(), selector, start, seconds, asked.flag("allowWatchBookmarks"));
    Ok(Answer::Watch(Box::new(watch)))
}

//! The `Status` document: how the API server says no. Pure.
//!
//! Codes, reasons and message texts are those of upstream's `apimachinery/pkg/api/errors/errors.go`, because
//! clients decide on the first two and people read the third.

use serde_json::{Map, Value, json};

/// A refusal: everything that is not an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The HTTP status code, repeated in the body.
    pub code: u16,
    /// The machine-readable reason, `Conflict` for example.
    pub reason: &'static str,
    /// The text for people.
    pub message: String,
    /// `details`, `Null` when there are none.
    pub details: Value,
}

/// What is wrong with one field of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldProblem {
    /// The field, `metadata.name` for example.
    pub field: String,
    /// The machine-readable type, `FieldValueInvalid` for example.
    pub reason: &'static str,
    /// The text for people, without the field.
    pub message: String,
}

impl FieldProblem {
    /// A value that is not acceptable.
    pub fn invalid(field: impl Into<String>, value: &Value, why: &str) -> Self {
        Self { field: field.into(), reason: "FieldValueInvalid", message: format!("Invalid value: {value}: {why}") }
    }

    /// A value that may not be given or changed.
    pub fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Self { field: field.into(), reason: "FieldValueForbidden", message: format!("Forbidden: {why}") }
    }

    /// A value that is missing.
    pub fn required(field: impl Into<String>, why: &str) -> Self {
        let message = if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        Self { field: field.into(), reason: "FieldValueRequired", message }
    }

    /// A value of more than `limit` bytes.
    pub fn too_long(field: impl Into<String>, limit: usize) -> Self {
        let message = format!("Too long: may not be more than {limit} bytes");
        Self { field: field.into(), reason: "FieldValueTooLong", message }
    }
}

impl Status {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let mut details = Map::new();
        for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
            if !value.is_empty() {
                details.insert(key.to_owned(), value.into());
            }
        }
        self.details = Value::Object(details);
        self
    }

    /// 404: no such object.
    pub fn not_found(group: &str, plural: &str, name: &str) -> Self {
        let what = qualified(plural, group);
        Self::new(404, "NotFound", format!("{what} {name:?} not found")).about(group, plural, name)
    }

    /// 404: no such path.
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource").about("", "", "")
    }

    /// 409: there is an object of that name.
    pub fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        let what = qualified(plural, group);
        Self::new(409, "AlreadyExists", format!("{what} {name:?} already exists")).about(group, plural, name)
    }

    /// 409: the object is not what the caller thinks it is.
    pub fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let what = qualified(plural, group);
        let message = format!("Operation cannot be fulfilled on {what} {name:?}: {why}");
        Self::new(409, "Conflict", message).about(group, plural, name)
    }

    /// 409 of the resourceVersion: somebody wrote in between.
    pub fn modified(group: &str, plural: &str, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, plural, name, why)
    }

    /// 409 of server-side apply: other managers own some of the fields. `causes` are `(field, message)`.
    pub fn apply_conflict(message: String, causes: &[(String, String)]) -> Self {
        let causes: Vec<Value> = causes
            .iter()
            .map(|(field, message)| json!({"reason": "FieldManagerConflict", "message": message, "field": field}))
            .collect();
        Self { details: json!({ "causes": causes }), ..Self::new(409, "Conflict", message) }
    }

    /// 410: the resourceVersion is older than what is remembered.
    pub fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    /// 410 of a `continue` token.
    pub fn continue_expired() -> Self {
        let message = "The provided continue parameter is too old to display a consistent list result. You must \
                       start a new list without the continue parameter.";
        Self::new(410, "Expired", message)
    }

    /// 504: the resourceVersion is from the future.
    pub fn too_large_version(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let causes = json!([{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]);
        Self { details: json!({"causes": causes, "retryAfterSeconds": 1}), ..Self::new(504, "Timeout", message) }
    }

    /// 422: the object is not valid.
    pub fn invalid(group: &str, kind: &str, name: &str, problems: &[FieldProblem]) -> Self {
        let texts: Vec<String> = problems.iter().map(|p| format!("{}: {}", p.field, p.message)).collect();
        let text = if let [text] = texts.as_slice() { text.clone() } else { format!("[{}]", texts.join(", ")) };
        let causes: Vec<Value> =
            problems.iter().map(|p| json!({"reason": p.reason, "message": p.message, "field": p.field})).collect();
        let message = format!("{} {name:?} is invalid: {text}", qualified(kind, group));
        let mut status = Self::new(422, "Invalid", message).about(group, kind, name);
        status.details["causes"] = causes.into();
        status
    }

    /// 422 of a JSON patch that does not apply. The server keeps the reason to itself.
    pub fn unprocessable() -> Self {
        let message = "the server rejected our request due to an error in our request";
        Self::new(422, "Invalid", message).about("", "", "")
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401: no valid token.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403. `what` is the whole refusal: `User "u" cannot get resource …`.
    pub fn forbidden(group: &str, plural: &str, name: &str, what: &str) -> Self {
        let message = match (plural, name) {
            ("", _) => format!("forbidden: {what}"),
            (_, "") => format!("{} is forbidden: {what}", qualified(plural, group)),
            _ => format!("{} {name:?} is forbidden: {what}", qualified(plural, group)),
        };
        Self::new(403, "Forbidden", message).about(group, plural, name)
    }

    /// 500: what the server takes for its own fault.
    pub fn internal(why: &str) -> Self {
        let causes = json!({"causes": [{ "message": why }]});
        let message = format!("Internal error occurred: {why}");
        Self { details: causes, ..Self::new(500, "InternalError", message) }
    }

    /// 405: the path exists, the method does not.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message).about("", "", "")
    }

    /// 406: the client accepts none of the formats there are.
    pub fn not_acceptable() -> Self {
        let message = "only the following media types are accepted: application/json";
        Self::new(406, "NotAcceptable", message)
    }

    /// 413: `limit` is in bytes.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// 413 of a JSON patch with too many operations.
    pub fn too_many_operations(limit: usize, given: usize) -> Self {
        let message =
            format!("Request entity too large: The allowed maximum operations in a JSON patch is {limit}, got {given}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// 415: `accepted` are the media types there are.
    pub fn unsupported_media_type(accepted: &str) -> Self {
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// The document itself.
    pub fn body(&self) -> Value {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason,
        });
        if !self.details.is_null() {
            body["details"] = self.details.clone();
        }
        body["code"] = self.code.into();
        body
    }
}

/// `leases.coordination.k8s.io`, or just `secrets` in the core group.
fn qualified(what: &str, group: &str) -> String {
    if group.is_empty() { what.to_owned() } else { format!("{what}.{group}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_the_real_servers() {
        for (status, expected) in [
            (Status::not_found("", "secrets", "x"), r#"secrets "x" not found"#),
            (Status::not_found("coordination.k8s.io", "leases", "x"), r#"leases.coordination.k8s.io "x" not found"#),
            (Status::forbidden("", "secrets", "", "because"), "secrets is forbidden: because"),
            (Status::forbidden("", "secrets", "x", "because"), r#"secrets "x" is forbidden: because"#),
            (Status::forbidden("", "", "", "because"), "forbidden: because"),
            (
                Status::invalid("", "Secret", "x", &[FieldProblem::forbidden("data", "no")]),
                r#"Secret "x" is invalid: data: Forbidden: no"#,
            ),
            (
                Status::invalid(
                    "",
                    "Secret",
                    "x",
                    &[FieldProblem::required("a", ""), FieldProblem::invalid("b", &"v".into(), "odd")],
                ),
                r#"Secret "x" is invalid: [a: Required value, b: Invalid value: "v": odd]"#,
            ),
        ] {
            assert_eq!(status.message, expected);
        }
    }

    #[test]
    fn the_body_repeats_the_code_and_names_the_object() {
        assert_eq!(
            Status::not_found("", "secrets", "x").body(),
            json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "secrets \"x\" not found", "reason": "NotFound",
                "details": {"name": "x", "kind": "secrets"}, "code": 404,
            })
        );
        assert_eq!(Status::unauthorized().body().get("details"), None);
    }
}

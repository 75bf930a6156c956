//! What a plugin answers. Pure.
//!
//! An error never quotes the answer, which may hold a token wherever somebody put it.

use jiff::Timestamp;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::keypair::KeyPair;
use super::super::token::Authorization;
use super::error::CredentialError;

/// Credentials, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// For `Authorization`.
    pub(super) token: Option<Authorization>,
    /// For the TLS handshake.
    pub(super) identity: Option<KeyPair>,
    /// The earlier of what the plugin said and the end of the leaf's validity.
    pub(super) expires: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    kind: Option<String>,
    api_version: Option<String>,
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    expiration_timestamp: Option<String>,
    token: Option<Hidden>,
    client_certificate_data: Option<Hidden>,
    client_key_data: Option<Hidden>,
}

/// Wiped when it is dropped.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
struct Hidden(Zeroizing<String>);

impl From<String> for Hidden {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

/// Reads what a plugin that is configured for `version` has printed.
pub(super) fn decode(stdout: &[u8], version: &str) -> Result<Answer, CredentialError> {
    let refused = |why: String| CredentialError::Answer(why);
    let document = document(stdout).map_err(|why| refused(format!("decoding stdout: {why}")))?;
    if document.kind.as_deref() != Some("ExecCredential") {
        return Err(refused("decoding stdout: it is not an ExecCredential".to_owned()));
    }
    let returned = document.api_version.unwrap_or_default();
    if returned != version {
        let returned = if returned.len() > 100 || !returned.bytes().all(|byte| byte.is_ascii_graphic()) {
            "of no known form"
        } else {
            &returned
        };
        return Err(refused(format!(
            "exec plugin is configured to use API version {version}, plugin returned version {returned}"
        )));
    }
    let Some(status) = document.status else {
        return Err(refused("exec plugin didn't return a status field".to_owned()));
    };
    let given = |text: Option<Hidden>| text.map(|text| text.0).filter(|text| !text.is_empty());
    let pair = (given(status.client_certificate_data), given(status.client_key_data));
    let token = given(status.token);
    let identity = match pair {
        (None, None) if token.is_none() => {
            return Err(refused("exec plugin didn't return a token or cert/key pair".to_owned()));
        }
        (None, None) => None,
        (Some(chain), Some(key)) => {
            Some(KeyPair::from_pem(chain.as_bytes(), key.as_bytes()).map_err(|error| refused(error.to_string()))?)
        }
        _ => return Err(refused("exec plugin returned only certificate or key, not both".to_owned())),
    };
    let token = token
        .map(|token| Authorization::bearer(&token))
        .transpose()
        .map_err(|why| refused(format!("exec plugin returned a token that cannot be used: {why}")))?;
    let stated = match status.expiration_timestamp.as_deref() {
        None | Some("") => None,
        Some(text) => Some(text.parse::<Timestamp>().map_err(|_| {
            refused("decoding stdout: status.expirationTimestamp is not a time as in RFC 3339".to_owned())
        })?),
    };
    let leaf = identity.as_ref().and_then(|pair| Timestamp::from_second(pair.validity().not_after).ok());
    let expires = match (stated, leaf) {
        (Some(stated), Some(leaf)) => Some(stated.min(leaf)),
        (stated, leaf) => stated.or(leaf),
    };
    Ok(Answer { token, identity, expires })
}

/// JSON, or YAML.
fn document(stdout: &[u8]) -> Result<Document, String> {
    let text = std::str::from_utf8(stdout).map_err(|_| "it is not UTF-8".to_owned())?;
    if text.trim().is_empty() {
        return Err("there is nothing".to_owned());
    }
    match serde_json::from_str(text) {
        Ok(document) => Ok(document),
        Err(error) if text.trim_start().starts_with('{') && error.is_syntax() => {
            // Flow style YAML begins with a brace as well.
            yaml(text).map_err(|_| format!("not JSON at line {}, column {}", error.line(), error.column()))
        }
        Err(error) if text.trim_start().starts_with('{') => {
            Err(format!("JSON of another shape or cut off, at line {}, column {}", error.line(), error.column()))
        }
        Err(_) => yaml(text),
    }
}

fn yaml(text: &str) -> Result<Document, String> {
    serde_saphyr::from_str(text).map_err(|_| "neither JSON nor YAML of an ExecCredential".to_owned())
}

#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const V1: &str = "client.authentication.k8s.io/v1";

    fn with_status(status: &Value) -> Result<Answer, String> {
        let document = json!({"kind": "ExecCredential", "apiVersion": V1, "status": status}).to_string();
        decode(document.as_bytes(), V1).map_err(|error| error.to_string())
    }

    fn decoded(text: &str) -> Result<Answer, String> {
        decode(text.as_bytes(), V1).map_err(|error| error.to_string())
    }

    #[test]
    fn json_and_yaml_are_read() {
        let answer = with_status(&json!({"token": "abc", "expirationTimestamp": "2026-08-22T12:00:00.5Z"})).unwrap();
        assert_eq!(answer.token, Authorization::bearer("abc").ok());
        assert_eq!(answer.expires.map(|at| at.to_string()).as_deref(), Some("2026-08-22T12:00:00.5Z"));
        let yaml = format!(
            "---\napiVersion: {V1}\nkind: ExecCredential\nstatus:\n  token: abc\n  expirationTimestamp: 2026-08-22T12:00:00.5Z\n"
        );
        assert_eq!(decoded(&yaml), Ok(answer));
        let flow =
            format!("{{apiVersion: {V1}, kind: ExecCredential, status: {{token: abc, expirationTimestamp: null}}}}");
        assert_eq!(decoded(&flow).map(|answer| answer.expires), Ok(None));
    }

    #[test]
    fn each_refusal_has_its_words() {
        let refused = |status: Value| with_status(&status).unwrap_err();
        assert_eq!(refused(Value::Null), "exec plugin didn't return a status field");
        assert_eq!(refused(json!({})), "exec plugin didn't return a token or cert/key pair");
        assert_eq!(refused(json!({"token": ""})), "exec plugin didn't return a token or cert/key pair");
        let half = "exec plugin returned only certificate or key, not both";
        assert_eq!(refused(json!({"clientCertificateData": "x"})), half);
        assert_eq!(refused(json!({"clientKeyData": "x", "token": "t"})), half);
        assert!(
            refused(json!({"clientKeyData": "x", "clientCertificateData": "y"})).contains("client key/certificate")
        );
        for bad in ["a\nb", "a\n", "schlüssel"] {
            let error = refused(json!({"token": bad}));
            assert_eq!(
                error,
                "exec plugin returned a token that cannot be used: it holds characters that no token has"
            );
        }
        assert!(refused(json!({"token": "t", "expirationTimestamp": "tomorrow"})).contains("RFC 3339"));
        let other = format!(r#"{{"kind":"ExecCredential","apiVersion":"{V1}beta1","status":{{"token":"t"}}}}"#);
        assert_eq!(
            decoded(&other).unwrap_err(),
            format!("exec plugin is configured to use API version {V1}, plugin returned version {V1}beta1")
        );
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_not_quoted() {
        for text in [
            "",
            "hush",
            "{\"kind\":",
            r#"{"kind":"ExecCredential","status":"hush"}"#,
            r#"{"kind":"Hush","status":{"token":"hush"}}"#,
            r#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":["hush"]}}"#,
            "- hush\n",
            "{hush",
        ] {
            let error = decoded(text).unwrap_err();
            assert!(
                error.starts_with("decoding stdout: ") && !error.to_lowercase().contains("hush"),
                "{text}: {error}"
            );
        }
        assert!(decode(&[0xff, 0xfe], V1).unwrap_err().to_string().starts_with("decoding stdout: "));
    }

    #[test]
    fn the_certificate_ends_the_credentials_too() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["me".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let chain = params.self_signed(&key).unwrap().pem();
        let status = |at: &str| json!({"clientCertificateData": chain, "clientKeyData": key.serialize_pem(), "expirationTimestamp": at});
        let expires = |at| with_status(&status(at)).unwrap().expires.map(|at| at.to_string());
        assert_eq!(expires("2040-01-01T00:00:00Z").as_deref(), Some("2030-01-01T00:00:00Z"));
        assert_eq!(expires("2029-01-01T00:00:00Z").as_deref(), Some("2029-01-01T00:00:00Z"));
    }
}

//! A Secret in a file: what `secret repair` saves, and what `kubectl get secret -o json` or `-o yaml` writes. Pure.

use serde_json::Value;

use crate::k8s::state::StateSecret;

/// Why a file is not a Secret. Never shows what is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Neither JSON nor YAML.
    #[error("it is neither JSON nor YAML")]
    Syntax,
    /// Something else than a Secret.
    #[error("it is not a Secret but {0}")]
    NotASecret(String),
    /// A Secret with something wrong in it.
    #[error("it is no Secret that Kubernetes would take: {0}")]
    Malformed(String),
}

/// Reads a file.
///
/// # Errors
/// When it is not one Secret.
pub fn read(file: &[u8]) -> Result<StateSecret, DocumentError> {
    let document: Value = match serde_json::from_slice(file) {
        Ok(document) => document,
        Err(_) => serde_saphyr::from_slice(file).map_err(|_| DocumentError::Syntax)?,
    };
    match &document["kind"] {
        Value::String(kind) if kind == "Secret" => {}
        Value::String(kind) => return Err(DocumentError::NotASecret(format!("a {kind}"))),
        _ => return Err(DocumentError::NotASecret("something without a `kind`".to_owned())),
    }
    StateSecret::from_document(document.to_string().as_bytes()).map_err(DocumentError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_yaml_are_the_same_secret() {
        let json = br#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s","resourceVersion":"7"},"data":{"authkey":"aGk=","empty":"","n":"MTIz"}}"#;
        let yaml = b"apiVersion: v1\ndata:\n  authkey: aGk=\n  empty: \"\"\n  n: MTIz\nkind: Secret\nmetadata:\n  name: s\n  resourceVersion: \"7\"\n";
        let (json, yaml) = (read(json).expect("JSON"), read(yaml).expect("YAML"));
        assert_eq!(json, yaml);
        assert_eq!((json.text("authkey"), json.text("empty")), (Some("hi"), Some("")));
    }

    #[test]
    fn what_is_no_secret_is_said_without_showing_it() {
        for (file, expected) in [
            (&b"{"[..], "it is neither JSON nor YAML"),
            (b"\xff\xfe", "it is neither JSON nor YAML"),
            (b"hush", "it is not a Secret but something without a `kind`"),
            (b"", "it is not a Secret but something without a `kind`"),
            (b"kind: Pod\n", "it is not a Secret but a Pod"),
            (
                b"kind: Secret\ndata: {a: 'hush!'}\n",
                "it is no Secret that Kubernetes would take: the value of \"a\" is not base64",
            ),
        ] {
            assert_eq!(read(file).unwrap_err().to_string(), expected);
        }
    }
}

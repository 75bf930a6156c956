//! The names of objects: those of the path, generated ones, uids. Pure.

use serde_json::Value;

use super::status::Status;
use super::store::Collection;

/// Letters of generated names: no vowels, so no words (`apimachinery/pkg/util/rand`).
const NAME_LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The namespace of the path; a different one in the object is refused.
pub(super) fn adopt_namespace(of: &Collection, object: &mut Value) -> Result<(), Status> {
    let given = object["metadata"]["namespace"].as_str().unwrap_or_default();
    match &of.namespace {
        Some(namespace) if given.is_empty() => object["metadata"]["namespace"] = namespace.clone().into(),
        Some(namespace) if given != namespace => {
            let why = "the namespace of the provided object does not match the namespace sent on the request";
            return Err(Status::bad_request(why));
        }
        _ => {}
    }
    Ok(())
}

/// The name of the path; a different one in the object is refused.
pub(super) fn check_url_name(object: &mut Value, name: &str) -> Result<(), Status> {
    match object["metadata"]["name"].as_str().unwrap_or_default() {
        "" => object["metadata"]["name"] = name.into(),
        given if given == name => {}
        given => {
            let why = format!("the name of the object ({given}) does not match the name on the URL ({name})");
            return Err(Status::bad_request(why));
        }
    }
    Ok(())
}

/// A name from `generateName`, if there is none.
pub(super) fn generate_name(object: &mut Value, random: &[u8; 16]) {
    let metadata = &mut object["metadata"];
    let prefix = metadata["generateName"].as_str().unwrap_or_default();
    if metadata["name"].as_str().unwrap_or_default().is_empty() && !prefix.is_empty() {
        let letter = |byte: &u8| char::from(NAME_LETTERS[usize::from(*byte) % NAME_LETTERS.len()]);
        let suffix: String = random[..5].iter().map(letter).collect();
        metadata["name"] = format!("{prefix}{suffix}").into();
    }
}

/// A version 4 UUID.
pub(super) fn uid(random: &[u8; 16]) -> String {
    let mut bytes = *random;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

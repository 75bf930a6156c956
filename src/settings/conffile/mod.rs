//! The versioned tailscaled config file: chosen, loaded, checked.
//!
//! [`choose`] picks a file of a directory as boot.md 2.3 says, [`load`] reads one within [`LIMIT`] and checks it by
//! the rules of tailscaled's own loader, so that a bad file is one clear line here and not a dead daemon later.
//! Follows upstream's `ipn/conffile/conffile.go`, `ipn/conf.go` and `kube/authkey`.

mod schema;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::hujson;
use crate::secret::Secret;

/// A config file larger than this is refused: tailscaled's are a few kilobytes.
pub const LIMIT: u64 = 8 << 20;

/// The only format version there is.
const ALPHA0: &str = "alpha0";

/// The name that operators before capability version 95 gave the file.
const LEGACY_NAME: &str = "tailscaled";

/// Why no file of the directory can be used; upstream's texts.
#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    /// The directory cannot be read.
    #[error("error reading tailscaled config directory {dir:?}: {reason}", dir = .dir.display().to_string())]
    Unreadable {
        /// The directory.
        dir: PathBuf,
        /// Why; part of the line that upstream's contract fixes.
        reason: io::Error,
    },
    /// Every file is for a newer daemon, or there is none.
    #[error(
        "no tailscaled config file found in {dir:?} for current capability version {capver}",
        dir = .dir.display().to_string()
    )]
    NoneFits {
        /// The directory.
        dir: PathBuf,
        /// The capability version asked for.
        capver: u32,
    },
}

/// The capability version of 1.76, the oldest supported daemon (localapi.md 11).
const OLDEST_CAPVER: u32 = 106;

/// The file for the largest capability version that is not above `capver`.
///
/// The legacy name counts as version 0 and is used under its real path (W28).
pub fn choose(dir: &Path, capver: u32) -> Result<PathBuf, ChooseError> {
    let versions = versions(dir).map_err(|reason| ChooseError::Unreadable { dir: dir.to_owned(), reason })?;
    match versions.into_iter().filter(|(version, _)| *version <= capver).max() {
        Some((_, false)) => Ok(dir.join(LEGACY_NAME)),
        Some((version, true)) => Ok(dir.join(format!("cap-{version}.hujson"))),
        None => Err(ChooseError::NoneFits { dir: dir.to_owned(), capver }),
    }
}

/// Whether the choice may depend on which daemon reads the file. It does not when there is one file that every
/// supported daemon reads; then nobody has to ask the daemon for its version, which takes it as long as its start.
pub fn depends_on_the_daemon(dir: &Path) -> bool {
    versions(dir)
        .is_ok_and(|versions| versions.len() > 1 || versions.iter().any(|(version, _)| *version > OLDEST_CAPVER))
}

/// What the names in `dir` stand for.
fn versions(dir: &Path) -> io::Result<Vec<(u32, bool)>> {
    let mut versions = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            versions.extend(entry.file_name().to_str().and_then(version_of));
        }
    }
    Ok(versions)
}

/// The capability version a file name stands for, and whether it has the modern form.
fn version_of(name: &str) -> Option<(u32, bool)> {
    if name == LEGACY_NAME {
        return Some((0, false));
    }
    let number = name.strip_prefix("cap-")?.strip_suffix(".hujson")?;
    // A name such as `cap-095.hujson` would be rebuilt to another one.
    number.parse().ok().filter(|version: &u32| version.to_string() == number).map(|version| (version, true))
}

/// A file that tailscaled will accept, as far as `boot` cares about it.
#[derive(Clone, Debug)]
pub struct Document {
    /// `AuthKey`, when not empty.
    pub auth_key: Option<Secret<String>>,
    /// Whether the daemon refuses changes to prefs: `Locked` is not explicitly false.
    pub locked: bool,
    /// Whether `AdvertiseServices` is there: then the file says which Services are advertised.
    pub advertises_services: bool,
    /// Members that this build does not know; tailscaled of another version may.
    pub unknown: Vec<String>,
}

/// What a member that this build does not know means (W28).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownKeys {
    /// An error, as upstream has it.
    Reject,
    /// Listed in [`Document::unknown`].
    List,
}

/// Why a config file was not loaded.
#[derive(Debug, thiserror::Error)]
#[error("error parsing config file {path}{reason}", path = .path.display())]
pub struct LoadError {
    /// The file.
    pub path: PathBuf,
    reason: String,
}

/// Reads and checks a config file.
///
/// # Errors
/// One line that says what is wrong; never any of the file's content but names of members.
pub fn load(path: &Path, unknown: UnknownKeys) -> Result<Document, LoadError> {
    read(path).and_then(|text| parse(&text, unknown)).map_err(|reason| LoadError { path: path.to_owned(), reason })
}

/// The auth key of the file, if the file loads and has one (boot.md 6: unreadable counts as none).
pub fn auth_key_from(path: &Path) -> Option<Secret<String>> {
    load(path, UnknownKeys::List).ok()?.auth_key
}

/// The text of a file that is one, is not empty, not too large, and is UTF-8.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    read_filled(path)?.ok_or_else(|| ": it is empty".to_owned())
}

/// The same; `None` when there is nothing in it, perhaps not yet.
pub(crate) fn read_filled(path: &Path) -> Result<Option<String>, String> {
    let failed = |error: io::Error| format!(": {error}");
    // Asked before opening: opening a pipe would wait for a writer.
    let meta = std::fs::metadata(path).map_err(failed)?;
    if meta.is_dir() {
        return Err(": it is a directory".to_owned());
    }
    if !meta.is_file() {
        return Err(": it is not a regular file".to_owned());
    }
    let too_large = |size: u64| format!(": it is too large ({size} bytes; at most {LIMIT} are read)");
    if meta.len() > LIMIT {
        return Err(too_large(meta.len()));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(LIMIT + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > LIMIT {
        return Err(too_large(bytes.len() as u64));
    }
    if bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        format!(": it is not UTF-8 (first at byte {offset})")
    })
}

/// What the text says, by the rules of tailscaled's loader. Pure.
pub fn parse(text: &str, unknown: UnknownKeys) -> Result<Document, String> {
    let plain = hujson::standardize(text).map_err(|error| format!(" HuJSON/JSON: {error}"))?;
    let Members(members) = serde_json::from_str(&plain).map_err(|error| format!(": {error}"))?;
    // As in Go, the last of several members with one name wins.
    let member =
        |name: &str| members.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    match member("version") {
        None | Some(Value::Null) => return Err(r#": no "version" field defined"#.to_owned()),
        Some(Value::String(version)) if version.is_empty() => {
            return Err(r#": no "version" field defined"#.to_owned());
        }
        Some(Value::String(version)) if version == ALPHA0 => {}
        Some(Value::String(version)) => {
            return Err(format!(r#": unsupported "version" value {version:?}; want "{ALPHA0}" for now"#));
        }
        Some(_) => return Err(r#": "version" must be a string"#.to_owned()),
    }
    let mut strangers = Vec::new();
    for (key, value) in &members {
        schema::CONFIG.check(key, value, &mut strangers).map_err(|reason| format!(": {reason}"))?;
    }
    if let (UnknownKeys::Reject, Some(stranger)) = (unknown, strangers.first()) {
        return Err(format!(": unknown field {stranger:?}"));
    }
    Ok(Document {
        auth_key: member("AuthKey")
            .and_then(Value::as_str)
            .filter(|key| !key.is_empty())
            .map(|key| Secret::new(key.to_owned())),
        locked: member("Locked") != Some(&Value::Bool(false)),
        advertises_services: member("AdvertiseServices").is_some_and(|list| !list.is_null()),
        unknown: strangers,
    })
}

/// The members of an object in their order, repeated names included.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    members.push(pair);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], capver: u32) -> Result<String, String> {
        let dir = tempfile::tempdir().expect("a directory");
        for name in names {
            match name.strip_suffix('/') {
                Some(name) => std::fs::create_dir(dir.path().join(name)).expect("a directory"),
                None => std::fs::write(dir.path().join(name), "{}").expect("a file"),
            }
        }
        let name = |path: PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        choose(dir.path(), capver)
            .map(name)
            .map_err(|error| error.to_string().replace(&dir.path().display().to_string(), "<dir>"))
    }

    #[test]
    fn the_best_file_that_is_not_too_new_is_chosen() {
        for (names, capver, expected) in [
            (&["cap-95.hujson", "cap-9999.hujson"][..], 148, Ok("cap-95.hujson")),
            (&["cap-95.hujson", "cap-106.hujson", "tailscaled"], 148, Ok("cap-106.hujson")),
            (&["cap-148.hujson", "cap-95.hujson"], 148, Ok("cap-148.hujson")),
            (&["cap-106.hujson/", "cap-95.hujson"], 148, Ok("cap-95.hujson")),
            // W28: upstream rebuilds the name to `cap-0.hujson`, which is not there.
            (&["tailscaled", "other", "cap-x.hujson", "cap-095.hujson"], 148, Ok("tailscaled")),
            (&["tailscaled", "cap-0.hujson"], 148, Ok("cap-0.hujson")),
            (
                &["cap-200.hujson", "..data", "cap-95.hujson.bak"],
                148,
                Err(r#"no tailscaled config file found in "<dir>" for current capability version 148"#),
            ),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(chosen(names, capver), expected, "{names:?}");
        }
        let error = choose(Path::new("/nonexistent/dir"), 1).expect_err("no directory").to_string();
        assert!(error.starts_with(r#"error reading tailscaled config directory "/nonexistent/dir": "#), "{error}");
    }

    #[test]
    fn a_full_file_loads() {
        let text = r#"// written by the operator
        {
          "Version": "alpha0", "locked": false, "AuthKey": "tskey-auth-k1-s", "acceptDNS": null,
          "AdvertiseRoutes": ["10.0.0.0/8", "fd00::/64"], "AdvertiseServices": ["svc:a"],
          "AppConnector": {"advertise": true}, "AutoUpdate": {"Check": false, "Apply": null},
          "StaticEndpoints": ["1.2.3.4:41641", "[::1]:1"], "RelayServerPort": 0,
          "ServeConfigTemp": {"TCP": {"443": {"HTTPS": true}}, "Web": {"a:443": {"Handlers": {"/": {"Text": "x"}}}}},
        }
        "#;
        let document = parse(text, UnknownKeys::Reject).expect("a good file");
        assert_eq!(document.auth_key.as_ref().map(|key| key.expose().as_str()), Some("tskey-auth-k1-s"));
        assert!(!document.locked);
        assert!(!format!("{document:?}").contains("tskey"), "the key is a secret");
    }

    #[test]
    fn locked_is_the_default_and_the_last_spelling_wins() {
        let load = |text: &str| parse(text, UnknownKeys::Reject).expect(text);
        assert!(load(r#"{"version":"alpha0"}"#).locked);
        assert!(load(r#"{"version":"alpha0","Locked":null}"#).locked);
        assert!(load(r#"{"version":"alpha0","Locked":true}"#).locked);
        let twice = load(r#"{"version":"alpha0","AuthKey":"one","authkey":"two"}"#);
        assert_eq!(twice.auth_key, Some("two".to_owned().into()));
        assert_eq!(load(r#"{"version":"alpha0","AuthKey":""}"#).auth_key, None);
    }

    #[test]
    fn bad_content_is_one_clear_line() {
        for (text, reason) in [
            ("{}", r#": no "version" field defined"#),
            (r#"{"version": null}"#, r#": no "version" field defined"#),
            (r#"{"version": ""}"#, r#": no "version" field defined"#),
            (r#"{"version": 1}"#, r#": "version" must be a string"#),
            (r#"{"version": "beta1"}"#, r#": unsupported "version" value "beta1"; want "alpha0" for now"#),
            (r#"{"version": "alpha0", "Nope": 1}"#, r#": unknown field "Nope""#),
            (r#"{"version": "alpha0", "AppConnector": {"Nope": 1}}"#, r#": unknown field "AppConnector.Nope""#),
            (r#"{"version": "alpha0", "Locked": "true"}"#, r#": "Locked" must be true, false or null"#),
            (r#"{"version": "alpha0", "AuthKey": 7}"#, r#": "AuthKey" must be a string"#),
            (
                r#"{"version": "alpha0", "AdvertiseRoutes": ["x"]}"#,
                r#": "AdvertiseRoutes[0]" must be a network prefix"#,
            ),
            (
                r#"{"version": "alpha0", "RelayServerPort": 65536}"#,
                r#": "RelayServerPort" must be a number from 0 to 65535"#,
            ),
            (
                r#"{"version": "alpha0", "StaticEndpoints": ["h:1"]}"#,
                r#": "StaticEndpoints[0]" must be an IP address and port"#,
            ),
            (r#"{"version": "alpha0", "AutoUpdate": []}"#, r#": "AutoUpdate" must be an object"#),
            (r#"{"version": "alpha0""#, " HuJSON/JSON: line 1, column 21: unexpected end"),
            (r#"{"version": "alpha0"} {}"#, " HuJSON/JSON: line 1, column 23: unexpected '{' after the value"),
            ("[]", ": invalid type: sequence, expected an object at line 1 column 0"),
        ] {
            assert_eq!(parse(text, UnknownKeys::Reject).expect_err(text), reason, "{text}");
        }
    }

    #[test]
    fn unknown_keys_can_be_listed_instead() {
        let document = parse(r#"{"version":"alpha0","New":1,"AppConnector":{"Newer":2}}"#, UnknownKeys::List);
        assert_eq!(document.expect("tolerated").unknown, ["New", "AppConnector.Newer"]);
    }

    #[test]
    fn bad_files_are_one_clear_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("cap-95.hujson");
        let reason = || {
            let error = load(&path, UnknownKeys::Reject).expect_err("a bad file").to_string();
            let prefix = format!("error parsing config file {}: ", path.display());
            error.strip_prefix(&prefix).map(str::to_owned).unwrap_or(error)
        };
        assert_eq!(reason(), "No such file or directory (os error 2)");
        std::fs::create_dir(&path).expect("a directory");
        assert_eq!(reason(), "it is a directory");
        std::fs::remove_dir(&path).expect("it was one");
        std::fs::write(&path, " \n").expect("a file");
        assert_eq!(reason(), "it is empty");
        std::fs::write(&path, b"{\"a\": \"\xff\"}").expect("a file");
        assert_eq!(reason(), "it is not UTF-8 (first at byte 7)");
        // A gigabyte that is not on disk: reading it would be noticed.
        File::create(&path).and_then(|file| file.set_len(1 << 30)).expect("a sparse file");
        assert_eq!(reason(), "it is too large (1073741824 bytes; at most 8388608 are read)");
        assert_eq!(auth_key_from(&path), None);
        std::fs::write(&path, r#"{"version":"alpha0","AuthKey":"k","Unknown":1}"#).expect("a file");
        assert_eq!(auth_key_from(&path), Some("k".to_owned().into()));
        assert_eq!(reason(), r#"unknown field "Unknown""#);
    }
}

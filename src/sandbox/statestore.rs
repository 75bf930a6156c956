//! Where the automatic node keeps its identity: what `--state` and `--statedir` name.

use std::io;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::node::State;

/// A state store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum StateStore {
    /// `mem:`
    #[default]
    Memory,
    /// A file in a directory.
    File(PathBuf),
    /// `kube:<name>`
    Secret(String),
}

impl StateStore {
    /// The store that tailscaled's arguments name.
    pub(crate) fn of(args: &[String]) -> Self {
        let flag =
            |name: &str| args.iter().find_map(|arg| arg.trim_start_matches('-').strip_prefix(name)?.strip_prefix('='));
        match (flag("state"), flag("statedir")) {
            (Some(state), _) if state.starts_with("mem:") => Self::Memory,
            (Some(state), dir) => match state.strip_prefix("kube:") {
                Some(name) => Self::Secret(name.to_owned()),
                None if state.is_empty() => Self::of_dir(dir),
                None => Self::File(state.into()),
            },
            (None, dir) => Self::of_dir(dir),
        }
    }

    fn of_dir(dir: Option<&str>) -> Self {
        dir.map_or(Self::Memory, |dir| Self::File(PathBuf::from(dir).join("tailscaled.state")))
    }
}

/// A state file: one JSON object of base64 values, as upstream's `ipn/store.go` writes it.
pub(crate) fn decode(file: &[u8]) -> State {
    let values: std::collections::BTreeMap<String, String> = serde_json::from_slice(file).unwrap_or_default();
    values.into_iter().filter_map(|(key, value)| Some((key, STANDARD.decode(value).ok()?))).collect()
}

/// Writes a state file, whole or not at all.
pub(crate) fn write(path: &std::path::Path, state: &State) -> io::Result<()> {
    let values: serde_json::Map<String, serde_json::Value> =
        state.iter().map(|(key, value)| (key.clone(), STANDARD.encode(value).into())).collect();
    let parent = path.parent().unwrap_or(path);
    std::fs::create_dir_all(parent)?;
    let new = path.with_extension("tmp");
    std::fs::write(&new, serde_json::Value::Object(values).to_string())?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_the_one_the_arguments_name() {
        for (args, expected) in [
            (&["--state=mem:", "--statedir=/tmp"][..], StateStore::Memory),
            (&["--state=kube:ts-0", "--statedir=/tmp"], StateStore::Secret("ts-0".to_owned())),
            (&["--statedir=/x"], StateStore::File("/x/tailscaled.state".into())),
            (&["-state=/y/s"], StateStore::File("/y/s".into())),
            (&["--tun=x"], StateStore::Memory),
        ] {
            let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
            assert_eq!(StateStore::of(&args), expected, "{args:?}");
        }
    }

    #[test]
    fn a_state_file_reads_back() {
        let path = std::env::temp_dir().join(format!("tp-state-{}", std::process::id())).join("s");
        let state = State::from([("_machinekey".to_owned(), vec![0, 255])]);
        write(&path, &state).expect("written");
        assert_eq!(decode(&std::fs::read(&path).expect("read")), state);
        std::fs::remove_dir_all(path.parent().expect("a parent")).expect("removed");
        assert_eq!(decode(b"nonsense"), State::new());
    }
}

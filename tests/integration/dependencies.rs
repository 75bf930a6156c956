//! Licences, bans, duplicates and sources of everything we ship, by the rules in deny.toml.
//!
//! `cargo deny` reads the same file, but is not on every machine; this needs cargo alone. What is checked is what is
//! built for this platform with every feature, build-time crates and tests included.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn everything_we_build_with_follows_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rules = Rules::parse(&std::fs::read_to_string(root.join("deny.toml")).unwrap());
    assert!(rules.licenses.len() > 3 && rules.deny.len() > 3, "deny.toml was not understood");
    let crates = crates_of(root);
    assert!(crates.len() > 50, "cargo metadata was not understood");
    let problems = rules.problems(&crates);
    assert!(problems.is_empty(), "\n{problems}");
}

#[test]
fn violations_are_found() {
    let rules = Rules::parse(
        "[licenses]\nallow = [\n    \"MIT\", # why\n    \"ISC\",\n]\n[bans]\ndeny = [\n    \
         { crate = \"openssl\", reason = \"r\" },\n    { crate = \"time\", reason = \"r\", wrappers = [\"rcgen\"] },\n]\n\
         skip = [\n    { crate = \"syn@2\", reason = \"r\" },\n    { crate = \"gone@1\", reason = \"r\" },\n]\n",
    );
    let one = |name: &str, version: &str, license: &str, users: &[&str]| Crate {
        name: name.into(),
        version: version.into(),
        license: Some(license.into()),
        is_from_registry: true,
        users: users.iter().map(ToString::to_string).collect(),
    };
    let git = Crate { is_from_registry: false, ..one("forked", "1.0.0", "MIT", &[]) };
    let crates = [
        one("fine", "1.0.0", "MIT OR GPL-3.0", &[]),
        one("gpl", "1.0.0", "GPL-3.0", &[]),
        one("openssl", "1.0.0", "MIT", &["fine"]),
        one("time", "1.0.0", "MIT", &["rcgen", "fine"]),
        one("syn", "2.0.1", "MIT", &[]),
        one("syn", "3.0.1", "MIT", &[]),
        one("twice", "1.0.0", "MIT", &[]),
        one("twice", "2.0.0", "MIT", &[]),
        git,
    ];
    let expected = "gpl 1.0.0: licence `GPL-3.0` is not allowed\n\
                    openssl 1.0.0: banned (r), needed by fine\n\
                    time 1.0.0: banned (r), needed by fine\n\
                    forked 1.0.0: does not come from the registry\n\
                    twice: versions 1.0.0, 2.0.0 at once\n\
                    deny.toml: skips gone@1, which is not there\n";
    assert_eq!(rules.problems(&crates), expected);
}

#[test]
fn licence_expressions_are_understood() {
    let allowed: BTreeSet<String> =
        ["MIT", "ISC", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"].map(ToOwned::to_owned).into();
    let cases = [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("MIT/Apache-2.0", true),
        ("Apache-2.0 AND ISC", false),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("(MIT OR Apache-2.0) AND BSD-3-Clause", false),
        ("MIT OR Apache-2.0 AND GPL-3.0", true),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
        ("", false),
    ];
    for (expression, expected) in cases {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    }
}

struct Crate {
    name: String,
    version: String,
    license: Option<String>,
    is_from_registry: bool,
    users: BTreeSet<String>,
}

/// A line such as `{ crate = "x", reason = "y", wrappers = ["z"] }`.
struct Entry {
    name: String,
    reason: String,
    wrappers: Vec<String>,
}

#[derive(Default)]
struct Rules {
    licenses: BTreeSet<String>,
    deny: Vec<Entry>,
    skip: Vec<Entry>,
}

impl Rules {
    /// Reads the part of TOML that deny.toml is written in: sections, and lists with one entry per line.
    fn parse(text: &str) -> Self {
        let mut rules = Self::default();
        let (mut section, mut list) = (String::new(), String::new());
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                name.clone_into(&mut section);
            } else if let Some(name) = line.strip_suffix(" = [") {
                name.clone_into(&mut list);
            } else if line == "]" {
                list.clear();
            } else if line.starts_with('"') && (section.as_str(), list.as_str()) == ("licenses", "allow") {
                rules.licenses.extend(strings(line).into_iter().next());
            } else if line.starts_with('{') && section == "bans" {
                let field = |name: &str| line.split_once(&format!("{name} = ")).map(|(_, rest)| strings(rest));
                let first = |name: &str| field(name).and_then(|values| values.into_iter().next());
                let entry = Entry {
                    name: first("crate").unwrap_or_default(),
                    reason: first("reason").unwrap_or_default(),
                    wrappers: field("wrappers").unwrap_or_default(),
                };
                match list.as_str() {
                    "deny" => rules.deny.push(entry),
                    "skip" => rules.skip.push(entry),
                    other => panic!("deny.toml: unknown list {other}"),
                }
            }
        }
        rules
    }

    fn problems(&self, crates: &[Crate]) -> String {
        let mut problems = String::new();
        let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let skips = |entry: &Entry, name: &str, version: &str| {
            let Some((skipped, prefix)) = entry.name.split_once('@') else { return entry.name == name };
            let rest = version.strip_prefix(prefix);
            skipped == name && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        for Crate { name, version, license, is_from_registry, users } in crates {
            let license = license.as_deref().unwrap_or_default();
            if !is_allowed(license, &self.licenses) {
                writeln!(problems, "{name} {version}: licence `{license}` is not allowed").unwrap();
            }
            for Entry { reason, wrappers, .. } in self.deny.iter().filter(|entry| entry.name == *name) {
                let users: Vec<_> = users.iter().filter(|user| !wrappers.contains(user)).map(String::as_str).collect();
                if !users.is_empty() || wrappers.is_empty() {
                    writeln!(problems, "{name} {version}: banned ({reason}), needed by {}", users.join(", ")).unwrap();
                }
            }
            if !is_from_registry {
                writeln!(problems, "{name} {version}: does not come from the registry").unwrap();
            }
            if !self.skip.iter().any(|entry| skips(entry, name, version)) {
                versions.entry(name).or_default().push(version);
            }
        }
        for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
            writeln!(problems, "{name}: versions {} at once", versions.join(", ")).unwrap();
        }
        for entry in &self.skip {
            if !crates.iter().any(|one| skips(entry, &one.name, &one.version)) {
                writeln!(problems, "deny.toml: skips {}, which is not there", entry.name).unwrap();
            }
        }
        problems
    }
}

/// The strings in quotes, up to the first bracket that closes or the first comment after a comma.
fn strings(text: &str) -> Vec<String> {
    let text = text.split(']').next().unwrap_or_default();
    text.split('"').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

/// Whether an SPDX expression can be met with the licences in `allowed`. `/` is the old spelling of `OR`.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    either(&words, &mut at, allowed) && at == words.len()
}

fn either(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut met = both(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= both(words, at, allowed);
    }
    met
}

fn both(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut met = single(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= single(words, at, allowed);
    }
    met
}

fn single(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let Some(&word) = words.get(*at) else { return false };
    *at += 1;
    if word == "(" {
        let met = either(words, at, allowed);
        *at += 1;
        return met;
    }
    let mut license = word.to_owned();
    if words.get(*at) == Some(&"WITH") {
        license = words[*at - 1..(*at + 2).min(words.len())].join(" ");
        *at += 2;
    }
    allowed.contains(&license)
}

/// Everything that is built for this platform, ourselves left out.
fn crates_of(root: &Path) -> Vec<Crate> {
    let rustc = std::env::vars_os().find_map(|(name, value)| (name == "RUSTC").then_some(value));
    let version = run(Command::new(rustc.unwrap_or_else(|| "rustc".into())).arg("-vV")).expect("rustc runs");
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
    let metadata = |more: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(root).args(["metadata", "--format-version=1", "--locked", "--all-features"]);
        run(cargo.arg(format!("--filter-platform={host}")).args(more))
    };
    // The first time on a machine, cargo wants the sources of a crate or two that it names but does not build.
    let metadata = metadata(&["--offline"]).or_else(|_| metadata(&[])).unwrap();
    let metadata: Value = serde_json::from_str(&metadata).unwrap();

    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let names: BTreeMap<String, String> =
        list(&metadata["packages"]).iter().map(|package| (text(&package["id"]), text(&package["name"]))).collect();
    let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let nodes: BTreeMap<String, Vec<String>> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| (text(&node["id"]), list(&node["dependencies"]).iter().map(text).collect()))
        .collect();
    let root = text(&metadata["resolve"]["root"]);
    let mut reached = vec![root.clone()];
    let mut seen = BTreeSet::from([root.clone()]);
    while let Some(id) = reached.pop() {
        for needed in &nodes[&id] {
            users.entry(needed.clone()).or_default().insert(names[&id].clone());
            if seen.insert(needed.clone()) {
                reached.push(needed.clone());
            }
        }
    }
    let packages = list(&metadata["packages"]);
    let built = packages.iter().filter(|package| seen.contains(&text(&package["id"])) && text(&package["id"]) != root);
    let crates = built.map(|package| Crate {
        name: text(&package["name"]),
        version: text(&package["version"]),
        license: package["license"].as_str().map(ToOwned::to_owned),
        is_from_registry: text(&package["source"]).starts_with("registry+"),
        users: users.get(&text(&package["id"])).cloned().unwrap_or_default(),
    });
    crates.collect()
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8(output.stdout).expect("tools print UTF-8"))
}

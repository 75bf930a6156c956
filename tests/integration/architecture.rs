//! The import rules of the crate, checked on its source text.
//!
//! One crate has no compiler-enforced borders between its parts, so this test draws them: which module may use which,
//! where each dependency may appear, and what a file that calls itself pure may not touch. A violation names file and
//! line. Test modules are exempt: they may build whatever they test with.

mod syntax;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use self::syntax::{Used, paths};

/// The layers, top first. A module may use modules of lower layers; of its own layer only pure files.
const LAYERS: &[(&str, &[&str])] = &[
    ("main", &["main"]),
    ("command line", &["cli"]),
    ("applets", &["applet"]),
    ("terminal", TERMINAL),
    ("features", &["boot", "proxy", "recording", "sandbox", "statesecret", "doctor", "manifests"]),
    ("shared steps", &["authkey", "certs", "node", "proxygroup"]),
    ("serve config", &["serve"]),
    ("adapters", &["localapi", "k8s", "daemon", "dns", "netfilter", "health"]),
    ("settings", &["settings"]),
    (
        "foundation",
        &[
            "backoff",
            "causes",
            "short",
            "digest",
            "escape",
            "filewatch",
            "fqdn",
            "goduration",
            "http1",
            "hujson",
            "keepalive",
            "located",
            "lock",
            "maybe",
            "prefix",
            "secret",
            "shutdown",
            "spelling",
            "telemetry",
            "unverified",
            "x509",
        ],
    ),
];

/// What applets use of the command line: these files know no applet. They are modules of `cli`, seen from outside as
/// `cli::output` and so on.
const TERMINAL: &[&str] = &[
    "cli::ask",
    "cli::cluster",
    "cli::exit",
    "cli::later",
    "cli::output",
    "cli::program",
    "cli::progress",
    "cli::report",
    "cli::table",
    "cli::generate",
];

/// Who may name a dependency: the crates, and the modules they may not leave.
const HOMES: &[(&[&str], &[&str])] = &[
    (&["clap", "clap_complete", "clap_mangen"], &["cli", "applet"]),
    (&["comfy_table", "indicatif"], &["cli"]),
    (&["anyhow"], &["cli", "applet", "sandbox"]),
    (&["reqwest"], &["localapi"]),
    (&["kube", "secrecy"], &["k8s"]),
    (&["rcgen"], &["sandbox"]),
    (&["tracing_subscriber"], &["telemetry"]),
];

/// What a pure file may not name.
const IMPURE: &[&str] = &[
    "tokio",
    "reqwest",
    "kube",
    "hyper::client",
    "hyper::server",
    "hyper::upgrade",
    "hyper_util",
    "nix",
    "inotify",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::os::unix::net",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::time::SystemTime",
    "std::time::Instant::now",
];

/// Files that must be there and call themselves pure.
const PURE: &[&str] = &[
    "backoff.rs",
    "boot/argv.rs",
    "boot/flags/mod.rs",
    "boot/flags/table.rs",
    "boot/forward/metrics.rs",
    "boot/forward/preview.rs",
    "boot/forward/wanted.rs",
    "boot/login_failure.rs",
    "boot/machine/auth.rs",
    "boot/machine/event.rs",
    "boot/machine/finish.rs",
    "boot/machine/forward.rs",
    "boot/machine/mod.rs",
    "boot/machine/policy.rs",
    "boot/machine/reissue.rs",
    "boot/machine/restart.rs",
    "boot/machine/steady.rs",
    "boot/machine/verdict.rs",
    "boot/plan.rs",
    "boot/policy.rs",
    "boot/prefs.rs",
    "causes.rs",
    "certs/awaited.rs",
    "certs/budget.rs",
    "certs/chain.rs",
    "certs/failure.rs",
    "certs/lease/document.rs",
    "certs/lease/mod.rs",
    "certs/metrics.rs",
    "certs/listing.rs",
    "certs/names.rs",
    "certs/promotion.rs",
    "certs/record.rs",
    "short.rs",
    "certs/replicas.rs",
    "certs/schedule.rs",
    "certs/served.rs",
    "certs/standing.rs",
    "certs/status.rs",
    "certs/writer.rs",
    "certs/storage.rs",
    "cli/generate.rs",
    "cli/program.rs",
    "daemon/lines.rs",
    "daemon/restart.rs",
    "digest.rs",
    "dns/config.rs",
    "dns/message.rs",
    "doctor/certs/mod.rs",
    "doctor/certs/sharing.rs",
    "doctor/environment.rs",
    "doctor/finding.rs",
    "escape.rs",
    "fqdn.rs",
    "goduration.rs",
    "http1/chunked.rs",
    "http1/framing.rs",
    "http1/head.rs",
    "http1/mod.rs",
    "http1/write.rs",
    "hujson.rs",
    "k8s/base.rs",
    "k8s/egress.rs",
    "k8s/exec/answer.rs",
    "k8s/exec/config.rs",
    "k8s/exec/error.rs",
    "k8s/exec/policy.rs",
    "k8s/exec/request.rs",
    "k8s/exec/schedule.rs",
    "k8s/keypair.rs",
    "k8s/state.rs",
    "k8s/token.rs",
    "localapi/prefs.rs",
    "localapi/types.rs",
    "located.rs",
    "netfilter/conntrack/entry.rs",
    "netfilter/conntrack/stale.rs",
    "netfilter/drift.rs",
    "netfilter/iptables/rules.rs",
    "netfilter/label.rs",
    "netfilter/netlink/wire.rs",
    "netfilter/nft/contents.rs",
    "netfilter/nft/diff.rs",
    "netfilter/nft/expr.rs",
    "netfilter/nft/message.rs",
    "netfilter/nft/reading.rs",
    "netfilter/nft/words.rs",
    "netfilter/ruleset.rs",
    "netfilter/script.rs",
    "netfilter/terms.rs",
    "node/reissue.rs",
    "node/resolve.rs",
    "node/update.rs",
    "prefix.rs",
    "proxy/access.rs",
    "proxy/answer.rs",
    "proxy/config/changes.rs",
    "proxy/config/mod.rs",
    "proxy/config/read.rs",
    "proxy/explain.rs",
    "proxy/grants.rs",
    "proxy/headers.rs",
    "proxy/hop.rs",
    "proxy/life/login.rs",
    "proxy/life/mod.rs",
    "proxy/life/reissue.rs",
    "proxy/life/up.rs",
    "proxy/outgoing.rs",
    "proxy/policy/mod.rs",
    "proxy/proxy_protocol.rs",
    "proxy/refusal.rs",
    "proxy/reply.rs",
    "proxy/route/mod.rs",
    "proxy/route/path.rs",
    "proxy/route/query.rs",
    "proxy/route/request_info.rs",
    "proxy/route/selector.rs",
    "proxy/serve_config.rs",
    "proxy/status.rs",
    "proxy/subprotocol.rs",
    "proxygroup/egress/config.rs",
    "proxygroup/egress/mod.rs",
    "proxygroup/egress/status.rs",
    "proxygroup/egress/targets.rs",
    "proxygroup/entries.rs",
    "proxygroup/ingress/config.rs",
    "proxygroup/ingress/mod.rs",
    "proxygroup/metrics.rs",
    "proxygroup/plan.rs",
    "serve/change.rs",
    "serve/document.rs",
    "serve/go.rs",
    "serve/reading.rs",
    "serve/services.rs",
    "settings/merge.rs",
    "settings/parse.rs",
    "settings/print.rs",
    "settings/share.rs",
    "spelling.rs",
    "statesecret/code.rs",
    "statesecret/diff.rs",
    "statesecret/document.rs",
    "statesecret/findings.rs",
    "statesecret/glimpse.rs",
    "statesecret/inspect.rs",
    "statesecret/proxied.rs",
    "statesecret/repair.rs",
    "x509.rs",
];

/// The same of files that are not written yet.
const PLANNED: &[&str] =
    &["boot/serve.rs", "boot/services.rs", "recording/cast.rs", "recording/spdy.rs", "recording/websocket.rs"];

/// Macros that print. Only `cli/output.rs` writes, and not with these either.
const PRINTING: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];

/// What nothing below the command line may do: read argv, or end the process.
const TOP_ONLY: &[&str] = &["std::env::args", "std::env::args_os", "std::process::exit", "std::process::ExitCode"];

/// Reading the wall clock, which jumps.
const WALL_TIME: &[&str] = &["jiff::Timestamp::now", "jiff::Zoned::now", "std::time::SystemTime::now"];

/// Who may: what is compared with, or shown beside, a time that somebody else wrote. Nothing waits by it.
const WALL_CLOCK: &[&str] = &[
    "applet/authkey/event.rs",
    "applet/certs/",
    "applet/secret.rs",
    "applet/secret/follow.rs",
    "certs/cluster.rs",
    "certs/hold_back.rs",
    "certs/lease/stored.rs",
    "certs/local.rs",
    "doctor/cluster.rs",
    "doctor/daemon.rs",
    "k8s/event.rs",
    "k8s/exec/authenticator.rs",
    "node/bus.rs",
    "proxy/names.rs",
    "proxygroup/follow.rs",
    "sandbox/",
    "telemetry.rs",
];

#[test]
fn imports_point_down_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&root);
    assert!(files.len() > 10, "the source is not where it should be");
    let pure: Vec<_> = files.iter().filter(|file| file.calls_itself_pure()).map(|file| file.path.clone()).collect();
    let mut problems = String::new();
    for file in &files {
        for problem in file.problems(&pure) {
            writeln!(problems, "src/{}:{problem}", file.path).unwrap();
        }
    }
    // A list that outlives the files in it holds nothing.
    for listed in PURE.iter().filter(|listed| !files.iter().any(|file| file.path == **listed)) {
        writeln!(problems, "src/{listed}: is listed as pure and is not there").unwrap();
    }
    assert!(problems.is_empty(), "\n{problems}");
}

/// The checker itself is worth nothing if it finds nothing.
#[test]
fn violations_are_found_with_their_line() {
    let cases: &[(&str, &str, &str)] = &[
        ("boot/mod.rs", "//! x.\nuse crate::cli::exit::ExitStatus;", "2: boot may not use cli::exit"),
        (
            "boot/mod.rs",
            "//! x.\nuse crate::{\n    secret::Secret,\n    cli::output,\n};",
            "4: boot may not use cli::output",
        ),
        ("boot/mod.rs", "//! x.\nfn f() { crate::proxy::serve(); }", "2: boot may not use proxy"),
        ("localapi/mod.rs", "//! x.\nuse super::boot;", "2: localapi may not use boot"),
        ("localapi/a/b.rs", "//! x.\nuse super::super::super::applet;", "2: localapi may not use applet"),
        ("localapi/mod.rs", "//! x.\nuse crate::k8s::Cluster;", "2: localapi may not use k8s"),
        ("secret.rs", "//! x.\nuse crate::settings::Settings;", "2: secret may not use settings"),
        ("cli/table.rs", "//! x.\nuse crate::applet::boot;", "2: cli::table may not use applet"),
        ("applet/boot.rs", "//! x.\nuse crate::cli::Cli;", "2: applet may not use cli"),
        ("boot/mod.rs", "//! x.\n// use crate::cli;\nuse reqwest::Client;", "3: `reqwest` stays in localapi"),
        ("boot/mod.rs", "//! x.\nfn f() -> kube::Result<()> {}", "2: `kube` stays in k8s"),
        ("applet/boot.rs", "//! x.\nuse comfy_table::Cell;", "2: `comfy_table` stays in cli"),
        ("boot/mod.rs", "//! x.\nuse anyhow::Context;", "2: `anyhow` stays in cli, applet, sandbox"),
        ("boot/mod.rs", "//! x.\nfn f() { println!(\"x\"); }", "2: `println!` prints"),
        ("boot/mod.rs", "//! x.\nfn f() { std::process::exit(1); }", "2: `std::process::exit` is the command line's"),
        (
            "boot/mod.rs",
            "//! x.\nuse std::{env, fs};\nfn f() { env::args(); }",
            "3: `std::env::args` is the command line's",
        ),
        ("boot/machine/auth.rs", "//! x.", "1: must say that it is `Pure.`"),
        ("netfilter/ruleset.rs", "//! x.", "1: must say that it is `Pure.`"),
        ("boot/new.rs", "//! x. Pure.\nuse std::{collections::BTreeMap, fs};", "2: a pure file may not use `std::fs`"),
        ("boot/new.rs", "//! x. Pure.\n\nuse tokio::time::Instant;", "3: a pure file may not use `tokio`"),
        (
            "boot/new.rs",
            "//! x. Pure.\nfn f() { Instant::now(); }\nuse std::time::Instant;",
            "2: a pure file may not use `std::time::Instant::now`",
        ),
        (
            "boot/mod.rs",
            "//! x.\nuse jiff::Timestamp;\nfn f() { Timestamp::now(); }",
            "3: `jiff::Timestamp::now` is read by few: see WALL_CLOCK",
        ),
        (
            "boot/mod.rs",
            "//! x.\nfn f() { std::time::SystemTime::now(); }",
            "2: `std::time::SystemTime::now` is read by few: see WALL_CLOCK",
        ),
        ("boot/new.rs", "use std::fs;", "1: there is no module documentation"),
        ("wherever.rs", "//! x.", "1: `wherever` is in no layer"),
    ];
    for (path, text, expected) in cases {
        let found = Source::new(path, text).problems(&[]);
        assert_eq!(found, [(*expected).to_owned()], "{path}: {text}");
    }
}

#[test]
fn what_is_allowed_is_not_reported() {
    let cases: &[(&str, &str)] = &[
        ("applet/boot.rs", "//! x.\nuse crate::cli::{exit::ExitStatus, output::Output};\nuse crate::boot;"),
        (
            "boot/mod.rs",
            "//! x.\nmod machine;\nuse self::machine::Boot;\nuse super::localapi::LocalApi;\nuse crate::secret;",
        ),
        ("boot/mod.rs", "//! x.\nconst HELP: &str = \"use crate::cli; println!()\"; // crate::cli\n/* kube:: */"),
        ("boot/mod.rs", "//! x.\nconst RAW: &str = r#\"crate::cli \"quoted\" \"#;\nconst QUOTE: char = '\"';"),
        ("boot/mod.rs", "//! x.\n#[cfg(test)]\nmod tests {\n    use crate::cli;\n    fn f() { println!(\"}\"); }\n}"),
        ("localapi/mod.rs", "//! x.\nuse crate::k8s::state::Keys;"),
        ("k8s/mod.rs", "//! x.\nuse k8s_openapi::api::core::v1::Secret;\nuse kube::Client;"),
        ("boot/new.rs", "//! x. Pure.\nconst OS: &str = std::env::consts::OS;"),
        ("boot/mod.rs", "//! x.\nfn kube(a: &str) -> fmt::Result { write!(a, \"x\") }"),
    ];
    for (path, text) in cases {
        let found = Source::new(path, text).problems(&["k8s/state.rs".to_owned()]);
        assert!(found.is_empty(), "{path}: {text}: {found:?}");
    }
}

/// One source file.
struct Source {
    /// Below `src/`.
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// The module path, such as `["boot", "machine"]`.
    fn module(&self) -> Vec<String> {
        let path = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        path.split('/').map(ToOwned::to_owned).collect()
    }

    fn calls_itself_pure(&self) -> bool {
        let doc = self.text.lines().take_while(|line| line.starts_with("//!"));
        doc.flat_map(|line| line.split_whitespace()).any(|word| word == "Pure." || word == "Pure:")
    }

    fn problems(&self, pure: &[String]) -> Vec<String> {
        let mut problems = Vec::new();
        let module = self.module();
        let home = unit(&module);
        // A test module in a file of its own.
        if self.path == "lib.rs" || self.path.ends_with("/tests.rs") || self.path.contains("/tests/") {
            return problems;
        }
        if !self.text.starts_with("//!") {
            problems.push("1: there is no module documentation".to_owned());
            return problems;
        }
        let Some(layer) = layer(&home) else {
            return vec![format!("1: `{home}` is in no layer")];
        };
        let path = self.path.as_str();
        if (PURE.contains(&path) || PLANNED.contains(&path)) && !self.calls_itself_pure() {
            problems.push("1: must say that it is `Pure.`".to_owned());
        }
        for used in self.used() {
            let problem = self.problem(&used, &home, layer, pure);
            problems.extend(problem.map(|problem| format!("{}: {problem}", used.line)));
        }
        problems.dedup();
        problems
    }

    fn problem(&self, used: &Used, home: &str, layer_here: usize, pure: &[String]) -> Option<String> {
        let name = used.path.join("::");
        let top = home.split("::").next().unwrap_or_default();
        if used.is_macro {
            let prints = PRINTING.contains(&name.trim_start_matches("std::"));
            return prints.then(|| format!("`{name}!` prints"));
        }
        let reaches = |forbidden: &&&str| name == **forbidden || name.starts_with(&format!("{forbidden}::"));
        if self.calls_itself_pure()
            && !name.starts_with("std::env::consts::")
            && let Some(impure) = IMPURE.iter().find(reaches)
        {
            return Some(format!("a pure file may not use `{impure}`"));
        }
        if WALL_TIME.contains(&name.as_str()) && !WALL_CLOCK.iter().any(|reader| self.path.starts_with(reader)) {
            return Some(format!("`{name}` is read by few: see WALL_CLOCK"));
        }
        if !["main", "cli"].contains(&top)
            && let Some(action) = TOP_ONLY.iter().find(reaches)
        {
            return Some(format!("`{action}` is the command line's"));
        }
        for (crates, homes) in HOMES {
            if crates.contains(&used.path[0].as_str()) && !homes.contains(&top) {
                return Some(format!("`{}` stays in {}", used.path[0], homes.join(", ")));
            }
        }
        if used.path[0] != "crate" || used.path.len() < 2 {
            return None;
        }
        let target = unit(&used.path[1..]);
        let layer_there = layer(&target)?;
        let is_pure = pure.iter().any(|path| {
            let module = Self::new(path, "").module();
            used.path[1..].starts_with(&module)
        });
        let is_sibling = target.starts_with("cli::") && home.starts_with("cli::");
        let is_beside = layer_there == layer_here && (is_pure || is_sibling);
        let allowed = target == home || layer_there > layer_here || is_beside;
        (!allowed).then(|| format!("{home} may not use {target}"))
    }

    /// Every path in the code, `use` trees spelled out, names brought in by `use` resolved, `self` and `super` made
    /// absolute.
    fn used(&self) -> Vec<Used> {
        let mut used = paths(&self.text);
        let module = self.module();
        let imported: Vec<Vec<String>> =
            used.iter().map(|used| used.path.clone()).filter(|path| path.len() > 1).collect();
        for used in &mut used {
            let brought_in = |path: &&Vec<String>| path.last() == used.path.first() && path[0] != used.path[0];
            if used.path.len() > 1
                && let Some(path) = imported.iter().find(brought_in)
            {
                used.path.splice(..1, path.iter().cloned());
            }
            absolute(&mut used.path, &module);
        }
        used
    }
}

/// The unit that rules apply to: a module of the crate, or one of the terminal's files.
fn unit(module: &[String]) -> String {
    if module[0] == "cli" && module.len() > 1 {
        let file = format!("cli::{}", module[1]);
        if TERMINAL.contains(&file.as_str()) {
            return file;
        }
    }
    module[0].clone()
}

fn layer(unit: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, units)| units.contains(&unit))
}

fn absolute(path: &mut Vec<String>, module: &[String]) {
    let mut base = module.to_vec();
    let mut taken = 0;
    while let Some(first) = path.get(taken) {
        match first.as_str() {
            "self" if taken == 0 => {}
            "super" => drop(base.pop()),
            _ => break,
        }
        taken += 1;
    }
    if taken > 0 {
        path.splice(..taken, std::iter::once("crate".to_owned()).chain(base));
    } else if path[0] == "tailpod" {
        "crate".clone_into(&mut path[0]);
    }
}

fn sources(root: &Path) -> Vec<Source> {
    let mut files = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(root.join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let path = directory.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(root.join(&path)).unwrap();
                files.push(Source::new(path.to_str().unwrap(), &text));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

//! What is generated from the code is committed, complete, and up to date.
//!
//! `UPDATE_GOLDEN=1 cargo test` writes it instead of comparing it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tailpod::cli::exit::ExitStatus;
use tailpod::cli::generate;
use tailpod::settings::vars;

/// Wide enough for the longest example; help is wrapped here whatever the terminal.
const HELP_COLUMNS: &str = "120";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compares a committed file with what it should be, or writes it.
pub(crate) fn golden(path: &Path, expected: &[u8]) -> Option<String> {
    let full = root().join(path);
    if fs::read(&full).is_ok_and(|bytes| bytes == expected) {
        return None;
    }
    if std::env::vars_os().any(|(name, value)| name == "UPDATE_GOLDEN" && value == "1") {
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(&full, expected).unwrap();
        return None;
    }
    Some(path.display().to_string())
}

/// Every command with the words that lead to it, hidden ones left out.
fn commands() -> Vec<Vec<String>> {
    fn below(command: &clap::Command, words: &[String], all: &mut Vec<Vec<String>>) {
        all.push(words.to_vec());
        for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
            below(command, &[words, &[command.get_name().to_owned()]].concat(), all);
        }
    }
    let mut all = Vec::new();
    below(&tailpod::cli::definition(), &[], &mut all);
    all
}

#[test]
fn committed_files_are_what_generate_writes() {
    let definition = tailpod::cli::definition();
    let mut files = generate::completions(&definition);
    files.extend(generate::man_pages(&definition));
    let mut stale: Vec<_> = files.iter().filter_map(|file| golden(&file.path, &file.bytes)).collect();

    let readme = generate::readme(&read("README.md"), &definition).unwrap();
    stale.extend(golden(Path::new("README.md"), readme.as_bytes()));
    assert!(stale.is_empty(), "out of date, `tailpod generate all .` writes them: {}", stale.join(", "));

    let expected: BTreeSet<PathBuf> = files.into_iter().map(|file| file.path).collect();
    for directory in ["completions", "man"] {
        for entry in fs::read_dir(root().join(directory)).unwrap() {
            let path = Path::new(directory).join(entry.unwrap().file_name());
            assert!(expected.contains(&path), "{} belongs to nothing", path.display());
        }
    }
}

#[test]
fn help_is_what_the_golden_files_show() {
    let mut stale = Vec::new();
    for words in commands() {
        let help = Command::new(env!("CARGO_BIN_EXE_tailpod"))
            .env("COLUMNS", HELP_COLUMNS)
            .args(&words)
            .arg("--help")
            .output()
            .unwrap();
        assert!(help.status.success() && help.stderr.is_empty(), "{words:?}: {help:?}");
        let name = [&["tailpod".to_owned()], words.as_slice()].concat().join("-");
        stale.extend(golden(&Path::new("tests/golden/help").join(format!("{name}.txt")), &help.stdout));
    }
    assert!(stale.is_empty(), "differs, `UPDATE_GOLDEN=1 cargo test` writes them: {}", stale.join(", "));
}

#[test]
fn every_command_has_a_page_and_a_completion() {
    for words in commands() {
        let page = read(format!("man/{}.1", [&["tailpod".to_owned()], words.as_slice()].concat().join("-")));
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "\"EXIT STATUS\""] {
            assert!(page.contains(&format!("\n.SH {section}\n")), "{words:?} has no {section}");
        }
        for script in ["tailpod.bash", "_tailpod", "tailpod.fish", "tailpod.elv", "_tailpod.ps1"] {
            let script = read(Path::new("completions").join(script));
            assert!(words.iter().all(|word| script.contains(word)), "{words:?} is not completed");
        }
    }
}

#[test]
fn every_exit_code_is_documented_for_users() {
    let (readme, page) = (read("README.md"), read("man/tailpod.1"));
    for status in ExitStatus::DOCUMENTED {
        assert!(readme.contains(&format!("\n| {} | {} |\n", status.code(), status.meaning())), "README: {status:?}");
        assert!(page.contains(&format!("\n\\fB{}\\fR\n", status.code())), "man page: {status:?}");
    }
}

#[test]
fn every_variable_is_documented_for_users() {
    let readme = read("README.md");
    for var in vars::VARS.iter().filter(|var| var.group != vars::Group::Foreign) {
        assert!(readme.contains(&format!("\n| `{}` |", var.name)), "{}", var.name);
    }
    let wanted: BTreeSet<_> = vars::VARS.iter().map(|var| var.name).collect();
    let mentioned = readme.split('`').skip(1).step_by(2).filter(|word| {
        let name = word.split('=').next().unwrap_or_default();
        (name.starts_with("TS_") || name.starts_with("TAILPOD_")) && !word.contains(' ') && !word.contains('…')
    });
    for word in mentioned {
        let name = word.split('=').next().unwrap_or_default();
        assert!(wanted.contains(name), "README mentions `{word}`, which nothing reads");
    }
}

/// What the linker script calls our functions is what they are called; as far as a name begun tells.
#[test]
fn the_linker_script_knows_our_modules() {
    let script = read(".cargo/layout.ld");
    let ours: BTreeSet<_> = script.split(".text._ZN7tailpod").skip(1).filter_map(module_of).collect();
    assert!(!ours.is_empty(), "the script names no function of ours");
    for module in ours {
        let there =
            [format!("src/{module}.rs"), format!("src/{module}/mod.rs")].iter().any(|path| root().join(path).exists());
        assert!(there, "no `{module}` any more: `tests/bench/layout` writes .cargo/layout.ld anew");
    }
}

/// `localapi` of `8localapi4mas*`: its length, its name, and something behind it. Functions of the crate itself have none.
fn module_of(mangled: &str) -> Option<&str> {
    let name = mangled.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let length = mangled[..mangled.len() - name.len()].parse().ok()?;
    let (module, rest) = name.split_at_checked(length)?;
    rest.starts_with(|next: char| next.is_ascii_digit()).then_some(module)
}

/// Settings of continuous integration that the README promises.
#[test]
fn ci_runs_what_the_readme_tells_people_to_run() {
    let (readme, ci) = (read("README.md"), read(".ci/run"));
    assert!(readme.contains("\n$ cargo run -- sandbox "), "the first of the two commands");
    assert!(readme.contains("\n$ cargo test "), "the second");
    assert!(ci.contains("cargo test --locked;"), "is what CI runs");
}

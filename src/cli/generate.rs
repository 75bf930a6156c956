//! Man pages, completions and README tables, all from the clap definition and the lists in the code. Pure.
//!
//! The same input gives the same bytes on every machine: no dates, no terminal width. The results are committed, and a
//! test compares them with what this module makes.

mod names;

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Command;
use clap_complete::{Generator, Shell};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::exit::ExitStatus;
use super::program;
use crate::doctor::finding;
use crate::manifests::permissions;
use crate::settings::vars;
use crate::statesecret::code;

/// A file to write, relative to the repository.
#[derive(Debug, PartialEq, Eq)]
pub struct Generated {
    /// Below `completions/` or `man/`.
    pub path: PathBuf,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// A completion script for each shell we know.
pub fn completions(definition: &Command) -> Vec<Generated> {
    let shells = [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell];
    let scripts = shells.into_iter().map(|shell| {
        let mut bytes = Vec::new();
        clap_complete::generate(shell, &mut definition.clone(), program::NAME, &mut bytes);
        let bytes = names::added(shell, &String::from_utf8_lossy(&bytes), definition).into_bytes();
        Generated { path: PathBuf::from("completions").join(shell.file_name(program::NAME)), bytes }
    });
    scripts.collect()
}

/// A man page for the program, for each applet, and for each command below one.
pub fn man_pages(definition: &Command) -> Vec<Generated> {
    let mut definition = definition.clone();
    definition.build();
    let mut pages = Vec::new();
    add_pages(&definition, "", &mut pages);
    pages
}

fn add_pages(command: &Command, parent: &str, pages: &mut Vec<Generated>) {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    pages.push(Generated {
        path: PathBuf::from("man").join(format!("{name}.1")),
        bytes: man_page(command, parent).into_bytes(),
    });
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        add_pages(below, &name, pages);
    }
}

fn man_page(command: &Command, parent: &str) -> String {
    let source = format!("{} {}", program::NAME, env!("CARGO_PKG_VERSION"));
    // The examples get a section of their own below.
    let examples = command.get_after_long_help().map(ToString::to_string);
    let man = Man::new(command.clone().after_long_help(None)).source(source).manual("tailpod");
    let mut page = Vec::new();
    man.render(&mut page).expect("writing to memory cannot fail");
    let mut page = String::from_utf8(page).expect("a page made of text is text");

    let mut more = Roff::new();
    if let Some(examples) = examples {
        more.control("SH", ["EXAMPLES"]).control("nf", []);
        for line in examples.lines().skip_while(|line| *line == "Examples:") {
            more.text([roman(line)]);
        }
        more.control("fi", []);
    }
    if command.get_name() == "boot" {
        more.control("SH", ["ENVIRONMENT"]);
        for var in vars::VARS.iter().filter(|var| var.group != vars::Group::Foreign) {
            more.control("TP", []).text([bold(var.name)]).text(marked_up(var.doc));
            if !var.default.is_empty() {
                more.text([roman("Default: "), bold(var.default), roman(".")]);
            }
        }
    }
    more.control("SH", ["EXIT STATUS"]);
    // How a login fails concerns the overview and boot itself.
    let all = parent.is_empty() || command.get_name() == "boot";
    for status in ExitStatus::DOCUMENTED.into_iter().filter(|status| all || !status.is_login_failure()) {
        more.control("TP", []).text([bold(status.code().to_string())]).text(marked_up(status.meaning()));
    }
    more.control("TP", []).text([bold("other")]).text(marked_up(ExitStatus::Child(0).meaning()));
    let below = command.get_subcommands().filter(|below| !below.is_hide_set());
    let below = below.map(|below| below.get_display_name().unwrap_or_else(|| below.get_name()));
    let related: Vec<_> = (!parent.is_empty()).then_some(parent).into_iter().chain(below).collect();
    if !related.is_empty() {
        let related = related.iter().map(|name| format!("{name}(1)")).collect::<Vec<_>>().join(", ");
        more.control("SH", ["SEE ALSO"]).text([roman(related)]);
    }
    page.push_str(&more.to_roff());
    page
}

/// Text between backticks in bold.
fn marked_up(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate();
    parts.map(|(index, part)| if index % 2 == 1 { bold(part) } else { roman(part) }).collect()
}

/// What is wrong with the README that its generated parts shall go into.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadmeError {
    /// A part has no place.
    #[error("there is no `{begin}` with a `{end}` after it")]
    NoPlace {
        /// The line that shall stand before the part.
        begin: String,
        /// The line that shall stand after it.
        end: String,
    },
}

/// `readme` with its generated parts replaced by fresh ones.
pub fn readme(readme: &str, definition: &Command) -> Result<String, ReadmeError> {
    let parts = [
        ("applets", applets(definition)),
        ("settings", vars::markdown_table()),
        ("permissions", permissions::markdown_table()),
        ("checks", finding::markdown_table()),
        ("secret findings", code::markdown_table()),
        ("exit codes", exit_codes()),
    ];
    let mut text = readme.to_owned();
    for (name, part) in parts {
        let begin = format!("<!-- generated: {name} -->\n");
        let end = format!("<!-- end of {name} -->\n");
        let place = text.find(&begin).map(|at| at + begin.len());
        let place = place.and_then(|from| Some(from..from + text[from..].find(&end)?));
        let Some(place) = place else {
            return Err(ReadmeError::NoPlace { begin: begin.trim().into(), end: end.trim().into() });
        };
        text.replace_range(place, &format!("\n{part}\n"));
    }
    Ok(text)
}

fn applets(definition: &Command) -> String {
    let mut table = String::from("| Applet | Also called as | What it does |\n| --- | --- | --- |\n");
    for applet in definition.get_subcommands().filter(|applet| !applet.is_hide_set()) {
        let links = program::links_to(applet.get_name()).map(|link| format!("`{link}`")).collect::<Vec<_>>().join(", ");
        let about = applet.get_about().map(ToString::to_string).unwrap_or_default();
        row(&mut table, &[&format!("`{}`", applet.get_name()), &links, &about]);
    }
    table
}

fn exit_codes() -> String {
    let mut table = String::from("| Code | Meaning |\n| --- | --- |\n");
    for status in ExitStatus::DOCUMENTED {
        row(&mut table, &[&status.code().to_string(), status.meaning()]);
    }
    row(&mut table, &["*other*", ExitStatus::Child(0).meaning()]);
    table
}

fn row(table: &mut String, cells: &[&str]) {
    let cells = cells.iter().map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>();
    // Writing to a string cannot fail.
    let _ = writeln!(table, "| {} |", cells.join(" | "));
}

#[cfg(test)]
mod tests {
    use clap::{Arg, Command};

    use super::*;

    fn definition() -> Command {
        let below = Command::new("probe").about("Ask");
        let boot =
            Command::new("boot").about("Bring | up").after_long_help("Examples:\n  tailpod boot").subcommand(below);
        Command::new(program::NAME).arg(Arg::new("flag").long("flag").help("A flag")).subcommand(boot)
    }

    #[test]
    fn every_command_gets_a_page_with_examples_and_exit_codes() {
        let pages = man_pages(&definition().disable_help_subcommand(true));
        let names: Vec<_> = pages.iter().map(|page| page.path.to_str().unwrap()).collect();
        assert_eq!(names, ["man/tailpod.1", "man/tailpod-boot.1", "man/tailpod-boot-probe.1"]);
        let boot = String::from_utf8(pages[1].bytes.clone()).unwrap();
        assert!(boot.contains(".SH EXAMPLES\n.nf\n"), "{boot}");
        assert!(!boot.contains(".SH EXTRA"));
        assert!(boot.contains("tailpod(1), tailpod\\-boot\\-probe(1)"), "{boot}");
        assert!(boot.contains(".TP\n\\fBTS_SOCKET\\fR\n"), "{boot}");
        for status in ExitStatus::DOCUMENTED {
            assert!(boot.contains(&format!(".TP\n\\fB{}\\fR\n", status.code())), "{status:?}");
        }
    }

    #[test]
    fn every_shell_gets_a_script() {
        let scripts = completions(&definition());
        assert_eq!(scripts.len(), 5);
        for script in scripts {
            assert!(String::from_utf8(script.bytes).unwrap().contains("probe"), "{:?}", script.path);
        }
    }

    #[test]
    fn the_readme_keeps_what_is_not_generated() {
        let template = "# x\n<!-- generated: applets -->\nold\n<!-- end of applets -->\nkept\n\
                        <!-- generated: settings -->\n<!-- end of settings -->\n\
                        <!-- generated: permissions -->\n<!-- end of permissions -->\n\
                        <!-- generated: checks -->\n<!-- end of checks -->\n\
                        <!-- generated: secret findings -->\n<!-- end of secret findings -->\n\
                        <!-- generated: exit codes -->\n<!-- end of exit codes -->\nend\n";
        let fresh = readme(template, &definition()).unwrap();
        assert!(fresh.starts_with("# x\n<!-- generated: applets -->\n\n| Applet |"));
        assert!(fresh.contains("| `boot` | `containerboot`, `run.sh` | Bring \\| up |\n"), "{fresh}");
        assert!(!fresh.contains("\nold\n") && fresh.contains("\nkept\n") && fresh.ends_with("\nend\n"));
        assert_eq!(readme(&fresh, &definition()).unwrap(), fresh, "a second time changes nothing");
        assert!(readme("# x\n", &definition()).is_err());
    }
}

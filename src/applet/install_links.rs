//! `tailpod install-links`: the links that let this binary stand in for others.
//!
//! Every name is looked at before the first is touched, so a refusal changes nothing. Making links that are there
//! already changes nothing either.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde::Serialize;

use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::cli::program::{LINKS, NAME};
use crate::cli::report::Advise;
use crate::cli::table::{Column, Table};

/// Where to put the links.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Make the links that let this binary stand in for others: `containerboot`, `run.sh` and `k8s-proxy`.\n\n\
        Links that are already right are left alone. A file, or a link to something else, is never replaced without \
        --force, and a directory not even then.",
    after_long_help = "\
Examples:
  tailpod install-links /usr/local/bin            In an image that has no containerboot
  tailpod install-links --force /usr/local/bin    In place of the ones in the official image"
)]
pub struct Args {
    /// Replace files and links that belong to something else
    #[arg(long)]
    force: bool,

    /// The directory that gets the links; made if it is missing
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    directory: PathBuf,
}

/// What stands where a link shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    OurLink,
    /// A link to a binary of our name elsewhere: an earlier installation.
    OldLink,
    Foreign,
    Directory,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    path: PathBuf,
    target: PathBuf,
    applet: &'static str,
    changed: bool,
}

/// Makes the links and lists them.
pub fn run(args: &Args, out: &Output) -> anyhow::Result<ExitStatus> {
    // Not argv[0]: that may be one of the links.
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let links = install(&args.directory, &program, args.force)?;
    if out.is_json() {
        out.json(&links)?;
        return Ok(ExitStatus::Done);
    }
    let mut table = Table::new(&[Column::Text("link"), Column::Text("applet"), Column::Text("state")]);
    for link in &links {
        let state = if link.changed { "made" } else { "unchanged" };
        table.row([&*link.path.to_string_lossy(), link.applet, state]);
    }
    out.data(table.render())?;
    Ok(ExitStatus::Done)
}

fn install(directory: &Path, program: &Path, force: bool) -> anyhow::Result<Vec<Link>> {
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make directory `{}`", directory.display()))?;
    let target = target_from(directory, program);
    let mut links = Vec::new();
    let mut in_the_way = Vec::new();
    for (name, applet) in LINKS {
        let path = directory.join(name);
        let found = look(&path, &target).with_context(|| format!("cannot look at `{}`", path.display()))?;
        match found {
            Found::Directory => return Err(anyhow!("`{}` is a directory", path.display())),
            Found::Foreign if !force => in_the_way.push(format!("`{}`", path.display())),
            _ => {}
        }
        links.push(Link { path, target: target.clone(), applet, changed: found != Found::OurLink });
    }
    if !in_the_way.is_empty() {
        let error = anyhow!("not ours to replace: {}", in_the_way.join(", "));
        return Err(error.hint("`--force` replaces them").exit_with(ExitStatus::Failed));
    }
    for link in links.iter().filter(|link| link.changed) {
        replace(&link.path, &link.target).with_context(|| format!("cannot make link `{}`", link.path.display()))?;
    }
    Ok(links)
}

/// Relative when the program lies in the same directory, so that an image can be built in one place and run in
/// another.
fn target_from(directory: &Path, program: &Path) -> PathBuf {
    let same = || Some(directory.canonicalize().ok()? == program.parent()?.canonicalize().ok()?);
    match program.file_name() {
        Some(name) if same() == Some(true) => PathBuf::from(name),
        _ => program.to_owned(),
    }
}

fn look(path: &Path, target: &Path) -> io::Result<Found> {
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    if metadata.is_dir() {
        return Ok(Found::Directory);
    }
    if !metadata.is_symlink() {
        return Ok(Found::Foreign);
    }
    let there = path.read_link()?;
    if there == target {
        return Ok(Found::OurLink);
    }
    Ok(if there.file_name().is_some_and(|name| name == NAME) { Found::OldLink } else { Found::Foreign })
}

/// In one step, so that whoever starts the program meanwhile finds the old one or the new one.
fn replace(path: &Path, target: &Path) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = path.with_file_name(name);
    std::os::unix::fs::symlink(target, &fresh)?;
    std::fs::rename(&fresh, path).inspect_err(|_| {
        // The rename's error is the one to report.
        let _ = std::fs::remove_file(&fresh);
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::cli::report::Report;

    struct Fixture {
        directory: tempfile::TempDir,
        program: PathBuf,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let program = directory.path().join("opt/tailpod");
            fs::create_dir(directory.path().join("opt")).unwrap();
            fs::write(&program, "").unwrap();
            Self { directory, program }
        }

        fn bin(&self) -> PathBuf {
            self.directory.path().join("usr/bin")
        }

        fn install(&self, force: bool) -> anyhow::Result<Vec<bool>> {
            let links = install(&self.bin(), &self.program, force)?;
            Ok(links.into_iter().map(|link| link.changed).collect())
        }
    }

    #[test]
    fn makes_every_link_once() {
        let fixture = Fixture::new();
        assert_eq!(fixture.install(false).unwrap(), [true; 3]);
        for (name, _) in LINKS {
            assert_eq!(fs::read_link(fixture.bin().join(name)).unwrap(), fixture.program);
        }
        assert_eq!(fixture.install(false).unwrap(), [false; 3]);
        assert_eq!(fs::read_dir(fixture.bin()).unwrap().count(), 3, "nothing is left over");
    }

    #[test]
    fn refuses_foreign_files_and_then_touches_nothing() {
        let fixture = Fixture::new();
        fs::create_dir_all(fixture.bin()).unwrap();
        fs::write(fixture.bin().join("k8s-proxy"), "the real one").unwrap();
        symlink("containerboot.real", fixture.bin().join("run.sh")).unwrap();
        let report = Report::of(&fixture.install(false).unwrap_err()).unwrap();
        assert!(report.message.contains("run.sh") && report.message.contains("k8s-proxy"), "{}", report.message);
        assert_eq!(report.hints, ["`--force` replaces them"]);
        assert!(!fixture.bin().join("containerboot").exists());
        assert_eq!(fixture.install(true).unwrap(), [true; 3]);
        assert_eq!(fs::read_link(fixture.bin().join("k8s-proxy")).unwrap(), fixture.program);
    }

    #[test]
    fn replaces_links_of_an_earlier_installation() {
        let fixture = Fixture::new();
        fs::create_dir_all(fixture.bin()).unwrap();
        symlink("/old/place/tailpod", fixture.bin().join("containerboot")).unwrap();
        assert_eq!(fixture.install(false).unwrap(), [true; 3]);
    }

    #[test]
    fn never_replaces_a_directory() {
        let fixture = Fixture::new();
        fs::create_dir_all(fixture.bin().join("run.sh")).unwrap();
        assert!(fixture.install(true).is_err());
    }

    #[test]
    fn beside_the_program_links_are_relative() {
        let fixture = Fixture::new();
        let opt = fixture.program.parent().unwrap();
        let links = install(opt, &fixture.program, false).unwrap();
        assert!(links.iter().all(|link| link.target == Path::new("tailpod")));
    }
}

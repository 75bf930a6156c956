//! The name the program was called as -> the arguments it means. Pure.
//!
//! `containerboot` and `run.sh` are `tailpod boot` under upstream's contract: they take no arguments, so whatever is
//! there is set aside, to be warned about once, and never an error. Any other link is its applet with the same
//! arguments. Names match exactly.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::settings::Persona;

/// The name of the program.
pub const NAME: &str = "tailpod";

/// Every name besides `tailpod` that the binary answers to, with the applet it means.
pub const LINKS: [(&str, &str); 3] = [("containerboot", "boot"), ("run.sh", "boot"), ("k8s-proxy", "proxy")];

/// The links that mean `applet`.
pub fn links_to(applet: &str) -> impl Iterator<Item = &'static str> {
    LINKS.into_iter().filter(move |(_, target)| *target == applet).map(|(link, _)| link)
}

/// What was called, in the one parser's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// What the parser gets, beginning with the program's name.
    pub args: Vec<OsString>,
    /// Which contract applies.
    pub persona: Persona,
    /// The link it was called as, if it was one.
    pub link: Option<&'static str>,
    /// How many arguments were set aside because this name takes none.
    pub ignored: usize,
}

impl Invocation {
    /// Rewrites `argv`.
    pub fn of(argv: impl IntoIterator<Item = OsString>) -> Self {
        let mut argv = argv.into_iter();
        let program = argv.next().unwrap_or_default();
        let called = Path::new(&program).file_name();
        let link = LINKS.into_iter().find(|(link, _)| called == Some(OsStr::new(link)));
        let mut args = vec![OsString::from(NAME)];
        args.extend(link.map(|(_, applet)| applet.into()));
        if let Some((_, "boot")) = link {
            return Self {
                args,
                persona: Persona::Containerboot,
                link: link.map(|(link, _)| link),
                ignored: argv.count(),
            };
        }
        args.extend(argv);
        Self { args, persona: Persona::Tailpod, link: link.map(|(link, _)| link), ignored: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(argv: &[&str]) -> (Vec<String>, Persona, usize) {
        let invocation = Invocation::of(argv.iter().map(OsString::from));
        let args = invocation.args.into_iter().map(|arg| arg.into_string().unwrap()).collect();
        (args, invocation.persona, invocation.ignored)
    }

    #[test]
    fn the_name_decides() {
        use Persona::{Containerboot, Tailpod};
        let cases: [(&[&str], &[&str], Persona, usize); 9] = [
            (&["tailpod", "boot", "--check"], &["tailpod", "boot", "--check"], Tailpod, 0),
            (&["/usr/bin/tailpod", "-q"], &["tailpod", "-q"], Tailpod, 0),
            (&["/usr/local/bin/containerboot"], &["tailpod", "boot"], Containerboot, 0),
            (&["containerboot", "--help", "x"], &["tailpod", "boot"], Containerboot, 2),
            (&["/tailscale/run.sh", ""], &["tailpod", "boot"], Containerboot, 1),
            (&["k8s-proxy", "--json"], &["tailpod", "proxy", "--json"], Tailpod, 0),
            (&["mycontainerboot", "--list"], &["tailpod", "--list"], Tailpod, 0),
            (&["containerboot.old"], &["tailpod"], Tailpod, 0),
            (&[], &["tailpod"], Tailpod, 0),
        ];
        for (argv, args, persona, ignored) in cases {
            let args = args.iter().map(ToString::to_string).collect();
            assert_eq!(of(argv), (args, persona, ignored), "{argv:?}");
        }
    }
}

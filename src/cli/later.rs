//! Arguments of a subcommand that are defined only when that subcommand is asked for.
//!
//! A definition is a table of strings for each argument, and the code that fills it in. A long-running applet would
//! keep both in the memory of its Pod, for all the applets that nobody asked for.

use clap::{ArgMatches, Args, Command, Error, FromArgMatches};

/// `T`, defined when the parser comes to it, or when help, man pages or completions want the whole tree
/// ([`Command::build`]).
#[derive(Debug, Default)]
pub struct Later<T>(pub T);

// === impl Later ===

impl<T: Args> Args for Later<T> {
    fn augment_args(command: Command) -> Command {
        command.defer(defined::<T>)
    }

    fn augment_args_for_update(command: Command) -> Command {
        command.defer(defined::<T>)
    }
}

/// What the list of subcommands says about it is what its own help says: arguments that are flattened bring an
/// introduction of their own with them. How it introduces itself at length stays, which `derive` would take away; and
/// so do the global flags at the end, which are there before it.
fn defined<T: Args>(command: Command) -> Command {
    let about = command.get_about().cloned().unwrap_or_default();
    let globals: Vec<_> = command.get_arguments().map(|global| global.get_id().clone()).collect();
    let command = T::augment_args(command).about(about);
    // What is changed is moved to the end.
    globals.iter().fold(command, |command, global| command.mut_arg(global, std::convert::identity))
}

impl<T: FromArgMatches> FromArgMatches for Later<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        T::from_arg_matches(matches).map(Self)
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, Error> {
        T::from_arg_matches_mut(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }
}

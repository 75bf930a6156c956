//! Names of Secrets in completion scripts: the one thing that only a cluster knows. Pure.
//!
//! clap writes scripts from the definition alone. Where an argument is called `[NS/]NAME`, the scripts of the three
//! shells that people use at clusters ask `tailpod complete secrets`, with the flags typed so far that lead to a
//! cluster; it answers within 300 ms or says nothing.

use std::fmt::Write as _;

use clap::{Arg, Command};
use clap_complete::Shell;

/// How the values of arguments begin that name a Secret.
const VALUE: &str = "[NS/]NAME";

const BASH: &str = r#"_tailpod_secrets() {
    local i value flags=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "${COMP_WORDS[i]}" in
            -n|--namespace|--kubeconfig|--context)
                # Readline takes `=` for a word of its own.
                value=${COMP_WORDS[i + 1]}
                [[ $value == = ]] && value=${COMP_WORDS[i + 2]}
                flags+=("${COMP_WORDS[i]}" "${value/#\~\//$HOME/}")
                ;;
        esac
    done
    "${COMP_WORDS[0]}" complete secrets "${flags[@]}" 2>/dev/null
}

"#;

/// Of `words` zsh has taken away what stands before the subcommand; the line itself still has it.
const ZSH: &str = r#"_tailpod_secrets() {
    local i
    local -a typed flags names
    typed=("${(@Q)${(z)LBUFFER}}")
    for ((i = ${typed[(I)(*/|)tailpod]} + 1; i < ${#typed}; i++)); do
        case "${typed[i]}" in
            -n|--namespace|--kubeconfig|--context) flags+=("${typed[i]}" "${typed[i + 1]/#\~\//$HOME/}") ;;
            --namespace=*|--kubeconfig=*|--context=*) flags+=("${typed[i]/=\~\//=$HOME/}") ;;
        esac
    done
    names=("${(@f)$(_call_program secrets tailpod complete secrets "${(q)flags[@]}" 2>/dev/null)}")
    compadd -a names || _files
}

"#;

const FISH: &str = r#"
function __fish_tailpod_secrets
    set -l words (commandline -opc)
    set -l flags
    for i in (seq 2 (count $words))
        if contains -- $words[$i] -n --namespace --kubeconfig --context
            set -a flags $words[$i] (string replace -r '^~/' "$HOME/" -- $words[(math $i + 1)])
        else if string match -qr -- '^--(namespace|kubeconfig|context)=' $words[$i]
            set -a flags (string replace '=~/' "=$HOME/" -- $words[$i])
        end
    end
    tailpod complete secrets $flags 2>/dev/null
end
"#;

/// `script`, which clap made for `definition`, with the names of Secrets. Other shells' scripts stay as they are.
pub(super) fn added(shell: Shell, script: &str, definition: &Command) -> String {
    let mut places = Vec::new();
    find(definition, &[], &mut places);
    match shell {
        Shell::Bash => bash(script, &places),
        Shell::Zsh => zsh(script, &places),
        Shell::Fish => fish(script, &places),
        _ => script.to_owned(),
    }
}

/// A positional argument that names a Secret.
struct Place {
    /// The words that lead to its command, without the program's name.
    words: Vec<String>,
    /// The argument's id.
    id: String,
    /// The argument's help.
    help: String,
}

fn find(command: &Command, words: &[String], places: &mut Vec<Place>) {
    let names_a_secret = |arg: &&Arg| {
        arg.is_positional()
            && arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.starts_with(VALUE)))
    };
    for arg in command.get_arguments().filter(names_a_secret) {
        places.push(Place {
            words: words.to_vec(),
            id: arg.get_id().to_string(),
            help: arg.get_help().map(ToString::to_string).unwrap_or_default(),
        });
    }
    for below in command.get_subcommands() {
        find(below, &[words, &[below.get_name().to_owned()]].concat(), places);
    }
}

fn bash(script: &str, places: &[Place]) -> String {
    const FILES: &str = "--secret)\n                    COMPREPLY=($(compgen -f \"${cur}\"))";
    const NAMES: &str =
        "--secret)\n                    COMPREPLY=($(compgen -W \"$(_tailpod_secrets)\" -- \"${cur}\"))";
    let mut script = script.replace(FILES, NAMES);
    for place in places {
        let label = format!("\n        tailpod__subcmd__{})\n            opts=\"", place.words.join("__subcmd__"));
        // Flags are known without a cluster.
        let asks = format!("{label}$([[ ${{cur}} == -* || ${{prev}} == -* ]] || _tailpod_secrets) ");
        if !script.contains(&asks) {
            script = script.replace(&label, &asks);
        }
    }
    format!("{BASH}{script}")
}

fn zsh(script: &str, places: &[Place]) -> String {
    let mut script = script.replace(&format!(":{VALUE}:_default'"), &format!(":{VALUE}:_tailpod_secrets'"));
    for Place { id, help, .. } in places {
        let argument = format!(":{id} -- {help}");
        script = script.replace(&format!("{argument}:_default'"), &format!("{argument}:_tailpod_secrets'"));
    }
    script.replacen("_tailpod() {", &format!("{ZSH}_tailpod() {{"), 1)
}

fn fish(script: &str, places: &[Place]) -> String {
    let mut text = String::new();
    for line in script.lines() {
        text.push_str(line);
        if line.contains(" -l secret -d ") && line.ends_with(" -r") {
            text.push_str(" -f -a \"(__fish_tailpod_secrets)\"");
        }
        text.push('\n');
    }
    text.push_str(FISH);
    for place in places {
        let mut words = place.words.iter();
        let applet = words.next().map_or("", String::as_str);
        let mut when = format!("__fish_tailpod_using_subcommand {applet}");
        for word in words {
            // Writing to a String cannot fail.
            let _ = write!(when, "; and __fish_seen_subcommand_from {word}");
        }
        let line = format!("complete -c tailpod -n \"{when}\" -a \"(__fish_tailpod_secrets)\"\n");
        if !text.contains(&line) {
            text.push_str(&line);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::definition;

    fn script(shell: Shell) -> String {
        let mut bytes = Vec::new();
        clap_complete::generate(shell, &mut definition(), "tailpod", &mut bytes);
        added(shell, &String::from_utf8(bytes).unwrap(), &definition())
    }

    #[test]
    fn every_place_that_takes_a_secret_asks_for_names() {
        let bash = script(Shell::Bash);
        assert!(!bash.contains("--secret)\n                    COMPREPLY=($(compgen -f"));
        assert_eq!(bash.matches("|| _tailpod_secrets) ").count(), 4, "inspect, diff, watch, repair");
        let zsh = script(Shell::Zsh);
        assert!(!zsh.contains(":[NS/]NAME:_default'"));
        let positional =
            zsh.lines().filter(|line| line.contains(" -- ") && line.contains(":_tailpod_secrets'")).count();
        assert_eq!(positional, 5, "diff has two");
        let fish = script(Shell::Fish);
        assert_eq!(fish.matches(" -a \"(__fish_tailpod_secrets)\"\n").count(), 4 + fish.matches(" -l secret ").count());
    }
}

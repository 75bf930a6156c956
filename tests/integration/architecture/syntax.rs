//! Just enough Rust syntax to find the paths that code names: comments, strings, words, `use` trees.
//!
//! Not a parser: it may see a path where there is none, in odd macros, but misses none that is written out.

/// A path such as `crate::cli::output`, with the line it is on.
pub(super) struct Used {
    pub(super) path: Vec<String>,
    pub(super) line: usize,
    pub(super) is_macro: bool,
}

/// Every path in the code outside tests, `use` trees spelled out.
pub(super) fn paths(text: &str) -> Vec<Used> {
    let tokens = tokens(&without_tests(&code_only(text)));
    let mut used = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].0 == "use" {
            at = use_tree(&tokens, at + 1, &[], &mut used);
            continue;
        }
        let (path, next) = path_at(&tokens, at);
        if path.is_empty() {
            at += 1;
            continue;
        }
        let is_macro = tokens.get(next).is_some_and(|token| token.0 == "!")
            && tokens.get(next + 1).is_some_and(|token| ["(", "[", "{"].contains(&token.0.as_str()));
        // A lone word is a path only as a macro.
        if path.len() > 1 || is_macro {
            used.push(Used { path, line: tokens[at].1, is_macro });
        }
        at = next;
    }
    used
}

/// The text with comments, strings and character literals blanked out; lines stay where they are.
fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    let starts = |at: usize, with: &str| with.chars().enumerate().all(|(i, char)| chars.get(at + i) == Some(&char));
    while at < chars.len() {
        let end = if starts(at, "//") {
            (at..chars.len()).find(|&i| chars[i] == '\n').unwrap_or(chars.len())
        } else if starts(at, "/*") {
            (at + 2..chars.len()).find(|&i| starts(i, "*/")).map_or(chars.len(), |i| i + 2)
        } else if let Some(end) = raw_string(&chars, at) {
            end
        } else if chars[at] == '"' {
            quoted(&chars, at, '"')
        } else if chars[at] == '\'' && (chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\'')) {
            quoted(&chars, at, '\'')
        } else {
            code.push(chars[at]);
            at += 1;
            continue;
        };
        code.extend(chars[at..end].iter().map(|&char| if char == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    code
}

fn raw_string(chars: &[char], at: usize) -> Option<usize> {
    let word_before = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    if chars[at] != 'r' || word_before && chars[at - 1] != 'b' {
        return None;
    }
    let hashes = chars[at + 1..].iter().take_while(|&&char| char == '#').count();
    let open = at + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let closes = |i: usize| chars[i] == '"' && (1..=hashes).all(|n| chars.get(i + n) == Some(&'#'));
    Some((open + 1..chars.len()).find(|&i| closes(i)).map_or(chars.len(), |i| i + 1 + hashes))
}

fn quoted(chars: &[char], at: usize, quote: char) -> usize {
    let mut end = at + 1;
    while end < chars.len() && chars[end] != quote {
        end += if chars[end] == '\\' { 2 } else { 1 };
    }
    (end + 1).min(chars.len())
}

/// The code with the items under `#[cfg(test)]` blanked out.
fn without_tests(code: &str) -> String {
    let mut kept = code.to_owned();
    while let Some(start) = kept.find("#[cfg(test)]") {
        let mut depth = 0_usize;
        let item = kept[start..].char_indices().find_map(|(at, char)| {
            match char {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            let ends = depth == 0 && (char == '}' || char == ';');
            ends.then_some(at + 1)
        });
        let end = item.map_or(kept.len(), |length| start + length);
        let blank: String = kept[start..end].chars().map(|char| if char == '\n' { '\n' } else { ' ' }).collect();
        kept.replace_range(start..end, &blank);
    }
    kept
}

/// Words, `::`, and single characters, with their lines.
fn tokens(code: &str) -> Vec<(String, usize)> {
    let mut tokens: Vec<(String, usize)> = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let is_word = |char: char| char.is_alphanumeric() || char == '_';
            let length = if is_word(first) {
                rest.find(|char| !is_word(char)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            tokens.push((rest[..length].to_owned(), index + 1));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

fn is_word(token: &(String, usize)) -> bool {
    token.0.starts_with(|char: char| char.is_alphabetic() || char == '_')
}

/// The path that starts at `at`, and where it ends.
fn path_at(tokens: &[(String, usize)], mut at: usize) -> (Vec<String>, usize) {
    let mut path = Vec::new();
    while let Some(token) = tokens.get(at).filter(|token| is_word(token)) {
        path.push(token.0.clone());
        at += 1;
        let goes_on = tokens.get(at).is_some_and(|token| token.0 == "::") && tokens.get(at + 1).is_some_and(is_word);
        if !goes_on {
            break;
        }
        at += 1;
    }
    (path, at)
}

/// Adds the leaves of the `use` tree at `at`, and returns where it ends.
fn use_tree(tokens: &[(String, usize)], mut at: usize, prefix: &[String], used: &mut Vec<Used>) -> usize {
    if tokens.get(at).is_some_and(|token| token.0 == "::") {
        at += 1;
    }
    let line = tokens.get(at).map_or(0, |token| token.1);
    let (path, next) = path_at(tokens, at);
    at = next;
    let full: Vec<String> =
        prefix.iter().cloned().chain(path.into_iter().filter(|word| prefix.is_empty() || word != "self")).collect();
    let opens =
        tokens.get(at).is_some_and(|token| token.0 == "::") && tokens.get(at + 1).is_some_and(|token| token.0 == "{");
    if !opens && tokens.get(at).is_none_or(|token| token.0 != "{") {
        used.push(Used { path: full, line, is_macro: false });
        while tokens.get(at).is_some_and(|token| ![",", ";", "}"].contains(&token.0.as_str())) {
            at += 1;
        }
        return at;
    }
    at += if opens { 2 } else { 1 };
    while tokens.get(at).is_some_and(|token| token.0 != "}") {
        at = use_tree(tokens, at, &full, used);
        if tokens.get(at).is_some_and(|token| token.0 == ",") {
            at += 1;
        }
    }
    at + 1
}

//! Pieces of text drawn at random: what the grammars of both languages are made of, and mutations of whole scripts.

use gift_host::seed::Stream;

/// Words of either language that make sense in few places.
const KEYWORDS: &[&str] = &[
    "while", "for", "do", "end", "then", "if", "else", "elseif", "repeat", "until", "function", "return", "break",
    "continue", "local", "and", "or", "not", "in", "fn", "let", "const", "loop", "throw", "try", "catch", "import",
    "export", "as", "switch", "private", "==", "..", "+=", "#", "...", "**", "<<", "??", "?.", "||", ".",
];

/// Draws one of the items.
pub(super) fn pick<'a>(stream: &mut Stream, items: &[&'a str]) -> &'a str {
    items[stream.index(items.len())]
}

/// True once in `times`.
pub(super) fn once_in(stream: &mut Stream, times: usize) -> bool {
    stream.index(times) == 0
}

/// Fills each `$E` (expression), `$N` (number), `$V` (variable), `$S` (statement) of a form from a grammar.
pub(super) fn fill(form: &str, mut part: impl FnMut(char) -> String) -> String {
    let mut text = String::with_capacity(form.len() + 32);
    let mut rest = form;
    while let Some(at) = rest.find('$') {
        text.push_str(&rest[..at]);
        let mut letters = rest[at + 1..].chars();
        text.push_str(&part(letters.next().unwrap_or('E')));
        rest = letters.as_str();
    }
    text + rest
}

/// The text as tokens: words, numbers, quoted strings, white space, single signs.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut letters = text.chars().peekable();
    while let Some(first) = letters.next() {
        let mut token = String::from(first);
        let same: fn(char) -> bool = match first {
            'a'..='z' | 'A'..='Z' | '_' | '0'..='9' => |c| c.is_ascii_alphanumeric() || c == '_',
            ' ' | '\n' | '\t' => |c| c == ' ' || c == '\n' || c == '\t',
            _ => |_| false,
        };
        if first == '"' || first == '\'' {
            while let Some(next) = letters.next_if(|&c| c != '\n') {
                token.push(next);
                if next == first {
                    break;
                }
            }
        } else {
            while let Some(next) = letters.next_if(|&c| same(c)) {
                token.push(next);
            }
        }
        tokens.push(token);
    }
    tokens
}

/// A script with one to five random changes: tokens taken away, doubled, swapped or replaced, lines of itself or of
/// `others` moved in, and pieces of `grammar` put where a line begins.
pub(super) fn mutate(
    stream: &mut Stream,
    text: &str,
    others: &[String],
    words: &[&str],
    grammar: &mut dyn FnMut(&mut Stream) -> String,
) -> String {
    let mut tokens = tokens(text);
    let most = 1 + stream.index(4);
    for _ in 0..=stream.index(most) {
        if tokens.len() < 2 {
            break;
        }
        let (at, other) = (stream.index(tokens.len()), stream.index(tokens.len()));
        match stream.index(9) {
            0 => drop(tokens.remove(at)),
            1 => tokens.insert(at, tokens[other].clone()),
            2 => tokens.swap(at, other),
            3 => {
                let other = tokens[other].clone();
                tokens[at] = other;
            }
            4 | 5 => {
                // The next word or number, since most tokens are white space or signs.
                let word = |token: &String| token.starts_with(|c: char| c.is_ascii_alphanumeric());
                let at = (at..tokens.len()).find(|&at| word(&tokens[at])).unwrap_or(at);
                // Mostly a name for a name and a value for a value: a keyword seldom leaves anything that parses.
                let is_like = |word: &&str| {
                    word.starts_with(|c: char| c.is_ascii_digit())
                        == tokens[at].starts_with(|c: char| c.is_ascii_digit())
                };
                let alike: Vec<&str> = words.iter().copied().filter(is_like).collect();
                if once_in(stream, 8) || !KEYWORDS.contains(&&*tokens[at]) {
                    let from = if once_in(stream, 4) { words } else { &alike };
                    let word = pick(stream, from);
                    if once_in(stream, 4) || !KEYWORDS.contains(&word) {
                        word.clone_into(&mut tokens[at]);
                    }
                }
            }
            6 => {
                let donor: Vec<&str> = others[stream.index(others.len())].lines().collect();
                let line = donor[stream.index(donor.len())];
                tokens.insert(line_start(&tokens, at), format!("\n{line}\n"));
            }
            7 => {
                let end = (at + stream.index(12)).min(tokens.len());
                tokens.drain(at..end);
            }
            _ => {
                let piece = grammar(stream);
                tokens.insert(line_start(&tokens, at), format!("\n{piece}\n"));
            }
        }
    }
    tokens.concat()
}

/// The first place from `at` on that follows a line's end.
fn line_start(tokens: &[String], at: usize) -> usize {
    (at..tokens.len()).find(|&at| tokens[at].contains('\n')).unwrap_or(at)
}

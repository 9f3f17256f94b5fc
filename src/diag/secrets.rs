//! Takes secrets out of texts before anyone reads them: what variables such as `HF_TOKEN` hold, passwords and keys in addresses,
//! and what looks like a key. Pure: the environment is handed in.

use std::borrow::Cow;

/// What stands in a secret's place.
const HIDDEN: &str = "[secret]";
/// Shorter values are words that stand in texts by chance.
const MIN_VALUE_CHARS: usize = 6;
/// Ends of the names of variables that hold secrets.
const NAMES: [&str; 6] = ["TOKEN", "_KEY", "SECRET", "PASSWORD", "PASSWD", "CREDENTIALS"];
/// Names of parameters of an address that hold secrets.
const PARAMETERS: [&str; 9] =
    ["key", "api_key", "apikey", "api-key", "token", "access_token", "secret", "password", "signature"];
/// How keys of Hugging Face and `OpenAI` begin, and how long the rest is at least.
const PREFIXES: [&str; 2] = ["hf_", "sk-"];
const MIN_REST: usize = 16;

/// The secrets of a process.
#[derive(Clone, Default)]
pub struct Secrets {
    /// Longest first, so that one that holds another is found whole.
    values: Vec<String>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({} values)", self.values.len())
    }
}

impl Secrets {
    /// The values of those variables whose names say that they are secret.
    pub fn of(variables: impl Iterator<Item = (String, String)>) -> Self {
        let is_secret = |name: &str| NAMES.iter().any(|end| name.to_ascii_uppercase().ends_with(end));
        let mut values: Vec<String> = variables
            .filter(|(name, value)| is_secret(name) && value.trim().chars().count() >= MIN_VALUE_CHARS)
            .map(|(_, value)| value.trim().to_owned())
            .collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self { values }
    }

    /// The text with every secret replaced.
    pub fn hide<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut hidden = Cow::Borrowed(text);
        for value in &self.values {
            if hidden.contains(value.as_str()) {
                hidden = Cow::Owned(hidden.replace(value.as_str(), HIDDEN));
            }
        }
        if hidden.contains("://") {
            hidden = Cow::Owned(hide_in_addresses(&hidden));
        }
        if PREFIXES.iter().any(|prefix| hidden.contains(prefix)) {
            hidden = Cow::Owned(hide_keys(&hidden));
        }
        hidden
    }
}

/// Whether an address ends before this character.
fn ends_address(c: char) -> bool {
    c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '<' | '>' | '`' | '\\')
}

/// Hides `user:password` before a host, and the values of parameters that are named like secrets.
fn hide_in_addresses(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let (address, next) = after.split_at(after.find(ends_address).unwrap_or(after.len()));
        let (authority, path) = address.split_at(address.find(['/', '?', '#']).unwrap_or(address.len()));
        match authority.rsplit_once('@') {
            Some((_, host)) => out.extend([HIDDEN, "@", host]),
            None => out.push_str(authority),
        }
        for (index, part) in path.split_inclusive(['?', '&', '#', ';']).enumerate() {
            let is_secret = |name: &str| index > 0 && PARAMETERS.contains(&name.to_ascii_lowercase().as_str());
            match part.split_once('=') {
                Some((name, value)) if is_secret(name) => {
                    let end = value.chars().last().filter(|c| ['?', '&', '#', ';'].contains(c));
                    out.extend([name, "=", HIDDEN]);
                    out.extend(end);
                }
                _ => out.push_str(part),
            }
        }
        rest = next;
    }
    out.push_str(rest);
    out
}

/// Hides words that begin as keys do and are as long.
fn hide_keys(text: &str) -> String {
    let in_key = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(in_key) {
        let (before, word) = rest.split_at(start);
        let (word, next) = word.split_at(word.find(|c| !in_key(c)).unwrap_or(word.len()));
        let is_key = PREFIXES.iter().any(|prefix| word.starts_with(prefix) && word.len() >= prefix.len() + MIN_REST);
        out.extend([before, if is_key { HIDDEN } else { word }]);
        rest = next;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        let variables = [
            ("HF_TOKEN", "hf_abc"),
            ("OPENAI_API_KEY", " topsecret-1 "),
            ("my_password", "topsecret-1-longer"),
            ("PATH", "/usr/bin"),
            ("SHORT_TOKEN", "ab"),
        ];
        Secrets::of(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())))
    }

    #[test]
    fn values_of_secret_variables_are_hidden() {
        let secrets = secrets();
        assert_eq!(
            secrets.hide("ab /usr/bin hf_abc topsecret-1-longer,topsecret-1"),
            "ab /usr/bin [secret] [secret],[secret]"
        );
        assert!(matches!(secrets.hide("nothing of that kind"), Cow::Borrowed(_)));
        assert_eq!(format!("{secrets:?}"), "Secrets(3 values)");
    }

    #[test]
    fn addresses_keep_all_but_their_secrets() {
        let none = Secrets::default();
        for (text, expected) in [
            ("openai:https://me:pw@host:80/v1#model", "openai:https://[secret]@host:80/v1#model"),
            ("at `https://a@b@host`, see", "at `https://[secret]@host`, see"),
            (
                "http://h/v1?model=x&api_key=zzz&n=1#key=2 and",
                "http://h/v1?model=x&api_key=[secret]&n=1#key=[secret] and",
            ),
            ("http://h/key=1/a?Token=", "http://h/key=1/a?Token=[secret]"),
            ("{\"u\":\"http://u:p@h\\n\"}", "{\"u\":\"http://[secret]@h\\n\"}"),
            ("http://www.w3.org/2000/svg me@home", "http://www.w3.org/2000/svg me@home"),
            ("hf:// x://", "hf:// x://"),
        ] {
            assert_eq!(none.hide(text), expected);
        }
    }

    #[test]
    fn what_looks_like_a_key_is_hidden() {
        let none = Secrets::default();
        assert_eq!(none.hide("Bearer sk-proj-0123456789abcdef."), "Bearer [secret].");
        assert_eq!(none.hide("(hf_AbCdEfGhIjKlMnOp)"), "([secret])");
        assert_eq!(none.hide("task-0123456789abcdef0 hf_hub sk-1 é"), "task-0123456789abcdef0 hf_hub sk-1 é");
    }
}

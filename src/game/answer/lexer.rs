//! Cuts a text into tokens, with LaTeX and plain spellings brought to one form: `\le`, `<=` and `≤` are the symbol
//! `≤`, sizes and spacing are gone, `\text{…}` is a word. Knows no grammar; braces stay as they are.

/// A token and whether space stood before it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) is_spaced: bool,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Digits, perhaps with a decimal point and `e` with an exponent or `(36)` that repeats; no separators
    Number(String),
    /// A run of letters as typed
    Letters(String),
    /// The text of `\text{…}` and its like
    Word(String),
    /// A LaTeX command with a meaning of its own, without the backslash
    Command(String),
    /// An operator, bracket or separator; `⦃` and `⦄` are the braces of a set, `↵` a new matrix row
    Symbol(char),
}

/// Tokens of a text and what was taken out of it.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    pub(super) list: Vec<Token>,
    /// A dollar sign stood for the currency
    pub(super) has_currency: bool,
}

/// Nesting of `\text{…}` that is read as mathematics; deeper is refused.
const MAX_TEXT_NESTING: usize = 4;

/// The tokens of `text`, or none if it has a character that no answer in mathematics has.
///
/// With `joins_thousands`, `1,234` outside brackets is one number; `1{,}234` and `1,\!234` always are.
pub(super) fn tokens(text: &str, joins_thousands: bool) -> Option<Tokens> {
    let mut lexer = Lexer { joins_thousands, ..Lexer::default() };
    lexer.read(text, 0)?;
    // Delimiters of a formula come in pairs.
    lexer.tokens.has_currency |= !lexer.dollars.is_multiple_of(2);
    while matches!(lexer.tokens.list.last(), Some(Token { kind: Kind::Symbol('.'), .. })) {
        lexer.tokens.list.pop();
    }
    let has_point = lexer.tokens.list.iter().any(|token| token.kind == Kind::Symbol('.'));
    (!has_point).then_some(lexer.tokens)
}

#[derive(Default)]
struct Lexer {
    joins_thousands: bool,
    tokens: Tokens,
    is_spaced: bool,
    dollars: usize,
    brackets: usize,
}

impl Lexer {
    fn push(&mut self, kind: Kind) {
        let is_spaced = std::mem::take(&mut self.is_spaced);
        self.tokens.list.push(Token { kind, is_spaced });
    }

    fn symbol(&mut self, symbol: char) {
        match symbol {
            '(' | '[' | '⦃' => self.brackets += 1,
            ')' | ']' | '⦄' => self.brackets = self.brackets.saturating_sub(1),
            _ => {}
        }
        self.push(Kind::Symbol(symbol));
    }

    fn read(&mut self, text: &str, nesting: usize) -> Option<()> {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            rest = if first == '\\' {
                self.command(&rest[1..], nesting)?
            } else if first.is_ascii_digit()
                || first == '.' && rest[1..].starts_with(|next: char| next.is_ascii_digit())
            {
                self.number(rest)
            } else if first.is_ascii_alphabetic() {
                let (run, rest) = split_letters(rest);
                self.push(Kind::Letters(run.to_owned()));
                rest
            } else {
                self.character(rest, first)?
            };
        }
        Some(())
    }

    fn number<'a>(&mut self, text: &'a str) -> &'a str {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let mut end = digits(text);
        let mut value = text[..end].to_owned();
        if (1..=3).contains(&end) && value != "0" {
            while let Some((group, length)) = self.thousands(&text[end..]) {
                value.push_str(group);
                end += length;
            }
        }
        let fraction = text[end..].strip_prefix('.').map_or(0, digits);
        if fraction > 0 {
            value.push_str(&text[end..=end + fraction]);
            end += 1 + fraction;
        }
        if let Some((period, length)) = repeating(&text[end..], fraction > 0) {
            value.push_str(if fraction > 0 { "(" } else { ".(" });
            value.push_str(period);
            value.push(')');
            self.push(Kind::Number(value));
            return &text[end + length..];
        }
        if let Some(exponent) = text[end..].strip_prefix(['e', 'E']) {
            let sign = usize::from(exponent.starts_with(['+', '-']));
            let length = digits(&exponent[sign..]);
            if length > 0 {
                value.push('e');
                value.push_str(&exponent[..sign + length]);
                end += 1 + sign + length;
            }
        }
        self.push(Kind::Number(value));
        &text[end..]
    }

    /// The three digits after a thousands separator at the start of `text`, and the length of both.
    fn thousands<'a>(&self, text: &'a str) -> Option<(&'a str, usize)> {
        let certain = ["{,}", ",\\!", "\\,", "{,}\\!"];
        let plain = (self.joins_thousands && self.brackets == 0).then_some(",");
        certain.into_iter().chain(plain).find_map(|separator| {
            let after = text.strip_prefix(separator)?;
            let count = after.bytes().take_while(u8::is_ascii_digit).count();
            (count == 3).then(|| (&after[..3], separator.len() + 3))
        })
    }

    fn character<'a>(&mut self, text: &'a str, first: char) -> Option<&'a str> {
        let pairs = [("**", '^'), ("<=", '≤'), (">=", '≥'), ("!=", '≠'), ("==", '=')];
        if let Some((pair, symbol)) = pairs.into_iter().find(|(pair, _)| text.starts_with(pair)) {
            self.symbol(symbol);
            return Some(&text[pair.len()..]);
        }
        match first {
            _ if first.is_whitespace() => self.is_spaced = true,
            '~' => self.is_spaced = true,
            '$' => self.dollars += 1,
            '"' | '“' | '”' => {}
            '+' | '-' | '*' | '/' | '^' | '_' | ',' | ';' | ':' | '=' | '<' | '>' | '!' | '|' | '%' | '(' | ')'
            | '[' | ']' | '{' | '}' | '&' | '.' | '≤' | '≥' | '≠' | '±' | '∓' | '°' | '∪' | '∩' | '∈' | '∞' | '⌊'
            | '⌋' | '⌈' | '⌉' => self.symbol(first),
            '−' | '–' => self.symbol('-'),
            '×' | '·' | '⋅' | '∙' => self.symbol('*'),
            '÷' => self.symbol('/'),
            '≈' => self.symbol('='),
            '√' => self.push(Kind::Command("sqrt".to_owned())),
            'π' => self.push(Kind::Command("pi".to_owned())),
            'θ' => self.push(Kind::Command("theta".to_owned())),
            '∅' => self.push(Kind::Command("emptyset".to_owned())),
            'ℝ' => self.push(Kind::Command("mathbbR".to_owned())),
            '²' | '³' => {
                self.symbol('^');
                let digit = if first == '²' { "2" } else { "3" };
                self.push(Kind::Number(digit.to_owned()));
            }
            _ if first.is_alphabetic() => self.push(Kind::Letters(first.to_string())),
            _ => return None,
        }
        Some(&text[first.len_utf8()..])
    }

    /// Reads what follows a backslash.
    fn command<'a>(&mut self, text: &'a str, nesting: usize) -> Option<&'a str> {
        let (name, rest) = split_letters(text);
        if name.is_empty() {
            let escaped = text.chars().next()?;
            match escaped {
                '{' => self.symbol('⦃'),
                '}' => self.symbol('⦄'),
                '|' => self.symbol('|'),
                '%' => self.symbol('%'),
                '$' => self.tokens.has_currency = true,
                '\\' => self.symbol('↵'),
                // Fine spaces, the delimiters of a formula, and characters without a meaning here.
                '!' | ',' | '(' | ')' | '[' | ']' | '&' | '#' | '_' => {}
                ' ' | ';' | ':' | '\n' => self.is_spaced = true,
                _ => return None,
            }
            return Some(&text[escaped.len_utf8()..]);
        }
        if let Some(symbol) = symbol_of(name) {
            self.symbol(symbol);
            return Some(rest);
        }
        match name {
            "left" | "right" | "big" | "Big" | "bigl" | "bigr" | "Bigl" | "Bigr" | "bigg" | "Bigg" | "displaystyle"
            | "textstyle" | "boxed" | "fbox" | "limits" | "mathstrut" => {
                // `\left.` is an invisible bracket
                return Some(rest.strip_prefix('.').filter(|_| name.len() > 3).unwrap_or(rest));
            }
            "quad" | "qquad" | "space" => self.is_spaced = true,
            "text" | "textbf" | "textit" | "textrm" | "textnormal" | "mbox" | "hbox" | "mathrm" | "mathbf"
            | "mathit" | "mathsf" | "operatorname" => {
                let Some((content, rest)) = braced(rest) else { return Some(rest) };
                self.text(content, nesting)?;
                return Some(rest);
            }
            "mathbb" | "mathcal" => {
                let (content, rest) = braced(rest).unwrap_or_else(|| split_letters(rest.trim_start()));
                self.push(Kind::Command(format!("mathbb{}", content.trim())));
                return Some(rest);
            }
            "begin" | "end" => {
                let (content, mut rest) = braced(rest)?;
                if name == "begin" && content == "array" {
                    (_, rest) = braced(rest)?; // the alignment of the columns
                }
                self.push(Kind::Command(format!("{name}:{content}")));
                return Some(rest);
            }
            "dfrac" | "tfrac" | "cfrac" => self.push(Kind::Command("frac".to_owned())),
            "dbinom" | "tbinom" => self.push(Kind::Command("binom".to_owned())),
            "varnothing" => self.push(Kind::Command("emptyset".to_owned())),
            _ => self.push(Kind::Command(name.to_owned())),
        }
        Some(rest)
    }

    /// Reads the content of `\text{…}`: words as a word, anything else as the mathematics that it is.
    fn text(&mut self, content: &str, nesting: usize) -> Option<()> {
        let trimmed = content.trim();
        let is_letters = !trimmed.is_empty() && trimmed.chars().all(char::is_alphabetic);
        let longest = trimmed.split(|c: char| !c.is_alphabetic()).map(str::len).max().unwrap_or(0);
        self.is_spaced |= content.len() > trimmed.len();
        let starts_with_digit = trimmed.starts_with(|first: char| first.is_ascii_digit());
        if is_letters || !starts_with_digit && longest > 1 && !trimmed.contains('\\') {
            self.push(Kind::Word(trimmed.to_owned()));
        } else {
            if nesting >= MAX_TEXT_NESTING {
                return None;
            }
            self.read(trimmed, nesting + 1)?;
        }
        self.is_spaced |= content.ends_with(char::is_whitespace);
        Some(())
    }
}

/// The digits under the bar of `.\overline{36}` at the start of `text`, and the length of it all.
fn repeating(text: &str, has_point: bool) -> Option<(&str, usize)> {
    let mark = if has_point { "\\overline{" } else { ".\\overline{" };
    let after = text.strip_prefix(mark)?;
    let count = after.bytes().take_while(u8::is_ascii_digit).count();
    (count > 0 && after[count..].starts_with('}')).then(|| (&after[..count], mark.len() + count + 1))
}

fn split_letters(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_alphabetic).count())
}

/// The content of the brace group at the start of `text`, and what follows it.
fn braced(text: &str) -> Option<(&str, &str)> {
    let inner = text.trim_start().strip_prefix('{')?;
    let mut depth = 1_usize;
    for (position, byte) in inner.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((&inner[..position], &inner[position + 1..]));
        }
    }
    None
}

fn symbol_of(name: &str) -> Option<char> {
    Some(match name {
        "cdot" | "times" | "ast" => '*',
        "div" => '/',
        "pm" => '±',
        "mp" => '∓',
        "le" | "leq" | "leqslant" => '≤',
        "ge" | "geq" | "geqslant" => '≥',
        "lt" => '<',
        "gt" => '>',
        "ne" | "neq" => '≠',
        "approx" => '=',
        "cup" => '∪',
        "cap" => '∩',
        "in" => '∈',
        "infty" => '∞',
        "circ" | "degree" => '°',
        "lbrace" => '⦃',
        "rbrace" => '⦄',
        "vert" | "lvert" | "rvert" => '|',
        "lfloor" => '⌊',
        "rfloor" => '⌋',
        "lceil" => '⌈',
        "rceil" => '⌉',
        "colon" => ':',
        _ => return None,
    })
}

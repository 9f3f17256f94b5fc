//! The tightest rules of the grammar: numbers and mixed numbers, brackets of all kinds, commands and functions.

use num_rational::BigRational;

use super::{Expression, Function, Kind, Parser, Token, exact, single_or};

impl Parser {
    /// A number, a letter, a bracket or a command with its arguments.
    pub(super) fn atom(&mut self) -> Option<Expression> {
        let kind = self.peek()?.clone();
        self.position += 1;
        match kind {
            Kind::Number(text) => self.number(&text),
            Kind::Letters(letter) => Some(match letter.as_str() {
                "e" => Expression::Euler,
                "i" => Expression::Imaginary,
                _ => Expression::Variable(letter),
            }),
            Kind::Word(text) => Some(Expression::Word(text.to_lowercase())),
            Kind::Command(name) => self.command(&name),
            Kind::Symbol(symbol) => self.bracket(symbol),
        }
    }

    /// A number, with the fraction after it if the two make a mixed number (`3\frac12`, `3 1/2`).
    fn number(&mut self, text: &str) -> Option<Expression> {
        let value = exact::decimal(text)?;
        let is_whole = text.bytes().all(|byte| byte.is_ascii_digit());
        if is_whole && let Some((fraction, length)) = self.fraction_ahead() {
            self.position += length;
            return Some(Expression::Number(value + fraction));
        }
        Some(Expression::Number(value))
    }

    /// A proper fraction of plain numbers at this place and its length in tokens. Looks without parsing, so that
    /// nested fractions are not read twice.
    fn fraction_ahead(&self) -> Option<(BigRational, usize)> {
        let rest = self.tokens.get(self.position..)?;
        let digits = |index: usize| match rest.get(index) {
            Some(Token { kind: Kind::Number(text), .. }) => Some(text.as_str()),
            _ => None,
        };
        let is = |index: usize, symbol: char| matches!(rest.get(index), Some(Token { kind: Kind::Symbol(found), .. }) if *found == symbol);
        let (numerator, denominator, length) = match rest.first()? {
            Token { kind: Kind::Command(name), .. } if name == "frac" => {
                if is(1, '{') && is(3, '}') && is(4, '{') && is(6, '}') {
                    (digits(2)?, digits(5)?, 7)
                } else {
                    let both = digits(1).filter(|both| both.len() == 2 && both.is_ascii())?;
                    (&both[..1], &both[1..], 2)
                }
            }
            Token { kind: Kind::Number(numerator), is_spaced: true } if is(1, '/') => {
                (numerator.as_str(), digits(2)?, 3)
            }
            _ => return None,
        };
        let whole = |text: &str| text.parse::<u32>().ok();
        let (numerator, denominator) = (whole(numerator)?, whole(denominator)?);
        (numerator < denominator).then(|| (BigRational::new(numerator.into(), denominator.into()), length))
    }

    fn bracket(&mut self, open: char) -> Option<Expression> {
        let call = |function, inner| Some(Expression::Call(function, Box::new(inner)));
        match open {
            '∞' => Some(Expression::Infinity),
            '|' => {
                let inner = self.sum()?;
                if self.accept('|') { call(Function::Absolute, inner) } else { None }
            }
            '⌊' => {
                let inner = self.sum()?;
                if self.accept('⌋') { call(Function::Floor, inner) } else { None }
            }
            '⌈' => {
                let inner = self.sum()?;
                if self.accept('⌉') { call(Function::Ceiling, inner) } else { None }
            }
            '⦃' if self.accept('⦄') => Some(Expression::Set(Vec::new())),
            '(' | '[' | '{' | '⦃' => {
                let items = match self.list()? {
                    Expression::List(items) => items,
                    only => vec![only],
                };
                let close = self.accept_any(")]}⦄")?;
                match (open, close) {
                    ('(', ')') | ('[', ']') if items.len() == 1 => items.into_iter().next(),
                    ('(' | '[', ')' | ']') => Some(Expression::Bracketed { open, close, items }),
                    ('{', '}') => Some(single_or(items, Expression::Set)),
                    ('⦃', '⦄') => Some(Expression::Set(items)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn command(&mut self, name: &str) -> Option<Expression> {
        if let Some(function) = Function::named(name) {
            return self.call(function);
        }
        match name {
            "pi" => Some(Expression::Pi),
            "emptyset" => Some(Expression::Set(Vec::new())),
            "mathbbR" => {
                let infinity = Box::new(Expression::Infinity);
                let items = vec![Expression::Negative(infinity), Expression::Infinity];
                Some(Expression::Bracketed { open: '(', close: ')', items })
            }
            "frac" => {
                let numerator = self.argument()?;
                let denominator = self.argument()?;
                Some(Expression::quotient(numerator, denominator))
            }
            "binom" => {
                let upper = self.argument()?;
                let lower = self.argument()?;
                Some(Expression::Binomial(Box::new(upper), Box::new(lower)))
            }
            "sqrt" => {
                let mut index = Expression::whole(2);
                if self.accept('[') {
                    index = self.nested(Self::sum)?;
                    if !self.accept(']') {
                        return None;
                    }
                }
                // A whole number even without braces: nobody means `\sqrt{1}3` by `\sqrt13`.
                let radicand = self.nested(Self::atom)?;
                Some(Expression::Root(Box::new(radicand), Box::new(index)))
            }
            "log" => {
                let mut base = Expression::whole(10);
                if self.accept('_') {
                    base = self.argument()?;
                }
                let argument = self.function_argument()?;
                Some(Expression::Logarithm(Box::new(argument), Box::new(base)))
            }
            _ => match name.strip_prefix("begin:") {
                Some(environment) if environment == "array" || environment.ends_with("matrix") => self.matrix(),
                Some(_) => None,
                // Greek letters and any other name stand for themselves.
                None if name.starts_with("end:") => None,
                None => Some(Expression::Variable(format!("\\{name}"))),
            },
        }
    }

    fn call(&mut self, function: Function) -> Option<Expression> {
        let exponent = if self.accept('^') { Some(self.nested(Self::exponent)?) } else { None };
        let argument = Box::new(self.function_argument()?);
        let is_inverse = exponent == Some(Expression::whole(-1));
        match (exponent, function.inverse()) {
            (Some(_), Some(inverse)) if is_inverse => Some(Expression::Call(inverse, argument)),
            (Some(exponent), _) => Some(Expression::power(Expression::Call(function, argument), exponent)),
            (None, _) => Some(Expression::Call(function, argument)),
        }
    }

    /// What a function without brackets takes: a product by juxtaposition, up to the next function (`\sin 2x\cos x`).
    fn function_argument(&mut self) -> Option<Expression> {
        if matches!(self.symbol(), Some('(' | '{' | '|')) {
            return self.nested(Self::atom);
        }
        let mut factors = vec![(self.power()?, false)];
        while self.starts_factor() && self.symbol().is_none() && !self.is_at_function() {
            factors.push((self.power()?, false));
        }
        match factors.pop() {
            Some((only, _)) if factors.is_empty() => Some(only),
            last => Some(Expression::Product(factors.into_iter().chain(last).collect())),
        }
    }

    fn is_at_function(&self) -> bool {
        matches!(self.peek(), Some(Kind::Command(name)) if Function::named(name).is_some() || name == "log")
    }

    /// A brace group, or as in TeX the next single digit, letter or command (`\frac12`).
    fn argument(&mut self) -> Option<Expression> {
        let single_digit = match self.tokens.get_mut(self.position)? {
            Token { kind: Kind::Number(text), .. } if text.len() > 1 && text.is_ascii() => {
                let rest = text.split_off(1);
                Some(std::mem::replace(text, rest))
            }
            _ => None,
        };
        match single_digit {
            Some(digit) => exact::decimal(&digit).map(Expression::Number),
            None => self.nested(Self::plain_atom),
        }
    }

    /// An atom in which a number stands alone, not as part of a mixed number.
    fn plain_atom(&mut self) -> Option<Expression> {
        if let Some(Kind::Number(text)) = self.peek() {
            let value = exact::decimal(text);
            self.position += 1;
            return value.map(Expression::Number);
        }
        self.atom()
    }

    fn matrix(&mut self) -> Option<Expression> {
        let mut rows = vec![Vec::new()];
        loop {
            if let Some(Kind::Command(name)) = self.peek()
                && name.starts_with("end:")
            {
                self.position += 1;
                break;
            }
            let is_inside_row = rows.last().is_some_and(|row| !row.is_empty());
            if is_inside_row && self.accept_any("&↵")? == '↵' {
                rows.push(Vec::new());
                continue;
            }
            let cell = self.nested(Self::sum)?;
            rows.last_mut()?.push(cell);
        }
        rows.retain(|row| !row.is_empty());
        (!rows.is_empty()).then_some(Expression::Matrix(rows))
    }
}

//! Turns tokens into an [`Expression`] by recursive descent. Reads what people and models write, not what TeX would
//! typeset: `x^10` is the tenth power, `3\frac12` a mixed number, `2x10^3` a product. Refuses (gives none) what it does
//! not know rather than guess, and the text is then compared as text.
//!
//! From loose to tight: list `,`, relation `= <`, union `∪`, sum, product (also by juxtaposition, same strength as `/`),
//! sign, power, atom.

use super::exact;
use super::expression::{Expression, Function};
use super::lexer::{Kind, Token};

mod atom; // numbers, brackets, commands

/// Deepest nesting of brackets, signs and exponents; each level takes some ten stack frames.
const MAX_DEPTH: usize = 40;

/// Most marks on one atom (`x_1^2!`): each nests the tree one deeper, although none recurses here.
const MAX_MARKS: usize = 4;

/// Shortest run of letters that is a word; shorter ones are products of variables (`xyz`).
const MIN_WORD_LETTERS: usize = 4;

/// The meaning of a whole text, or none if it is not mathematics that this grammar knows.
pub(super) fn parse(tokens: &[Token]) -> Option<Expression> {
    let mut parser = Parser { tokens: split_letters(tokens)?, position: 0, depth: 0 };
    let value = parser.list()?;
    (parser.position == parser.tokens.len()).then_some(value)
}

/// Known names become commands, other runs of letters single letters; none if a run is a word.
fn split_letters(tokens: &[Token]) -> Option<Vec<Token>> {
    let mut split: Vec<Token> = Vec::with_capacity(tokens.len());
    for (index, token) in tokens.iter().enumerate() {
        let is_spaced = token.is_spaced;
        let (Kind::Letters(run) | Kind::Word(run)) = &token.kind else {
            split.push(token.clone());
            continue;
        };
        let before_ten = matches!(tokens.get(index + 1), Some(Token { kind: Kind::Number(n), .. }) if n == "10");
        let after_number = matches!(split.last(), Some(Token { kind: Kind::Number(_), .. }));
        let is_word = matches!(token.kind, Kind::Word(_));
        let kind = match run.as_str() {
            "and" | "or" => Kind::Symbol(','),
            "x" | "X" if before_ten && after_number => Kind::Symbol('*'),
            "inf" | "infinity" | "Infinity" | "oo" => Kind::Symbol('∞'),
            "U" if after_bracket(&split) => Kind::Symbol('∪'),
            "percent" => Kind::Symbol('%'),
            "degrees" | "degree" => Kind::Symbol('°'),
            _ if Function::named(run).is_some()
                || matches!(run.as_str(), "sqrt" | "log" | "pi" | "theta" | "alpha" | "beta" | "frac") =>
            {
                Kind::Command(run.clone())
            }
            _ if is_word && run.chars().count() > 1 => Kind::Word(run.clone()),
            _ if run.len() >= MIN_WORD_LETTERS => return None,
            _ => {
                for letter in run.chars() {
                    split.push(Token { kind: Kind::Letters(letter.to_string()), is_spaced });
                }
                continue;
            }
        };
        split.push(Token { kind, is_spaced });
    }
    Some(split)
}

fn after_bracket(tokens: &[Token]) -> bool {
    matches!(tokens.last(), Some(Token { kind: Kind::Symbol(')' | ']'), .. }))
}

struct Parser {
    tokens: Vec<Token>,
    position: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Kind> {
        self.tokens.get(self.position).map(|token| &token.kind)
    }

    fn symbol(&self) -> Option<char> {
        match self.peek() {
            Some(Kind::Symbol(symbol)) => Some(*symbol),
            _ => None,
        }
    }

    fn accept(&mut self, symbol: char) -> bool {
        let is_next = self.symbol() == Some(symbol);
        self.position += usize::from(is_next);
        is_next
    }

    /// The next symbol if it is one of these.
    fn accept_any(&mut self, symbols: &str) -> Option<char> {
        let symbol = self.symbol().filter(|symbol| symbols.contains(*symbol))?;
        self.position += 1;
        Some(symbol)
    }

    /// Runs a rule one level deeper, or refuses.
    fn nested<T>(&mut self, rule: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if self.depth >= MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        let result = rule(self);
        self.depth -= 1;
        result
    }

    fn list(&mut self) -> Option<Expression> {
        let mut items = vec![self.relation()?];
        while self.accept_any(",;").is_some() {
            self.accept(','); // `1, 2, and 3`
            items.push(self.relation()?);
        }
        Some(single_or(items, Expression::List))
    }

    fn relation(&mut self) -> Option<Expression> {
        let mut sides = vec![self.joined()?];
        let mut operators = Vec::new();
        while let Some(operator) = self.accept_any("=<>≤≥≠∈") {
            operators.push(operator);
            sides.push(self.joined()?);
        }
        Some(single_or(sides, |sides| Expression::Relation { sides, operators }))
    }

    fn joined(&mut self) -> Option<Expression> {
        let mut items = vec![self.sum()?];
        let mut operator = '∪';
        while let Some(next) = self.accept_any("∪∩") {
            if items.len() > 1 && next != operator {
                return None;
            }
            operator = next;
            items.push(self.sum()?);
        }
        Some(single_or(items, |items| Expression::Joined { operator, items }))
    }

    fn sum(&mut self) -> Option<Expression> {
        let mut terms = vec![self.product()?];
        while let Some(operator) = self.accept_any("+-±∓") {
            let term = self.product()?;
            terms.push(signed(operator, term));
        }
        Some(single_or(terms, Expression::Sum))
    }

    fn product(&mut self) -> Option<Expression> {
        let mut factors = vec![(self.unary()?, false)];
        loop {
            if let Some(operator) = self.accept_any("*/:") {
                factors.push((self.unary()?, operator != '*'));
            } else if self.starts_factor() {
                // Two numbers side by side are no product; mixed numbers were read before.
                let is_number = matches!(self.peek(), Some(Kind::Number(_)));
                if is_number && matches!(factors.last(), Some((Expression::Number(_), _))) {
                    return None;
                }
                factors.push((self.power()?, false));
            } else {
                break;
            }
        }
        if factors.len() == 1 {
            return factors.pop().map(|(factor, _)| factor);
        }
        Some(Expression::Product(factors))
    }

    fn starts_factor(&self) -> bool {
        match self.peek() {
            Some(Kind::Number(_) | Kind::Letters(_)) => true,
            Some(Kind::Command(name)) => !name.starts_with("end:"),
            Some(Kind::Symbol(symbol)) => "({∞⌊⌈".contains(*symbol),
            _ => false,
        }
    }

    fn unary(&mut self) -> Option<Expression> {
        match self.accept_any("+-±∓") {
            Some(operator) => {
                let operand = self.nested(Self::unary)?;
                Some(signed(operator, operand))
            }
            None => self.power(),
        }
    }

    fn power(&mut self) -> Option<Expression> {
        let mut base = self.nested(Self::atom)?;
        for _ in 0..=MAX_MARKS {
            base = if self.accept('!') {
                Expression::Call(Function::Factorial, Box::new(base))
            } else if self.accept('%') {
                Expression::Percent(Box::new(base))
            } else if self.accept('°') {
                Expression::Degrees(Box::new(base))
            } else if self.accept('_') {
                self.subscripted(base)?
            } else if self.accept('^') {
                if self.accept_degree() {
                    Expression::Degrees(Box::new(base))
                } else {
                    let exponent = self.nested(Self::exponent)?;
                    Expression::power(base, exponent)
                }
            } else {
                return Some(base);
            };
        }
        None
    }

    fn accept_degree(&mut self) -> bool {
        let is_braced = self.symbol() == Some('{')
            && matches!(self.tokens.get(self.position + 1), Some(Token { kind: Kind::Symbol('°'), .. }))
            && matches!(self.tokens.get(self.position + 2), Some(Token { kind: Kind::Symbol('}'), .. }));
        self.position += if is_braced { 3 } else { 0 };
        is_braced || self.accept('°')
    }

    fn exponent(&mut self) -> Option<Expression> {
        match self.accept_any("+-") {
            Some(operator) => self.nested(Self::exponent).map(|value| signed(operator, value)),
            None => self.power(),
        }
    }

    fn subscripted(&mut self, base: Expression) -> Option<Expression> {
        let is_braced = self.accept('{') || self.accept('(');
        let subscript = match self.peek()? {
            Kind::Number(text) | Kind::Letters(text) => text.clone(),
            _ => return None,
        };
        self.position += 1;
        if is_braced && self.accept_any("})").is_none() {
            return None;
        }
        match base {
            Expression::Number(value) if value.is_integer() => {
                let base = subscript.parse().ok().filter(|base| (2..=36).contains(base))?;
                Some(Expression::Based { digits: value.to_string(), base })
            }
            Expression::Variable(name) => Some(Expression::Variable(format!("{name}_{subscript}"))),
            _ => None,
        }
    }
}

fn single_or(mut items: Vec<Expression>, many: impl FnOnce(Vec<Expression>) -> Expression) -> Expression {
    match items.pop() {
        Some(only) if items.is_empty() => only,
        Some(last) => {
            items.push(last);
            many(items)
        }
        None => many(items),
    }
}

fn signed(operator: char, operand: Expression) -> Expression {
    match operator {
        '-' => match operand {
            Expression::Number(value) => Expression::Number(-value),
            other => Expression::Negative(Box::new(other)),
        },
        '±' | '∓' => {
            let sign = Expression::Sign { is_opposite: operator == '∓' };
            Expression::Product(vec![(sign, false), (operand, false)])
        }
        _ => operand,
    }
}

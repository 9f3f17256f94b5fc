//! What a text means: the tree that the parser builds and the comparison reads. Holds no rules of its own.

use num_rational::BigRational;

/// A mathematical object. Sums and products are flat, so that the depth of a tree is that of the brackets in the text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    Number(BigRational),
    /// Digits in a base, `1011_2`
    Based {
        digits: String,
        base: u32,
    },
    Variable(String),
    /// Text inside mathematics, in lower case
    Word(String),
    Pi,
    Euler,
    Imaginary,
    Infinity,
    /// The sign of `\pm`, or of `\mp` if opposite: a factor of +1 in one solution and -1 in the other
    Sign {
        is_opposite: bool,
    },
    Negative(Box<Self>),
    Sum(Vec<Self>),
    /// Factors, each with whether it divides
    Product(Vec<(Self, bool)>),
    Power(Box<Self>, Box<Self>),
    /// Radicand and index
    Root(Box<Self>, Box<Self>),
    Call(Function, Box<Self>),
    /// Argument and base
    Logarithm(Box<Self>, Box<Self>),
    Binomial(Box<Self>, Box<Self>),
    Degrees(Box<Self>),
    Percent(Box<Self>),
    /// Items separated by commas, without brackets
    List(Vec<Self>),
    /// A tuple or an interval; the brackets tell
    Bracketed {
        open: char,
        close: char,
        items: Vec<Self>,
    },
    Set(Vec<Self>),
    /// Sets joined by `∪` or `∩`
    Joined {
        operator: char,
        items: Vec<Self>,
    },
    Matrix(Vec<Vec<Self>>),
    /// `a < x < b`: one operator fewer than sides
    Relation {
        sides: Vec<Self>,
        operators: Vec<char>,
    },
}

/// Functions of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Sine,
    Cosine,
    Tangent,
    Cotangent,
    Secant,
    Cosecant,
    Arcsine,
    Arccosine,
    Arctangent,
    HyperbolicSine,
    HyperbolicCosine,
    HyperbolicTangent,
    NaturalLogarithm,
    Exponential,
    Absolute,
    Floor,
    Ceiling,
    Factorial,
}

impl Function {
    /// The function of this name, if it is one.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "sin" => Self::Sine,
            "cos" => Self::Cosine,
            "tan" => Self::Tangent,
            "cot" => Self::Cotangent,
            "sec" => Self::Secant,
            "csc" => Self::Cosecant,
            "arcsin" | "asin" => Self::Arcsine,
            "arccos" | "acos" => Self::Arccosine,
            "arctan" | "atan" => Self::Arctangent,
            "sinh" => Self::HyperbolicSine,
            "cosh" => Self::HyperbolicCosine,
            "tanh" => Self::HyperbolicTangent,
            "ln" => Self::NaturalLogarithm,
            "exp" => Self::Exponential,
            "abs" => Self::Absolute,
            "floor" => Self::Floor,
            "ceil" => Self::Ceiling,
            _ => return None,
        })
    }

    /// The function that `f^{-1}` means.
    pub(super) fn inverse(self) -> Option<Self> {
        Some(match self {
            Self::Sine => Self::Arcsine,
            Self::Cosine => Self::Arccosine,
            Self::Tangent => Self::Arctangent,
            _ => return None,
        })
    }
}

impl Expression {
    pub(super) fn whole(value: i64) -> Self {
        Self::Number(BigRational::from_integer(value.into()))
    }

    pub(super) fn quotient(numerator: Self, denominator: Self) -> Self {
        Self::Product(vec![(numerator, false), (denominator, true)])
    }

    pub(super) fn power(base: Self, exponent: Self) -> Self {
        Self::Power(Box::new(base), Box::new(exponent))
    }

    /// The direct parts of this expression.
    pub(super) fn parts(&self) -> Vec<&Self> {
        match self {
            Self::Number(_)
            | Self::Based { .. }
            | Self::Variable(_)
            | Self::Word(_)
            | Self::Pi
            | Self::Euler
            | Self::Imaginary
            | Self::Infinity
            | Self::Sign { .. } => Vec::new(),
            Self::Negative(inner) | Self::Call(_, inner) | Self::Degrees(inner) | Self::Percent(inner) => {
                vec![inner.as_ref()]
            }
            Self::Power(a, b) | Self::Root(a, b) | Self::Logarithm(a, b) | Self::Binomial(a, b) => {
                vec![a.as_ref(), b.as_ref()]
            }
            Self::Product(factors) => factors.iter().map(|(factor, _)| factor).collect(),
            Self::Matrix(rows) => rows.iter().flatten().collect(),
            Self::Sum(items)
            | Self::List(items)
            | Self::Bracketed { items, .. }
            | Self::Set(items)
            | Self::Joined { items, .. }
            | Self::Relation { sides: items, .. } => items.iter().collect(),
        }
    }

    /// Whether this or any part of it satisfies the condition.
    pub(super) fn contains(&self, condition: &dyn Fn(&Self) -> bool) -> bool {
        condition(self) || self.parts().into_iter().any(|part| part.contains(condition))
    }

    /// Adds the names of all variables.
    pub(super) fn collect_variables(&self, names: &mut std::collections::BTreeSet<String>) {
        if let Self::Variable(name) = self {
            names.insert(name.clone());
        }
        for part in self.parts() {
            part.collect_variables(names);
        }
    }
}

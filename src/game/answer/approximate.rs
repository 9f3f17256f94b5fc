//! Values with roots, `\pi`, `e`, `i` or functions: complex doubles, each with a running bound on its rounding error,
//! so that `\sqrt2-\sqrt2` is zero and `e^{-30}` is not. Principal branches, except odd roots of negative numbers,
//! which are real.

use num_traits::ToPrimitive;

use super::exact::{self, Point};
use super::expression::{Expression, Function};

/// Relative difference up to which two approximate values are the same.
const RELATIVE_TOLERANCE: f64 = 1e-9;

/// Largest absolute difference that rounding may explain; keeps made-up cancellations from matching everything.
const MAX_ROUNDING: f64 = 1e-12;

/// Largest whole exponent that is multiplied out.
const MAX_EXPONENT: f64 = 4096.0;

/// A complex number and a bound on its absolute error.
#[derive(Debug, Clone, Copy)]
pub(super) struct Approximation {
    real: f64,
    imaginary: f64,
    error: f64,
}

impl Approximation {
    /// A value known up to the last bit of a double.
    pub(super) fn real(value: f64) -> Option<Self> {
        Self { real: value, imaginary: 0.0, error: f64::EPSILON * value.abs() }.finite()
    }

    fn finite(self) -> Option<Self> {
        let is_finite = self.real.is_finite() && self.imaginary.is_finite() && self.error.is_finite();
        is_finite.then_some(self)
    }

    fn is_whole(self) -> bool {
        self.imaginary == 0.0 && self.real.fract() == 0.0
    }

    fn modulus(self) -> f64 {
        self.real.hypot(self.imaginary)
    }

    /// The real value, if the imaginary part is rounding at most.
    fn as_real(self) -> Option<f64> {
        (self.imaginary.abs() <= self.error + MAX_ROUNDING).then_some(self.real)
    }

    /// Whether the values are the same up to [`RELATIVE_TOLERANCE`] or what rounding explains.
    pub(super) fn is_close(self, other: Self) -> bool {
        let distance = (self.real - other.real).hypot(self.imaginary - other.imaginary);
        distance <= RELATIVE_TOLERANCE * self.modulus().max(other.modulus())
            || distance <= (16.0 * (self.error + other.error)).min(MAX_ROUNDING)
    }

    /// Whether the value is zero up to what rounding explains.
    pub(super) fn is_zero(self) -> bool {
        self.modulus() <= (16.0 * self.error).min(MAX_ROUNDING)
    }

    /// The real part, for its sign.
    pub(super) fn real_part(self) -> f64 {
        self.real
    }

    pub(super) fn plus(self, other: Self) -> Option<Self> {
        let (real, imaginary) = (self.real + other.real, self.imaginary + other.imaginary);
        let error = self.error + other.error + f64::EPSILON * real.hypot(imaginary);
        Self { real, imaginary, error }.finite()
    }

    pub(super) fn negated(self) -> Self {
        Self { real: -self.real, imaginary: -self.imaginary, ..self }
    }

    pub(super) fn times(self, other: Self) -> Option<Self> {
        let real = self.real * other.real - self.imaginary * other.imaginary;
        let imaginary = self.real * other.imaginary + self.imaginary * other.real;
        let size = self.modulus() * other.modulus();
        let error = self.modulus() * other.error + other.modulus() * self.error + 4.0 * f64::EPSILON * size;
        Self { real, imaginary, error }.finite()
    }

    fn reciprocal(self) -> Option<Self> {
        let size = self.modulus();
        if size <= self.error {
            return None; // zero, as far as is known
        }
        // Scaled first, so that the square neither overflows nor vanishes.
        let (real, imaginary) = (self.real / size / size, -self.imaginary / size / size);
        let error = self.error / size / size + 4.0 * f64::EPSILON / size;
        Self { real, imaginary, error }.finite()
    }

    fn over(self, other: Self) -> Option<Self> {
        self.times(other.reciprocal()?)
    }

    fn exponential(self) -> Option<Self> {
        let size = self.real.exp();
        let (across, along) = self.imaginary.sin_cos();
        let error = size * (self.error + 4.0 * f64::EPSILON * (1.0 + self.modulus()));
        Self { real: size * along, imaginary: size * across, error }.finite()
    }

    fn logarithm(self) -> Option<Self> {
        let size = self.modulus();
        if size <= self.error {
            return None;
        }
        let (real, imaginary) = (size.ln(), self.imaginary.atan2(self.real));
        let error = self.error / size + 4.0 * f64::EPSILON * (1.0 + real.abs());
        Self { real, imaginary, error }.finite()
    }

    fn power(self, exponent: Self) -> Option<Self> {
        let whole = exponent.real;
        if exponent.is_whole() && whole.abs() <= MAX_EXPONENT {
            let mut left = whole.abs().to_u32()?;
            let (mut square, mut result) = (self, Self::real(1.0)?);
            while left > 0 {
                if left & 1 == 1 {
                    result = result.times(square)?;
                }
                left >>= 1;
                if left > 0 {
                    square = square.times(square)?;
                }
            }
            return if whole < 0.0 { result.reciprocal() } else { Some(result) };
        }
        if self.modulus() == 0.0 {
            return (exponent.real > 0.0).then_some(self);
        }
        self.logarithm()?.times(exponent)?.exponential()
    }

    fn root(self, index: Self) -> Option<Self> {
        let half = Self { real: index.real / 2.0, ..index };
        let is_odd = index.is_whole() && !half.is_whole();
        if self.imaginary == 0.0 && self.real < 0.0 && is_odd {
            return self.negated().root(index).map(Self::negated);
        }
        let is_square = index.is_whole() && (index.real - 2.0).abs() < f64::EPSILON;
        if self.imaginary == 0.0 && self.real >= 0.0 && is_square {
            let real = self.real.sqrt();
            let error = if real > 0.0 { self.error / real } else { self.error.sqrt() };
            return Self { real, imaginary: 0.0, error: error + f64::EPSILON * real }.finite();
        }
        self.power(index.reciprocal()?)
    }

    fn call(self, function: Function) -> Option<Self> {
        match function {
            Function::NaturalLogarithm => return self.logarithm(),
            Function::Exponential => return self.exponential(),
            Function::Absolute => {
                return Self { real: self.modulus(), imaginary: 0.0, error: self.error }.finite();
            }
            Function::Secant => return self.call(Function::Cosine)?.reciprocal(),
            Function::Cosecant => return self.call(Function::Sine)?.reciprocal(),
            Function::Cotangent => return self.call(Function::Tangent)?.reciprocal(),
            _ => {}
        }
        let argument = self.as_real()?;
        // The value and a bound on the slope, which carries the argument's error over.
        let (value, slope) = match function {
            Function::Sine => (argument.sin(), 1.0),
            Function::Cosine => (argument.cos(), 1.0),
            Function::Tangent => {
                let value = argument.tan();
                // At the poles a double gives some large number; the true value is none.
                (value.abs() < 1e12).then_some((value, 1.0 + value * value))?
            }
            Function::Arcsine => (argument.asin(), 1.0 / (1.0 - argument * argument).sqrt()),
            Function::Arccosine => (argument.acos(), 1.0 / (1.0 - argument * argument).sqrt()),
            Function::Arctangent => (argument.atan(), 1.0),
            Function::HyperbolicSine => (argument.sinh(), argument.cosh()),
            Function::HyperbolicCosine => (argument.cosh(), argument.cosh()),
            Function::HyperbolicTangent => (argument.tanh(), 1.0),
            _ => return None,
        };
        let slope = if slope.is_finite() { slope } else { 1.0 }; // arcsin 1
        let error = self.error * slope + 4.0 * f64::EPSILON * value.abs().max(f64::EPSILON);
        Self { real: value, imaginary: 0.0, error }.finite()
    }
}

/// The value of `expression` at `point` in doubles, or none if it has none or is no number.
pub(super) fn evaluate(expression: &Expression, point: &mut Point<'_>) -> Option<Approximation> {
    point.spend(1)?;
    match expression {
        Expression::Pi => Approximation::real(std::f64::consts::PI),
        Expression::Euler => Approximation::real(std::f64::consts::E),
        Expression::Imaginary => Some(Approximation { real: 0.0, imaginary: 1.0, error: 0.0 }),
        Expression::Negative(inner) => evaluate(inner, point).map(Approximation::negated),
        Expression::Degrees(inner) => evaluate(inner, point),
        Expression::Percent(inner) => evaluate(inner, point)?.over(Approximation::real(100.0)?),
        Expression::Sum(terms) => {
            let mut sum = Approximation::real(0.0)?;
            for term in terms {
                sum = sum.plus(evaluate(term, point)?)?;
            }
            Some(sum)
        }
        Expression::Product(factors) => {
            let mut product = Approximation::real(1.0)?;
            for (factor, divides) in factors {
                let factor = evaluate(factor, point)?;
                product = if *divides { product.over(factor)? } else { product.times(factor)? };
            }
            Some(product)
        }
        Expression::Power(base, exponent) if **base == Expression::Euler => evaluate(exponent, point)?.exponential(),
        Expression::Power(base, exponent) => {
            let exponent = evaluate(exponent, point)?;
            evaluate(base, point)?.power(exponent)
        }
        Expression::Root(radicand, index) => {
            let index = evaluate(index, point)?;
            evaluate(radicand, point)?.root(index)
        }
        Expression::Logarithm(argument, base) => {
            let base = evaluate(base, point)?.logarithm()?;
            evaluate(argument, point)?.logarithm()?.over(base)
        }
        Expression::Call(Function::Floor | Function::Ceiling | Function::Factorial, _)
        | Expression::Number(_)
        | Expression::Based { .. }
        | Expression::Variable(_)
        | Expression::Binomial(..) => Approximation::real(exact::evaluate(expression, point)?.to_f64()?),
        Expression::Call(function, argument) => {
            let value = evaluate(argument, point)?;
            let is_trigonometric = matches!(
                function,
                Function::Sine
                    | Function::Cosine
                    | Function::Tangent
                    | Function::Cotangent
                    | Function::Secant
                    | Function::Cosecant
            );
            if is_trigonometric && matches!(**argument, Expression::Degrees(_)) {
                let radian = Approximation::real(std::f64::consts::PI / 180.0)?;
                return value.times(radian)?.call(*function);
            }
            value.call(*function)
        }
        _ => None,
    }
}

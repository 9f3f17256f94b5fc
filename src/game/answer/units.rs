//! Recognises the unit at the end of an answer (`5 cm`, `12\pi\text{ square feet}`, `3 apples`). Converts nothing.

use super::expression::Function;
use super::lexer::{Kind, Token};

/// Longest unit in tokens; `\text{ cubic cm per second}` is one token, `kg m / s ^ 2` six.
const MAX_UNIT_TOKENS: usize = 10;

/// Splits a unit off the end of the tokens: where it starts, and its name if every word of it is a known unit.
pub(super) fn trailing_unit(tokens: &[Token]) -> Option<(usize, Option<String>)> {
    let earliest = tokens.len().saturating_sub(MAX_UNIT_TOKENS).max(1);
    let start = (earliest..tokens.len()).find(|&start| {
        let has_value = tokens[..start].iter().any(|token| match &token.kind {
            Kind::Number(_) => true,
            Kind::Command(name) => name == "pi" || name == "sqrt" || name == "frac",
            _ => false,
        });
        let follows_operand = match &tokens[start - 1].kind {
            Kind::Symbol(symbol) => ")]}⦄°!|".contains(*symbol),
            _ => true,
        };
        has_value && follows_operand && words(tokens, start).is_some()
    })?;
    Some((start, canonical(&words(tokens, start)?)))
}

/// The words and operators of the unit that `tokens[start..]` spells, if that is what they are.
fn words(tokens: &[Token], start: usize) -> Option<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    for (index, token) in tokens.iter().enumerate().skip(start) {
        let is_first = index == start;
        match &token.kind {
            Kind::Word(text) => {
                let spaced = text.replace('^', " ^ ").replace('/', " / ").replace(['.', '{', '}'], " ");
                for word in spaced.split_whitespace() {
                    if matches!(word, "and" | "or") {
                        return None;
                    }
                    found.push(word.to_owned());
                }
            }
            Kind::Letters(run) => {
                let is_word = token.is_spaced && run.len() >= 3 && !is_mathematical(run);
                let is_unit = run.len() >= 2 && known(run).is_some();
                let after_number =
                    matches!(tokens[index - 1].kind, Kind::Number(_) | Kind::Symbol('°' | '/') | Kind::Word(_))
                        || tokens[index - 1].kind == Kind::Letters("per".to_owned());
                let is_letter = run.len() == 1
                    && known(run).is_some()
                    && after_number
                    && (token.is_spaced || !matches!(tokens[index - 1].kind, Kind::Number(_)));
                let is_joint = !is_first && matches!(run.as_str(), "per" | "of" | "sq" | "cu");
                if !(is_word || is_unit || is_letter || is_joint) {
                    return None;
                }
                found.push(run.clone());
            }
            Kind::Symbol('^') if !is_first => found.push("^".to_owned()),
            Kind::Symbol('/' | '*') if !is_first => found.push("/".to_owned()),
            Kind::Symbol('{' | '}') if !is_first => {}
            Kind::Number(digit) if found.last().is_some_and(|last| last == "^") => {
                found.push(digit.clone());
            }
            _ => return None,
        }
    }
    let starts_and_ends = |word: Option<&String>| word.is_some_and(|word| word != "^" && word != "/");
    (starts_and_ends(found.first()) && starts_and_ends(found.last())).then_some(found)
}

/// Whether a run of letters means something in a formula, and so is no unit.
fn is_mathematical(run: &str) -> bool {
    Function::named(run).is_some()
        || matches!(run, "and" | "or" | "sqrt" | "log" | "pi" | "theta" | "inf" | "infinity" | "mod" | "frac")
}

/// The unit in one spelling, or none if a word of it is no known unit and so cannot be compared.
fn canonical(words: &[String]) -> Option<String> {
    let mut name = String::new();
    let mut power_of_next = "";
    for word in words {
        match word.as_str() {
            "square" | "sq" => power_of_next = "^2",
            "cubic" | "cu" => power_of_next = "^3",
            "per" | "/" => name.push('/'),
            "^" | "2" | "3" => name.push_str(word),
            "squared" => name.push_str("^2"),
            "cubed" => name.push_str("^3"),
            _ => {
                name.push_str(known(word)?);
                name.push_str(std::mem::take(&mut power_of_next));
            }
        }
    }
    // `square units` says nothing that could disagree.
    (!name.contains("unit")).then_some(name)
}

fn known(word: &str) -> Option<&'static str> {
    Some(match word {
        "mm" | "millimeter" | "millimeters" => "mm",
        "cm" | "centimeter" | "centimeters" | "centimetres" => "cm",
        "m" | "meter" | "meters" | "metre" | "metres" => "m",
        "km" | "kilometer" | "kilometers" | "kilometres" => "km",
        "in" | "inch" | "inches" => "in",
        "ft" | "foot" | "feet" => "ft",
        "yd" | "yard" | "yards" => "yd",
        "mi" | "mile" | "miles" => "mi",
        "mg" | "milligrams" => "mg",
        "g" | "gram" | "grams" => "g",
        "kg" | "kilogram" | "kilograms" => "kg",
        "lb" | "lbs" | "pound" | "pounds" => "lb",
        "oz" | "ounce" | "ounces" => "oz",
        "ton" | "tons" => "ton",
        "s" | "sec" | "second" | "seconds" => "s",
        "min" | "minute" | "minutes" => "min",
        "h" | "hr" | "hrs" | "hour" | "hours" => "h",
        "day" | "days" => "day",
        "week" | "weeks" => "week",
        "month" | "months" => "month",
        "yr" | "year" | "years" => "year",
        "L" | "liter" | "liters" | "litre" | "litres" => "l",
        "ml" | "mL" | "milliliters" => "ml",
        "mph" => "mi/h",
        "N" => "N",
        "J" => "J",
        "W" => "W",
        "F" => "F",
        "C" => "C",
        "dollar" | "dollars" | "USD" => "dollar",
        "cent" | "cents" => "cent",
        "deg" | "degree" | "degrees" => "degree",
        "rad" | "radian" | "radians" => "radian",
        "unit" | "units" => "unit",
        _ => return None,
    })
}

//! `gift.template`: fills `{name}` in a text.

use super::MAX_MADE_BYTES;
use crate::script::Value;

/// `gift.template(text, values)`: the text with each `{name}` replaced by the value of that name.
///
/// A name is letters, digits and `_`, not starting with a digit; other braces stay as they are, so JSON and LaTeX need no
/// escapes. `{{name}}` gives a literal `{name}`. A name without a value is an error: a prompt with a hole would train.
pub(super) fn template(arguments: &[Value]) -> Result<Value, String> {
    let (text, values) = match arguments {
        [text, values] => (text, values),
        [text] => (text, &Value::Nil),
        _ => return Err(format!("expected a text and its values, found {} arguments", arguments.len())),
    };
    let text = text.as_text().ok_or_else(|| format!("expected a string as text, found {}", text.described()))?;
    let mut filled = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        filled.push_str(&rest[..open]);
        rest = &rest[open..];
        let doubled = rest.starts_with("{{");
        let (start, close) = if doubled { (2, "}}") } else { (1, "}") };
        let name = name_at(&rest[start..]);
        if name.is_empty() || !rest[start + name.len()..].starts_with(close) {
            filled.push('{');
            rest = &rest[1..];
            continue;
        }
        if doubled {
            filled.push_str(&rest[1..=start + name.len()]);
        } else {
            if !matches!(values, Value::Nil | Value::Map(_)) && values.as_list().is_none_or(|list| !list.is_empty()) {
                return Err(format!("expected a table with a value for `{{{name}}}`, found {}", values.described()));
            }
            filled.push_str(&shown(name, values.get(name).unwrap_or(&Value::Nil))?);
            if filled.len() > MAX_MADE_BYTES {
                return Err("the filled text is too long".to_owned());
            }
        }
        rest = &rest[start + name.len() + close.len()..];
    }
    filled.push_str(rest);
    Ok(filled.into())
}

/// The name at the start of the text; empty if there is none.
fn name_at(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    if text.starts_with(|c: char| c.is_ascii_digit()) { "" } else { &text[..end] }
}

/// A value as a reader sees it: the same digits in both languages.
fn shown(name: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        Value::Int(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        Value::Nil => Err(format!("no value for `{{{name}}}`; write `{{{{{name}}}}}` if the braces are meant as text")),
        Value::List(_) | Value::Map(_) => Err(format!("`{{{name}}}` is {}; make it a string first", value.kind())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str) -> Result<String, String> {
        let values =
            Value::from([("a", Value::Int(3)), ("b", 2.5.into()), ("c", "x".into()), ("d", Value::List(vec![]))]);
        template(&[text.into(), values]).map(|value| value.as_text().unwrap_or_default().to_owned())
    }

    #[test]
    fn names_are_filled_and_other_braces_stay() {
        assert_eq!(fill("{a}-{b}-{c}{c}"), Ok("3-2.5-xx".to_owned()));
        assert_eq!(
            fill("{{a}} {\"k\": {a}} \\frac{1}{2} { a } {"),
            Ok("{a} {\"k\": 3} \\frac{1}{2} { a } {".to_owned())
        );
        assert_eq!(fill("ä{a}ö{{"), Ok("ä3ö{{".to_owned()));
    }

    #[test]
    fn a_name_without_a_printable_value_is_an_error() {
        assert!(fill("{missing}").is_err_and(|message| message.contains("`{missing}`")));
        assert!(fill("{d}").is_err());
    }
}

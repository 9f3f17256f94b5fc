//! `gift.mean`, `gift.all`, `gift.min`, `gift.product`: many results to one, as the reward of a nest needs it.
//!
//! Each takes one list or several arguments. An item is a number, a boolean (1 or 0), or a map with a field `reward`
//! (for `all`: `success`).

use crate::script::Value;

/// `gift.mean(list)`: the arithmetic mean.
pub(super) fn mean(arguments: &[Value]) -> Result<Value, String> {
    let numbers = numbers(arguments)?;
    Ok(number(numbers.iter().sum::<f64>() / numbers.len() as f64))
}

/// `gift.min(list)`: the smallest number.
pub(super) fn min(arguments: &[Value]) -> Result<Value, String> {
    Ok(number(numbers(arguments)?.into_iter().fold(f64::INFINITY, f64::min)))
}

/// `gift.product(list)`: the product.
pub(super) fn product(arguments: &[Value]) -> Result<Value, String> {
    Ok(number(numbers(arguments)?.into_iter().product()))
}

/// `gift.all(list)`: 1 if every item is a full success (`true`, a number from 1 upwards, a map whose `success` is so),
/// else 0. A number, since it serves as a reward.
pub(super) fn all(arguments: &[Value]) -> Result<Value, String> {
    let mut every = true;
    for (at, item) in items(arguments)?.iter().enumerate() {
        every &= match item.get("success").unwrap_or(item) {
            Value::Bool(truth) => *truth,
            Value::Int(number) => *number >= 1,
            Value::Float(number) => *number >= 1.0,
            other => {
                return Err(format!("expected a boolean or a number as item {}, found {}", at + 1, other.described()));
            }
        };
    }
    Ok(Value::Int(i64::from(every)))
}

/// The list that is the only argument, or the arguments themselves.
fn items(arguments: &[Value]) -> Result<&[Value], String> {
    let items = match arguments {
        [only] if only.as_list().is_some() => only.as_list().unwrap_or_default(),
        _ => arguments,
    };
    if items.is_empty() {
        Err("expected a list with at least one item, found an empty one".to_owned())
    } else {
        Ok(items)
    }
}

fn numbers(arguments: &[Value]) -> Result<Vec<f64>, String> {
    let number = |(at, item): (usize, &Value)| match item.get("reward").unwrap_or(item) {
        Value::Bool(truth) => Ok(f64::from(u8::from(*truth))),
        other => other
            .as_number()
            .ok_or_else(|| format!("expected a number as item {}, found {}", at + 1, other.described())),
    };
    items(arguments)?.iter().enumerate().map(number).collect()
}

/// A float in both languages: a mean of integers must not become an integer in one of them.
fn number(value: f64) -> Value {
    Value::Float(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aggregates_take_numbers_booleans_and_results() {
        let result = |reward: f64, success: bool| Value::from([("reward", reward.into()), ("success", success.into())]);
        let list = [Value::List(vec![result(1.0, true), result(0.5, true), true.into()])];
        assert_eq!(mean(&list), Ok(Value::Float(2.5 / 3.0)));
        assert_eq!(min(&list), Ok(Value::Float(0.5)));
        assert_eq!(product(&list), Ok(Value::Float(0.5)));
        assert_eq!(all(&list), Ok(Value::Int(1)));
        assert_eq!(all(&[1.0.into(), 0.5.into()]), Ok(Value::Int(0)));
    }

    #[test]
    fn nothing_and_text_are_refused() {
        assert!(mean(&[]).is_err());
        assert!(mean(&[Value::List(vec![])]).is_err());
        let found = mean(&[1_i64.into(), "two".into()]);
        assert_eq!(found, Err("expected a number as item 2, found the string \"two\"".to_owned()));
    }
}

//! `gift.json.encode` and `gift.json.decode`.

use crate::script::Value;

/// `gift.json.encode(value)`: the value as one line of JSON, keys sorted; numbers that are not finite become null.
pub(super) fn encode(arguments: &[Value]) -> Result<Value, String> {
    Ok(super::one(arguments)?.to_json().to_string().into())
}

/// `gift.json.decode(text)`: the value that the text stands for; null becomes nil (Rhai: `()`).
pub(super) fn decode(arguments: &[Value]) -> Result<Value, String> {
    let value = super::one(arguments)?;
    let text = value.as_text().ok_or_else(|| format!("expected a string, found {}", value.described()))?;
    let json = serde_json::from_str(text).map_err(|cause| format!("not JSON: {cause}"))?;
    Ok(Value::from_json(&json))
}

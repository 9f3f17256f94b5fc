//! Plain data that crosses the border between host and script: what a game's state is made of. Not a value of any
//! virtual machine.

use std::collections::BTreeMap;

/// Plain data: what a state, an action list or an outcome is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// Nothing.
    #[default]
    Nil,
    /// A truth value.
    Bool(bool),
    /// An integer. A Lua number without a fraction is one.
    Int(i64),
    /// A number with a fraction, or any Rhai float.
    Float(f64),
    /// UTF-8 text.
    Text(String),
    /// A list. An empty Lua table is an empty list; an empty Rhai map stays a map.
    List(Vec<Self>),
    /// A map from text to data, sorted.
    Map(BTreeMap<String, Self>),
}

impl Value {
    /// The value as text, if it is text.
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The value as a number, if it is one.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// The value as an integer, if it is one or a float without a fraction.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(*number as i64),
            _ => None,
        }
    }

    /// The value as a truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(truth) = self { Some(*truth) } else { None }
    }

    /// The items, if it is a list (an empty map counts as an empty list: Lua cannot tell them apart).
    pub fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            Self::Map(map) if map.is_empty() => Some(&[]),
            _ => None,
        }
    }

    /// The field of a map.
    pub fn get(&self, key: &str) -> Option<&Self> {
        if let Self::Map(map) = self { map.get(key) } else { None }
    }

    /// The kind of value, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }

    /// The value as messages show it, on one line: as JSON, but numbers that are not finite by their names.
    pub fn shown(&self) -> String {
        let joined = |parts: Vec<String>| parts.join(",");
        match self {
            Self::Nil => "nil".to_owned(),
            Self::Float(number) if !number.is_finite() => number.to_string(),
            Self::List(items) => format!("[{}]", joined(items.iter().map(Self::shown).collect())),
            Self::Map(fields) => {
                let field = |(name, field): (&String, &Self)| {
                    format!("{}:{}", Self::from(name.as_str()).shown(), field.shown())
                };
                format!("{{{}}}", joined(fields.iter().map(field).collect()))
            }
            plain => plain.to_json().to_string(),
        }
    }

    /// What was found where something else was expected: a number or a short text itself, of all else the kind.
    pub fn described(&self) -> String {
        /// Characters of a text that are shown.
        const MAX_SHOWN: usize = 40;
        match self {
            Self::Bool(_) | Self::Int(_) | Self::Float(_) => self.shown(),
            Self::Text(text) if text.chars().count() <= MAX_SHOWN => format!("the string {text:?}"),
            other => other.kind().to_owned(),
        }
    }

    /// The value as JSON. Not-finite numbers become null.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Nil => serde_json::Value::Null,
            Self::Bool(truth) => (*truth).into(),
            Self::Int(number) => (*number).into(),
            Self::Float(number) => (*number).into(),
            Self::Text(text) => text.as_str().into(),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
            Self::Map(map) => serde_json::Value::Object(map.iter().map(|(k, v)| (k.clone(), v.to_json())).collect()),
        }
    }

    /// The value that a JSON document stands for.
    pub fn from_json(json: &serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Nil,
            serde_json::Value::Bool(truth) => Self::Bool(*truth),
            serde_json::Value::Number(number) => {
                number.as_i64().map_or_else(|| Self::Float(number.as_f64().unwrap_or(f64::NAN)), Self::Int)
            }
            serde_json::Value::String(text) => Self::Text(text.clone()),
            serde_json::Value::Array(items) => Self::List(items.iter().map(Self::from_json).collect()),
            serde_json::Value::Object(map) => {
                Self::Map(map.iter().map(|(k, v)| (k.clone(), Self::from_json(v))).collect())
            }
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}
impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}
impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}
impl<T: Into<Self>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}
impl<K: Into<String>, const N: usize> From<[(K, Self); N]> for Value {
    fn from(fields: [(K, Self); N]) -> Self {
        Self::Map(fields.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }
}

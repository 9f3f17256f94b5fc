//! The figures of one step, and their form as one JSON object. Names are given their meaning in [`super::names`].

use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::names::{STEP, is_timing};

/// The value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricValue {
    /// A count.
    Count(u64),
    /// A number; not a number where there was nothing to average.
    Number(f64),
    /// A text, such as a script's version.
    Text(String),
}

/// The metrics of one step by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    step: u64,
    values: BTreeMap<String, MetricValue>,
}

impl Record {
    /// A step without figures.
    pub fn new(step: u64) -> Self {
        Self { step, values: BTreeMap::new() }
    }

    /// The step.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Adds a figure, or replaces it. The step itself cannot be replaced: the name `step` is ignored.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<MetricValue>) -> &mut Self {
        let name = name.into();
        if name != STEP {
            self.values.insert(name, value.into());
        }
        self
    }

    /// A figure.
    pub fn get(&self, name: &str) -> Option<&MetricValue> {
        self.values.get(name)
    }

    /// A figure that is a count or a number.
    pub fn number(&self, name: &str) -> Option<f64> {
        match self.get(name)? {
            MetricValue::Count(count) => Some(*count as f64),
            MetricValue::Number(number) => Some(*number),
            MetricValue::Text(_) => None,
        }
    }

    /// All figures, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &MetricValue)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The record without the figures that differ from one run of a seed to the next ([`is_timing`]).
    #[must_use]
    pub fn without_timings(mut self) -> Self {
        self.values.retain(|name, _| !is_timing(name));
        self
    }

    /// One line of JSON without its end: `step` first, then by name, numbers in the shortest form that reads back to
    /// the same bits, `null` for numbers that are not finite.
    pub fn to_json(&self) -> String {
        // Maps of strings, numbers and strings always serialize.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The record of a line; `null` reads as not a number.
    ///
    /// # Errors
    /// What the line is instead.
    pub fn from_json(line: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let Value::Object(fields) = value else { return Err("another kind of value".to_owned()) };
        let step = fields.get(STEP).and_then(Value::as_u64).ok_or("no whole number as `step`")?;
        let mut record = Self::new(step);
        for (name, value) in fields {
            let value = match value {
                Value::Null => MetricValue::Number(f64::NAN),
                Value::String(text) => MetricValue::Text(text),
                Value::Number(number) => match number.as_u64() {
                    Some(count) => MetricValue::Count(count),
                    None => MetricValue::Number(number.as_f64().unwrap_or(f64::NAN)),
                },
                Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                    return Err(format!("a value of `{name}` that is neither number nor text"));
                }
            };
            record.set(name, value);
        }
        Ok(record)
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.values.len() + 1))?;
        map.serialize_entry(STEP, &self.step)?;
        for (name, value) in &self.values {
            match value {
                MetricValue::Count(count) => map.serialize_entry(name, count)?,
                // serde_json writes null for numbers that are not finite.
                MetricValue::Number(number) => map.serialize_entry(name, number)?,
                MetricValue::Text(text) => map.serialize_entry(name, text)?,
            }
        }
        map.end()
    }
}

impl From<f64> for MetricValue {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<u64> for MetricValue {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<usize> for MetricValue {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<String> for MetricValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for MetricValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::num::f64::{NORMAL, SUBNORMAL, ZERO};

    use super::*;

    #[test]
    fn a_line_has_the_step_first_and_the_rest_by_name() {
        let mut record = Record::new(3);
        record.set("time/rollout_s", 0.1).set("groups/kept", 4_usize).set("scripts/nim", "3f9c1a2");
        record.set("loss", -1.0).set("entropy", f64::NAN).set("ratio_max", f64::INFINITY).set("step", 9_u64);
        let line = concat!(
            r#"{"step":3,"entropy":null,"groups/kept":4,"loss":-1.0,"#,
            r#""ratio_max":null,"scripts/nim":"3f9c1a2","time/rollout_s":0.1}"#,
        );
        assert_eq!(record.to_json(), line);
        let read = Record::from_json(line).unwrap();
        assert_eq!(read.to_json(), line);
        assert_eq!((read.step(), read.number("loss"), read.number("scripts/nim")), (3, Some(-1.0), None));
        assert!(read.number("entropy").unwrap().is_nan());
        assert!(read.without_timings().get("time/rollout_s").is_none());
    }

    #[test]
    fn lines_of_another_kind_are_refused() {
        for line in ["", "[]", "{}", r#"{"step":-1}"#, r#"{"step":1,"loss":[]}"#, r#"{"step":1"#] {
            assert!(Record::from_json(line).is_err(), "{line}");
        }
    }

    proptest::proptest! {
        /// Needs serde_json's `float_roundtrip`: without it some numbers read back one bit off, and so would the
        /// running means of a checkpoint.
        #[test]
        fn numbers_read_back_to_the_same_bits(number in NORMAL | SUBNORMAL | ZERO) {
            let mut record = Record::new(1);
            record.set("loss", number);
            let read = Record::from_json(&record.to_json()).unwrap();
            proptest::prop_assert_eq!(read.number("loss").unwrap().to_bits(), number.to_bits());
        }
    }
}

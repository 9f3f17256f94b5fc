//! A value that goes from call to call: a game's state. Kept in a compact form that virtual machines read and write
//! without building a [`Value`], which is made when somebody looks at it. Part of the border; not a value of any machine.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use super::Value;

/// Plain data that is handed from call to call. Cheap to clone; never changes; looks like the [`Value`] that it stands for.
#[derive(Clone)]
pub struct State(Arc<Form>);

/// Equal for clones of one state; to be compared without looking at the state.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity(*const ());

struct Form {
    /// What the state was made of; `None` if it was made from a value.
    parts: Option<Parts>,
    value: OnceLock<Value>,
}

struct Parts {
    shape: Arc<Shape>,
    cells: Box<[Cell]>,
    /// Of all cells.
    text_bytes: usize,
}

impl State {
    /// The state of this shape and these cells, which hold so many bytes of text.
    pub(super) fn from_cells(shape: Arc<Shape>, cells: Box<[Cell]>, text_bytes: usize) -> Self {
        Self(Arc::new(Form { parts: Some(Parts { shape, cells, text_bytes }), value: OnceLock::new() }))
    }

    /// What the state was made of, if not of a value.
    pub(super) fn parts(&self) -> Option<(&Arc<Shape>, &[Cell])> {
        self.0.parts.as_ref().map(|parts| (&parts.shape, &*parts.cells))
    }

    /// The text in all cells, in bytes.
    pub(super) fn text_bytes(&self) -> usize {
        self.0.parts.as_ref().map_or(0, |parts| parts.text_bytes)
    }

    /// The value.
    pub fn value(&self) -> &Value {
        let build = || self.parts().map(|(shape, cells)| shape.value(cells)).unwrap_or_default();
        self.0.value.get_or_init(build)
    }

    /// The value in a canonical form, the same for equal values: maps are sorted, whole floats are written like integers.
    pub fn canonical(&self) -> String {
        let mut out = String::with_capacity(128);
        match self.parts() {
            // Without the value, which would have to be built first.
            Some((shape, cells)) => shape.write_canonical(cells, &mut out),
            None => write_canonical(self.value(), &mut out),
        }
        out
    }

    /// What tells the state and its clones from all others that live.
    pub(super) fn identity(&self) -> Identity {
        Identity(Arc::as_ptr(&self.0).cast())
    }

    /// Whether it is a list or a map, as a game's state has to be.
    pub fn is_table(&self) -> bool {
        match self.parts() {
            Some((shape, _)) => !matches!(**shape, Shape::Cell(_)),
            None => matches!(self.value(), Value::List(_) | Value::Map(_)),
        }
    }
}

impl From<Value> for State {
    fn from(value: Value) -> Self {
        Self(Arc::new(Form { parts: None, value: OnceLock::from(value) }))
    }
}

impl Deref for State {
    type Target = Value;

    fn deref(&self) -> &Value {
        self.value()
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.value() == other.value()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

/// How a state is built: its lists and maps, and the numbers of the cells in them. States of one game mostly share it.
#[derive(Debug, PartialEq)]
pub(super) enum Shape {
    /// The cell of this number.
    Cell(u32),
    /// The items in order.
    List(Vec<Self>),
    /// The fields, sorted by name.
    Map(Vec<(Box<str>, Self)>),
}

impl Shape {
    /// The shape of the value, whose cells are added to `cells`.
    pub(super) fn of(value: &Value, cells: &mut Vec<Cell>) -> Self {
        match value {
            Value::List(items) => Self::List(items.iter().map(|item| Self::of(item, cells)).collect()),
            Value::Map(fields) => {
                Self::Map(fields.iter().map(|(name, field)| (name.as_str().into(), Self::of(field, cells))).collect())
            }
            value => {
                cells.push(Cell::of(value));
                Self::Cell(cells.len() as u32 - 1)
            }
        }
    }

    /// Whether it is a single cell.
    pub(super) fn is_cell(&self) -> bool {
        matches!(self, Self::Cell(_))
    }

    /// As [`write_canonical`] for the value that these cells stand for.
    fn write_canonical(&self, cells: &[Cell], out: &mut String) {
        match self {
            Self::Cell(number) => match cells.get(*number as usize) {
                Some(cell) => cell.write_canonical(out),
                None => out.push('n'),
            },
            Self::Map(fields) if fields.is_empty() => out.push_str("[]"),
            Self::List(items) => {
                out.push('[');
                for item in items {
                    item.write_canonical(cells, out);
                }
                out.push(']');
            }
            Self::Map(fields) => {
                out.push('{');
                for (name, field) in fields {
                    _ = write!(out, "{}:{name}", name.len());
                    field.write_canonical(cells, out);
                }
                out.push('}');
            }
        }
    }

    fn value(&self, cells: &[Cell]) -> Value {
        match self {
            Self::Cell(number) => cells.get(*number as usize).map(Cell::value).unwrap_or_default(),
            Self::List(items) => Value::List(items.iter().map(|item| item.value(cells)).collect()),
            Self::Map(fields) => {
                let field = |(name, field): &(Box<str>, Self)| (name.clone().into_string(), field.value(cells));
                Value::Map(fields.iter().map(field).collect::<BTreeMap<_, _>>())
            }
        }
    }
}

/// A value without parts.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Plain(Plain),
    Long(Arc<str>),
}

/// A cell that is all there is of it: almost all are copied without looking at them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Plain {
    Nil,
    Truth(bool),
    Int(i64),
    Float(f64),
    /// A text of so many bytes.
    Short(u8, [u8; Cell::SHORT]),
}

impl Cell {
    /// The longest text that needs no memory of its own, in bytes.
    const SHORT: usize = 14;

    pub(super) const NIL: Self = Self::Plain(Plain::Nil);
    pub(super) const ZERO: Self = Self::Plain(Plain::Int(0));

    /// The cell of a value that is no list and no map.
    fn of(value: &Value) -> Self {
        match value {
            Value::Bool(truth) => Self::Plain(Plain::Truth(*truth)),
            Value::Int(number) => Self::Plain(Plain::Int(*number)),
            Value::Float(number) => Self::Plain(Plain::Float(*number)),
            Value::Text(text) => Self::text(text),
            Value::Nil | Value::List(_) | Value::Map(_) => Self::NIL,
        }
    }

    /// The cell of a text.
    pub(super) fn text(text: &str) -> Self {
        let mut bytes = [0; Self::SHORT];
        match bytes.get_mut(..text.len()) {
            Some(start) => {
                start.copy_from_slice(text.as_bytes());
                Self::Plain(Plain::Short(text.len() as u8, bytes))
            }
            None => Self::Long(text.into()),
        }
    }

    /// The cell of a number.
    pub(super) fn number(value: &Value) -> Self {
        match value {
            Value::Int(number) => Self::Plain(Plain::Int(*number)),
            other => Self::Plain(Plain::Float(other.as_number().unwrap_or(f64::NAN))),
        }
    }

    /// The text, if it is one.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Plain(Plain::Short(length, bytes)) => {
                bytes.get(..usize::from(*length)).and_then(|text| str::from_utf8(text).ok())
            }
            Self::Long(text) => Some(text),
            Self::Plain(_) => None,
        }
    }

    /// How much text it holds, in bytes.
    pub(super) fn text_bytes(&self) -> usize {
        match self {
            Self::Plain(Plain::Short(length, _)) => usize::from(*length),
            Self::Long(text) => text.len(),
            Self::Plain(_) => 0,
        }
    }

    /// Whether it is the text of these bytes.
    pub(super) fn is_text(&self, text: &[u8]) -> bool {
        match self {
            Self::Plain(Plain::Short(length, bytes)) => bytes.get(..usize::from(*length)) == Some(text),
            Self::Long(known) => known.as_bytes() == text,
            Self::Plain(_) => false,
        }
    }

    fn write_canonical(&self, out: &mut String) {
        // Writing to a string cannot fail.
        match self {
            Self::Plain(Plain::Nil) => out.push('n'),
            Self::Plain(Plain::Truth(truth)) => out.push(if *truth { 't' } else { 'f' }),
            Self::Plain(Plain::Int(number)) => _ = write!(out, "{number},"),
            Self::Plain(Plain::Float(number)) => _ = write!(out, "{number},"),
            text => {
                let text = text.as_text().unwrap_or_default();
                _ = write!(out, "{}:{text}", text.len());
            }
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Plain(Plain::Nil) => Value::Nil,
            Self::Plain(Plain::Truth(truth)) => Value::Bool(*truth),
            Self::Plain(Plain::Int(number)) => Value::Int(*number),
            Self::Plain(Plain::Float(number)) => Value::Float(*number),
            text => text.as_text().unwrap_or_default().into(),
        }
    }
}

/// Writes a value so that equal values, and only they, give equal texts.
fn write_canonical(value: &Value, out: &mut String) {
    // Writing to a string cannot fail.
    match value {
        Value::Nil => out.push('n'),
        Value::Bool(truth) => out.push(if *truth { 't' } else { 'f' }),
        Value::Int(number) => _ = write!(out, "{number},"),
        Value::Float(number) => _ = write!(out, "{number},"),
        Value::Text(text) => _ = write!(out, "{}:{text}", text.len()),
        Value::List(items) => {
            out.push('[');
            for item in items {
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Map(map) if map.is_empty() => out.push_str("[]"),
        Value::Map(map) => {
            out.push('{');
            for (name, item) in map {
                _ = write!(out, "{}:{name}", name.len());
                write_canonical(item, out);
            }
            out.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_cells_is_the_value_that_they_stand_for() {
        let long = "a text that is longer than a cell";
        let shape = Shape::Map(vec![
            ("board".into(), Shape::List(vec![Shape::Cell(4), Shape::Cell(0), Shape::List(vec![])])),
            ("deep".into(), Shape::Map(vec![("yes".into(), Shape::Cell(2)), ("é".into(), Shape::Cell(1))])),
            ("least".into(), Shape::Cell(3)),
        ]);
        let plain = Cell::Plain;
        let [half, truth, least] = [Plain::Float(-0.5), Plain::Truth(true), Plain::Int(i64::MIN)].map(plain);
        let cells = [Cell::text(long), half, truth, least, Cell::text("X")];
        let text_bytes = cells.iter().map(Cell::text_bytes).sum();
        let state = State::from_cells(Arc::new(shape), Box::new(cells), text_bytes);
        let value = Value::from([
            ("board", Value::List(vec!["X".into(), long.into(), Value::List(vec![])])),
            ("deep", Value::from([("é", (-0.5).into()), ("yes", true.into())])),
            ("least", i64::MIN.into()),
        ]);
        assert!(state.is_table());
        assert_eq!(state.value(), &value);
        assert_eq!(state.canonical(), State::from(value.clone()).canonical());
        assert_eq!(
            state.canonical(),
            "{5:board[1:X33:a text that is longer than a cell[]]4:deep{3:yest2:é-0.5,}5:least-9223372036854775808,}"
        );
        assert_eq!(state, State::from(value));
    }

    #[test]
    fn a_value_taken_apart_is_the_same_value() {
        let value = Value::from([
            ("a", Value::List(vec![1_i64.into(), Value::Nil, 2.5.into(), "a text longer than a cell".into()])),
            (
                "b",
                Value::from([("c", true.into()), ("d", Value::List(Vec::new())), ("e", Value::Map(BTreeMap::new()))]),
            ),
        ]);
        let mut cells = Vec::new();
        let shape = Shape::of(&value, &mut cells);
        assert_eq!(cells.len(), 5);
        let state = State::from_cells(Arc::new(shape), cells.into(), 0);
        assert_eq!(state.value(), &value);
        assert_eq!(state.canonical(), State::from(value).canonical());
    }

    #[test]
    fn texts_of_any_length_survive_in_a_cell() {
        for length in 0..40 {
            let text = "ä".repeat(length);
            assert_eq!(Cell::text(&text).as_text(), Some(&*text));
        }
    }
}

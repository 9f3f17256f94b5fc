//! Rhai values to plain data and back.

use std::collections::BTreeMap;

use ::rhai::{Array, Dynamic, Map};

use crate::script::border::{Meter, Refusal};
use crate::script::state::{Cell, Plain, Shape};
use crate::script::{Limits, Value};

/// The plain data that a Rhai value stands for.
pub(super) fn from_rhai(value: &Dynamic, limits: &Limits) -> Result<Value, Refusal> {
    read(value, &mut Meter::new(limits))
}

fn read(value: &Dynamic, meter: &mut Meter<'_>) -> Result<Value, Refusal> {
    meter.value()?;
    if value.is_unit() {
        return Ok(Value::Nil);
    }
    // The usual kinds first: each that a value is not costs time.
    if value.is_string()
        && let Ok(text) = value.as_immutable_string_ref()
    {
        meter.text(text.len())?;
        return Ok(Value::Text(text.to_string()));
    }
    if value.is_bool()
        && let Ok(truth) = value.as_bool()
    {
        return Ok(Value::Bool(truth));
    }
    if value.is_int()
        && let Ok(number) = value.as_int()
    {
        return Ok(Value::Int(number));
    }
    if value.is_float()
        && let Ok(number) = value.as_float()
    {
        return Ok(Value::Float(number));
    }
    if value.is_char()
        && let Ok(character) = value.as_char()
    {
        return Ok(Value::Text(character.to_string()));
    }
    if let Some(items) = value.read_lock::<Array>() {
        meter.enter()?;
        let item = |(at, item)| read(item, meter).map_err(|refusal| refusal.inside_item(at));
        let items = items.iter().enumerate().map(item).collect::<Result<_, _>>();
        meter.leave();
        return items.map(Value::List);
    }
    if let Some(fields) = value.read_lock::<Map>() {
        meter.enter()?;
        let mut read_fields = BTreeMap::new();
        for (name, field) in fields.iter() {
            meter.text(name.len())?;
            read_fields.insert(name.to_string(), read(field, meter).map_err(|refusal| refusal.inside_field(name))?);
        }
        meter.leave();
        return Ok(Value::Map(read_fields));
    }
    if value.is_fnptr() {
        return Err(Refusal::new("is a function", "keep functions in the script and data in the state"));
    }
    Err(Refusal::new(
        format!("is a value of type {}", value.type_name().rsplit("::").next().unwrap_or_default()),
        "keep `rng`, `gift`, data sets, ranges and blobs out of the state; a row's number is data",
    ))
}

/// Adds the cells of the value, if it is of this shape, and returns how much text they hold, in bytes. `None` if it is of
/// another, or may not cross: [`from_rhai`] tells.
pub(super) fn cells_of(value: &Dynamic, shape: &Shape, limits: &Limits, cells: &mut Vec<Cell>) -> Option<usize> {
    let mut meter = Meter::new(limits);
    take_cells(value, shape, &mut meter, cells)?;
    Some(cells.iter().map(Cell::text_bytes).sum())
}

fn take_cells(value: &Dynamic, shape: &Shape, meter: &mut Meter<'_>, cells: &mut Vec<Cell>) -> Option<()> {
    meter.value().ok()?;
    match shape {
        Shape::Cell(number) => {
            // The cells are numbered as they come.
            (*number as usize == cells.len()).then_some(())?;
            cells.push(if value.is_string() {
                let text = value.as_immutable_string_ref().ok()?;
                meter.text(text.len()).ok()?;
                Cell::text(&text)
            } else if value.is_int() {
                Cell::Plain(Plain::Int(value.as_int().ok()?))
            } else if value.is_bool() {
                Cell::Plain(Plain::Truth(value.as_bool().ok()?))
            } else if value.is_float() {
                Cell::Plain(Plain::Float(value.as_float().ok()?))
            } else {
                value.is_unit().then_some(Cell::NIL)?
            });
        }
        Shape::List(shapes) => {
            let items = value.read_lock::<Array>().filter(|items| items.len() == shapes.len())?;
            meter.enter().ok()?;
            items.iter().zip(shapes).try_for_each(|(item, shape)| take_cells(item, shape, meter, cells))?;
            meter.leave();
        }
        Shape::Map(shapes) => {
            let fields = value.read_lock::<Map>().filter(|fields| fields.len() == shapes.len())?;
            meter.enter().ok()?;
            for ((name, field), (known, shape)) in fields.iter().zip(shapes) {
                (name.as_str() == &**known).then_some(())?;
                meter.text(name.len()).ok()?;
                take_cells(field, shape, meter, cells)?;
            }
            meter.leave();
        }
    }
    Some(())
}

/// Whether the value is what [`to_rhai`] would make of [`from_rhai`]: nothing in it is shared with the script, and no
/// character is a text of its own.
pub(super) fn is_plain(value: &Dynamic) -> bool {
    if value.is_shared() || value.is_char() || value.is_read_only() {
        false
    } else if let Some(items) = value.read_lock::<Array>() {
        items.iter().all(is_plain)
    } else if let Some(fields) = value.read_lock::<Map>() {
        fields.values().all(is_plain)
    } else {
        true
    }
}

/// A copy of the data as a Rhai value.
pub(super) fn to_rhai(value: &Value) -> Dynamic {
    match value {
        Value::Nil => Dynamic::UNIT,
        Value::Bool(truth) => (*truth).into(),
        Value::Int(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Text(text) => text.as_str().into(),
        Value::List(items) => Dynamic::from_array(items.iter().map(to_rhai).collect()),
        Value::Map(fields) => {
            Dynamic::from_map(fields.iter().map(|(name, field)| (name.as_str().into(), to_rhai(field))).collect())
        }
    }
}

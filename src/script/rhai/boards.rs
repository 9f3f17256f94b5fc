//! `gift.free`, `gift.grid` and `gift.line` of arrays as boards mostly are, without a copy of them as plain data. All else is left to
//! the library's functions, which also word the errors.

use ::rhai::{Array, Dynamic, ImmutableString};

use crate::script::library::{drawing, has_line};

/// Most cells of a board that is taken here.
const MAX_CELLS: usize = 100;

/// The numbers of cells as texts, to be handed out again and again.
pub(super) struct Boards {
    labels: Vec<Dynamic>,
}

impl Boards {
    pub(super) fn new() -> Self {
        Self { labels: (1..=MAX_CELLS).map(|number| number.to_string().into()).collect() }
    }

    /// What the library's function of this name gives for these arguments, if it is of this kind.
    pub(super) fn call(&self, name: &str, arguments: &[&mut Dynamic]) -> Option<Dynamic> {
        match (name, arguments) {
            ("free", [board]) => {
                let cells = board.read_lock::<Array>().filter(|cells| cells.len() <= MAX_CELLS)?;
                let mut free = Array::with_capacity(cells.len());
                for (cell, label) in cells.iter().zip(&self.labels) {
                    if text(cell)?.is_empty() {
                        free.push(label.clone());
                    }
                }
                Some(Dynamic::from_array(free))
            }
            ("grid", [board, columns]) => {
                let columns = positive(columns)?;
                with_cells(board, |cells| drawing(cells, columns).ok().map(Dynamic::from))
            }
            ("line", [board, columns, count, cell]) => {
                let (columns, count, cell) = (positive(columns)?, positive(count)?, positive(cell)?);
                with_cells(board, |cells| has_line(cells, columns, count, cell).map(Dynamic::from))
            }
            _ => None,
        }
    }
}

fn positive(number: &Dynamic) -> Option<usize> {
    number.as_int().ok().and_then(|number| usize::try_from(number).ok()).filter(|number| *number > 0)
}

/// What `work` makes of the cells of a board.
fn with_cells(board: &Dynamic, work: impl FnOnce(&[&str]) -> Option<Dynamic>) -> Option<Dynamic> {
    let cells = board.read_lock::<Array>().filter(|cells| cells.len() <= MAX_CELLS)?;
    let texts = cells.iter().map(text).collect::<Option<Vec<_>>>()?;
    let cells: Vec<&str> = texts.iter().map(|text| text.as_str()).collect();
    work(&cells)
}

/// The text that the value is, unless it is shared with others.
fn text(value: &Dynamic) -> Option<impl std::ops::Deref<Target = ImmutableString> + '_> {
    (value.is_string() && !value.is_shared()).then(|| value.read_lock::<ImmutableString>())?
}

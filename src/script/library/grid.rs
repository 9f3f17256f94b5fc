//! `gift.grid` and `gift.free`: boards whose cells are texts, `""` where a cell is free, numbered from 1 row by row.

use std::fmt::Write as _;

use crate::script::Value;

/// `gift.grid(cells, columns)`: the board as a drawing, a free cell by its number. Cells are as wide as the widest.
///
/// ```text
///  X | 2 | 3
/// ---+---+---
///  4 | O | 6
/// ```
pub(super) fn grid(arguments: &[Value]) -> Result<Value, String> {
    let [cells, columns] = arguments else {
        return Err(format!("expected the cells and the number of columns, found {} arguments", arguments.len()));
    };
    let columns = columns.as_int().and_then(|columns| usize::try_from(columns).ok()).filter(|columns| *columns > 0);
    let columns =
        columns.ok_or_else(|| format!("expected a number of columns from 1, found {}", arguments[1].kind()))?;
    let cells = texts(cells)?;
    let numbers: Vec<String> = (1..=cells.len()).map(|number| number.to_string()).collect();
    let shown = cells.iter().zip(&numbers).map(|(cell, number)| if cell.is_empty() { number.as_str() } else { *cell });
    let shown: Vec<&str> = shown.collect();
    let width = shown.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
    let mut drawing = String::new();
    for (row, cells) in shown.chunks(columns).enumerate() {
        if row > 0 {
            drawing.push('\n');
            for column in 0..columns {
                drawing.push_str(if column == 0 { "" } else { "+" });
                drawing.extend(std::iter::repeat_n('-', width + 2));
            }
            drawing.push('\n');
        }
        for (column, cell) in cells.iter().enumerate() {
            // Writing to a string cannot fail.
            _ = write!(drawing, "{} {cell:>width$}", if column == 0 { "" } else { " |" });
        }
    }
    Ok(drawing.into())
}

/// `gift.free(cells)`: the numbers of the free cells as texts, in order: the legal answers of many board games.
pub(super) fn free(arguments: &[Value]) -> Result<Value, String> {
    let cells = texts(super::one(arguments)?)?;
    let free = (1..).zip(cells).filter(|(_, cell)| cell.is_empty()).map(|(number, _): (usize, _)| number.to_string());
    Ok(Value::List(free.map(Value::Text).collect()))
}

/// The cells of a board.
fn texts(cells: &Value) -> Result<Vec<&str>, String> {
    let list = cells.as_list().ok_or_else(|| format!("expected a list of cells, found {}", cells.kind()))?;
    let mut texts = Vec::with_capacity(list.len());
    for (at, cell) in list.iter().enumerate() {
        let problem = || format!("expected a string as cell {}, found {}; a free cell is \"\"", at + 1, cell.kind());
        texts.push(cell.as_text().ok_or_else(problem)?);
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(cells: &[&str], columns: i64) -> String {
        let grid = grid(&[cells.to_vec().into(), columns.into()]).expect("a drawing");
        grid.as_text().unwrap_or_default().to_owned()
    }

    #[test]
    fn free_cells_show_their_numbers_and_all_are_equally_wide() {
        assert_eq!(drawn(&["X", "", "", "", "O", ""], 3), " X | 2 | 3\n---+---+---\n 4 | O | 6");
        assert_eq!(drawn(&["", "X", "ab"], 2), "  1 |  X\n----+----\n ab");
        assert_eq!(drawn(&[], 2), "");
        assert!(drawn(&[""; 10], 5).starts_with("  1 |  2 |"));
    }

    #[test]
    fn free_cells_are_listed_by_number() {
        assert_eq!(free(&[vec!["", "X", ""].into()]), Ok(vec!["1", "3"].into()));
        assert!(free(&[vec![1_i64].into()]).is_err_and(|message| message.contains("cell 1")));
        assert!(grid(&[vec!["X"].into(), 0_i64.into()]).is_err());
    }
}

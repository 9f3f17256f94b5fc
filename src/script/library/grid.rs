//! `gift.grid`, `gift.free` and `gift.line`: boards whose cells are texts, `""` where a cell is free, numbered from 1 row by row.

use super::MAX_MADE_BYTES;
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
    let columns = columns
        .ok_or_else(|| format!("expected a whole number of columns, 1 or more, found {}", arguments[1].described()))?;
    Ok(drawing(&texts(cells)?, columns)?.into())
}

/// The drawing of [`grid`]; at least one column.
pub(in crate::script) fn drawing(cells: &[&str], columns: usize) -> Result<String, String> {
    let numbers: Vec<String> = (1..=cells.len()).map(|number| number.to_string()).collect();
    let shown = cells.iter().zip(&numbers).map(|(cell, number)| if cell.is_empty() { number.as_str() } else { *cell });
    let shown: Vec<&str> = shown.collect();
    let width = shown.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
    // Every cell is as wide as the widest: a few long ones would make a drawing that no memory holds.
    let size = 2 * (shown.len() + 1) * (width + 3);
    if size > MAX_MADE_BYTES {
        return Err(format!("the drawing of {} cells that are {width} wide is too long", shown.len()));
    }
    let mut drawing = String::with_capacity(size);
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
            drawing.push_str(if column == 0 { " " } else { " | " });
            drawing.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
            drawing.push_str(cell);
        }
    }
    Ok(drawing)
}

/// `gift.free(cells)`: the numbers of the free cells as texts, in order: the legal answers of many board games.
pub(super) fn free(arguments: &[Value]) -> Result<Value, String> {
    let cells = texts(super::one(arguments)?)?;
    let free = (1..).zip(cells).filter(|(_, cell)| cell.is_empty()).map(|(number, _): (usize, _)| number.to_string());
    Ok(Value::List(free.map(Value::Text).collect()))
}

/// `gift.line(cells, columns, count, cell)`: whether `count` equal marks stand next to each other through this cell (from 1),
/// in its row, its column or a diagonal.
pub(super) fn line(arguments: &[Value]) -> Result<Value, String> {
    let [cells, numbers @ ..] = arguments else {
        return Err("expected the cells, the number of columns, how many make a line, and a cell".to_owned());
    };
    let number = |at: usize, what: &str| {
        let value = numbers.get(at).unwrap_or(&Value::Nil);
        let number = value.as_int().and_then(|number| usize::try_from(number).ok()).filter(|number| *number > 0);
        number.ok_or_else(|| format!("expected {what}, 1 or more, found {}", value.described()))
    };
    if numbers.len() > 3 {
        return Err(format!("expected 4 arguments, found {}", arguments.len()));
    }
    let (columns, count) = (number(0, "a whole number of columns")?, number(1, "a whole number of marks")?);
    let (cell, cells) = (number(2, "the number of a cell")?, texts(cells)?);
    has_line(&cells, columns, count, cell)
        .map(Value::Bool)
        .ok_or_else(|| format!("expected a cell from 1 to {}, found {cell}", cells.len()))
}

/// [`line`]; `None` if the board has no such cell. At least one column.
pub(in crate::script) fn has_line(cells: &[&str], columns: usize, count: usize, cell: usize) -> Option<bool> {
    let at = cell.checked_sub(1)?;
    let mark = *cells.get(at)?;
    let (row, column) = ((at / columns) as isize, (at % columns) as isize);
    let is_mark = |row: isize, column: isize| {
        let column = usize::try_from(column).ok().filter(|column| *column < columns);
        let at = usize::try_from(row).ok().zip(column).map(|(row, column)| row * columns + column);
        at.and_then(|at| cells.get(at)) == Some(&mark)
    };
    let reach = |down: isize, right: isize| {
        (1..=cells.len() as isize).take_while(|steps| is_mark(row + steps * down, column + steps * right)).count()
    };
    let directions = [(0, 1), (1, 0), (1, 1), (1, -1)];
    let is_line = |(down, right): (isize, isize)| reach(down, right) + reach(-down, -right) + 1 >= count;
    Some(!mark.is_empty() && directions.into_iter().any(is_line))
}

/// The cells of a board.
fn texts(cells: &Value) -> Result<Vec<&str>, String> {
    let list = cells.as_list().ok_or_else(|| format!("expected a list of cells, found {}", cells.described()))?;
    let mut texts = Vec::with_capacity(list.len());
    for (at, cell) in list.iter().enumerate() {
        let problem =
            || format!("expected a string as cell {}, found {}; a free cell is \"\"", at + 1, cell.described());
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
    fn a_line_is_seen_from_each_of_its_cells_and_in_every_direction() {
        let board = ["X", "O", "X", "O", "X", "O", "X", "", "O"]; // one diagonal
        let line = |columns: i64, count: i64, cell: i64| {
            line(&[board.to_vec().into(), columns.into(), count.into(), cell.into()])
        };
        let seen: Vec<i64> = (1..=9).filter(|cell| line(3, 3, *cell) == Ok(true.into())).collect();
        assert_eq!(seen, [3, 5, 7]);
        // With two that make a line, all but the free cell; in one row, none; in one column, neither.
        assert_eq!((1..=9).filter(|cell| line(3, 2, *cell) == Ok(true.into())).count(), 8);
        assert!((1..=9).all(|cell| line(9, 2, cell) == Ok(false.into()) && line(1, 2, cell) == Ok(false.into())));
        // A row does not go on in the next one.
        let wrapped = ["", "X", "X", "", "", ""].to_vec();
        let wide = |count: i64| super::line(&[wrapped.clone().into(), 2_i64.into(), count.into(), 3_i64.into()]);
        assert_eq!((wide(2), wide(1)), (Ok(true.into()), Ok(true.into())));
        assert_eq!(
            super::line(&[["", "X", "X", ""].to_vec().into(), 2_i64.into(), 3_i64.into(), 2_i64.into()]),
            Ok(false.into())
        );
        assert!(line(3, 3, 10).is_err_and(|message| message.contains("from 1 to 9, found 10")));
        assert!(line(0, 3, 1).is_err() && line(3, 0, 1).is_err() && line(3, 3, 0).is_err());
    }

    #[test]
    fn free_cells_are_listed_by_number() {
        assert_eq!(free(&[vec!["", "X", ""].into()]), Ok(vec!["1", "3"].into()));
        assert!(free(&[vec![1_i64].into()]).is_err_and(|message| message.contains("cell 1")));
        assert!(grid(&[vec!["X"].into(), 0_i64.into()]).is_err());
    }

    #[test]
    fn a_drawing_that_no_memory_holds_is_refused() {
        let wide = "X".repeat(1 << 20);
        let mut cells = vec![""; 100_000];
        cells[0] = &wide;
        assert!(grid(&[cells.into(), 3_i64.into()]).is_err_and(|message| message.contains("too long")));
        assert!(grid(&[vec!["X", ""].into(), i64::MAX.into()]).is_ok());
    }
}

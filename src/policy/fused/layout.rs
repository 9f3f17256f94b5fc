//! Which rows attend to which, as tables for the attention kernels.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor, bail};

/// Rows that follow each other. They attend to some rows before them wholly, and to themselves up to each row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The rows.
    pub rows: Range<usize>,
    /// Rows of earlier stretches that all of them attend to.
    pub before: Vec<Range<usize>>,
}

/// The stretches of a pass in tiles of rows, which a block of threads each works on; those with most work first.
///
/// # Shapes
/// - `tiles`: `[tiles, 5]`, `u32`: first row of queries, their count, first row of their stretch, first row in `ranges`, count of
///   ranges
/// - `ranges`: `[ranges, 2]`, `u32`: first row and end of the rows that stand before a stretch; at least one row
/// - `key_tiles`: `[tiles, 3]`, `u32`: first row of keys, their count, end of the rows that see them
#[derive(Clone, Debug)]
pub struct AttentionLayout {
    /// The tiles of queries.
    pub tiles: Tensor,
    /// What stands before the stretches.
    pub ranges: Tensor,
    /// The tiles of keys.
    pub key_tiles: Tensor,
}

impl AttentionLayout {
    /// The layout for queries, keys and values of a type. Stretches follow each other without gaps, and each stands right after
    /// the last of those before it and all that stand after it too, as a tree is written down depth first.
    ///
    /// # Errors
    /// For stretches in another order, or if the backend fails.
    pub fn new(stretches: &[Stretch], dtype: DType, device: &Device) -> Result<Self> {
        let tile_rows = tile_rows(dtype);
        let (mut tiles, mut ranges, mut key_tiles) = (Vec::new(), Vec::new(), Vec::new());
        let ends = subtree_ends(stretches)?;
        for (stretch, end) in stretches.iter().zip(ends) {
            let first_range = ranges.len();
            ranges.extend(stretch.before.iter().map(|range| [range.start, range.end]));
            let seen: usize = stretch.before.iter().map(Range::len).sum();
            for first in stretch.rows.clone().step_by(tile_rows) {
                let count = tile_rows.min(stretch.rows.end - first);
                let work = seen + first + count - stretch.rows.start;
                tiles.push((work, [first, count, stretch.rows.start, first_range, stretch.before.len()]));
                key_tiles.push((end - first, [first, count, end]));
            }
        }
        if ranges.is_empty() {
            ranges.push([0, 0]);
        }
        tiles.sort_by_key(|(work, tile)| (std::cmp::Reverse(*work), tile[0]));
        key_tiles.sort_by_key(|(work, tile)| (std::cmp::Reverse(*work), tile[0]));
        let tiles: Vec<_> = tiles.into_iter().map(|(_, tile)| tile).collect();
        let key_tiles: Vec<_> = key_tiles.into_iter().map(|(_, tile)| tile).collect();
        Ok(Self {
            tiles: table(&tiles, device)?,
            ranges: table(&ranges, device)?,
            key_tiles: table(&key_tiles, device)?,
        })
    }
}

/// Rows of a tile, as `Sizes` in `kernels/product.cuh` has them.
pub(super) fn tile_rows(dtype: DType) -> usize {
    if dtype == DType::F32 { 32 } else { 64 }
}

fn table<const N: usize>(rows: &[[usize; N]], device: &Device) -> Result<Tensor> {
    let values: Vec<u32> = rows.iter().flatten().map(|&value| value as u32).collect();
    Tensor::from_vec(values, (rows.len(), N), device)
}

/// For each stretch the end of the rows that see it: its own and those of the stretches that have it before them.
fn subtree_ends(stretches: &[Stretch]) -> Result<Vec<usize>> {
    let mut ends: Vec<usize> = Vec::with_capacity(stretches.len());
    let mut next = 0;
    // The stretches on the way to the latest one.
    let mut path: Vec<usize> = Vec::new();
    for (index, stretch) in stretches.iter().enumerate() {
        path.truncate(stretch.before.len());
        let is_path = path.len() == stretch.before.len()
            && path.iter().zip(&stretch.before).all(|(&above, rows)| stretches[above].rows == *rows);
        if stretch.rows.start != next || stretch.rows.end < next || !is_path {
            bail!("rows {:?} after {:?} are no tree in order", stretch.rows, stretch.before);
        }
        next = stretch.rows.end;
        path.push(index);
        ends.push(next);
        for &above in &path {
            ends[above] = next;
        }
    }
    Ok(ends)
}

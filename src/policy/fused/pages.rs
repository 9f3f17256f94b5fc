//! Pages of keys and values, and the rows of a pass that are written to them and attend to them, as tables for the kernels
//! (arXiv:2309.06180): sequences that begin alike hold the same pages, and a pass of any of them is a handful of launches a layer.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::attention::WIDTHS;
use super::layout::tile_rows;
use super::operation::{Argument, Spec, int};
use super::shared_pages::{Shared, shared};
use super::tables::Tables;

/// Positions of a page, as in `kernels/pages.cuh`.
pub const PAGE: usize = 32;
/// Positions that a block goes through for a single token; it has two pages for each of its warps.
const PART: usize = 256;
/// Pages that a block goes through for tokens that have them in common, and rows of queries that it takes, as in `kernels/decode.cuh`.
const SHARED_PART: usize = 4;
const SHARED_ROWS: usize = 64;
/// New tokens of a sequence that are computed one by one: a tile would be nearly empty.
const FEW: usize = 4;
/// Rows of queries that a warp works on.
pub(super) const WARP_ROWS: usize = 16;
/// The slot of a token that one block computes.
const NO_SLOT: u32 = u32::MAX;

/// How pages are laid out. Slab `s` holds the pages from `s << shift` on, `[1 << shift, layers, 2, kv_heads, PAGE, head_dim]`, keys
/// before values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageShape {
    /// Layers of the model.
    pub layers: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// The logarithm to base 2 of the pages of a slab.
    pub shift: u32,
}

impl PageShape {
    /// The shape of a slab.
    pub fn slab_dims(&self) -> [usize; 6] {
        [1 << self.shift, self.layers, 2, self.kv_heads, PAGE, self.head_dim]
    }

    /// Elements of a page.
    pub fn page_size(&self) -> usize {
        self.slab_dims()[1..].iter().product()
    }

    pub(super) fn head_size(&self) -> usize {
        PAGE * self.head_dim
    }

    /// The slab of a page, and where in it the keys of a head begin.
    pub(super) fn place(&self, page: usize, layer: usize, kv_head: usize) -> (usize, usize) {
        let number = page & ((1 << self.shift) - 1);
        let head = layer * 2 * self.kv_heads + kv_head;
        (page >> self.shift, number * self.page_size() + head * self.head_size())
    }

    /// That these are slabs of this shape.
    pub(super) fn check(&self, slabs: &[Spec], dtype: DType) -> Result<()> {
        match slabs.iter().find(|slab| slab.dims != self.slab_dims() || slab.dtype != dtype) {
            Some(slab) => bail!("a slab {slab:?} of pages {self:?} of {dtype:?}"),
            None => Ok(()),
        }
    }

    /// The arguments of kernels on pages: layers, layer and shift.
    pub(super) fn arguments(&self, layer: usize) -> Result<[Argument; 3]> {
        Ok([int(self.layers)?, int(layer)?, int(self.shift as usize)?])
    }
}

/// New tokens of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct PagedSpan<'a> {
    /// The tokens, at least one.
    pub tokens: &'a [u32],
    /// Positions held before them.
    pub start: usize,
    /// The pages of all positions, the new ones too. No other sequence has those that are written to.
    pub pages: &'a [u32],
}

impl<'a> PagedSpan<'a> {
    /// The whole pages before the first of the new tokens.
    fn whole_pages(&self) -> &'a [u32] {
        &self.pages[..self.start / PAGE]
    }

    /// The last token alone.
    #[must_use]
    pub fn end(&self) -> Self {
        let before = self.tokens.len().saturating_sub(1);
        Self { tokens: &self.tokens[before..], start: self.start + before, pages: self.pages }
    }
}

/// The rows of a pass, span after span, as tables for the kernels.
///
/// # Shapes
/// All `u32`.
/// - `tokens`: `[rows]`; `ends`: `[spans]`: the last row of each span
/// - `places`: `[rows, 3]`: position, page times [`PAGE`] plus place in the page, count of places behind it that are zeroed
/// - `table`: `[..]`: the pages of all spans
/// - `items`: `[items, 6]`: row, first position, end of the positions, start of the pages in `table`, slot of the part or the largest
///   number, row of `merges`
/// - `shared`: `[shared, 5]`: first row in `members`, count of rows, first position, end of the positions, start of the pages in `table`;
///   `members`: `[.., 3]`: row, slot of the part, row of `merges`
/// - `tiles`: `[tiles, 4]`: first row, count of rows, position of the first, start of the pages in `table`
/// - `merges`: `[rows in parts, 4]`: row, first slot, count of slots, count of blocks for each head of keys; `counts`:
///   `[rows in parts, kv_heads]`: zeros, which blocks count up and leave as zeros
#[derive(Clone, Debug)]
pub struct PagedRows {
    /// The tokens.
    pub tokens: Tensor,
    /// The last rows.
    pub ends: Tensor,
    /// Where keys and values go.
    pub places: Tensor,
    /// The pages.
    pub table: Tensor,
    /// Single tokens in parts.
    pub items: Tensor,
    /// Parts that several single tokens have in common.
    pub shared: Tensor,
    /// Which tokens these are.
    pub members: Tensor,
    /// Other tokens.
    pub tiles: Tensor,
    /// Tokens that have several parts.
    pub merges: Tensor,
    /// How many of their parts are there.
    pub counts: Tensor,
    /// Count of parts that are put together.
    pub slots: usize,
}

/// Heads as attention to pages has them.
#[derive(Clone, Copy, Debug)]
pub struct PageHeads {
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Heads of queries for each of them.
    pub group: usize,
    /// Width of a head.
    pub dim: usize,
}

impl PagedRows {
    /// The tables for attention with such heads of this type.
    ///
    /// # Errors
    /// If a span lacks pages, or the device has no room.
    pub fn new(spans: &[PagedSpan<'_>], heads: PageHeads, dtype: DType, device: &Device) -> Result<Self> {
        let (mut places, mut table, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        let (mut tiles, mut singles) = (Vec::new(), Vec::new());
        // Heads of other widths have a kernel for single tokens that takes all positions at once.
        let (is_plain, tile) = (!WIDTHS.contains(&heads.dim), tile_rows(dtype));
        for span in spans {
            let (first_row, end) = (places.len(), span.start + span.tokens.len());
            if span.tokens.is_empty() || span.pages.len() < end.div_ceil(PAGE) {
                bail!("{} pages for {end} positions", span.pages.len());
            }
            let offset = table.len() as u32;
            for position in span.start..end {
                // What stands behind the newest position must be a number. In a page that was begun earlier it is.
                let is_fresh = position / PAGE * PAGE >= span.start;
                let zeros = if is_fresh && position + 1 == end { PAGE - 1 - position % PAGE } else { 0 };
                let place = span.pages[position / PAGE] as usize * PAGE + position % PAGE;
                places.push([position as u32, place as u32, zeros as u32]);
            }
            if span.tokens.len() > FEW && !is_plain {
                for first in (0..span.tokens.len()).step_by(tile) {
                    let count = tile.min(span.tokens.len() - first);
                    tiles.push([first_row + first, count, span.start + first, offset as usize].map(|x| x as u32));
                }
            } else {
                // Only what a token that is alone sees is asked for sharing: rollouts have no others but at their turns' beginnings.
                let whole = if span.tokens.len() == 1 && !is_plain { span.whole_pages() } else { &[] };
                let rows = (first_row..).zip(span.start + 1..=end);
                singles.extend(rows.map(|(row, end)| Single { row: row as u32, end, offset, whole }));
            }
            table.extend_from_slice(span.pages);
            ends.push(places.len() as u32 - 1);
        }
        // Those with most work first.
        tiles.sort_by_key(|tile| (std::cmp::Reverse(tile[1] + tile[2]), tile[0]));
        let decode = Decode::new(&singles, heads.group, if is_plain { usize::MAX } else { PART });
        let mut tables = Tables::default();
        tables.list(spans.iter().flat_map(|span| span.tokens).copied());
        tables.list(ends);
        tables.rows(&places);
        tables.list(table);
        tables.rows(&decode.items);
        tables.rows(&decode.shared);
        tables.rows(&decode.members);
        tables.rows(&tiles);
        tables.rows(&decode.merges);
        let counts = vec![0; decode.merges.len() * heads.kv_heads];
        tables.list(counts);
        let [tokens, ends, places, table, items, shared, members, tiles, merges, counts] =
            <[Tensor; 10]>::try_from(tables.upload(device)?).map_err(|_| missing())?;
        let slots = decode.slots as usize;
        Ok(Self { tokens, ends, places, table, items, shared, members, tiles, merges, counts, slots })
    }

    /// The tables that attention takes, in the order of its inputs.
    pub fn of_attention(&self) -> [&Tensor; 7] {
        [&self.table, &self.items, &self.tiles, &self.merges, &self.shared, &self.members, &self.counts]
    }
}

/// A token that is computed by itself.
struct Single<'a> {
    row: u32,
    /// The end of the positions that it sees.
    end: usize,
    /// Where its pages begin in the table.
    offset: u32,
    /// Pages that it may read together with others.
    whole: &'a [u32],
}

/// Tables for single tokens.
#[derive(Default)]
struct Decode {
    items: Vec<[u32; 6]>,
    shared: Vec<[u32; 5]>,
    members: Vec<[u32; 3]>,
    merges: Vec<[u32; 4]>,
    slots: u32,
}

impl Decode {
    /// Tokens with `group` heads of queries for each head of keys, in parts of `part` positions where they share nothing.
    fn new(singles: &[Single<'_>], group: usize, part: usize) -> Self {
        let mut tables = Self::default();
        let lists: Vec<&[u32]> = singles.iter().map(|single| single.whole).collect();
        let common = if group <= SHARED_ROWS { shared(&lists) } else { Vec::new() };
        // Of each token: pages that it reads together with others, and parts of these.
        let mut covered = vec![(0, 0); singles.len()];
        for Shared { pages, rows } in &common {
            for &row in rows {
                covered[row] = (pages.end, covered[row].1 + pages.len().div_ceil(SHARED_PART) as u32);
            }
        }
        // The next slot and the merge of each token.
        let mut next = Vec::with_capacity(singles.len());
        for (single, &(pages, parts)) in singles.iter().zip(&covered) {
            let first = tables.slots;
            let start = pages * PAGE;
            let count = parts + (single.end - start).div_ceil(part) as u32;
            let mut from = start;
            for index in parts..count {
                let end = single.end.min(from.saturating_add(part));
                let slot = if count > 1 { first + index } else { NO_SLOT };
                let merge = tables.merges.len() as u32;
                tables.items.push([single.row, from as u32, end as u32, single.offset, slot, merge]);
                from = end;
            }
            next.push((first, tables.merges.len() as u32));
            if count > 1 {
                // Blocks take up to 16 heads of a token by itself, and all heads of tokens that have pages in common.
                let blocks = parts + (count - parts) * group.div_ceil(WARP_ROWS) as u32;
                tables.merges.push([single.row, first, count, blocks]);
                tables.slots += count;
            }
        }
        for Shared { pages, rows } in &common {
            for first in pages.clone().step_by(SHARED_PART) {
                let end = pages.end.min(first + SHARED_PART);
                // Blocks of the same size, as they take the same time.
                let blocks = rows.len().div_ceil((SHARED_ROWS / group).max(1));
                for rows in rows.chunks(rows.len().div_ceil(blocks)) {
                    let positions = [first * PAGE, end * PAGE].map(|position| position as u32);
                    let offset = singles[rows[0]].offset;
                    let head = [tables.members.len() as u32, rows.len() as u32];
                    tables.shared.push([head[0], head[1], positions[0], positions[1], offset]);
                    for &row in rows {
                        let (slot, merge) = &mut next[row];
                        tables.members.push([singles[row].row, *slot, *merge]);
                        *slot += 1;
                    }
                }
            }
        }
        tables
    }
}

pub(super) fn missing() -> candle_core::Error {
    candle_core::Error::Msg("a table is missing".to_owned())
}

/// The file with the kernels for a type.
pub(super) fn file(dtype: DType) -> Result<&'static str> {
    match dtype {
        DType::F32 => Ok("paged_f32"),
        DType::BF16 => Ok("paged_bf16"),
        DType::F16 => Ok("paged_f16"),
        other => bail!("no kernels for pages of `{other:?}`"),
    }
}

//! Keys and values in pages: what is written where, and attention to them.

use candle_core::{DType, Device, Tensor};
use gift_host::policy::fused::{
    NewHeads, PAGE, PageHeads, PageShape, PagedAttention, PagedRows, PagedSpan, Spec, copy_pages, copy_pages_launches,
    rotate, write_rows, write_rows_launches,
};

use super::super::decoder::{devices, must_have_device};
use super::super::emulator::{TYPES, launch_all};
use super::{assert_close, every_way, normal, tolerance, values};

const LAYERS: usize = 2;
const LAYER: usize = 1;
/// Four pages a slab.
const SHIFT: u32 = 2;

/// A sequence by the positions that it holds, its new tokens and its pages.
struct Held {
    start: usize,
    count: usize,
    pages: Vec<u32>,
}

/// Sequences with pages in no order among `slabs` slabs; pages `7 n` belong to nobody.
fn sequences(lengths: &[(usize, usize)]) -> (Vec<Held>, usize) {
    let mut next = 0..;
    let mut page = || next.find(|page| page % 7 != 0).expect("a page");
    let held = |&(start, count): &(usize, usize)| {
        let mut pages: Vec<u32> = (0..(start + count).div_ceil(PAGE)).map(|_| page()).collect();
        pages.reverse();
        Held { start, count, pages }
    };
    let held: Vec<Held> = lengths.iter().map(held).collect();
    let last = held.iter().flat_map(|held| &held.pages).max().map_or(0, |&page| page as usize);
    (held, (last >> SHIFT) + 1)
}

fn rows(held: &[Held], shape: PageShape, heads: usize, dtype: DType) -> PagedRows {
    let tokens: Vec<Vec<u32>> = held.iter().map(|held| vec![3; held.count]).collect();
    let pairs = held.iter().zip(&tokens);
    let spans: Vec<PagedSpan<'_>> =
        pairs.map(|(held, tokens)| PagedSpan { tokens, start: held.start, pages: &held.pages }).collect();
    let heads = PageHeads { kv_heads: shape.kv_heads, group: heads / shape.kv_heads, dim: shape.head_dim };
    PagedRows::new(&spans, heads, dtype, &Device::Cpu).expect("tables")
}

/// Slabs whose pages hold numbers if somebody has them, and NaN otherwise.
fn slabs(count: usize, shape: PageShape, held: &[Held], dtype: DType) -> Vec<Tensor> {
    let slab = |slab: usize| {
        let mut numbers = values(&normal(10 + slab as u64, &shape.slab_dims(), 1.5, DType::F32));
        for (page, numbers) in numbers.chunks_exact_mut(shape.page_size()).enumerate() {
            let page = ((slab << SHIFT) + page) as u32;
            if !held.iter().any(|held| held.pages.contains(&page)) {
                numbers.fill(f64::NAN);
            }
        }
        Tensor::from_vec(numbers, &shape.slab_dims(), &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    };
    (0..count).map(slab).collect()
}

/// Where the keys (0) or values (1) of a head at a position of a page are among all elements of all slabs.
fn place(shape: PageShape, layer: usize, part: usize, kv_head: usize, page: u32, position: usize) -> usize {
    let head = (layer * 2 + part) * shape.kv_heads + kv_head;
    page as usize * shape.page_size() + (head * PAGE + position % PAGE) * shape.head_dim
}

fn expected(queries: &[f64], memory: &[f64], held: &[Held], shape: PageShape, heads: usize) -> Vec<f64> {
    let dim = shape.head_dim;
    let mut expected = Vec::new();
    let mut row = 0;
    for sequence in held {
        for end in sequence.start + 1..=sequence.start + sequence.count {
            for head in 0..heads {
                let kv_head = head * shape.kv_heads / heads;
                let query = &queries[(row * heads + head) * dim..][..dim];
                let part = |part: usize, position: usize| {
                    &memory[place(shape, LAYER, part, kv_head, sequence.pages[position / PAGE], position)..][..dim]
                };
                let score = |position: usize| {
                    let product: f64 = query.iter().zip(part(0, position)).map(|(a, b)| a * b).sum();
                    (product / (dim as f64).sqrt()).exp()
                };
                let weights: Vec<f64> = (0..end).map(score).collect();
                let sum: f64 = weights.iter().sum();
                let column = |column: usize| {
                    let terms = weights.iter().enumerate().map(|(key, weight)| weight * part(1, key)[column]);
                    terms.sum::<f64>() / sum
                };
                expected.extend((0..dim).map(column));
            }
            row += 1;
        }
    }
    expected
}

fn assert_attention(lengths: &[(usize, usize)], heads: [usize; 3], dtype: DType) {
    assert!(attend(&sequences(lengths), heads, dtype).shared.dims()[0] == 0);
}

/// Returns the tables.
fn attend((held, count): &(Vec<Held>, usize), [heads, kv_heads, dim]: [usize; 3], dtype: DType) -> PagedRows {
    let shape = PageShape { layers: LAYERS, kv_heads, head_dim: dim, shift: SHIFT };
    let slabs = slabs(*count, shape, held, dtype);
    let rows = rows(held, shape, heads, dtype);
    let queries = normal(1, &[rows.tokens.dim(0).unwrap(), heads, dim], 1.5, dtype);
    let memory: Vec<f64> = slabs.iter().flat_map(values).collect();
    let expected = expected(&values(&queries), &memory, held, shape, heads);
    let operation = PagedAttention { shape, layer: LAYER, slots: rows.slots };
    let inputs: Vec<&Tensor> = [&queries].into_iter().chain(rows.of_attention()).chain(&slabs).collect();
    // As for attention to packed rows: rounded products of rounded probabilities.
    let tolerance = [5e-6, 1.2e-2, 2e-3][TYPES.iter().position(|&other| other == dtype).unwrap()];
    for (way, outputs) in every_way(&operation, &inputs) {
        let name = format!("{heads} heads, {kv_heads} of keys, {dim} wide, {dtype:?} {way}");
        assert_close(&name, &values(&outputs[0]), &expected, tolerance);
    }
    rows
}

/// First tokens, ends of pages, tokens in one part and in several, tiles of a beginning and of a continuation.
const LENGTHS: [(usize, usize); 9] =
    [(0, 1), (31, 1), (32, 1), (0, 70), (255, 1), (700, 1), (45, 40), (30, 4), (254, 3)];

#[test]
fn attention_to_pages_matches_plain_loops() {
    for dtype in TYPES {
        assert_attention(&LENGTHS, [6, 2, 64], dtype);
    }
}

/// Heads of the other widths, a head of keys for each query, more heads in a group than a warp takes, and widths without tiles.
#[test]
fn attention_to_pages_of_other_shapes_matches_plain_loops() {
    for dtype in TYPES {
        assert_attention(&[(290, 1), (3, 1), (0, 33)], [2, 2, 32], dtype);
        assert_attention(&[(290, 1), (40, 30)], [20, 1, 128], dtype);
        assert_attention(&[(300, 1), (5, 20)], [3, 1, 8], dtype);
        assert_attention(&[(40, 1), (0, 6)], [2, 1, 80], dtype);
    }
}

/// Two groups with a prompt each and rules that all begin with, one sequence that has nothing in common with them, and new tokens
/// in tiles; pages that sequences begin with are read together.
#[test]
fn attention_to_pages_in_common_matches_plain_loops() {
    // Positions held, and how many of their pages are those of the rules, and of the rules and a prompt.
    let lengths = [(460, 14), (450, 14), (470, 14), (300, 8), (257, 8), (256, 8), (600, 0), (90, 2), (70, 2)];
    let group = |index: usize| if index < 3 { 0 } else { 3 };
    for (dtype, heads) in [
        (DType::F32, [6, 2, 64]),
        (DType::BF16, [14, 2, 64]),
        (DType::F16, [12, 2, 128]),
        (DType::BF16, [20, 1, 128]),
        (DType::BF16, [2, 2, 32]),
        (DType::F32, [64, 1, 32]),
    ] {
        let (mut held, count) = sequences(&lengths.map(|(start, _)| (start, 1)));
        held[8].count = 6;
        for (index, (_, shared)) in lengths.into_iter().enumerate().filter(|(index, _)| *index != 6) {
            for page in 0..shared {
                // The rules have two pages.
                let owner = if page < 2 { 0 } else { group(index) };
                held[index].pages[page] = held[owner].pages[page];
            }
        }
        let rows = attend(&(held, count), heads, dtype);
        // The rules in one part, 12 and 6 pages of the prompts in 3 and 2; up to 64 rows of queries a block.
        let per_block = 64 / (heads[0] / heads[1]);
        let blocks = 7_usize.div_ceil(per_block) + (3 + 2) * 3_usize.div_ceil(per_block);
        assert_eq!((rows.shared.dims()[0], rows.members.dims()[0]), (blocks, 7 + 3 * (3 + 2)));
        // Those and the rest of each: 44 to 256 positions.
        assert_eq!(rows.slots, 7 + 3 * (3 + 2) + 7 + 3);
    }
}

/// That memory is as it should be wherever it is written to, and not written to elsewhere.
fn assert_memory(way: &str, slabs: &[Tensor], before: &[f64], expected: &[(usize, f64)], tolerance: f64) {
    let mut wanted = before.to_vec();
    for &(place, value) in expected {
        wanted[place] = value;
    }
    let found: Vec<f64> = slabs.iter().flat_map(values).collect();
    for (index, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
        let close = (found - wanted).abs() <= tolerance * (1.0 + wanted.abs());
        assert!(close || found.is_nan() && wanted.is_nan(), "{way}: {found} at {index}, not {wanted}");
    }
}

fn assert_written([heads, kv_heads, dim]: [usize; 3], dtype: DType, is_biased: bool) {
    let shape = PageShape { layers: LAYERS, kv_heads, head_dim: dim, shift: SHIFT };
    // The end of a page, a page begun, one gone on with, several pages of which the first was begun before.
    let (held, count) = sequences(&[(31, 1), (32, 1), (40, 1), (20, 50), (0, 3)]);
    let rows = rows(&held, shape, heads, dtype);
    let row_count = rows.tokens.dim(0).unwrap();
    let queries = normal(1, &[row_count, heads, dim], 1.0, dtype);
    let [keys, new_values] = [2, 3].map(|seed| normal(seed, &[row_count, kv_heads, dim], 1.0, dtype));
    let biases =
        [(6, heads), (7, kv_heads), (8, kv_heads)].map(|(seed, heads)| normal(seed, &[heads * dim], 1.0, dtype));
    let [cosines, sines] = [4, 5].map(|seed| normal(seed, &[100, 1, dim / 2], 1.0, DType::F32));
    // Nobody has written to a page yet.
    let empty = slabs(count, shape, &[], dtype);
    let before: Vec<f64> = empty.iter().flat_map(values).collect();

    let positions = rows.places.narrow(1, 0, 1).unwrap().flatten_all().unwrap();
    // Sums are rounded before they are turned.
    let summed = |x: &Tensor, bias: &Tensor| {
        let bias = bias.reshape(((), dim)).unwrap().to_dtype(DType::F32).unwrap();
        let sum = x.to_dtype(DType::F32).unwrap().broadcast_add(&bias).unwrap().to_dtype(dtype).unwrap();
        if is_biased { sum } else { x.clone() }
    };
    let turn = |x: &Tensor| values(&rotate(x, &positions, (&cosines, &sines)).unwrap());
    let turned_keys = turn(&summed(&keys, &biases[1]));
    let turned = turn(&summed(&queries, &biases[0]));
    let plain = values(&summed(&new_values, &biases[2]));
    let (mut expected, mut row) = (Vec::new(), 0);
    for sequence in &held {
        let end = sequence.start + sequence.count;
        // What is behind the end of a page that is begun here becomes zero.
        let zeroed = if (end - 1) / PAGE * PAGE >= sequence.start { end.next_multiple_of(PAGE) } else { end };
        for position in sequence.start..zeroed {
            for (part, from) in [&turned_keys, &plain].into_iter().enumerate() {
                for head in 0..kv_heads {
                    let start = place(shape, LAYER, part, head, sequence.pages[position / PAGE], position);
                    let value = |column: usize| {
                        if position < end { from[(row * kv_heads + head) * dim + column] } else { 0.0 }
                    };
                    expected.extend((0..dim).map(|column| (start + column, value(column))));
                }
            }
            row += usize::from(position < end);
        }
    }
    // Turned by one order of operations or another.
    let tolerance = 2.0 * tolerance(dtype);
    let copies = || empty.iter().map(|slab| slab.copy().unwrap()).collect::<Vec<_>>();
    for device in devices() {
        let there = |x: &Tensor| x.to_device(&device).unwrap();
        let on_device = PagedRows { tokens: there(&rows.tokens), places: there(&rows.places), ..rows.clone() };
        let [queries, keys, values_there] = [&queries, &keys, &new_values].map(there);
        let biases = biases.each_ref().map(there);
        let biases = is_biased.then(|| biases.each_ref());
        let joined = Tensor::cat(&[&queries, &keys, &values_there], 1).unwrap();
        let tables = (&there(&cosines), &there(&sines));
        for heads in [NewHeads::Apart([&queries, &keys, &values_there]), NewHeads::Joined(&joined)] {
            let slabs: Vec<Tensor> = copies().iter().map(there).collect();
            let found = write_rows((heads, biases), (&slabs, shape), LAYER, &on_device, tables).expect("written");
            assert_close("turned queries", &values(&found.to_device(&Device::Cpu).unwrap()), &turned, tolerance);
            let back: Vec<Tensor> = slabs.iter().map(|slab| slab.to_device(&Device::Cpu).unwrap()).collect();
            assert_memory("on a device", &back, &before, &expected, tolerance);
        }
    }
    if must_have_device() {
        return;
    }
    let joined = Tensor::cat(&[&queries, &keys, &new_values], 1).unwrap();
    for (is_joined, new) in [(false, [&queries, &keys, &new_values]), (true, [&joined; 3])] {
        let slabs = copies();
        let inputs = new.into_iter().chain([&rows.places, &cosines, &sines]);
        let inputs: Vec<&Tensor> = inputs.chain(&biases).chain(&slabs).collect();
        let specs: Vec<Spec> = inputs.iter().map(|input| Spec::of(input)).collect();
        let (launches, output) =
            write_rows_launches(&specs, (is_joined, is_biased), shape, LAYER).expect("there is a kernel");
        let found = launch_all(&launches, &inputs, &[output]);
        assert_close("turned queries in the emulator", &values(&found[inputs.len()]), &turned, tolerance);
        assert_memory("in the emulator", &found[9..inputs.len()], &before, &expected, tolerance);
    }
}

#[test]
fn keys_and_values_are_written_to_their_pages() {
    for dtype in TYPES {
        assert_written([6, 2, 64], dtype, true);
        assert_written([3, 3, 20], dtype, false);
    }
}

#[test]
fn beginnings_of_pages_are_copied() {
    let shape = PageShape { layers: LAYERS, kv_heads: 3, head_dim: 20, shift: SHIFT };
    let (held, count) = sequences(&[(0, 100), (0, 40)]);
    let copies = [[1, 7, 5], [3, 0, 31]];
    for dtype in TYPES {
        let given = || slabs(count, shape, &held, dtype);
        let before: Vec<f64> = given().iter().flat_map(values).collect();
        let mut expected = Vec::new();
        for [from, to, count] in copies {
            for part in 0..LAYERS * 2 * 3 {
                let start = |page: u32| place(shape, 0, 0, part, page, 0);
                for element in 0..PAGE * 20 {
                    let is_copied = element < count as usize * 20;
                    let value = if is_copied { before[start(from) + element] } else { 0.0 };
                    expected.push((start(to) + element, value));
                }
            }
        }
        for device in devices() {
            let slabs: Vec<Tensor> = given().iter().map(|slab| slab.to_device(&device).unwrap()).collect();
            copy_pages((&slabs, shape), &copies).expect("copied");
            let back: Vec<Tensor> = slabs.iter().map(|slab| slab.to_device(&Device::Cpu).unwrap()).collect();
            assert_memory("on a device", &back, &before, &expected, 0.0);
        }
        let table = Tensor::from_vec(copies.concat(), (copies.len(), 3), &Device::Cpu).unwrap();
        let slabs = given();
        let inputs: Vec<&Tensor> = [&table].into_iter().chain(&slabs).collect();
        let specs: Vec<Spec> = inputs.iter().map(|input| Spec::of(input)).collect();
        let found = launch_all(&copy_pages_launches(&specs, shape).expect("there is a kernel"), &inputs, &[]);
        assert_memory("in the emulator", &found[1..], &before, &expected, 0.0);
        assert!(copy_pages((&slabs, shape), &[[1, 4000, 5]]).is_err());
    }
}

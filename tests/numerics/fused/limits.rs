//! Launches for models of real sizes stay within what every processor from Ampere on offers.

use candle_core::{DType, Device};
use gift_host::policy::fused::{
    AddBias, AddNorm, Attention, AttentionBackward, AttentionLayout, Launch, Norm, NormBackward, Operation, PAGE,
    PageHeads, PageShape, PagedAttention, PagedRows, PagedSpan, Rotation, Spec, Stretch, Swiglu, SwigluBackward,
    SwigluJoined, TokenScores, TokenScoresBackward, copy_pages_launches, write_rows_launches,
};

use super::super::emulator::TYPES;

/// Shared memory of a block on processors of capability 8.6 and 8.9, which have least.
const MAX_SHARED_BYTES: usize = 99 << 10;
/// As the decoder packs them on a device.
const ROWS: usize = 12_288;

/// Hidden size, heads, heads of keys, width of heads, size of the feed-forward layer, vocabulary.
const MODELS: [[usize; 6]; 5] = [
    [576, 9, 3, 64, 1536, 49152],       // SmolLM2-135M
    [896, 14, 2, 64, 4864, 151_936],    // Qwen2.5-0.5B
    [1536, 12, 2, 128, 8960, 151_936],  // Qwen2.5-1.5B
    [3584, 28, 4, 128, 18944, 152_064], // Qwen2.5-7B
    [5120, 40, 8, 128, 17408, 151_936], // Qwen3-14B
];

fn assert_fits(operation: &dyn Operation, inputs: &[Spec]) {
    operation.outputs(inputs).expect("the inputs fit together");
    assert_launches_fit(&operation.launches(inputs).expect("there is a kernel"));
}

fn assert_launches_fit(launches: &[Launch]) {
    for launch in launches {
        let threads = launch.block[0] * launch.block[1];
        assert!(launch.block[0].is_multiple_of(32) && threads <= 1024, "{launch:?}");
        assert!(launch.grid[0] < 1 << 31 && launch.grid[1] < 1 << 16 && launch.grid[2] < 1 << 16, "{launch:?}");
        assert!(launch.shared_bytes <= MAX_SHARED_BYTES, "{launch:?}");
    }
}

#[test]
fn launches_for_real_models_fit_the_device() {
    let stretches = [Stretch { rows: 0..1000, before: Vec::new() }, Stretch { rows: 1000..ROWS, before: Vec::new() }];
    for dtype in TYPES {
        let layout = AttentionLayout::new(&stretches, dtype, &Device::Cpu).unwrap();
        let [tiles, ranges, key_tiles] = [&layout.tiles, &layout.ranges, &layout.key_tiles].map(Spec::of);
        for [hidden, heads, kv_heads, dim, intermediate, vocab] in MODELS {
            let spec = |dims: &[usize]| Spec { dims: dims.to_vec(), dtype };
            let of = |dims: &[usize], dtype: DType| Spec { dims: dims.to_vec(), dtype };
            let (stream, weight) = (spec(&[ROWS, hidden]), spec(&[hidden]));
            assert_fits(&Norm { epsilon: 1e-6 }, &[stream.clone(), weight.clone()]);
            assert_fits(&AddNorm { epsilon: 1e-6 }, &[stream.clone(), stream.clone(), weight.clone()]);
            assert_fits(&NormBackward { epsilon: 1e-6 }, &[stream.clone(), weight, stream]);
            let (queries, keys) = (spec(&[ROWS, heads, dim]), spec(&[ROWS, kv_heads, dim]));
            assert_fits(&NormBackward { epsilon: 1e-6 }, &[queries.clone(), spec(&[dim]), queries.clone()]);
            let table = of(&[32768, 1, dim / 2], DType::F32);
            let rotation = [queries.clone(), of(&[ROWS], DType::U32), table.clone(), table];
            assert_fits(&Rotation { is_back: false }, &rotation);
            assert_fits(&Rotation { is_back: false }, &[&rotation[..], &[spec(&[heads * dim])]].concat());
            assert_fits(&AddBias, &[spec(&[ROWS, kv_heads * dim]), spec(&[kv_heads * dim])]);
            let inputs = [queries.clone(), keys.clone(), keys.clone()];
            let tables = [tiles.clone(), ranges.clone(), key_tiles.clone()];
            assert_fits(&Attention, &[&inputs[..], &tables].concat());
            let results = [queries.clone(), of(&[ROWS, heads], DType::F32), queries];
            assert_fits(&AttentionBackward, &[&inputs[..], &results, &tables].concat());
            let gate = spec(&[ROWS, intermediate]);
            assert_fits(&Swiglu, &[gate.clone(), gate.clone()]);
            assert_fits(&SwigluJoined, &[spec(&[ROWS, 2 * intermediate])]);
            assert_fits(&SwigluBackward, &[gate.clone(), gate.clone(), gate]);
            let ids = |count: usize| of(&[count], DType::U32);
            let scores = [of(&[800, vocab], DType::F32), ids(800), ids(801), ids(5)];
            assert_fits(&TokenScores { temperature: 1.0 }, &scores);
            let gradients = vec![of(&[800], DType::F32); 4];
            assert_fits(&TokenScoresBackward { temperature: 1.0, to: dtype }, &[&scores[..], &gradients].concat());
        }
    }
}

/// A pass with long prompts, and with a token of each of many long sequences.
#[test]
fn launches_for_pages_of_real_models_fit_the_device() {
    let (text, pages) = (vec![1; 4000], (0..20_000 / PAGE as u32).collect::<Vec<_>>());
    let long = [PagedSpan { tokens: &text, start: 10_000, pages: &pages }];
    let single = vec![PagedSpan { tokens: &text[..1], start: 19_000, pages: &pages }; 512];
    for dtype in TYPES {
        for [_, heads, kv_heads, dim, ..] in MODELS {
            let shape = PageShape { layers: 40, kv_heads, head_dim: dim, shift: 5 };
            for spans in [&long[..], &single[..]] {
                let rows =
                    PagedRows::new(spans, PageHeads { kv_heads, group: heads / kv_heads, dim }, dtype, &Device::Cpu)
                        .unwrap();
                let count = rows.tokens.dim(0).unwrap();
                let spec = |dims: &[usize]| Spec { dims: dims.to_vec(), dtype };
                let queries = spec(&[count, heads, dim]);
                let slabs = vec![spec(&shape.slab_dims()); 30];
                let tables = rows.of_attention().map(Spec::of);
                let inputs = [&[queries.clone()][..], &tables, &slabs].concat();
                assert_fits(&PagedAttention { shape, layer: 39, slots: rows.slots }, &inputs);
                let new = spec(&[count, kv_heads, dim]);
                let angles = Spec { dims: vec![32768, 1, dim / 2], dtype: DType::F32 };
                let tables = [Spec::of(&rows.places), angles.clone(), angles];
                let biases = [spec(&[heads * dim]), spec(&[kv_heads * dim]), spec(&[kv_heads * dim])];
                let joined = spec(&[count, heads + 2 * kv_heads, dim]);
                for (is_joined, new) in
                    [(false, [queries, new.clone(), new]), (true, [joined.clone(), joined.clone(), joined])]
                {
                    let inputs = [&new[..], &tables, &biases, &slabs].concat();
                    let launches = write_rows_launches(&inputs, (is_joined, true), shape, 39);
                    assert_launches_fit(&launches.expect("there is a kernel").0);
                }
                let copies = Spec { dims: vec![512, 3], dtype: DType::U32 };
                let launches = copy_pages_launches(&[&[copies][..], &slabs].concat(), shape);
                assert_launches_fit(&launches.expect("there is a kernel"));
            }
        }
    }
}

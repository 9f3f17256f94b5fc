//! Whole decoders that compute in 16 bits, with weights, gradients and moments in 32, on the CPU and on a CUDA device. Against the
//! decoder in 32 bits.

use candle_core::{DType, Device};
use gift_host::policy::{
    AdamWStep, AdapterConfig, CandleDecoder, CpuDecoder, Decoder, DecoderConfig, NamedTensor, TensorKind,
};

use super::super::adapter::{settings, tensors};
use super::super::decoder::{Data, Linear, STEP, devices, norm, qwen2, qwen3, small, untied, weights};

fn ways() -> Vec<(Device, DType)> {
    devices().iter().flat_map(|device| [DType::F16, DType::BF16].map(|dtype| (device.clone(), dtype))).collect()
}

/// How far apart two lists of tensors are, as a share of the length of the second one.
fn distance(found: &[NamedTensor], expected: &[NamedTensor]) -> f64 {
    let all = |tensors: &[NamedTensor]| -> Vec<f64> {
        tensors.iter().flat_map(|tensor| &tensor.data).map(|&value| f64::from(value)).collect()
    };
    let (found, expected) = (all(found), all(expected));
    norm(found.iter().zip(&expected).map(|(a, b)| a - b)) / norm(expected.into_iter())
}

/// Rounded to 11 bits, or 8, in every operation of two layers.
fn assert_agree(mut found: CandleDecoder, mut expected: CpuDecoder, config: &DecoderConfig, dtype: DType) {
    let data = Data::new(config, &[50, 1, 9, 22]);
    let tolerance = if dtype == DType::F16 { 0.02 } else { 0.12 };
    let expected_scores = expected.accumulate(&data.sequences(), 1.3, &Linear).expect("accumulated");
    let scores = found.accumulate(&data.sequences(), 1.3, &Linear).expect("accumulated");
    for (found, expected) in scores.iter().flatten().zip(expected_scores.iter().flatten()) {
        let close = |a: f32, b: f32| f64::from((a - b).abs()) < tolerance * f64::from(1.0 + b.abs());
        assert!(close(found.log_prob, expected.log_prob) && close(found.entropy, expected.entropy), "{found:?}");
    }
    let gradients = |decoder: &dyn Decoder| decoder.tensors(TensorKind::Gradient).expect("gradients");
    let apart = distance(&gradients(&found), &gradients(&expected));
    assert!(apart < 2.0 * tolerance, "gradients in {dtype:?} are {apart} apart");
    let ratio = found.gradient_norm().expect("a norm") / expected.gradient_norm().expect("a norm");
    assert!((ratio - 1.0).abs() < 2.0 * tolerance, "norms in {dtype:?}: {ratio}");

    // A step from the same gradients differs by nothing but the order of sums: it is in 32 bits.
    let given = gradients(&expected);
    found.set_tensors(TensorKind::Gradient, &given).expect("the gradients fit");
    let step = AdamWStep { epsilon: 1e-3, ..STEP };
    let kind = if found.adapter().is_some() { TensorKind::Adapter } else { TensorKind::Weight };
    for decoder in [&mut found as &mut dyn Decoder, &mut expected] {
        decoder.step(&step).expect("stepped");
    }
    let weights = |decoder: &dyn Decoder| decoder.tensors(kind).expect("weights");
    let apart = distance(&weights(&found), &weights(&expected));
    assert!(apart < 1e-6, "weights in {dtype:?} are {apart} apart");
}

#[test]
fn decoders_in_16_bits_agree_with_32() {
    for config in [small(), untied(), qwen2(), qwen3()] {
        let weights = weights(&config, 1);
        for (device, dtype) in ways() {
            let expected = CpuDecoder::new(config.clone(), &weights).expect("the weights fit");
            let found = CandleDecoder::new(config.clone(), &weights, device, dtype).expect("the weights fit");
            assert_agree(found, expected, &config, dtype);
        }
    }
}

#[test]
fn adapters_in_16_bits_agree_with_32() {
    for dora in [false, true] {
        let (config, settings) = (qwen3(), AdapterConfig { dropout: 0.2, ..settings(dora) });
        let (weights, tensors) = (weights(&config, 1), tensors(&config, &settings));
        for (device, dtype) in ways() {
            let adapter = (settings.clone(), &tensors[..]);
            let mut found =
                CandleDecoder::with_adapter(config.clone(), &weights, adapter, device, dtype).expect("they fit");
            let mut expected =
                CpuDecoder::with_adapter(config.clone(), &weights, settings.clone(), &tensors).expect("they fit");
            found.draw_dropout(5);
            expected.draw_dropout(5);
            assert_agree(found, expected, &config, dtype);
        }
    }
}

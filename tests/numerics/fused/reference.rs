//! Every operation with its gradient against stored values of PyTorch (`data/fused_reference.py`), on the CPU. Tolerance: `1e-5` of
//! each value and of the root mean square, in `f32`.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use gift_host::policy::fused::{
    AttentionLayout, Parameter, Stretch, TokenTargets, adamw, add_rms_norm, attention, rms_norm, rotate, swiglu,
    token_scores, token_scores_backward,
};
use gift_host::policy::{AdamWStep, read_safetensors};

use super::super::decoder::STEP;
use super::{assert_close, values};

const TOLERANCE: f64 = 1e-5;
const EPSILON: f32 = 1e-5;
const TEMPERATURE: f32 = 1.3;

struct Stored(BTreeMap<String, Tensor>);

impl Stored {
    fn read() -> Self {
        let file = super::super::root().join("tests/numerics/data/fused_reference.safetensors");
        let tensor = |tensor: gift_host::policy::NamedTensor| {
            (tensor.name, Tensor::from_vec(tensor.data, tensor.shape, &Device::Cpu).unwrap())
        };
        Self(read_safetensors(&file).expect("the stored values").into_iter().map(tensor).collect())
    }

    fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no `{name}`"))
    }

    /// That a function of these inputs gives the stored outputs and gradients.
    fn assert_matches(&self, name: &str, inputs: &[&str], function: impl Fn(&[Tensor]) -> Vec<Tensor>) {
        let get = |part: &str| self.get(&format!("{name}/{part}"));
        let variables: Vec<Var> = inputs.iter().map(|input| Var::from_tensor(get(input)).unwrap()).collect();
        let tracked: Vec<Tensor> = variables.iter().map(|var| var.as_tensor().clone()).collect();
        let mut sum = Tensor::zeros((), DType::F32, &Device::Cpu).unwrap();
        for (index, output) in function(&tracked).iter().enumerate() {
            let expected = values(get(&format!("output{index}")));
            assert_close(&format!("{name}, output {index}"), &values(output), &expected, TOLERANCE);
            let weighted = (output * get(&format!("weights{index}"))).unwrap();
            sum = (sum + weighted.sum_all().unwrap()).unwrap();
        }
        let gradients = sum.backward().unwrap();
        for (input, variable) in inputs.iter().zip(&variables) {
            let found = values(gradients.get(variable.as_tensor()).expect("a gradient"));
            let expected = values(get(&format!("gradient_{input}")));
            assert_close(&format!("{name}, gradient of `{input}`"), &found, &expected, TOLERANCE);
        }
    }
}

#[test]
fn norms_and_elementwise_operations_match_pytorch() {
    let stored = Stored::read();
    let norm = |inputs: &[Tensor]| vec![rms_norm(&inputs[0], &inputs[1], EPSILON).unwrap()];
    stored.assert_matches("norm", &["x", "weight"], norm);
    let add_norm = |inputs: &[Tensor]| {
        let (stream, normalized) = add_rms_norm(&inputs[0], &inputs[1], &inputs[2], EPSILON).unwrap();
        vec![stream, normalized]
    };
    stored.assert_matches("add_norm", &["x", "change", "weight"], add_norm);
    stored.assert_matches("gate", &["gate", "up"], |inputs| vec![swiglu(&inputs[0], &inputs[1]).unwrap()]);
    let positions = stored.get("rotation/positions").to_dtype(DType::U32).unwrap();
    let tables = (stored.get("rotation/cosines"), stored.get("rotation/sines"));
    stored.assert_matches("rotation", &["x"], |inputs| vec![rotate(&inputs[0], &positions, tables).unwrap()]);
}

#[test]
fn attention_matches_pytorch() {
    let stretch = |start: usize, end: usize, before: &[(usize, usize)]| Stretch {
        rows: start..end,
        before: before.iter().map(|&(start, end)| start..end).collect(),
    };
    let stretches = [
        stretch(0, 4, &[]),
        stretch(4, 6, &[(0, 4)]),
        stretch(6, 9, &[(0, 4)]),
        stretch(9, 10, &[(0, 4), (6, 9)]),
        stretch(10, 13, &[]),
    ];
    let layout = AttentionLayout::new(&stretches, DType::F32, &Device::Cpu).unwrap();
    Stored::read().assert_matches("attention", &["queries", "keys", "values"], |inputs| {
        vec![attention(&inputs[0], &inputs[1], &inputs[2], &layout).unwrap()]
    });
}

#[test]
fn scores_match_pytorch() {
    let stored = Stored::read();
    let targets = [(3, None), (5, Some(&[2, 5, 11][..])), (0, None), (7, Some(&[7][..]))];
    let targets = TokenTargets::new(&targets, &Device::Cpu).unwrap();
    let logits = stored.get("scores/logits");
    let found = token_scores(logits, &targets, TEMPERATURE).unwrap();
    assert_close("log-probabilities", &values(&found.log_probs), &values(stored.get("scores/output0")), TOLERANCE);
    assert_close("entropies", &values(&found.entropies), &values(stored.get("scores/output1")), TOLERANCE);
    let weights = (stored.get("scores/weights0"), stored.get("scores/weights1"));
    let gradient = token_scores_backward(logits, &targets, TEMPERATURE, &found, weights, DType::F32).unwrap();
    assert_close("gradient", &values(&gradient), &values(stored.get("scores/gradient_logits")), TOLERANCE);
}

#[test]
fn steps_match_pytorch() {
    let stored = Stored::read();
    let start = stored.get("adamw/start");
    let mut parameters = [Parameter {
        weight: start.clone(),
        gradient: None,
        first: start.zeros_like().unwrap(),
        second: start.zeros_like().unwrap(),
        copy: start.copy().unwrap(),
    }];
    for step in 0..3 {
        parameters[0].gradient = Some(stored.get(&format!("adamw/gradient{step}")).clone());
        adamw(&mut parameters, &AdamWStep { step: step + 1, ..STEP }).unwrap();
        let expected = values(stored.get(&format!("adamw/weight{step}")));
        assert_close(&format!("step {step}"), &values(&parameters[0].weight), &expected, TOLERANCE);
    }
}

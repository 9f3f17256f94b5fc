//! A decoder for tests: the logits of the next token are a row of a table, chosen by the token before. Exact, tiny, and
//! with the gradients of its own softmax, so that whole updates can be checked by hand or by finite differences.

use crate::policy::{
    AdamWStep, Chunk, Decoder, DecoderConfig, Error, Inference, KvCache, NamedTensor, Sequence, SequenceLoss,
    TensorKind, TokenGradient, TokenScore,
};

#[derive(Clone, Debug)]
pub(super) struct TableDecoder {
    pub(super) vocab: usize,
    /// `[vocab, vocab]`, row-major.
    pub(super) weights: Vec<f64>,
    pub(super) gradients: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
    /// Every step taken.
    pub(super) steps: Vec<AdamWStep>,
    /// Calls of `accumulate` that give scores that are not a number.
    pub(super) poisoned: u32,
    /// Sequences in each call of `accumulate`.
    pub(super) calls: Vec<usize>,
}

impl TableDecoder {
    pub(super) fn new(vocab: usize) -> Self {
        let zeros = vec![0.0; vocab * vocab];
        // Any table without symmetries.
        let weights = (0..vocab * vocab).map(|index| (index as f64 * 1.7).sin()).collect();
        Self {
            vocab,
            weights,
            gradients: zeros.clone(),
            first: zeros.clone(),
            second: zeros,
            steps: Vec::new(),
            poisoned: 0,
            calls: Vec::new(),
        }
    }

    /// Probabilities after token `before`, over `allowed` or all.
    fn probabilities(&self, before: u32, allowed: Option<&[u32]>, temperature: f32) -> Vec<f64> {
        let row = &self.weights[before as usize * self.vocab..][..self.vocab];
        let is_allowed = |id: usize| allowed.is_none_or(|allowed| allowed.contains(&(id as u32)));
        let powers: Vec<f64> = row
            .iter()
            .enumerate()
            .map(|(id, logit)| if is_allowed(id) { (logit / f64::from(temperature)).exp() } else { 0.0 })
            .collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(|power| power / sum).collect()
    }
}

fn entropy(probabilities: &[f64]) -> f64 {
    probabilities.iter().filter(|&&p| p > 0.0).map(|p| -p * p.ln()).sum()
}

impl Inference for TableDecoder {
    fn config(&self) -> &DecoderConfig {
        unreachable!("the learner does not ask for the shape")
    }

    fn new_cache(&self) -> KvCache {
        unreachable!("the learner does not sample")
    }

    fn extend(&self, _chunks: &mut [Chunk<'_>]) -> Result<Vec<f32>, Error> {
        unreachable!("the learner does not sample")
    }
}

impl Decoder for TableDecoder {
    fn score(&self, sequences: &[Sequence<'_>], temperature: f32) -> Result<Vec<Vec<TokenScore>>, Error> {
        let score = |sequence: &Sequence<'_>| {
            let token = |target: &crate::policy::Target| {
                let position = target.position as usize;
                let before = sequence.tokens[position - 1];
                let probabilities = self.probabilities(before, target.allowed.as_deref(), temperature);
                let log_prob = probabilities[sequence.tokens[position] as usize].ln() as f32;
                TokenScore { log_prob, entropy: entropy(&probabilities) as f32 }
            };
            sequence.targets.iter().map(token).collect()
        };
        Ok(sequences.iter().map(score).collect())
    }

    fn accumulate(
        &mut self,
        sequences: &[Sequence<'_>],
        temperature: f32,
        loss: &dyn SequenceLoss,
    ) -> Result<Vec<Vec<TokenScore>>, Error> {
        self.calls.push(sequences.len());
        let mut scores = self.score(sequences, temperature)?;
        if self.poisoned > 0 {
            self.poisoned -= 1;
            scores.iter_mut().flatten().for_each(|score| score.log_prob = f32::NAN);
        }
        for (index, (sequence, scores)) in sequences.iter().zip(&scores).enumerate() {
            let mut out = vec![TokenGradient::default(); scores.len()];
            loss.gradient(index, scores, &mut out);
            for (target, gradient) in sequence.targets.iter().zip(out) {
                let position = target.position as usize;
                let (before, token) = (sequence.tokens[position - 1] as usize, sequence.tokens[position] as usize);
                let p = self.probabilities(before as u32, target.allowed.as_deref(), temperature);
                let h = entropy(&p);
                for (id, &p) in p.iter().enumerate().filter(|(_, p)| **p > 0.0) {
                    // d(log p_y)/dz_i = [i = y] - p_i and dH/dz_i = -p_i (log p_i + H), over the temperature.
                    let from_log_prob = f64::from(gradient.log_prob) * (f64::from(u8::from(id == token)) - p);
                    let from_entropy = f64::from(gradient.entropy) * -p * (p.ln() + h);
                    self.gradients[before * self.vocab + id] += (from_log_prob + from_entropy) / f64::from(temperature);
                }
            }
        }
        Ok(scores)
    }

    fn gradient_norm(&self) -> Result<f64, Error> {
        Ok(self.gradients.iter().map(|gradient| gradient * gradient).sum::<f64>().sqrt())
    }

    fn clear_gradients(&mut self) -> Result<(), Error> {
        self.gradients.fill(0.0);
        Ok(())
    }

    fn step(&mut self, step: &AdamWStep) -> Result<(), Error> {
        let (beta1, beta2) = (step.beta1, step.beta2);
        for index in 0..self.weights.len() {
            let gradient = self.gradients[index] * step.gradient_scale;
            self.first[index] = beta1 * self.first[index] + (1.0 - beta1) * gradient;
            self.second[index] = beta2 * self.second[index] + (1.0 - beta2) * gradient * gradient;
            let first = self.first[index] / (1.0 - beta1.powi(step.step as i32));
            let second = self.second[index] / (1.0 - beta2.powi(step.step as i32));
            let decay = step.weight_decay * self.weights[index];
            self.weights[index] -= step.learning_rate * (first / (second.sqrt() + step.epsilon) + decay);
        }
        self.steps.push(*step);
        self.clear_gradients()
    }

    fn tensors(&self, _kind: TensorKind) -> Result<Vec<NamedTensor>, Error> {
        unreachable!("the learner does not copy tensors")
    }

    fn set_tensors(&mut self, _kind: TensorKind, _tensors: &[NamedTensor]) -> Result<(), Error> {
        unreachable!("the learner does not copy tensors")
    }
}

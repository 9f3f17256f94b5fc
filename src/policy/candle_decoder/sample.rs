//! Rows of sequences that are sampled: they attend to pages, which they are written to, and nothing is kept for a backward pass.
//! There may be one row a sequence, so that every launch counts: products with the same rows are one, and a change to the residual
//! stream is added by the norm that follows it.

use candle_core::{Result, Tensor};

use super::backward::FINAL_NORM;
use super::layer::{INPUT_NORM, KEY_NORM, QUERY_NORM, STREAM_NORM, name};
use super::network::{Network, Paged, multiply};
use crate::policy::Projection;
use crate::policy::fused::{self, NewHeads, PagedRows};

/// The residual stream, and what the last product adds to it, `[rows, hidden]` each.
struct Stream {
    sum: Tensor,
    change: Option<Tensor>,
}

impl Network<'_> {
    /// The residual stream after the last layer and norm for the last token of each span; keys and values of all are written to
    /// their pages.
    ///
    /// # Shapes
    /// - returns `[spans, hidden]` in the dtype of the weights
    pub(super) fn hidden(&self, paged: &Paged) -> Result<Tensor> {
        let rows = &paged.rows;
        let mut stream = Stream { sum: self.embed(&rows.tokens)?, change: None };
        for layer in 0..self.config.layer_count {
            // Of the other rows the last layer is asked for keys and values only.
            let ends = paged.ends.as_ref().filter(|_| layer + 1 == self.config.layer_count);
            stream = self.sampled_layer(layer, stream, paged, ends)?;
        }
        Ok(self.added_norm(stream, FINAL_NORM)?.1)
    }

    /// All rows through a layer; `ends`, if these alone go through the rest of it.
    fn sampled_layer(&self, layer: usize, stream: Stream, paged: &Paged, ends: Option<&PagedRows>) -> Result<Stream> {
        let (mut sum, normalized) = self.added_norm(stream, &name(layer, INPUT_NORM))?;
        let mut queries = self.write_heads(layer, &normalized, paged)?;
        if ends.is_some() {
            sum = sum.index_select(&paged.rows.ends, 0)?;
            queries = queries.index_select(&paged.rows.ends, 0)?;
        }
        let (pages, rows) = ((&paged.slabs[..], paged.shape), ends.unwrap_or(&paged.rows));
        let attended = fused::paged_attention(&queries, pages, layer, rows)?.flatten_from(1)?;
        let change = Some(self.linear(&attended, layer, Projection::Output)?);
        let (sum, normalized) = self.added_norm(Stream { sum, change }, &name(layer, STREAM_NORM))?;
        let activated = if let Some(joined) = self.joined(layer) {
            fused::swiglu_joined(&multiply(&normalized, &joined.gate.t()?)?)?
        } else {
            let part = |projection| self.linear(&normalized, layer, projection);
            fused::swiglu(&part(Projection::Gate)?, &part(Projection::Up)?)?
        };
        Ok(Stream { sum, change: Some(self.linear(&activated, layer, Projection::Down)?) })
    }

    /// The stream, all of it added up, and its norm.
    fn added_norm(&self, stream: Stream, name: &str) -> Result<(Tensor, Tensor)> {
        if let Some(change) = stream.change {
            return fused::add_rms_norm(&stream.sum, &change, self.weight(name)?, self.epsilon());
        }
        let normalized = self.rms_norm(&stream.sum, name)?;
        Ok((stream.sum, normalized))
    }

    /// Writes keys and values to their pages, and returns the queries, `[rows, heads, head_dim]`; all are turned.
    fn write_heads(&self, layer: usize, x: &Tensor, paged: &Paged) -> Result<Tensor> {
        let (config, rows) = (self.config, x.dim(0)?);
        let biases = self.biases(layer)?;
        if let Some(joined) = self.joined(layer).filter(|_| !config.has_qk_norm()) {
            let heads = config.head_count + 2 * config.kv_head_count;
            let all = multiply(x, &joined.heads.t()?)?.reshape((rows, heads, config.head_dim))?;
            return self.rotary.write((NewHeads::Joined(&all), biases), paged, layer);
        }
        let project = |projection: Projection, heads: usize| {
            self.linear(x, layer, projection)?.reshape((rows, heads, config.head_dim))
        };
        let mut queries = project(Projection::Query, config.head_count)?;
        let mut keys = project(Projection::Key, config.kv_head_count)?;
        let values = project(Projection::Value, config.kv_head_count)?;
        if config.has_qk_norm() {
            queries = self.rms_norm(&queries, &name(layer, QUERY_NORM))?;
            keys = self.rms_norm(&keys, &name(layer, KEY_NORM))?;
        }
        self.rotary.write((NewHeads::Apart([&queries, &keys, &values]), biases), paged, layer)
    }
}

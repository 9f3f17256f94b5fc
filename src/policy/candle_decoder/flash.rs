//! Attention by the kernels of FlashAttention-2 (arXiv:2307.08691) that candle packs. They have no backward pass and know of no common
//! beginnings, so they serve sequences in 16 bits that are scored and share nothing; all else goes by [`crate::policy::fused`].

use candle_core::{DType, Result, Tensor};

use super::network::{Network, Pack};

impl Network<'_> {
    /// `softmax(Q K^T / sqrt(head_dim)) V` of each sequence; `None` where these kernels do not serve.
    ///
    /// # Shapes
    /// - queries: `[rows, heads, head_dim]`, keys and values: `[rows, kv heads, head_dim]`, turned
    /// - returns `[rows, heads * head_dim]`; no gradient flows
    pub(super) fn flash_attention(&self, pack: &Pack, [queries, keys, values]: [&Tensor; 3]) -> Result<Option<Tensor>> {
        let dim = self.config.head_dim;
        let is_half = matches!(queries.dtype(), DType::F16 | DType::BF16);
        let is_whole = pack.segments.iter().all(|segment| segment.before.is_empty());
        let is_served = is_half && is_whole && dim <= 512 && dim.is_multiple_of(8);
        if self.is_trained || !queries.device().is_cuda() || !is_served {
            return Ok(None);
        }
        let ends = std::iter::once(0).chain(pack.segments.iter().map(|segment| segment.rows.end as u32));
        let ends = Tensor::new(ends.collect::<Vec<_>>(), queries.device())?;
        let longest = pack.segments.iter().map(|segment| segment.rows.len()).max().unwrap_or_default();
        let scale = 1.0 / (dim as f32).sqrt();
        let attended =
            candle_flash_attn::flash_attn_varlen(queries, keys, values, &ends, &ends, longest, longest, scale, true)?;
        Ok(Some(attended.flatten_from(1)?))
    }
}

//! Tables of indices that are copied to the device together, as each copy takes about as long as a small kernel.

use candle_core::{Device, Result, Tensor};

/// Tables on their way.
#[derive(Debug, Default)]
pub(super) struct Tables {
    values: Vec<u32>,
    /// Where each one begins, and its shape.
    parts: Vec<(usize, Vec<usize>)>,
}

impl Tables {
    /// Adds rows of `N` values.
    pub(super) fn rows<const N: usize>(&mut self, rows: &[[u32; N]]) {
        self.parts.push((self.values.len(), vec![rows.len(), N]));
        self.values.extend(rows.iter().flatten());
    }

    /// Adds a list.
    pub(super) fn list(&mut self, values: impl IntoIterator<Item = u32>) {
        let first = self.values.len();
        self.values.extend(values);
        self.parts.push((first, vec![self.values.len() - first]));
    }

    /// The tables in the order in which they were added; each is a part of the same memory.
    ///
    /// # Errors
    /// If the device has no room.
    pub(super) fn upload(mut self, device: &Device) -> Result<Vec<Tensor>> {
        // No memory has an address without anything in it.
        self.values.push(0);
        let all = Tensor::new(self.values, device)?;
        let part = |(first, dims): (usize, Vec<usize>)| all.narrow(0, first, dims.iter().product())?.reshape(dims);
        self.parts.into_iter().map(part).collect()
    }
}

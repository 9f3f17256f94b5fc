//! A list of texts in two pieces of memory instead of one for each: lists of legal answers are made on every turn.

/// Texts in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// All of them, one after the other.
    all: String,
    /// Where each ends.
    ends: Vec<u32>,
    /// Whether one does not come after the one before it.
    is_mixed: bool,
    /// The length of the longest.
    longest: usize,
}

impl Texts {
    /// Room for `count` short texts.
    pub(super) fn with_capacity(count: usize) -> Self {
        Self { all: String::with_capacity(8 * count), ends: Vec::with_capacity(count), ..Self::default() }
    }

    /// Adds a text at the end. All of them together have to be shorter than 4 GiB.
    pub fn push(&mut self, text: &str) {
        self.is_mixed |= self.len().checked_sub(1).and_then(|last| self.get(last)).is_some_and(|last| last >= text);
        self.longest = self.longest.max(text.len());
        self.all.push_str(text);
        self.ends.push(self.all.len() as u32);
    }

    /// Whether they ascend, so that no two are the same.
    pub fn are_sorted(&self) -> bool {
        !self.is_mixed
    }

    /// The length of the longest, in bytes.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The text of this index, from 0.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)? as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.all.get(start..end)
    }

    /// The texts in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|index| self.get(index).unwrap_or_default())
    }
}

impl<T: AsRef<str>> FromIterator<T> for Texts {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Self {
        let mut all = Self::default();
        texts.into_iter().for_each(|text| all.push(text.as_ref()));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_out_as_they_went_in() {
        let texts: Texts = ["é", "", "12"].into_iter().collect();
        assert_eq!(texts.iter().collect::<Vec<_>>(), ["é", "", "12"]);
        assert_eq!((texts.len(), texts.get(2), texts.get(3)), (3, Some("12"), None));
        assert!(Texts::default().is_empty() && Texts::default().get(0).is_none());
        assert_eq!((texts.are_sorted(), texts.longest()), (false, 2));
        let sorted = |texts: &[&str]| texts.iter().collect::<Texts>().are_sorted();
        assert!(sorted(&["a", "ab", "b"]) && !sorted(&["a", "a"]) && sorted(&[]));
    }
}

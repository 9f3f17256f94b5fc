//! Constrained decoding: a trie over the token spellings of the legal answers, each ended by the end token. It says which
//! tokens may follow what has been sampled of the answer; the distribution is renormalized over those.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The spellings of the legal answers, as a trie of token ids.
#[derive(Clone, Debug)]
pub struct AnswerTrie {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    children: BTreeMap<u32, usize>,
    allowed: Arc<[u32]>,
}

impl AnswerTrie {
    /// The trie of these spellings; `end` is appended to each.
    pub fn new(spellings: impl IntoIterator<Item = Vec<u32>>, end: u32) -> Self {
        let mut nodes = vec![Node::default()];
        for spelling in spellings {
            let mut at = 0;
            for token in spelling.into_iter().chain([end]) {
                let next = nodes.len();
                at = *nodes[at].children.entry(token).or_insert(next);
                if at == next {
                    nodes.push(Node::default());
                }
            }
        }
        for node in &mut nodes {
            node.allowed = node.children.keys().copied().collect();
        }
        Self { nodes }
    }

    /// Where every answer starts.
    pub const ROOT: usize = 0;

    /// The tokens that may follow at `node`, ascending; empty after the end token.
    pub fn allowed(&self, node: usize) -> &Arc<[u32]> {
        &self.nodes[node].allowed
    }

    /// The node after `token` at `node`, or `None` if it may not follow.
    pub fn next(&self, node: usize, token: u32) -> Option<usize> {
        self.nodes[node].children.get(&token).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_can_be_walked_and_nothing_else() {
        let trie = AnswerTrie::new([vec![1], vec![1, 2], vec![3]], 9);
        assert_eq!(**trie.allowed(AnswerTrie::ROOT), [1, 3]);
        let one = trie.next(AnswerTrie::ROOT, 1).unwrap();
        assert_eq!(**trie.allowed(one), [2, 9]);
        let end = trie.next(one, 9).unwrap();
        assert!(trie.allowed(end).is_empty());
        assert_eq!(trie.next(AnswerTrie::ROOT, 2), None);
    }
}

//! Constrained decoding: which tokens may follow what has been sampled of an answer, so that it becomes a legal one, ended by
//! the end token; the distribution is renormalized over those.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// The tokens of a vocabulary that spell a text, by their bytes.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    tokens: BTreeMap<Box<[u8]>, Vec<u32>>,
    /// Whether an answer may begin with a space, which decoding drops.
    drops_space: bool,
    longest: usize,
}

impl Pieces {
    /// Tokens with their bytes; those without bytes spell nothing and are left out.
    pub fn new(tokens: impl IntoIterator<Item = (u32, Vec<u8>)>, drops_space: bool) -> Self {
        let mut pieces = Self { drops_space, ..Self::default() };
        for (token, bytes) in tokens.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
            pieces.longest = pieces.longest.max(bytes.len());
            pieces.tokens.entry(bytes.into_boxed_slice()).or_default().push(token);
        }
        pieces
    }

    /// The tokens that a text can begin with, each with the number of its bytes.
    fn beginnings(&self, text: &[u8]) -> impl Iterator<Item = (u32, usize)> {
        (1..=text.len().min(self.longest)).flat_map(move |length| {
            self.tokens.get(&text[..length]).into_iter().flatten().map(move |&token| (token, length))
        })
    }
}

/// The legal answers as a graph, whose edges are tokens.
#[derive(Clone, Debug)]
pub struct AnswerTrie {
    nodes: Vec<Node>,
    longest: usize,
}

/// A trie is made for every turn and walked along one path, so nodes are small and list their tokens when they are asked.
#[derive(Clone, Debug, Default)]
struct Node {
    /// Tokens, ascending, and where they lead.
    children: Vec<(u32, usize)>,
    allowed: OnceLock<Arc<[u32]>>,
}

impl Node {
    /// Where the token leads; to `fresh` if it led nowhere.
    fn child(&mut self, token: u32, fresh: usize) -> usize {
        match self.children.binary_search_by_key(&token, |child| child.0) {
            Ok(place) => self.children[place].1,
            Err(place) => {
                self.children.insert(place, (token, fresh));
                fresh
            }
        }
    }
}

impl AnswerTrie {
    /// Where every answer starts.
    pub const ROOT: usize = 0;
    /// Where every answer ends.
    const END: usize = 1;

    /// The answers in these spellings and no others; `end` is appended to each.
    pub fn new(spellings: impl IntoIterator<Item: IntoIterator<Item = u32>>, end: u32) -> Self {
        let mut nodes = vec![Node::default(), Node::default()];
        let mut longest = 0;
        for spelling in spellings {
            let (mut at, mut length) = (Self::ROOT, 0);
            for token in spelling {
                length += 1;
                let fresh = nodes.len();
                at = nodes[at].child(token, fresh);
                if at == fresh {
                    nodes.push(Node::default());
                }
            }
            longest = longest.max(length);
            nodes[at].child(end, Self::END);
        }
        Self { nodes, longest }
    }

    /// The answers in every way in which tokens spell them; `end` is appended to each.
    pub fn every_spelling<T: AsRef<str>>(answers: &[T], pieces: &Pieces, end: u32) -> Self {
        // A node for what has been spelt so far, whatever the tokens; the last one ends all answers.
        let mut places: BTreeMap<&[u8], usize> = BTreeMap::from([(&[][..], Self::ROOT)]);
        let mut nodes = vec![Node::default(), Node::default()];
        let mut longest = 0;
        for answer in answers {
            let bytes = answer.as_ref().as_bytes();
            longest = longest.max(bytes.len() + usize::from(pieces.drops_space));
            for start in 0..=bytes.len() {
                // A start that no tokens reach leads nowhere and is not reached.
                let Some(&at) = places.get(&bytes[..start]) else { continue };
                if start == bytes.len() {
                    nodes[at].child(end, Self::END);
                    continue;
                }
                let mut edges: Vec<(u32, usize)> = pieces.beginnings(&bytes[start..]).collect();
                if start == 0 && pieces.drops_space {
                    let spaced = [b" ", bytes].concat();
                    edges.extend(
                        pieces
                            .beginnings(&spaced)
                            .filter(|(_, length)| *length > 1)
                            .map(|(token, length)| (token, length - 1)),
                    );
                }
                for (token, length) in edges {
                    let next = *places.entry(&bytes[..start + length]).or_insert(nodes.len());
                    if next == nodes.len() {
                        nodes.push(Node::default());
                    }
                    nodes[at].child(token, next);
                }
            }
        }
        Self { nodes: without_dead_ends(nodes, &places), longest }
    }

    /// Most tokens of an answer, the end token not counted.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The tokens that may follow at `node`, ascending; empty after the end token.
    pub fn allowed(&self, node: usize) -> &Arc<[u32]> {
        let node = &self.nodes[node];
        node.allowed.get_or_init(|| node.children.iter().map(|child| child.0).collect())
    }

    /// The node after `token` at `node`, or `None` if it may not follow.
    pub fn next(&self, node: usize, token: u32) -> Option<usize> {
        let children = &self.nodes[node].children;
        children.binary_search_by_key(&token, |child| child.0).ok().map(|place| children[place].1)
    }
}

/// Drops the edges to nodes from which no answer can be ended, as where a vocabulary lacks a byte. Edges lead to longer
/// beginnings, so nodes are looked at from the longest; the end is the last.
fn without_dead_ends(mut nodes: Vec<Node>, places: &BTreeMap<&[u8], usize>) -> Vec<Node> {
    let mut order: Vec<(usize, usize)> = places.iter().map(|(spelt, &at)| (spelt.len(), at)).collect();
    order.sort_unstable_by(|one, other| other.cmp(one));
    let mut is_dead = vec![false; nodes.len()];
    for (_, at) in order {
        nodes[at].children.retain(|(_, next)| !is_dead[*next]);
        is_dead[at] = nodes[at].children.is_empty();
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_can_be_walked_and_nothing_else() {
        let trie = AnswerTrie::new([vec![1], vec![1, 2], vec![3]], 9);
        assert_eq!((trie.longest(), &**trie.allowed(AnswerTrie::ROOT)), (2, &[1, 3][..]));
        let one = trie.next(AnswerTrie::ROOT, 1).unwrap();
        assert_eq!(**trie.allowed(one), [2, 9]);
        let end = trie.next(one, 9).unwrap();
        assert!(trie.allowed(end).is_empty());
        assert_eq!(trie.next(AnswerTrie::ROOT, 2), None);
    }

    /// All texts that can be walked, with their tokens.
    fn walks(trie: &AnswerTrie, at: usize, so_far: &mut Vec<u32>, found: &mut Vec<Vec<u32>>) {
        if trie.allowed(at).is_empty() {
            found.push(so_far.clone());
        }
        for &token in trie.allowed(at).iter() {
            so_far.push(token);
            walks(trie, trie.next(at, token).unwrap(), so_far, found);
            so_far.pop();
        }
    }

    #[test]
    fn all_tokenizations_of_an_answer_are_walked() {
        const END: u32 = 99;
        let tokens = [(1, "a"), (2, "b"), (3, "c"), (4, "ab"), (5, "bc"), (6, "abc"), (7, " a"), (8, " "), (9, "d")];
        let all = |drops_space: bool, answers: &[&str]| {
            let pieces = Pieces::new(tokens.map(|(token, text)| (token, text.as_bytes().to_vec())), drops_space);
            let answers: Vec<String> = answers.iter().map(ToString::to_string).collect();
            let trie = AnswerTrie::every_spelling(&answers, &pieces, END);
            let mut found = Vec::new();
            walks(&trie, AnswerTrie::ROOT, &mut Vec::new(), &mut found);
            assert!(found.iter().all(|walk| walk.len() <= trie.longest() + 1));
            found
        };
        assert_eq!(all(false, &["abc"]), [vec![1, 2, 3, END], vec![1, 5, END], vec![4, 3, END], vec![6, END]]);
        assert_eq!(all(false, &["ab", "abc"]).len(), 6);
        // The space before the answer may be a part of the first token.
        assert_eq!(all(true, &["a"]), [vec![1, END], vec![7, END]]);
        // `xb` and `dx` cannot be spelt: their beginnings lead nowhere, and are not begun.
        assert_eq!(all(false, &["xb", "dx", "b"]), [vec![2, END]]);
    }
}

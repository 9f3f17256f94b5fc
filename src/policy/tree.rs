//! What several sequences begin with is computed once: a trie over their tokens says which rows those are. A group of
//! episodes shares its prompt, and all episodes of a game share its rules.
//!
//! Which tokens are shared, and so how sums are ordered, depends on the sequences alone and not on the machine.

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::ops::Range;

use super::Sequence;

/// Tokens from which it pays to compute them apart from what follows.
const MIN_SHARED: usize = 32;

/// Tokens that every sequence below has, and what comes after them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// Where the tokens lie, the same for all sequences below.
    pub(super) range: Range<usize>,
    /// The sequence, or one of those below.
    pub(super) sequence: usize,
    /// How sequences go on; empty where there is only one.
    pub(super) children: Vec<Self>,
}

impl Node {
    /// Rows that go through the model for all sequences below.
    pub(super) fn rows(&self) -> usize {
        self.range.len() + self.children.iter().map(Self::rows).sum::<usize>()
    }

    /// Sequences below.
    fn count(&self) -> usize {
        if self.children.is_empty() { 1 } else { self.children.iter().map(Self::count).sum() }
    }
}

/// The tokens whose rows matter: a token after the last target's row changes no score.
pub(super) fn needed_tokens<'a>(sequence: &Sequence<'a>) -> &'a [u32] {
    let count = sequence.targets.last().map_or(0, |target| target.position as usize);
    &sequence.tokens[..count]
}

/// Sequences in the order of their tokens, and what neighbours have in common.
struct Sorted {
    order: Vec<usize>,
    lengths: Vec<usize>,
    /// Tokens that the entry shares with the one before it; rows that predict a target are never shared.
    common: Vec<usize>,
}

impl Sorted {
    fn new(sequences: &[Sequence<'_>]) -> Self {
        let mut order: Vec<usize> =
            (0..sequences.len()).filter(|&index| !sequences[index].targets.is_empty()).collect();
        order.sort_by(|&a, &b| needed_tokens(&sequences[a]).cmp(needed_tokens(&sequences[b])).then(a.cmp(&b)));
        let free = |index: usize| sequences[index].targets.first().map_or(0, |target| target.position as usize - 1);
        let shared = |pair: &[usize]| {
            let pairs = sequences[pair[0]].tokens.iter().zip(sequences[pair[1]].tokens);
            pairs.take_while(|(a, b)| a == b).count().min(free(pair[0])).min(free(pair[1]))
        };
        let common = std::iter::once(0).chain(order.windows(2).map(shared)).take(order.len()).collect();
        let lengths = order.iter().map(|&index| needed_tokens(&sequences[index]).len()).collect();
        Self { order, lengths, common }
    }

    /// The entries `range`, which have their first `start` tokens in common, divided where they have not `MIN_SHARED` more.
    fn divide(&self, range: Range<usize>, start: usize) -> Vec<Node> {
        let mut nodes = Vec::new();
        let mut first = range.start;
        for next in range.start + 1..=range.end {
            if next < range.end && self.common[next] >= start + MIN_SHARED {
                continue;
            }
            nodes.push(self.node(first..next, start));
            first = next;
        }
        nodes.sort_by_key(|node| node.sequence);
        nodes
    }

    fn node(&self, range: Range<usize>, start: usize) -> Node {
        let sequence = self.order[range.clone()].iter().copied().min().unwrap_or(0);
        if range.len() == 1 {
            return Node { range: start..self.lengths[range.start], sequence, children: Vec::new() };
        }
        let end = self.common[range.start + 1..range.end].iter().copied().min().unwrap_or(start);
        Node { range: start..end, sequence, children: self.divide(range, end) }
    }
}

/// The trees of all sequences that have targets: at least `least` of them if there are so many sequences, and of at most
/// `max_rows` rows each unless a single sequence has more.
pub(super) fn trees(sequences: &[Sequence<'_>], least: usize, max_rows: usize) -> Vec<Node> {
    let sorted = Sorted::new(sequences);
    let mut trees = sorted.divide(0..sorted.order.len(), 0);
    loop {
        // The largest one becomes two, which both compute what they have in common.
        let largest = trees.iter().enumerate().filter(|(_, tree)| tree.count() > 1);
        let largest = largest.max_by_key(|(index, tree)| (tree.rows(), Reverse(*index))).map(|(index, _)| index);
        let Some(largest) = largest else { break };
        if trees.len() >= least && trees[largest].rows() <= max_rows {
            break;
        }
        let (first, second) = halves(trees.swap_remove(largest));
        trees.extend([first, second]);
    }
    trees.sort_by_key(|tree| tree.sequence);
    trees
}

/// Nodes in runs of at most `max_rows` rows, but at least one node each.
pub(super) fn in_runs<N: Borrow<Node>>(mut nodes: &[N], max_rows: usize) -> impl Iterator<Item = &[N]> {
    std::iter::from_fn(move || {
        let mut rows = 0;
        let fits = |node: &&N| {
            rows += (*node).borrow().rows();
            rows <= max_rows
        };
        let count = nodes.iter().take_while(fits).count().max(1).min(nodes.len());
        let (run, later) = nodes.split_at(count);
        nodes = later;
        (!run.is_empty()).then_some(run)
    })
}

/// Two trees of about the same number of rows.
fn halves(tree: Node) -> (Node, Node) {
    let Node { range, mut children, .. } = tree;
    children.sort_by_key(|child| (Reverse(child.rows()), child.sequence));
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let (mut first_rows, mut second_rows) = (0, 0);
    for child in children {
        let (rows, side) =
            if first_rows <= second_rows { (&mut first_rows, &mut first) } else { (&mut second_rows, &mut second) };
        *rows += child.rows();
        side.push(child);
    }
    (rooted(range.clone(), first), rooted(range, second))
}

/// A tree of these children; an only child takes over the tokens before it.
fn rooted(range: Range<usize>, mut children: Vec<Node>) -> Node {
    children.sort_by_key(|child| child.sequence);
    match <[Node; 1]>::try_from(children) {
        Ok([only]) => Node { range: range.start..only.range.end, ..only },
        Err(children) => Node { range, sequence: children.first().map_or(0, |child| child.sequence), children },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Target;

    fn leaf(range: Range<usize>, sequence: usize) -> Node {
        Node { range, sequence, children: Vec::new() }
    }

    /// The trees of sequences with these tokens, whose last 5 are sampled.
    fn of(texts: &[Vec<u32>], least: usize, max_rows: usize) -> Vec<Node> {
        let targets: Vec<Vec<Target>> = texts
            .iter()
            .map(|text| (text.len() - 5..text.len()).map(|at| Target { position: at as u32, allowed: None }).collect())
            .collect();
        let sequences: Vec<_> =
            texts.iter().zip(&targets).map(|(tokens, targets)| Sequence { tokens, targets }).collect();
        trees(&sequences, least, max_rows)
    }

    /// `rules` tokens that all have, `start` tokens of the group's own, and answers that differ.
    fn text(group: u32, member: u32, (rules, start): (usize, usize)) -> Vec<u32> {
        let mut tokens = vec![1; rules];
        tokens.extend(vec![10 + group; start]);
        tokens.extend([100 + member; 5]);
        tokens
    }

    #[test]
    fn prompts_and_rules_are_shared_and_predicting_rows_are_not() {
        let group = |group: u32| [0, 1].map(|member| text(group, member, (40, 50)));
        let texts: Vec<_> = [group(0), group(1)].concat();
        // The last token of the prompt predicts the first sampled one.
        let branch = |first: usize| Node {
            range: 40..89,
            sequence: first,
            children: vec![leaf(89..94, first), leaf(89..94, first + 1)],
        };
        assert_eq!(of(&texts, 1, 158), [Node { range: 0..40, sequence: 0, children: vec![branch(0), branch(2)] }]);
        let apart = |first: usize| Node { range: 0..89, ..branch(first) };
        assert_eq!(of(&texts, 2, usize::MAX), [apart(0), apart(2)]);
        assert_eq!(of(&texts, 1, 157), [apart(0), apart(2)]);
        for (least, max_rows) in [(9, usize::MAX), (1, 98), (1, 0)] {
            assert_eq!(of(&texts, least, max_rows), [0, 1, 2, 3].map(|index| leaf(0..94, index)));
        }
    }

    #[test]
    fn runs_hold_every_node_in_order() {
        let nodes: Vec<Node> = [3, 4, 9, 1, 1].iter().enumerate().map(|(at, &rows)| leaf(0..rows, at)).collect();
        let runs = |max_rows| -> Vec<Vec<usize>> {
            in_runs(&nodes, max_rows).map(|run| run.iter().map(|node| node.sequence).collect()).collect()
        };
        assert_eq!(runs(7), [vec![0, 1], vec![2], vec![3, 4]]);
        assert_eq!(runs(0), [[0], [1], [2], [3], [4]]);
        assert_eq!(in_runs::<Node>(&[], 7).count(), 0);
    }

    #[test]
    fn too_little_in_common_is_not_shared() {
        let texts = [text(0, 0, (20, 10)), text(0, 1, (20, 10)), text(1, 0, (20, 40)), text(1, 1, (20, 40))];
        let shared = Node { range: 0..59, sequence: 2, children: vec![leaf(59..64, 2), leaf(59..64, 3)] };
        assert_eq!(of(&texts, 1, usize::MAX), [leaf(0..34, 0), leaf(0..34, 1), shared]);
        assert_eq!(trees(&[Sequence { tokens: &[1, 2], targets: &[] }], 3, 100), []);
    }
}

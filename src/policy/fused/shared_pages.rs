//! Pages that several sequences begin with, which attention reads once for all of them (as in Hydragen, arXiv:2402.05099): the prompt
//! of a group, and before it the rules that all groups of a game begin with.

use std::ops::Range;

/// Reads of pages that must be saved, as every part of a token is written and read once more.
const WORTH: usize = 8;

/// Pages that some rows have in common.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shared {
    /// Which of their pages.
    pub(super) pages: Range<usize>,
    /// The rows, at least two.
    pub(super) rows: Vec<usize>,
}

/// What is read together, given the whole pages that each row begins with. The pages of a row follow each other from its first one
/// on, without gaps.
pub(super) fn shared(lists: &[&[u32]]) -> Vec<Shared> {
    let mut order: Vec<usize> = (0..lists.len()).collect();
    order.sort_by(|&a, &b| lists[a].cmp(lists[b]).then(a.cmp(&b)));
    let mut found = Vec::new();
    split(lists, &order, 0, &mut found);
    found
}

/// Adds what rows have in common, which are in the order of their lists; the first `covered` pages of all are added already.
fn split(lists: &[&[u32]], order: &[usize], covered: usize, found: &mut Vec<Shared>) {
    let [first, .., last] = order else { return };
    // What the first and the last have in common, all between them have.
    let end = lists[*first].iter().zip(lists[*last]).take_while(|(a, b)| a == b).count();
    let is_worth_it = (end - covered) * (order.len() - 1) >= WORTH;
    if is_worth_it {
        found.push(Shared { pages: covered..end, rows: order.to_vec() });
    }
    let covered = if is_worth_it { end } else { covered };
    for run in order.chunk_by(|&a, &b| lists[a].get(end) == lists[b].get(end)) {
        // Lists that end here have nothing more to share.
        if lists[run[0]].len() > end {
            split(lists, run, covered, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lists: &[&[u32]]) -> Vec<(Range<usize>, Vec<usize>)> {
        shared(lists).into_iter().map(|shared| (shared.pages, shared.rows)).collect()
    }

    #[test]
    fn rules_are_shared_by_all_and_prompts_by_their_groups() {
        let rules = [9, 8, 7];
        let group = |page: u32| [&rules[..], &[page, page + 1, page + 2, page + 3]].concat();
        let own = |page: u32, last: u32| [group(page), vec![last]].concat();
        let lists = [own(20, 50), own(30, 51), own(20, 52), own(30, 53), own(20, 54), rules.to_vec()];
        let lists: Vec<&[u32]> = lists.iter().map(Vec::as_slice).collect();
        // Two members of the second group would save four reads only.
        assert_eq!(of(&lists), [(0..3, vec![5, 0, 2, 4, 1, 3]), (3..7, vec![0, 2, 4])]);
    }

    #[test]
    fn what_is_not_worth_it_by_itself_goes_with_what_follows() {
        let lists: [&[u32]; 4] = [&[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 7], &[1, 2, 3, 6], &[8]];
        assert_eq!(of(&lists), []);
        let lists: [&[u32]; 3] = [&[1, 2, 3, 4, 5, 6, 7, 8], &[1, 2, 9], &[1, 2, 3, 4, 5, 6, 7, 8]];
        assert_eq!(of(&lists), [(0..8, vec![0, 2])]);
    }

    #[test]
    fn rows_with_nothing_in_common_share_nothing() {
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[&[], &[], &[1, 2, 3, 4, 5, 6, 7, 8, 9]]), []);
        // One list is the beginning of the other.
        let long: Vec<u32> = (0..20).collect();
        assert_eq!(of(&[&long, &long[..9]]), [(0..9, vec![1, 0])]);
    }
}

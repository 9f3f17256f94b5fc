//! From an answer's text to an action. What the model wrote badly is data here, never an error.

/// What was read from an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// What is handed to `game.apply`, trimmed; empty if nothing could be read.
    pub text: String,
    /// Whether the answer was in the answer format.
    pub well_formed: bool,
}

const THINK: &str = "<think>";
const END_OF_THINK: &str = "</think>";
const ANSWER: &str = "<answer>";
const END_OF_ANSWER: &str = "</answer>";

/// Where the tags of a text begin.
#[derive(Default)]
struct Tags {
    /// How often `<think>`, `</think>`, `<answer>` and `</answer>` occur.
    counts: [usize; 4],
    /// The first `</think>`.
    end_of_think: Option<usize>,
    first_answer: Option<usize>,
    last_answer: Option<usize>,
    /// The first `</answer>` after the last `<answer>`.
    end_of_answer: Option<usize>,
}

impl Tags {
    /// Finds all tags in one pass: no tag holds the beginning of another.
    fn find(text: &str) -> Self {
        let mut tags = Self::default();
        for (at, _) in text.bytes().enumerate().filter(|(_, byte)| *byte == b'<') {
            let rest = &text.as_bytes()[at..];
            if rest.starts_with(THINK.as_bytes()) {
                tags.counts[0] += 1;
            } else if rest.starts_with(END_OF_THINK.as_bytes()) {
                tags.counts[1] += 1;
                tags.end_of_think = tags.end_of_think.or(Some(at));
            } else if rest.starts_with(ANSWER.as_bytes()) {
                tags.counts[2] += 1;
                tags.first_answer = tags.first_answer.or(Some(at));
                tags.last_answer = Some(at);
                tags.end_of_answer = None;
            } else if rest.starts_with(END_OF_ANSWER.as_bytes()) {
                tags.counts[3] += 1;
                if tags.last_answer.is_some() {
                    tags.end_of_answer = tags.end_of_answer.or(Some(at));
                }
            }
        }
        tags
    }
}

/// Reads an answer. With `tags`, the paper's rule: the whole text is `<think>…</think><answer>…</answer>` and holds each
/// tag once; otherwise the whole text is the action. A text without the right form still gives the content of its last
/// `<answer>`, so that a reward script may be lenient.
pub fn parse_answer(text: &str, tags: bool) -> Action {
    let trimmed = text.trim();
    if !tags {
        return Action { text: trimmed.to_owned(), well_formed: !trimmed.is_empty() };
    }
    let tags = Tags::find(trimmed);
    let end_of_answer = tags.end_of_answer.unwrap_or(trimmed.len());
    let content = tags.last_answer.map(|at| trimmed[at + ANSWER.len()..end_of_answer].trim());
    let between =
        tags.end_of_think.zip(tags.first_answer).and_then(|(end, start)| trimmed.get(end + END_OF_THINK.len()..start));
    let well_formed = tags.counts == [1; 4]
        && trimmed.starts_with(THINK)
        && trimmed.ends_with(END_OF_ANSWER)
        && between.is_some_and(|between| between.trim().is_empty())
        && content.is_some_and(|content| !content.is_empty());
    Action { text: content.unwrap_or_default().to_owned(), well_formed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (String, bool) {
        let action = parse_answer(text, true);
        (action.text, action.well_formed)
    }

    #[test]
    fn tags_are_read_as_in_the_paper() {
        assert_eq!(read("<think>centre</think><answer>5</answer>"), ("5".into(), true));
        assert_eq!(read("  <think></think>\n<answer> 5 </answer>\n"), ("5".into(), true));
        for (text, content) in [
            ("5", ""),
            ("", ""),
            ("<answer>5</answer>", "5"),
            ("<think>a</think><answer></answer>", ""),
            ("<think>a</think>so <answer>5</answer>", "5"),
            ("<think>a</think><answer>5</answer> done", "5"),
            ("<think>a</think><answer>5", "5"),
            ("<answer>5</answer><think>a</think>", "5"),
            ("<think>a</think><answer>4</answer><answer>5</answer>", "5"),
            ("</answer><answer><think></think>", ""),
        ] {
            assert!(!read(text).1, "{text}");
            if !content.is_empty() {
                assert_eq!(read(text).0, content, "{text}");
            }
        }
    }

    #[test]
    fn a_bare_answer_is_the_whole_text() {
        assert_eq!(parse_answer(" 5\n", false), Action { text: "5".into(), well_formed: true });
        assert!(!parse_answer("  ", false).well_formed);
    }
}

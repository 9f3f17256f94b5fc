//! From an answer's text to an action. What the model wrote badly is data here, never an error.

/// What was read from an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// What is handed to `game.apply`, trimmed; empty if nothing could be read.
    pub text: String,
    /// Whether the answer was in the answer format.
    pub well_formed: bool,
}

/// Reads an answer. With `tags`, the paper's rule: the whole text is `<think>…</think><answer>…</answer>` and holds each
/// tag once; otherwise the whole text is the action. A text without the right form still gives the content of its last
/// `<answer>`, so that a reward script may be lenient.
pub fn parse_answer(text: &str, tags: bool) -> Action {
    let trimmed = text.trim();
    if !tags {
        return Action { text: trimmed.to_owned(), well_formed: !trimmed.is_empty() };
    }
    let content = trimmed.rfind("<answer>").map(|at| &trimmed[at + "<answer>".len()..]);
    let content = content.map(|rest| rest.find("</answer>").map_or(rest, |end| &rest[..end]).trim());
    let once = ["<think>", "</think>", "<answer>", "</answer>"].iter().all(|tag| trimmed.matches(tag).count() == 1);
    let between = trimmed
        .find("</think>")
        .zip(trimmed.find("<answer>"))
        .and_then(|(end, start)| trimmed.get(end + "</think>".len()..start));
    let well_formed = once
        && trimmed.starts_with("<think>")
        && trimmed.ends_with("</answer>")
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

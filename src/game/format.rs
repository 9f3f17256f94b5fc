//! From an answer's text to an action, by the format of the settings, and how prompts ask for it. What the model wrote badly
//! is data here, never an error.

use crate::config::AnswerFormat;

/// What was read from an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// What is handed to `game.apply`, trimmed; empty if nothing could be read.
    pub text: String,
    /// Whether the answer was in the answer format.
    pub well_formed: bool,
}

/// How prompts name the form that they ask for; it is replaced where another form is read.
const ASKED_FOR: &str = "<think>...</think><answer>...</answer>";

/// What each format of the settings means.
impl AnswerFormat {
    /// The prompt, with this form in the place of the usual one.
    pub fn asked_for(self, prompt: String) -> String {
        let form = match self {
            Self::Think => return prompt,
            Self::Bare | Self::Script => "ANSWER, without anything else",
            Self::Answer => "<answer>...</answer>",
            Self::Json => "{\"answer\": \"...\"}",
            Self::Boxed => "\\boxed{...}",
        };
        if prompt.contains(ASKED_FOR) { prompt.replace(ASKED_FOR, form) } else { prompt }
    }

    /// Whether the answer is there: what follows could only spoil it, or would be another one (a second box).
    pub fn is_complete(self, text: &str) -> bool {
        match self {
            Self::Bare | Self::Script => false,
            Self::Think | Self::Answer => text.trim_end().ends_with(END_OF_ANSWER),
            Self::Json => text.trim_end().ends_with('}') && json_answer(text).is_some(),
            Self::Boxed => text.trim_end().ends_with('}') && boxed(text).is_some(),
        }
    }

    /// The last byte of everything that [`AnswerFormat::is_complete`], so that most texts need not be looked at.
    pub fn last_byte(self) -> Option<u8> {
        match self {
            Self::Bare | Self::Script => None,
            Self::Think | Self::Answer => Some(b'>'),
            Self::Json | Self::Boxed => Some(b'}'),
        }
    }
}

/// What a seat is shown after a refused answer; a small model gets a mark in place of the reason.
pub fn told_again(text: &str, reason: &str, is_brief: bool) -> String {
    if is_brief { format!("!{text}") } else { format!("Your answer was refused: {reason}\n\n{text}") }
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

/// Reads an answer; of [`AnswerFormat::Script`], which a script reads, the whole text.
///
/// `Think` is the paper's rule: the whole text is `<think>…</think><answer>…</answer>` and holds each tag once. A text without
/// the right form still gives the content of its last `<answer>`, so that a reward script may be lenient.
pub fn parse_answer(text: &str, form: AnswerFormat) -> Action {
    let trimmed = text.trim();
    let (content, in_form) = match form {
        AnswerFormat::Bare | AnswerFormat::Script => (Some(trimmed.to_owned()), true),
        AnswerFormat::Think | AnswerFormat::Answer => tagged(trimmed, form == AnswerFormat::Think),
        AnswerFormat::Json => (json_answer(trimmed), true),
        AnswerFormat::Boxed => (boxed(trimmed).map(|content| content.trim().to_owned()), true),
    };
    let well_formed = in_form && content.as_ref().is_some_and(|content| !content.is_empty());
    Action { text: content.unwrap_or_default(), well_formed }
}

/// The content of the answer of a text that is in the form and has no other `<`: what most answers are.
fn plainly_tagged(text: &str) -> Option<&str> {
    let rest = text.strip_prefix(THINK)?.strip_suffix(END_OF_ANSWER)?;
    let rest = &rest[rest.bytes().position(|byte| byte == b'<')?..];
    let content = rest.strip_prefix(END_OF_THINK)?.trim_start().strip_prefix(ANSWER)?;
    (!content.bytes().any(|byte| byte == b'<')).then(|| content.trim())
}

/// The content of the last `<answer>`, and whether the text has nothing but the tags of the form.
fn tagged(text: &str, thinks: bool) -> (Option<String>, bool) {
    if thinks && let Some(content) = plainly_tagged(text) {
        return (Some(content.to_owned()), true);
    }
    let tags = Tags::find(text);
    let end_of_answer = tags.end_of_answer.unwrap_or(text.len());
    let content = tags.last_answer.map(|at| text[at + ANSWER.len()..end_of_answer].trim().to_owned());
    if !thinks {
        let whole = text.starts_with(ANSWER) && text.ends_with(END_OF_ANSWER);
        return (content, whole && tags.counts == [0, 0, 1, 1]);
    }
    let between =
        tags.end_of_think.zip(tags.first_answer).and_then(|(end, start)| text.get(end + END_OF_THINK.len()..start));
    let well_formed = tags.counts == [1; 4]
        && text.starts_with(THINK)
        && text.ends_with(END_OF_ANSWER)
        && between.is_some_and(|between| between.trim().is_empty());
    (content, well_formed)
}

/// The field `answer` of a JSON object that is the whole text, or the whole text but for a code fence around it. Numbers and
/// booleans are taken as their text.
fn json_answer(text: &str) -> Option<String> {
    let text = text.trim();
    let inner = text.strip_prefix("```json").or_else(|| text.strip_prefix("```"));
    let text = inner.map_or(text, |inner| inner.trim_end_matches('`').trim());
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).ok()?.get("answer")? {
        serde_json::Value::String(answer) => Some(answer.trim().to_owned()),
        serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => None,
        other => Some(other.to_string()),
    }
}

/// The content of the last `\boxed{…}` whose braces are balanced.
fn boxed(text: &str) -> Option<&str> {
    const BOXED: &str = "\\boxed{";
    let inner = &text[text.rfind(BOXED)? + BOXED.len()..];
    let mut depth = 1_usize;
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&inner[..at]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (String, bool) {
        let action = parse_answer(text, AnswerFormat::Think);
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
        assert_eq!(parse_answer(" 5\n", AnswerFormat::Bare), Action { text: "5".into(), well_formed: true });
        assert!(!parse_answer("  ", AnswerFormat::Bare).well_formed);
    }

    #[test]
    fn other_forms_are_read_and_end_where_they_are_complete() {
        /// A text, what is read of it, whether it is well formed, and whether it is complete.
        type Case = (&'static str, &'static str, bool, bool);
        let cases: [(AnswerFormat, &[Case]); 3] = [
            (
                AnswerFormat::Answer,
                &[
                    ("<answer> 5 </answer>\n", "5", true, true),
                    ("I think <answer>5</answer>", "5", false, true),
                    ("<answer>4</answer><answer>5</answer>", "5", false, true),
                    ("<answer>5", "5", false, false),
                    ("5", "", false, false),
                ],
            ),
            (
                AnswerFormat::Json,
                &[
                    (r#"{"answer": " b2 "}"#, "b2", true, true),
                    ("```json\n{\"thought\": \"{\", \"answer\": 5}\n```", "5", true, false),
                    (r#"{"answer": true}"#, "true", true, true),
                    (r#"{"answer": null}"#, "", false, false),
                    (r#"{"answer": {"cell": 5}"#, "", false, false),
                    (r#"so: {"answer": 5}"#, "", false, false),
                    (r#"{"answer": ""}"#, "", false, true),
                    ("[5]", "", false, false),
                ],
            ),
            (
                AnswerFormat::Boxed,
                &[
                    (r"Thus \boxed{5}", "5", true, true),
                    (r"\boxed{4}, no: \boxed{\frac{1}{2}}", r"\frac{1}{2}", true, true),
                    (r"\boxed{\frac{1}{2}", "", false, false),
                    (r"\boxed{5}.", "5", true, false),
                    (r"\boxed{}", "", false, true),
                    ("5", "", false, false),
                ],
            ),
        ];
        for (form, cases) in cases {
            for (text, content, well_formed, complete) in cases {
                let read = parse_answer(text, form);
                assert_eq!((&*read.text, read.well_formed), (*content, *well_formed), "{form:?}: {text}");
                assert_eq!(form.is_complete(text), *complete, "{form:?}: {text}");
                let last = form.last_byte().expect("these have one");
                assert!(!complete || text.trim_end().as_bytes().last() == Some(&last), "{form:?}: {text}");
            }
        }
    }

    #[test]
    fn prompts_ask_for_the_form_that_is_read() {
        let prompt = || "Answer in the form <think>...</think><answer>...</answer>".to_owned();
        assert_eq!(AnswerFormat::Think.asked_for(prompt()), prompt());
        assert_eq!(AnswerFormat::Answer.asked_for(prompt()), "Answer in the form <answer>...</answer>");
        assert_eq!(AnswerFormat::Json.asked_for(prompt()), "Answer in the form {\"answer\": \"...\"}");
        assert_eq!(AnswerFormat::Boxed.asked_for(prompt()), "Answer in the form \\boxed{...}");
        assert_eq!(AnswerFormat::Answer.asked_for("t123456789".into()), "t123456789");
    }
}

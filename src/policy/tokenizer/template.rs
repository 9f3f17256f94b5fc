//! A chat template (Jinja, as Hugging Face's `tokenizer_config.json` has it), reduced to the text around an observation.
//! A context only ever grows by whole turns, so four pieces of text say all that the template would: what stands before
//! and after the first observation, and what stands between an answer and a later observation and after that. They are
//! found by rendering marked conversations once, when the model is loaded.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, context};

/// Marks an observation in a rendered conversation. Letters alone: no template or tokenizer treats them specially.
const OBSERVATION: &str = "GIFTHOSTOBSERVATION";
const EARLIER: &str = "GIFTHOSTEARLIER";
const ANSWER: &str = "GIFTHOSTANSWER";
const THOUGHT: &str = "GIFTHOSTTHOUGHT";
/// Templates that name the day get this one, so that prompts do not depend on when a run is started. It is the day that
/// Llama 3.1's template falls back to.
const DAY: [(&str, &str); 9] = [
    ("%d", "26"),
    ("%b", "Jul"),
    ("%B", "July"),
    ("%m", "07"),
    ("%Y", "2024"),
    ("%y", "24"),
    ("%A", "Friday"),
    ("%a", "Fri"),
    ("%e", "26"),
];

/// The text around an observation.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Surroundings {
    pub(super) before: String,
    pub(super) after: String,
}

/// A template in four pieces.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Turns {
    /// Around the first observation of a context.
    pub(super) first: Surroundings,
    /// Around a later one. What stands before it begins where the answer's text ends, so with the end token's text.
    pub(super) later: Surroundings,
    /// Whether white space around an observation is removed.
    pub(super) trims: bool,
    /// Whether the template leaves thoughts of earlier turns out, which a context of sampled tokens keeps.
    pub(super) drops_thoughts: bool,
}

impl Turns {
    /// Reads a template. `special` holds `bos_token` and the like, which templates may use. Every conversation begins with the
    /// system prompt `system`, unless that is empty.
    ///
    /// # Errors
    /// What is wrong with the template, or why it cannot be reduced.
    pub(super) fn new(template: &str, special: &[(&str, String)], system: &str) -> Result<Self, String> {
        let template = Template { source: without_generation_tags(template), special, system };
        let first = template.around(&[("user", OBSERVATION)], "")?;
        let later = template.around(&[("user", EARLIER), ("assistant", ANSWER), ("user", OBSERVATION)], ANSWER)?;
        let thinking = format!("<think>\n{THOUGHT}\n</think>\n\n{ANSWER}");
        let thought = template.render(&[("user", EARLIER), ("assistant", &thinking), ("user", OBSERVATION)])?;
        let mut turns = Self { first, later, trims: false, drops_thoughts: !thought.contains(THOUGHT) };
        let rendered = |text: &str| {
            let later = template.render(&[("user", EARLIER), ("assistant", ANSWER), ("user", text)])?;
            Ok::<_, String>((template.render(&[("user", text)])?, later))
        };
        let as_rendered = |turns: &Self, text: &str| {
            let (first, later) = rendered(text)?;
            let (ours, ours_later) = (turns.compose(text, true), turns.compose(text, false));
            Ok::<_, String>(first == ours && later.ends_with(&format!("{ANSWER}{ours_later}")))
        };
        turns.trims = !as_rendered(&turns, " \n1 < 2\n ")?;
        for text in [" \n1 < 2\n ", "It's \"a\" & <b>\n\n# 1\n\tc"] {
            if !as_rendered(&turns, text)? {
                return Err("the chat template changes the text of a turn, which this version cannot follow".to_owned());
            }
        }
        Ok(turns)
    }

    /// An observation as the template has it: for the first turn the whole prompt, for a later one all that follows the
    /// answer before it.
    pub(super) fn compose(&self, observation: &str, is_first: bool) -> String {
        let around = if is_first { &self.first } else { &self.later };
        let observation = if self.trims { observation.trim() } else { observation };
        [&around.before, observation, &around.after].concat()
    }
}

struct Template<'a> {
    source: String,
    system: &'a str,
    special: &'a [(&'a str, String)],
}

impl Template<'_> {
    /// Renders a conversation and leaves the model to answer, with Jinja set up as transformers sets it up.
    fn render(&self, messages: &[(&str, &str)]) -> Result<String, String> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| error.to_string())?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |format: String| {
            DAY.iter().fold(format, |text, (code, value)| text.replace(code, value))
        });
        let system = Some(("system", self.system)).filter(|(_, text)| !text.is_empty());
        let messages: Vec<_> = system
            .iter()
            .chain(messages)
            .map(|&(role, content)| context! { role => role, content => content })
            .collect();
        let special = minijinja::Value::from_pairs(self.special.iter().map(|(name, text)| (*name, text.as_str())));
        let values = context! { messages => messages, add_generation_prompt => true, ..special };
        environment.render_str(&self.source, values).map_err(|error| format!("the chat template fails: {error:#}"))
    }

    /// The text around the observation, after the text `from` where there is one.
    fn around(&self, messages: &[(&str, &str)], from: &str) -> Result<Surroundings, String> {
        let text = self.render(messages)?;
        let pieces = |text: &str, mark: &str| {
            let mut pieces = text.split(mark).map(str::to_owned);
            match (pieces.next(), pieces.next(), pieces.next()) {
                (Some(before), Some(after), None) => Some((before, after)),
                _ => None,
            }
        };
        let lost = || "the chat template does not give every turn's text once, in order".to_owned();
        let text = if from.is_empty() { text } else { pieces(&text, from).ok_or_else(lost)?.1 };
        let (before, after) = pieces(&text, OBSERVATION).ok_or_else(lost)?;
        Ok(Surroundings { before, after })
    }
}

/// Transformers' own tag around what the assistant says has no effect on the text.
fn without_generation_tags(template: &str) -> String {
    let mut text = template.to_owned();
    for (tag, same) in [("generation", "if true"), ("endgeneration", "endif")] {
        for open in ["{%", "{%-"] {
            for close in ["%}", "-%}"] {
                text = text.replace(&format!("{open} {tag} {close}"), &format!("{open} {same} {close}"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As that of `SmolLM2`: a system prompt of its own where none is given.
    const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
        {{ '<|im_start|>system\nBe nice.<|im_end|>\n' }}{% endif %}\
        {{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
        {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    /// The texts are those of transformers 5.23, `apply_chat_template(..., add_generation_prompt=True, tokenize=False)`.
    #[test]
    fn a_system_prompt_begins_every_conversation() {
        let compose = |system: &str| {
            let turns = Turns::new(CHATML, &[], system).expect("a template");
            (turns.compose("X", true), turns.compose("Y", false))
        };
        let user = "<|im_start|>user\nX<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(compose("").0, format!("<|im_start|>system\nBe nice.<|im_end|>\n{user}"));
        let (first, later) = compose("Play to\nwin.");
        assert_eq!(first, format!("<|im_start|>system\nPlay to\nwin.<|im_end|>\n{user}"));
        assert_eq!(later, compose("").1, "it is said once");
        let refusing = format!(
            "{{% if messages[0].role == 'system' %}}{{{{ raise_exception('no system') }}}}{{% endif %}}{CHATML}"
        );
        assert!(Turns::new(&refusing, &[], "").is_ok());
        assert!(Turns::new(&refusing, &[], "Win.").unwrap_err().contains("no system"));
    }
}

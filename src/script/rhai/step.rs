//! A function of the host's own that makes a change and asks about the new state in one call: a call into Rhai costs as much
//! as some lines of a script, and finds every function anew.
//!
//! Only a way to be faster: whatever goes wrong in it, the calls are made one by one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ::rhai::{AST, Array, CallFnOptions, Dynamic, Engine, Scope};

use crate::script::Questions;

/// The function's name; a script that has one of this name keeps it.
const NAME: &str = "gift__step";
/// Arguments of the change: the state and two others.
pub(super) const ARGUMENTS: usize = 3;

/// The script with a function for one change and its questions.
pub(super) struct Step {
    change: &'static str,
    questions: Questions,
    ast: AST,
}

impl Step {
    /// The function for a change of a state with two more arguments. `parameters` are those of the script's functions;
    /// `None` if one that is needed is not there.
    pub(super) fn new(
        engine: &Engine,
        script: &AST,
        parameters: &BTreeMap<String, usize>,
        change: &'static str,
        questions: &Questions,
    ) -> Option<Self> {
        if parameters.contains_key(NAME) {
            return None;
        }
        // A function gets as many arguments as it takes.
        let call = |name: &str, arguments: &[&str]| {
            let taken = *parameters.get(name)?;
            let given = arguments.iter().copied().chain(std::iter::repeat("()")).take(taken);
            Some(format!("{name}({})", given.collect::<Vec<_>>().join(", ")))
        };
        let mut text = format!("fn {NAME}(state, a, b) {{\n");
        writeln!(text, "let state = {};", call(change, &["state", "a", "b"])?).ok()?;
        writeln!(text, "let first = {};", call(questions.first, &["state"])?).ok()?;
        writeln!(text, "let result = [(), first, (), (), (), ()];").ok()?;
        writeln!(text, "if first == () {{ result[2] = {}; }}", call(questions.at_nil, &["state"])?).ok()?;
        writeln!(text, "else if type_of(first) == \"i64\" && first >= 0 && first < 64 {{").ok()?;
        for (at, (name, after)) in questions.then.iter().enumerate().filter(|(_, (_, after))| *after != 0) {
            let call = call(name, &["state", "first"])?;
            writeln!(text, "if (({} >> first) & 1) == 1 {{ result[{}] = {call}; }}", *after as i64, at + 3).ok()?;
        }
        writeln!(text, "}}\nresult[0] = state;\nresult\n}}").ok()?;
        let function = engine.compile(text).ok()?;
        Some(Self { change, questions: *questions, ast: script.merge(&function.clone_functions_only()) })
    }

    /// Whether it is for this change and these questions.
    pub(super) fn is_for(&self, change: &str, questions: &Questions) -> bool {
        self.change == change && self.questions == *questions
    }

    /// The new state, the answer to the first question, the one after a nil, and the others, with `()` for what was not
    /// asked. `None` if anything went wrong.
    pub(super) fn run(&self, engine: &Engine, arguments: Vec<Dynamic>) -> Option<Array> {
        let arguments: [Dynamic; ARGUMENTS] = arguments.try_into().ok()?;
        let options = CallFnOptions::new().eval_ast(false);
        let mut scope = Scope::new();
        let result = engine.call_fn_with_options::<Array>(options, &mut scope, &self.ast, NAME, arguments);
        result.ok().filter(|parts| parts.len() == self.questions.then.len() + 3)
    }
}

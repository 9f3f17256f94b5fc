//! What every script of a run shares: the limits and the library with the host's functions.

use crate::diag::{Diagnostic, SourceSpan};
use crate::script::{HostFunction, Library, Limits, Source, Value, abandonable};

use super::{answer, nash};

/// The limits and the `gift` library of a run. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ScriptHost {
    /// Limits of every call.
    pub limits: Limits,
    /// What scripts may call.
    pub library: Library,
}

impl ScriptHost {
    /// The library with `gift.nash` and `gift.math_equal`, under these limits. `files` are data files outside the
    /// scripts' folders that the user named in the settings.
    pub fn new(limits: Limits, files: Vec<std::path::PathBuf>) -> Self {
        let functions = vec![
            HostFunction { name: "nash", call: nash_function },
            HostFunction { name: "math_equal", call: math_equal_function },
        ];
        Self { limits, library: Library::new(functions).with_allowed_files(files) }
    }

    /// Does `work`, which calls the script, on a thread that may be given up.
    ///
    /// # Errors
    /// [`ScriptHost::stuck`] if a call could not be stopped.
    pub fn guarded<R: Send>(&self, source: &Source, work: impl FnOnce() -> R + Send) -> Result<R, Box<Diagnostic>> {
        abandonable(work).ok_or_else(|| self.stuck(source))
    }

    /// What to say of a script whose thread was given up: a call of it could not be stopped.
    pub fn stuck(&self, source: &Source) -> Box<Diagnostic> {
        // Without the line: the script must not be asked.
        Box::new(
            Diagnostic::error("script::stuck", "a call of the script could not be stopped")
                .at(SourceSpan::file(&source.path))
                .expected(format!("every call ends within {:?}, or can be ended then", self.limits.call))
                .found("a call that went on for as long again, inside one operation of the library")
                .help("make that operation smaller; the script's thread was given up with its memory"),
        )
    }
}

impl Default for ScriptHost {
    fn default() -> Self {
        Self::new(Limits::default(), Vec::new())
    }
}

fn math_equal_function(arguments: &[Value]) -> Result<Value, String> {
    let text = |index: usize| match arguments.get(index) {
        Some(Value::Text(text)) => Ok(text.clone()),
        Some(Value::Int(number)) => Ok(number.to_string()),
        Some(Value::Float(number)) => Ok(number.to_string()),
        other => Err(format!(
            "expected two strings or numbers; argument {} is {}",
            index + 1,
            other.map_or("missing", Value::kind)
        )),
    };
    Ok(answer::math_equal(&text(0)?, &text(1)?).into())
}

fn nash_function(arguments: &[Value]) -> Result<Value, String> {
    let matrix = |index: usize| -> Result<Vec<Vec<f64>>, String> {
        let problem = || format!("expected two lists of rows of numbers; argument {} is not one", index + 1);
        let rows = arguments.get(index).and_then(Value::as_list).ok_or_else(problem)?;
        rows.iter()
            .map(|row| row.as_list()?.iter().map(Value::as_number).collect::<Option<Vec<f64>>>())
            .collect::<Option<_>>()
            .ok_or_else(problem)
    };
    let equilibria = nash::equilibria(&matrix(0)?, &matrix(1)?).map_err(|error| error.to_string())?;
    let mixed = |probabilities: Vec<f64>| Value::List(probabilities.into_iter().map(Value::Float).collect());
    Ok(Value::List(
        equilibria
            .into_iter()
            .map(|equilibrium| Value::from([("x", mixed(equilibrium.row)), ("y", mixed(equilibrium.column))]))
            .collect(),
    ))
}

//! How to mend what often goes wrong in Rhai, judged by Rhai's message.

use crate::diag::closest;

/// What an `rng` can do, and how it is written.
const RNG: [(&str, &str); 4] = [
    ("int", "`rng.int(1, 6)` takes two whole numbers"),
    ("float", "`rng.float()` takes nothing"),
    ("pick", "`rng.pick(list)` takes an array"),
    ("shuffle", "`rng.shuffle(list)` takes an array and returns a new one"),
];

const HELPS: [(&str, &str); 10] = [
    ("`gift.", "see `The library` in `games/README.md`"),
    ("`rng.", "see `Randomness` in `games/README.md`"),
    (
        "a setter is not registered for type 'gift",
        "`gift` is the host's, the same for all scripts, and read-only: keep values in the state",
    ),
    (
        "variable not found",
        "is it misspelt? Functions see the script's top-level constants, and no variables of other functions",
    ),
    (
        "function not found",
        "is it misspelt, or given values of other kinds? Text becomes a number with `parse_int`, a number text with `to_string`",
    ),
    ("unknown property", "is the field misspelt, or not set in `init`? `state.field ?? 0` gives a default"),
    ("property", "what stands before the `.` is no map: is a field misspelt, or not set in `init`?"),
    ("index", "lists start at 0 and end at `len() - 1`; `\"key\" in map` tells whether a map has a key"),
    ("cannot modify", "functions cannot change top-level constants: keep what changes in the state"),
    ("mismatch", "the value is of another kind than the operation needs: is a `return` forgotten?"),
];

/// What mends the problem that the message tells of; `gift` are the names after `gift.`.
pub(super) fn help(message: &str, gift: &[String]) -> Option<String> {
    let call = message.strip_prefix("function not found: ").and_then(|rest| rest.split_once(" ("));
    if let Some((name, arguments)) = call {
        let receiver = arguments.split([',', ')']).next().unwrap_or_default();
        if let Some(help) = of_host(receiver, name, gift) {
            return Some(help);
        }
    }
    let property = message.strip_prefix("unknown property '").and_then(|rest| rest.split_once('\''));
    if let Some((name, rest)) = property {
        let receiver = rest.split_once("for type '").and_then(|(_, rest)| rest.split_once('\'')).map(|(it, _)| it);
        if let Some(help) = receiver.and_then(|receiver| of_host(receiver, name, gift)) {
            return Some(help);
        }
    }
    let message = message.to_lowercase();
    HELPS.iter().find(|(said, _)| message.contains(&said.to_lowercase())).map(|(_, help)| (*help).to_owned())
}

/// What is said of a name that is used with an object of the host's.
fn of_host(receiver: &str, name: &str, gift: &[String]) -> Option<String> {
    let names: Vec<&str> = match receiver {
        "gift" => gift.iter().map(String::as_str).collect(),
        "gift.json" => vec!["decode", "encode"],
        "rng" => RNG.iter().map(|(name, _)| *name).collect(),
        "dataset" => vec!["len"],
        _ => return None,
    };
    if let Some(known) = names.iter().find(|known| **known == name) {
        let form = RNG.iter().find(|(name, _)| receiver == "rng" && name == known).map(|(_, form)| (*form).to_owned());
        return Some(form.unwrap_or_else(|| {
            format!("`{receiver}.{name}` is a function that takes other values; see `The library` in `games/README.md`")
        }));
    }
    let drawn = || closest(name, RNG.map(|(name, _)| name)).filter(|_| receiver == "gift");
    let rest = match (closest(name, names.iter().copied()), drawn()) {
        (Some(near), _) => format!("did you mean `{receiver}.{near}`?"),
        (None, Some(near)) => format!("did you mean `rng.{near}`?"),
        (None, None) => format!("it has {}", names.join(", ")),
    };
    Some(format!("`{receiver}` has no `{name}`; {rest}"))
}

//! The modules of a script: which its text names, where they are looked for, and what is said of one that is not there.

use std::path::{Path, PathBuf};

use super::Language;
use crate::diag::{Diagnostic, closest};

/// Most names of other modules that a message shows.
const MAX_SHOWN: usize = 8;

pub(super) fn module_file(folders: &[PathBuf], language: Language, name: &str) -> Option<PathBuf> {
    let extensions = extensions(language);
    let files = folders.iter().flat_map(|folder| extensions.iter().map(|x| folder.join(format!("{name}.{x}"))));
    files.into_iter().find(|file| file.is_file())
}

/// The folders named `scripts/lib` from the script's folder upwards, then the working directory's.
pub(super) fn library_folders(path: &Path) -> Vec<PathBuf> {
    let start = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let start = start.canonicalize().unwrap_or_else(|_| start.to_owned());
    let mut folders: Vec<PathBuf> = start.ancestors().map(|folder| folder.join("scripts").join("lib")).collect();
    folders.push(Path::new("scripts").join("lib"));
    folders
}

/// The names in `require("name")` and `import "name"`, as written in the text. A name in a comment is read in vain,
/// which does no harm; a name that is computed is not found, and the script is told so when it asks for it.
pub(super) fn module_names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for keyword in ["require", "import"] {
        for (at, _) in text.match_indices(keyword) {
            let rest = text[at + keyword.len()..].trim_start_matches(['(', ' ', '\t']);
            let Some(quote) = rest.chars().next().filter(|&c| c == '"' || c == '\'') else { continue };
            let name: String = rest[1..].chars().take_while(|&c| c != quote).take(100).collect();
            if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
                names.push(name);
            }
        }
    }
    names
}

/// The extensions of modules.
fn extensions(language: Language) -> &'static [&'static str] {
    if language == Language::Lua { &["lua", "luau"] } else { &["rhai"] }
}

/// The diagnostic with where the module `name` was looked for, what is there instead, and what to write. `texts` are those
/// of the script and of its modules.
pub(super) fn explain_missing<'a>(
    diagnostic: Diagnostic,
    script: &Path,
    language: Language,
    texts: impl Iterator<Item = &'a str>,
    name: &str,
) -> Diagnostic {
    let extension = extensions(language)[0];
    let load = |name: &str| match language {
        Language::Lua => format!("`require(\"{name}\")`"),
        Language::Rhai => format!("`import \"{name}\" as {name};`"),
    };
    // `./words`, `lib/words` and `words.lua` are habits of other hosts.
    let last = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let stem = extensions(language).iter().find_map(|x| last.strip_suffix(&format!(".{x}"))).unwrap_or(last);
    let folders = library_folders(script);
    let is_there = module_file(&folders, language, stem).is_some();
    let help = if is_there && stem != name {
        format!("write {}: a module has neither folder nor extension in its name", load(stem))
    } else if is_there && !texts.flat_map(module_names).any(|written| written == name) {
        format!(
            "write {}: the name has to stand in quotes, because modules are read before the script runs",
            load(name)
        )
    } else {
        let names: Vec<String> = folders.iter().flat_map(|folder| names_in(folder, language)).collect();
        match closest(stem, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {}?", load(near)),
            None => format!("write the module as `scripts/lib/{stem}.{extension}`, or correct the name"),
        }
    };
    let expected = format!("a file `scripts/lib/{stem}.{extension}` beside the script or in a folder above it");
    diagnostic.expected(expected).found(found(&folders, language)).help(help)
}

/// The folders in which modules were looked for, as the user would name them, each with what is in it.
fn found(folders: &[PathBuf], language: Language) -> String {
    let here = Path::new(".").canonicalize().unwrap_or_default();
    let (mut shown, mut is_more) = (Vec::<String>::new(), false);
    for (at, folder) in folders.iter().enumerate() {
        let name = folder.strip_prefix(&here).unwrap_or(folder).display();
        let part = match names_in(folder, language) {
            // Of the folders above the working directory, those that are not there are all alike.
            _ if at > 0 && !folder.is_dir() && !folder.starts_with(&here) && folder.is_absolute() => {
                is_more = true;
                continue;
            }
            _ if !folder.is_dir() => format!("no folder `{name}`"),
            names if names.is_empty() => format!("no modules in `{name}`"),
            names => {
                let dots = if names.len() > MAX_SHOWN { ", …" } else { "" };
                let list: Vec<String> = names.iter().take(MAX_SHOWN).map(|name| format!("`{name}`")).collect();
                format!("{}{dots} in `{name}`", list.join(", "))
            }
        };
        // The working directory's folder comes last, and may have been met on the way up.
        if !shown.contains(&part) {
            shown.push(part);
        }
    }
    format!("{}{}", shown.join("; "), if is_more { "; none further up" } else { "" })
}

/// The names of the modules in a folder, sorted.
fn names_in(folder: &Path, language: Language) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.ok()?.path();
        let is_module = path.extension()?.to_str().is_some_and(|x| extensions(language).contains(&x));
        is_module.then(|| path.file_stem()?.to_str().map(str::to_owned))?
    };
    let mut names: Vec<String> = entries.filter_map(name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_names_are_found_in_both_languages() {
        let text = "local a = require(\"alpha\")\nlocal b = require 'beta'\nimport \"gamma\" as g;\nrequire(name)";
        assert_eq!(module_names(text), ["alpha", "beta", "gamma"]);
    }
}

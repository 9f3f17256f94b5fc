//! Reads the bytecode of a compiled text for one question: may a function assign a variable that stands at the text's top
//! level? Such a variable would carry something from one call to the next ([`super::isolation`]).
//!
//! The format is that of `luau/VM/src/lvmload.cpp`; only our own compiler's output is read. Of a version that this does
//! not know, everything is assumed to assign.

use std::collections::BTreeSet;

/// Versions of the format that are read, and of its type information.
const VERSIONS: std::ops::RangeInclusive<u8> = 4..=11;
const TYPE_VERSIONS: std::ops::RangeInclusive<u8> = 1..=3;

/// Numbers of the instructions that matter, and of the kinds of capture (`Bytecode.h`).
const SETUPVAL: u8 = 10;
const NEWCLOSURE: u8 = 19;
const DUPCLOSURE: u8 = 64;
const CAPTURE: u8 = 70;
const CAPTURE_REF: u8 = 1;
const CAPTURE_UPVAL: u8 = 2;

/// Whether a function in the text may assign a variable of the top level.
pub(super) fn assigns_top_level(bytecode: &[u8]) -> bool {
    Reader { rest: bytecode, version: 0 }.module().is_none_or(|module| module.assigns_top_level())
}

/// The variables of the top level that functions in the text assign, each with the lines where they do, in order.
pub(super) fn top_level_assignments(text: &str) -> Vec<(String, u32)> {
    // Names are kept only at this level, and without inlining a line is where the author wrote it.
    let compiler = mlua::chunk::Compiler::new().set_optimization_level(0).set_debug_level(2);
    let Ok(code) = compiler.compile(text.trim_start_matches('\u{feff}')) else { return Vec::new() };
    let module = Reader { rest: &code, version: 0 }.module();
    let mut found = module.map(|module| module.top_level_assignments()).unwrap_or_default();
    found.sort_by_key(|(_, line)| *line);
    found.dedup();
    found
}

/// A function's text.
#[derive(Default)]
struct Proto {
    code: Vec<u32>,
    /// The line of each word of `code`, if the compiler kept them.
    lines: Vec<u32>,
    /// The numbers of the names of its upvalues in the module's strings, from 1, if the compiler kept them.
    upvalues: Vec<usize>,
    /// By the number of the constant: the function that it is a closure of.
    closures: Vec<Option<usize>>,
    children: Vec<usize>,
}

struct Module {
    strings: Vec<String>,
    protos: Vec<Proto>,
    main: usize,
}

impl Module {
    fn assigns_top_level(&self) -> bool {
        self.assignments().next().is_some()
    }

    fn top_level_assignments(&self) -> Vec<(String, u32)> {
        let named = |(proto, at, upvalue): (&Proto, usize, u8)| {
            let name = proto.upvalues.get(usize::from(upvalue))?.checked_sub(1)?;
            Some((self.strings.get(name)?.clone(), *proto.lines.get(at)?))
        };
        self.assignments().filter_map(named).collect()
    }

    /// Every instruction that assigns a variable of the top level: its function, its place there, the upvalue's number.
    fn assignments(&self) -> impl Iterator<Item = (&Proto, usize, u8)> {
        // Which upvalues of each function are variables of the top level; grows until nothing is added.
        let mut top: Vec<BTreeSet<u8>> = vec![BTreeSet::new(); self.protos.len()];
        let mut work = vec![self.main];
        let mut visited = BTreeSet::from([self.main]);
        while let Some(at) = work.pop() {
            for (child, upvalue, kind, source) in self.captures(at) {
                let is_top =
                    kind == CAPTURE_REF && at == self.main || kind == CAPTURE_UPVAL && top[at].contains(&source);
                let grown = is_top && top.get_mut(child).is_some_and(|set| set.insert(upvalue));
                if grown || (child < self.protos.len() && visited.insert(child)) {
                    work.push(child);
                }
            }
        }
        self.protos.iter().zip(top).flat_map(|(proto, top)| {
            let assigns =
                move |&(_, word): &(usize, u32)| operation(word) == SETUPVAL && top.contains(&operand_b(word));
            proto.instructions().filter(assigns).map(move |(at, word)| (proto, at, operand_b(word)))
        })
    }

    /// The function, the upvalue's number, and how and from where it is captured, for every upvalue of the closures that
    /// the function makes. A function without upvalues is listed once, with a capture that means nothing.
    fn captures(&self, at: usize) -> Vec<(usize, u8, u8, u8)> {
        let mut captures = Vec::new();
        let mut closure: Option<(usize, u8)> = None;
        let Some(proto) = self.protos.get(at) else { return captures };
        for (_, word) in proto.instructions() {
            let index = (word >> 16) as usize;
            match operation(word) {
                NEWCLOSURE => closure = proto.children.get(index).map(|&child| (child, 0)),
                DUPCLOSURE => closure = proto.closures.get(index).copied().flatten().map(|child| (child, 0)),
                CAPTURE => {
                    if let Some((child, upvalue)) = &mut closure {
                        captures.push((*child, *upvalue, (word >> 8) as u8, operand_b(word)));
                        *upvalue = upvalue.saturating_add(1);
                    }
                    continue;
                }
                _ => continue,
            }
            captures.extend(closure.map(|(child, _)| (child, 0, 0, 0)));
        }
        captures
    }
}

impl Proto {
    /// The first word of each instruction, with its place.
    fn instructions(&self) -> impl Iterator<Item = (usize, u32)> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let (at, word) = (next, *self.code.get(next)?);
            next += if is_long(operation(word)) { 2 } else { 1 };
            Some((at, word))
        })
    }
}

fn operation(word: u32) -> u8 {
    word as u8
}

fn operand_b(word: u32) -> u8 {
    (word >> 16) as u8
}

/// Whether an instruction is followed by an extra word (`getOpLength`).
fn is_long(operation: u8) -> bool {
    matches!(
        operation,
        7 | 8 | 12 | 15 | 16 | 20 | 27..=32 | 53 | 55 | 58 | 60 | 66 | 74 | 75 | 77..=80 | 83..=88 | 90
    )
}

struct Reader<'a> {
    rest: &'a [u8],
    version: u8,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.rest = self.rest.get(bytes..)?;
        Some(())
    }

    fn word(&mut self) -> Option<u32> {
        let (word, rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        Some(u32::from_le_bytes(*word))
    }

    /// A number in groups of seven bits, the lowest first.
    fn number(&mut self) -> Option<usize> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 127) << shift;
            if byte & 128 == 0 {
                return usize::try_from(number).ok();
            }
        }
        None
    }

    fn module(mut self) -> Option<Module> {
        self.version = self.byte().filter(|version| VERSIONS.contains(version))?;
        let types = self.byte().filter(|types| TYPE_VERSIONS.contains(types))?;
        let mut strings = Vec::new();
        for _ in 0..self.number()? {
            let length = self.number()?;
            strings.push(String::from_utf8_lossy(self.rest.get(..length)?).into_owned());
            self.skip(length)?;
        }
        if types == 3 {
            while self.byte()? != 0 {
                self.number()?;
            }
        }
        let count = self.number()?;
        let protos = (0..count).map(|_| self.proto()).collect::<Option<Vec<_>>>()?;
        let main = self.number()?;
        (self.rest.is_empty() && main < protos.len()).then_some(Module { strings, protos, main })
    }

    fn proto(&mut self) -> Option<Proto> {
        // Stack size, parameters, upvalues, whether it is variadic, flags; then types.
        self.skip(5)?;
        let types = self.number()?;
        self.skip(types)?;
        let size = self.number()?;
        let code = (0..size).map(|_| self.word()).collect::<Option<Vec<_>>>()?;
        let constants = self.number()?;
        let mut closures = Vec::new();
        for _ in 0..constants {
            let mut closure = None;
            self.constant(&mut closure)?;
            closures.push(closure);
        }
        let count = self.number()?;
        let children = (0..count).map(|_| self.number()).collect::<Option<Vec<_>>>()?;
        // The line where it begins, and its name.
        self.number()?;
        self.number()?;
        let lines = if self.byte()? != 0 { self.lines(size)? } else { Vec::new() };
        let mut upvalues = Vec::new();
        if self.byte()? != 0 {
            for _ in 0..self.number()? {
                self.number()?;
                self.number()?;
                self.number()?;
                self.byte()?;
            }
            for _ in 0..self.number()? {
                upvalues.push(self.number()?);
            }
        }
        if self.version >= 11 {
            for _ in 0..self.number()? {
                self.byte()?;
                self.number()?;
            }
        }
        Some(Proto { code, lines, upvalues, closures, children })
    }

    /// The line of each of `size` words: a byte each, added up, over a base for every so many.
    fn lines(&mut self, size: usize) -> Option<Vec<u32>> {
        let gap = u32::from(self.byte()?);
        let intervals = (size.checked_sub(1)? >> gap) + 1;
        let mut offset = 0_u8;
        let mut offsets = Vec::with_capacity(size);
        for _ in 0..size {
            offset = offset.wrapping_add(self.byte()?);
            offsets.push(offset);
        }
        let mut base = 0_u32;
        let mut bases = Vec::with_capacity(intervals);
        for _ in 0..intervals {
            base = base.wrapping_add(self.word()?);
            bases.push(base);
        }
        let line = |(at, offset): (usize, u8)| Some(bases.get(at >> gap)?.wrapping_add(u32::from(offset)));
        offsets.into_iter().enumerate().map(line).collect()
    }

    /// A constant; if it is a closure, its function is noted.
    fn constant(&mut self, closure: &mut Option<usize>) -> Option<()> {
        match self.byte()? {
            0 => {}
            1 => self.skip(1)?,
            2 => self.skip(8)?,
            3 => drop(self.number()?),
            4 => self.skip(4)?,
            5 => {
                for _ in 0..self.number()? {
                    self.number()?;
                }
            }
            6 => *closure = Some(self.number()?),
            7 => self.skip(16)?,
            8 => {
                for _ in 0..self.number()? {
                    self.number()?;
                    self.skip(4)?;
                }
            }
            9 => {
                self.skip(1)?;
                self.number()?;
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use mlua::chunk::Compiler;

    use super::*;

    fn module(text: &str) -> Option<Module> {
        let compiler = Compiler::new().set_optimization_level(2).set_debug_level(1);
        Reader { rest: &compiler.compile(text).expect("it parses"), version: 0 }.module()
    }

    fn assigns(text: &str) -> bool {
        module(text).expect("a known format").assigns_top_level()
    }

    /// A new version of Luau may change the format; then this file must follow, or every script is taken for one that
    /// assigns.
    #[test]
    fn shipped_scripts_are_read_and_assign_nothing() {
        let mut count = 0;
        for folder in ["games", "scripts/lib", "scripts/nests", "scripts/rewards"] {
            for entry in std::fs::read_dir(folder).expect("the folder") {
                let path = entry.expect("an entry").path();
                if path.extension().is_some_and(|extension| extension == "lua") {
                    #[expect(clippy::disallowed_methods, reason = "a test of the repository's own files")]
                    let text = std::fs::read_to_string(&path).expect("a script");
                    assert!(!assigns(&text), "{}", path.display());
                    count += 1;
                }
            }
        }
        assert!(count > 8, "{count}");
    }

    #[test]
    fn an_assignment_is_found_however_deep_the_function() {
        assert!(assigns("local n = 0 return { f = function() n += 1 end }"));
        assert!(assigns("local n = 0 return { f = function() return function() return function() n = 2 end end end }"));
        assert!(assigns(
            "local n, t = 0, { a = {}, b = 1.5, c = 'x' } local function add() n += t.b end return { f = function() add() end }"
        ));
        assert!(assigns("for i = 1, 3 do local n = i t[i] = function() n += 1 end end"));
        assert!(assigns("local memo local function get() memo = memo or {} return memo end return get"));
    }

    #[test]
    fn assignments_are_told_with_variable_and_line() {
        let text = "local count, memo = 0, nil\nlocal function deep()\n  return function() count += 1 end\nend\n\
                    return {\n  f = function()\n    local own = 1\n    own = 2\n    memo = memo or {}\n    deep()()\n  end }";
        let expected = [("count".to_owned(), 3), ("memo".to_owned(), 9)];
        assert_eq!(top_level_assignments(text), expected);
        assert!(top_level_assignments("local n = 0 n += 1 return { f = function() return n end }").is_empty());
    }

    #[test]
    fn variables_of_functions_and_of_the_top_levels_own_code_are_no_matter() {
        assert!(!assigns("local n = 0 n += 1 return { f = function() return n end }"));
        assert!(!assigns("return { f = function() local n = 0 local function g() n += 1 end g() return n end }"));
        assert!(!assigns("local game = {} function game.f(s) s.n = 1 return game.g(s) end game = game return game"));
        assert!(!assigns("local function fact(n) return n < 2 and 1 or n * fact(n - 1) end return fact"));
    }
}

//! What a script writes where it is lost: into variables and tables of its top level, and into states that it should only
//! look at. Asked by a check alone, never on the way of a call.

use std::sync::atomic::Ordering;

use mlua::{MultiValue, Table, Value as LuaValue};

use super::objects::Rng;
use super::{LuaScript, Root, border, bytecode, isolation, sandbox};
use crate::diag::{Diagnostic, SourceSpan};
use crate::script::loan::Loan;
use crate::script::{Argument, Kept};

impl LuaScript {
    /// The assignments of variables of the top level in functions, else the first write into one of its tables that was
    /// refused.
    pub(super) fn find_kept(&self) -> Vec<Kept> {
        let mut kept = Vec::new();
        for (file, text) in self.sources.texts() {
            for (variable, line) in bytecode::top_level_assignments(text) {
                kept.push(Kept { place: SourceSpan::line(file, line), variable: Some(variable) });
            }
        }
        if kept.is_empty() {
            let refused = self.refused_at.borrow().clone();
            kept.extend(refused.map(|place| Kept { place, variable: None }));
        }
        kept
    }

    /// Calls the function with states that cannot be changed; the error, if that is why it fails.
    pub(super) fn call_with_frozen_states(
        &self,
        name: &'static str,
        arguments: &mut [Argument<'_>],
    ) -> Option<Box<Diagnostic>> {
        let (mut values, mut loans) = (Vec::with_capacity(arguments.len()), Vec::new());
        for argument in arguments.iter_mut() {
            let value = match argument {
                Argument::Data(value) => border::to_lua(&self.lua, value),
                Argument::Text(text) => self.lua.create_string(text).map(LuaValue::String),
                Argument::State(state) => border::to_lua(&self.lua, state.value()).and_then(frozen),
                Argument::Rng(stream) => {
                    let loan = Loan::new(stream);
                    loans.push((loan.clone(), stream));
                    self.lua.create_userdata(Rng(loan)).map(LuaValue::UserData)
                }
            };
            values.push(value.ok()?);
        }
        self.is_quiet.store(true, Ordering::Relaxed);
        let running = self.timer.start(self.limits.call);
        let function = if self.is_fresh.get() {
            let root = sandbox::run_again(&self.lua, &self.main).map(Root::of);
            root.and_then(|root| root.map_or(Ok(Err(LuaValue::Nil)), |root| root.function(name)))
        } else {
            self.root.function(name)
        };
        let result =
            function.map(|found| found.map(|function| function.call::<LuaValue>(MultiValue::from_vec(values))));
        let expired = self.timer.expired();
        drop(running);
        self.is_quiet.store(false, Ordering::Relaxed);
        for (loan, stream) in loans {
            // The stream stays as it was.
            loan.give_back(&mut stream.clone());
        }
        match result {
            Ok(Ok(Err(error))) if !expired && isolation::is_refused_write(&error.to_string()) => {
                Some(self.sources.fault(&self.lua, &error, false, &self.limits))
            }
            _ => None,
        }
    }
}

/// The value with all its tables read-only.
fn frozen(value: LuaValue) -> mlua::Result<LuaValue> {
    fn freeze(table: &Table) -> mlua::Result<()> {
        table.set_readonly(true);
        table.for_each(
            |_: LuaValue, value: LuaValue| if let LuaValue::Table(inner) = value { freeze(&inner) } else { Ok(()) },
        )
    }
    if let LuaValue::Table(table) = &value {
        freeze(table)?;
    }
    Ok(value)
}

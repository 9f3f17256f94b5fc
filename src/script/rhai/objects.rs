//! What a Rhai script sees as `gift`, `rng` and as a data set.

use std::sync::Arc;

use ::rhai::{Array, Dynamic, Engine, EvalAltResult};

use super::border::to_rhai;
use crate::script::library::Dataset;
use crate::script::loan::{Loan, OVER};
use crate::seed::Stream;

/// The library.
#[derive(Clone)]
pub(super) struct Gift;

/// `gift.json`.
#[derive(Clone)]
pub(super) struct Json;

/// The generator of one call, as the script sees it.
#[derive(Clone)]
pub(super) struct Rng(pub(super) Loan);

impl Rng {
    fn draw<R>(&self, draw: impl FnOnce(&mut Stream) -> R) -> Result<R, Box<EvalAltResult>> {
        self.0.draw(draw).ok_or_else(|| OVER.into())
    }
}

/// The rows of a data file: `rows.len()`, `rows[i]` from 0 as in Rhai's arrays, `for row in rows`.
#[derive(Clone)]
pub(super) struct Rows(pub(super) Arc<Dataset>);

impl IntoIterator for Rows {
    type Item = Dynamic;
    type IntoIter = Box<dyn Iterator<Item = Dynamic>>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new((0..self.0.len()).filter_map(move |at| self.0.row(at).map(to_rhai)))
    }
}

/// Teaches the engine the types above.
pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Gift>("gift").register_type_with_name::<Json>("gift.json");
    engine.register_get("json", |_: &mut Gift| Json);

    engine.register_type_with_name::<Rng>("rng");
    engine.register_fn("int", |rng: &mut Rng, low: i64, high: i64| {
        if low > high {
            return Err(format!("`rng.int({low}, {high})`: the range is empty").into());
        }
        rng.draw(|stream| stream.int(low, high))
    });
    engine.register_fn("float", |rng: &mut Rng| rng.draw(Stream::float));
    engine.register_fn("pick", |rng: &mut Rng, mut list: Array| {
        if list.is_empty() {
            return Err("`rng.pick`: the list is empty".into());
        }
        rng.draw(|stream| list.swap_remove(stream.index(list.len())))
    });
    engine.register_fn("shuffle", |rng: &mut Rng, mut list: Array| {
        rng.draw(|stream| stream.shuffle(&mut list))?;
        Ok::<_, Box<EvalAltResult>>(list)
    });

    engine.register_type_with_name::<Rows>("dataset");
    engine.register_iterator::<Rows>();
    engine.register_fn("len", |rows: &mut Rows| rows.0.len() as i64);
    engine.register_get("len", |rows: &mut Rows| rows.0.len() as i64);
    engine.register_indexer_get(|rows: &mut Rows, index: i64| {
        let row = usize::try_from(index).ok().and_then(|index| rows.0.row(index));
        row.map(to_rhai).ok_or_else(|| {
            let message = format!("the data set has rows 0 to {}, not {index}", rows.0.len() as i64 - 1);
            Box::<EvalAltResult>::from(message)
        })
    });
}

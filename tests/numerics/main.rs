//! Arithmetic against plain `f64` loops, stored values of other programs, finite differences and properties. The scripts
//! that made the stored values stand beside them in `data/`.

mod advantage;
mod answer;
mod loss;
mod nash;

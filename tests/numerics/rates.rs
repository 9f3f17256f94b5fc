//! `McNemar`'s test and Wilson's interval against values of `SciPy`, stored with the script that made them.

use gift_host::eval::{mcnemar, wilson};
use serde_json::Value;

fn reference() -> Value {
    serde_json::from_str(include_str!("data/rates_reference.json")).expect("JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

#[test]
fn p_values_are_those_of_scipy() {
    let reference = reference();
    let cases = reference["mcnemar"].as_array().expect("cases");
    for case in cases {
        let (b, c) = (number(&case["b"]) as usize, number(&case["c"]) as usize);
        let (expected, found) = (number(&case["p"]), mcnemar(b, c));
        // Relative, as they go down to 1e-300; logarithms of binomial coefficients add up about n roundings.
        assert!((found / expected - 1.0).abs() < 1e-9, "{b} against {c}: {found} instead of {expected}");
    }
    assert_eq!(cases.len(), 14);
}

#[test]
fn intervals_are_those_of_scipy() {
    let reference = reference();
    let cases = reference["wilson"].as_array().expect("cases");
    for case in cases {
        let found = wilson(number(&case["successes"]) as usize, number(&case["trials"]) as usize);
        for (side, found) in found.into_iter().enumerate() {
            let expected = number(&case["interval"][side]);
            assert!((found - expected).abs() < 1e-12, "{case}: {found}");
        }
    }
    assert_eq!(cases.len(), 10);
}

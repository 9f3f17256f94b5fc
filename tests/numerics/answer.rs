//! Answer checking against stored pairs of spellings (`data/math_pairs.tsv`), and properties that hold for any text.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use gift_host::game::answer::{MAX_LENGTH, extract_boxed, math_equal};
use proptest::prelude::*;

/// Every stored pair gets its verdict, in both directions; all wrong ones are shown together.
#[test]
fn stored_pairs_get_their_verdict() {
    let (mut equal, mut unequal, mut wrong) = (0, 0, String::new());
    for line in include_str!("data/math_pairs.tsv").lines().filter(|line| !line.starts_with('#')) {
        let [verdict, given, reference] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let expected = match verdict {
            "equal" => true,
            "unequal" => false,
            other => panic!("unknown verdict `{other}`"),
        };
        *if expected { &mut equal } else { &mut unequal } += 1;
        for (a, b) in [(given, reference), (reference, given)] {
            if math_equal(a, b) != expected {
                writeln!(wrong, "expected {verdict}: `{a}` and `{b}`").unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert_eq!((equal, unequal), (276, 137));
}

#[test]
fn the_last_balanced_box_is_the_answer() {
    let cases = [
        (r"so \boxed{5}", Some("5")),
        (r"\boxed{1} or rather \boxed{ \frac{1}{2} }.", Some(r"\frac{1}{2}")),
        (r"\boxed{\{1, 2\}}", Some(r"\{1, 2\}")),
        (r"\boxed{\boxed{5}}", Some(r"\boxed{5}")),
        (r"\boxed{5} and \boxed{6", Some("5")),
        (r"\boxed {7}", Some("7")),
        (r"$\boxed 8$.", Some("8")),
        (r"\fbox{9}", Some("9")),
        (r"\boxed{}", Some("")),
        (r"\boxed{ä\}", None),
        (r"{ \boxed{3} ", Some("3")),
        (r"a } \boxed{4}", Some("4")),
        (r"no box {5}", None),
        (r"\boxed", None),
        ("", None),
    ];
    for (text, expected) in cases {
        assert_eq!(extract_boxed(text), expected, "{text}");
    }
}

/// Texts made to exhaust something: the stack, the clock or memory. All must be answered, quickly even unoptimised.
#[test]
fn hostile_texts_are_answered_in_bounded_time() {
    let repeat = |part: &str| part.repeat(MAX_LENGTH / part.len());
    let nested = |open: &str, close: &str| {
        let depth = MAX_LENGTH / (open.len() + close.len()) - 1;
        format!("{}1{}", open.repeat(depth), close.repeat(depth))
    };
    let texts = [
        repeat("("),
        repeat("-"),
        repeat("!"),
        repeat(r"\text{"),
        repeat(r"\boxed{"),
        repeat("9"),
        repeat("9^"),
        repeat("9!"),
        repeat("x^9"),
        repeat("1,"),
        repeat("50%,"),
        repeat(r"\pm1"),
        repeat("1+"),
        repeat("x+y*"),
        repeat("1,234,"),
        repeat(" cm"),
        repeat(r"\text{ cm }"),
        nested("(", ")"),
        nested("{", "}"),
        nested(r"\{1,", r"\}"),
        nested(r"\frac{1}{", "}"),
        nested(r"2\frac{", "}{3}"),
        nested(r"\sqrt{", "}"),
        nested("2^{", "}"),
        nested("|", "|"),
        nested(r"\text{(", ")}"),
        nested(r"\pm(", ")"),
        nested("(x=", ")"),
        format!("{}x", repeat("3^{1000}*").trim_end_matches('*')),
        format!("(x+y+z)^{{999}}{}", "*(x+1/7)^99".repeat(60)),
        format!("{}1", r"\frac{1}{97x+".repeat(30)) + "}".repeat(30).as_str(),
        "10^{10^{10}}".to_owned(),
        "9^9^9^9^9".to_owned(),
        "1e999999999999999999999".to_owned(),
        "170!^170!".to_owned(),
        r"\binom{1000}{500}^{9}".to_owned(),
        format!("5_{{{}}}", "9".repeat(100)),
        "x".repeat(MAX_LENGTH * 100),
    ];
    let start = Instant::now();
    for (index, a) in texts.iter().enumerate() {
        assert!(math_equal(a, a), "{a}");
        // Against itself in another spelling, some other hostile ones, and ordinary answers.
        let spaced = format!("{}+0", &a[..a.len().min(MAX_LENGTH - 2)]);
        let others = texts.iter().cycle().skip(index + 1).step_by(5).take(6).map(String::as_str);
        for b in others.chain([spaced.as_str(), "1", "x", "1,2", r"\pm 1", "x=1"]) {
            let start = Instant::now();
            let verdict = math_equal(a, b);
            assert_eq!(verdict, math_equal(b, a), "{a}\n{b}");
            assert!(start.elapsed() < Duration::from_secs(4), "{:?}: {a}\n{b}", start.elapsed());
        }
    }
    let slowest_allowed = Duration::from_secs(60);
    assert!(start.elapsed() < slowest_allowed, "{:?}", start.elapsed());
    assert_eq!(extract_boxed(&r"\boxed{".repeat(100_000)), None);
}

/// A text beyond the bound is still itself.
#[test]
fn longer_texts_are_compared_as_text() {
    let long = format!("1{}", "+1".repeat(MAX_LENGTH));
    assert!(math_equal(&long, &long));
    assert!(!math_equal(&long, &(MAX_LENGTH + 1).to_string()));
}

/// Strings of pieces that the grammar knows reach deeper than arbitrary characters.
fn mathematics() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "1",
        "2",
        "0",
        "12",
        "0.5",
        "x",
        "y",
        "e",
        "i",
        "+",
        "-",
        "*",
        "/",
        "^",
        "_",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        r"\{",
        r"\}",
        ",",
        ";",
        "=",
        "<",
        r"\le",
        ">",
        r"\ne",
        r"\in",
        "!",
        "%",
        "|",
        " ",
        r"\frac",
        r"\sqrt",
        r"\pi",
        r"\sin",
        r"\log_",
        r"\ln",
        r"\pm",
        r"\mp",
        r"\infty",
        r"\cup",
        r"\cap",
        r"^\circ",
        r"\text{cm}",
        r"\text{or}",
        "cm",
        "$",
        r"\$",
        r"\boxed{",
        "{,}",
        ",000",
        r"\begin{pmatrix}",
        r"\end{pmatrix}",
        "&",
        r"\\",
        r"\binom",
        "e9",
        r"\left",
        r"\right",
        "é",
        "√",
        "π",
        "∞",
        "²",
        ".",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_text_equals_itself(text in any::<String>(), formula in mathematics()) {
        prop_assert!(math_equal(&text, &text));
        prop_assert!(math_equal(&formula, &formula));
    }

    #[test]
    fn equality_does_not_depend_on_the_side(a in mathematics(), b in mathematics(), text in any::<String>()) {
        prop_assert_eq!(math_equal(&a, &b), math_equal(&b, &a));
        prop_assert_eq!(math_equal(&a, &text), math_equal(&text, &a));
    }

    #[test]
    fn a_box_is_part_of_its_text(text in any::<String>(), formula in mathematics()) {
        for text in [text, formula] {
            if let Some(content) = extract_boxed(&text) {
                prop_assert!(text.contains(content));
            }
        }
    }

    /// Spelling does not matter to whole fractions, whatever their sign and size; the next fraction is another.
    #[test]
    fn fractions_are_exact(numerator in -99_999_i64..99_999, denominator in 1_i64..9999, factor in 1_i64..99) {
        let latex = format!(r"\frac{{{}}}{{{}}}", numerator * factor, denominator * factor);
        let plain = format!("{numerator}/{denominator}");
        let next = format!("{}/{denominator}", numerator + 1);
        prop_assert!(math_equal(&latex, &plain));
        prop_assert!(!math_equal(&latex, &next));
    }
}

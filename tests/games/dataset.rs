//! Math problems from a user's file: `--set games.math.data=FILE` with the columns and the answer forms that public
//! data sets have.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gift_host::game::{Action, Episode, GameDef, ScriptHost, Status};
use gift_host::script::Value;
use gift_host::seed::Seed;

use super::support::{deep, load_under, options, patient};

/// Problem, solution and the answer that is right, in the forms of MATH (boxed, nested braces) and GSM8K (`####`).
const ROWS: [(&str, &str, &str); 4] = [
    ("What is 2 + 3?", "Adding gives $\\boxed{5}$.", "5"),
    ("Half of one?", "We get \\boxed{2}, no: halving gives $\\boxed{\\frac{1}{2}}$.", "0.5"),
    ("Tickets?", "3 * 7 = 21 tickets\n#### 21", "21"),
    ("Solve x - 1 = 8.", "So $x = \\boxed{x = 9}$", "9"),
];

fn math_with(file: &Path, fields: &[(&str, Value)]) -> Arc<GameDef> {
    let mut all = vec![("data", Value::from(file.to_string_lossy().as_ref()))];
    all.extend(fields.iter().cloned());
    let host = ScriptHost::new(patient(), vec![file.to_owned()]);
    load_under("games/math.lua", options(&all), &host)
}

fn jsonl(folder: &Path) -> PathBuf {
    let row = |(problem, solution, _): &(&str, &str, &str)| {
        serde_json::json!({"problem": problem, "level": "Level 3", "solution": solution}).to_string() + "\n"
    };
    let path = folder.join("rows.jsonl");
    std::fs::write(&path, ROWS.iter().map(row).collect::<String>()).expect("a file");
    path
}

fn parquet(folder: &Path) -> PathBuf {
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::writer::SerializedFileWriter;
    let path = folder.join("rows.parquet");
    let schema = "message rows { required binary problem (UTF8); required binary solution (UTF8); }";
    let schema = Arc::new(parquet::schema::parser::parse_message_type(schema).expect("a schema"));
    let file = std::fs::File::create(&path).expect("a file");
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).expect("a writer");
    let mut group = writer.next_row_group().expect("a row group");
    for column_index in 0..2 {
        let texts: Vec<ByteArray> =
            ROWS.iter().map(|row| ByteArray::from(if column_index == 0 { row.0 } else { row.1 })).collect();
        let mut column = group.next_column().expect("columns").expect("a column");
        column.typed::<ByteArrayType>().write_batch(&texts, None, None).expect("texts");
        column.close().expect("the column ends");
    }
    group.close().expect("the group ends");
    writer.close().expect("the file ends");
    path
}

/// Plays 40 problems with right and wrong answers and returns the problems that came up.
fn solves(game: &Arc<GameDef>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for number in 0..40 {
        let seed = Seed::new(number);
        let state = game.init(seed).expect("a start");
        let question = state.get("question").and_then(Value::as_text).expect("a question").to_owned();
        let row = ROWS.iter().find(|row| row.0 == question).expect("a row of the file");
        for (answer, expected) in
            [(row.2.to_owned(), true), (format!("\\boxed{{{}}}", row.2), true), ("7".into(), false)]
        {
            let mut episode = Episode::start(game, seed).expect("a start");
            let Status::Turn(seat) = *episode.status() else { panic!("nobody acts") };
            assert!(episode.observation(seat, false).expect("observe").contains(&question));
            episode.act(seat, &Action { text: answer.clone(), well_formed: true }).expect("a turn");
            let score = if expected { 1.0 } else { 0.0 };
            assert_eq!(episode.result(seat), (score, expected), "`{answer}` to `{question}`");
        }
        seen.insert(question);
    }
    seen
}

#[test]
fn problems_come_from_jsonl_with_boxed_solutions() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = jsonl(folder.path());
    let seen = deep(|| solves(&math_with(&file, &[])));
    assert_eq!(seen.len(), ROWS.len());
}

#[test]
fn problems_come_from_parquet() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = parquet(folder.path());
    let seen = deep(|| solves(&math_with(&file, &[])));
    assert_eq!(seen.len(), ROWS.len());
}

#[test]
fn a_level_that_no_row_has_is_said_with_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = jsonl(folder.path());
    let problem = deep(|| math_with(&file, &[("level", 5_i64.into())]).init(Seed::new(0)).expect_err("a problem"));
    let text = problem.to_string();
    assert!(text.contains("no row of the dataset") && text.contains("rows.jsonl"), "{text}");
    assert!(text.contains("games/math.lua:"), "{text}");
    deep(|| solves(&math_with(&file, &[("level", 3_i64.into())])));
}

#[test]
fn choices_leave_out_answers_that_are_no_numbers() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = jsonl(folder.path());
    deep(|| {
        let game = math_with(&file, &[("choices", 4_i64.into())]);
        for number in 0..40 {
            let state = game.init(Seed::new(number)).expect("a start");
            let actions = game.actions(&state, gift_host::game::Seat(1)).expect("actions").expect("a list");
            let answer = state.get("answer").and_then(Value::as_text).expect("an answer");
            assert!(actions.len() == 4 && actions.iter().any(|action| action == answer), "{actions:?}: {answer}");
            assert!(answer.parse::<i64>().is_ok(), "{answer}");
        }
    });
}

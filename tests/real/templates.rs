//! Public chat templates: prompts have the tokens that transformers gives them.

use gift_host::policy::{DecoderConfig, Tokenizer};
use serde_json::Value;

use super::{fetched, stored};

#[test]
fn public_templates_give_the_tokens_of_transformers() {
    let Some(folder) = fetched("templates") else { return };
    let reference = stored("templates_reference.json");
    let ids = |value: &Value| -> Vec<u32> {
        value.as_array().expect("a list").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
    };
    let mut followed = 0;
    let mut problems = Vec::new();
    for case in reference["cases"].as_array().expect("a list") {
        let name = case["name"].as_str().expect("a name");
        let template = std::fs::read(folder.join(format!("{name}.jinja"))).expect("the template");
        let model = tempfile::tempdir().expect("a folder");
        let write = |name: &str, content: &[u8]| std::fs::write(model.path().join(name), content).expect("written");
        write("tokenizer.json", reference["tokenizer.json"].to_string().as_bytes());
        write("tokenizer_config.json", case["settings"].to_string().as_bytes());
        write("chat_template.jinja", &template);
        let tokenizer = match Tokenizer::read(model.path(), &DecoderConfig::tiny(512)) {
            Ok(tokenizer) => tokenizer,
            Err(error) => {
                problems.push(format!("{name}: {error}"));
                continue;
            }
        };
        followed += 1;
        let texts = reference["conversations"].as_array().expect("a list");
        let expected = case["conversations"].as_array().expect("a list");
        assert_eq!((texts.len(), expected.len()), (10, 10));
        for (texts, expected) in texts.iter().zip(expected) {
            let text = |index: usize| texts[index].as_str().expect("a text");
            let first = tokenizer.prompt(text(0), true);
            let after = [vec![tokenizer.end()], tokenizer.prompt(text(2), false)].concat();
            for (found, expected) in [(first, ids(&expected["first"])), (after, ids(&expected["after"]))] {
                if found != expected {
                    let spell = |ids: &[u32]| ids.iter().map(|&id| tokenizer.token_text(id)).collect::<String>();
                    problems.push(format!("{name}: {:?}, transformers {:?}", spell(&found), spell(&expected)));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    println!("{followed} templates followed");
    assert!(followed >= 12);
}

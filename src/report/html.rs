//! The page: one file with its style, its script and its data, which loads nothing from anywhere.

use serde_json::{Value, json};

use crate::metrics::names::METRICS;

use super::run::RunView;

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// Bytes of episodes that a page carries, of all runs together.
const MAX_EPISODE_BYTES: usize = 8 << 20;

/// The page of one run, or of several laid over each other. `names` tell the runs apart, in the same order.
pub fn page(runs: &[RunView], names: &[String]) -> String {
    let share = MAX_EPISODE_BYTES / runs.len().max(1);
    let data = json!({
        "runs": runs.iter().zip(names).map(|(run, name)| run.to_json(name, share)).collect::<Vec<_>>(),
        "metrics": METRICS.iter().map(|metric| (metric.name, metric.unit, metric.formula)).collect::<Vec<_>>(),
    });
    let title: Vec<String> = names.iter().map(|name| escaped(name)).collect();
    // The data last, so that what it holds is never taken for a place of the template.
    let page = TEMPLATE.replace("{{title}}", &title.join(", ")).replace("{{style}}", STYLE);
    page.replace("{{script}}", SCRIPT).replacen("{{data}}", &inert(&data), 1)
}

/// JSON that cannot end the element that holds it.
fn inert(data: &Value) -> String {
    data.to_string().replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('{', "&#123;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_an_empty_folder_says_what_is_missing_and_loads_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let page = page(&[RunView::read(folder.path())], &["</title><b>{{data}}".to_owned()]);
        assert!(page.contains("metrics.jsonl has no iteration yet"));
        assert!(page.contains("<title>&lt;/title>&lt;b>&#123;&#123;data}} "));
        assert!(!page.contains("<b>"));
        for address in ["src=", "url(", "@import", "href=\"http", "fetch("] {
            assert!(!page.contains(address), "{address}");
        }
    }
}

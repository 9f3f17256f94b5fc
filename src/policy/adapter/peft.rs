//! The settings of an adapter as PEFT's `adapter_config.json` has them: what is read, what is refused, what is written.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{AdapterConfig, Projection};
use crate::policy::Error;

/// What PEFT's tensors are named after, before our names.
pub(in crate::policy) const PREFIX: &str = "base_model.model.";

/// Fields that must be absent, null, false or empty: each changes what the adapter computes in a way that this version has
/// not.
const UNSUPPORTED: [&str; 15] = [
    "alora_invocation_tokens",
    "alpha_pattern",
    "arrow_config",
    "exclude_modules",
    "fan_in_fan_out",
    "layer_replication",
    "layers_pattern",
    "layers_to_transform",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
];

impl AdapterConfig {
    /// The text of PEFT's `adapter_config.json`; `base` is the model that the adapter belongs to.
    pub fn to_peft(&self, base: &str) -> String {
        // As PEFT writes it.
        let alpha = if self.alpha.fract() == 0.0 { json!(self.alpha as i64) } else { json!(self.alpha) };
        let targets: Vec<&str> = self.targets.iter().map(|target| target.name()).collect();
        let settings = json!({
            "base_model_name_or_path": base, "bias": "none", "fan_in_fan_out": false, "inference_mode": true,
            "init_lora_weights": true, "lora_alpha": alpha, "lora_dropout": self.dropout, "peft_type": "LORA", "r": self.rank,
            "target_modules": targets, "task_type": "CAUSAL_LM", "use_dora": self.dora, "use_rslora": self.root_scaling,
        });
        format!("{settings:#}\n")
    }

    /// Understands the text of PEFT's `adapter_config.json`; `path` is only for the message. Returns the base model that it
    /// names besides.
    ///
    /// # Errors
    /// [`Error::Format`] for text that is not such a file, or an adapter of another kind.
    pub fn from_peft(text: &str, path: &Path) -> Result<(Self, Option<String>), Error> {
        let refuse = |message: String| Error::Format { path: path.to_owned(), message };
        let raw: Map<String, Value> = serde_json::from_str(text).map_err(|error| refuse(error.to_string()))?;
        let kind = raw.get("peft_type").and_then(Value::as_str).unwrap_or_default();
        if kind != "LORA" {
            return Err(refuse(format!("adapters of kind `{kind}` are not supported, only `LORA`")));
        }
        let is_off = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        };
        if let Some(name) = UNSUPPORTED.into_iter().find(|name| raw.get(*name).is_some_and(|value| !is_off(value))) {
            return Err(refuse(format!("`{name}` = `{}` is not supported", raw[name])));
        }
        if raw.get("bias").and_then(Value::as_str).is_some_and(|bias| bias != "none") {
            return Err(refuse(format!("`bias` = `{}` is not supported, only `none`", raw["bias"])));
        }
        let number = |name: &str| {
            let found = raw.get(name).and_then(Value::as_f64);
            found.ok_or_else(|| refuse(format!("it lacks the number `{name}`")))
        };
        let mut targets = match raw.get("target_modules") {
            Some(Value::String(all)) if all == "all-linear" => Projection::ALL.to_vec(),
            Some(Value::Array(list)) => list
                .iter()
                .map(|name| {
                    name.as_str().and_then(Projection::named).ok_or_else(|| {
                        let known = Projection::ALL.map(|target| format!("`{}`", target.name())).join(", ");
                        refuse(format!("`target_modules` names {name}; this version has {known}"))
                    })
                })
                .collect::<Result<Vec<_>, _>>()?,
            other => {
                let found = other.map_or_else(|| "nothing".to_owned(), ToString::to_string);
                return Err(refuse(format!("`target_modules` is {found}; expected a list of names")));
            }
        };
        targets.sort_unstable();
        targets.dedup();
        let flag = |name: &str| raw.get(name).and_then(Value::as_bool).unwrap_or(false);
        let settings = Self {
            rank: number("r")? as usize,
            alpha: number("lora_alpha")?,
            targets,
            dora: flag("use_dora"),
            root_scaling: flag("use_rslora"),
            dropout: raw.get("lora_dropout").and_then(Value::as_f64).unwrap_or(0.0),
        };
        Ok((settings, raw.get("base_model_name_or_path").and_then(Value::as_str).map(str::to_owned)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(AdapterConfig, Option<String>), String> {
        AdapterConfig::from_peft(text, Path::new("adapter_config.json")).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_read_back_the_same() {
        for (dora, root_scaling, alpha, dropout) in [(false, false, 16.0, 0.0), (true, true, 0.5, 0.05)] {
            let targets = vec![Projection::Key, Projection::Gate];
            let settings = AdapterConfig { rank: 8, alpha, targets, dora, root_scaling, dropout };
            assert_eq!(parse(&settings.to_peft("a/b")), Ok((settings, Some("a/b".to_owned()))));
        }
    }

    #[test]
    fn other_adapters_are_refused_by_name() {
        let text = AdapterConfig {
            rank: 8,
            alpha: 16.0,
            targets: vec![Projection::Query],
            dora: false,
            root_scaling: false,
            dropout: 0.0,
        }
        .to_peft("base");
        for (from, to, word) in [
            ("\"LORA\"", "\"IA3\"", "IA3"),
            ("\"none\"", "\"all\"", "bias"),
            ("\"fan_in_fan_out\": false", "\"fan_in_fan_out\": true", "fan_in_fan_out"),
            ("\"r\": 8", "\"rank_pattern\": {\"q_proj\": 4}", "rank_pattern"),
            ("\"r\": 8", "\"r\": \"8\"", "lacks the number `r`"),
            ("\"q_proj\"", "\"c_attn\"", "c_attn"),
            ("\"target_modules\"", "\"targets\"", "is nothing"),
            ("{", "[", "expected"),
        ] {
            let message = parse(&text.replacen(from, to, 1)).expect_err("refused");
            assert!(message.contains(word), "{word} in {message}");
        }
        let all = text.replace("[\n    \"q_proj\"\n  ]", "\"all-linear\"");
        assert_eq!(parse(&all).expect("a list").0.targets, Projection::ALL);
    }
}

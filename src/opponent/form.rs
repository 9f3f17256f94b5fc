//! Where models may stop writing. [`crate::rollout`] uses it for the learner as well.

use crate::config::AnswerFormat;
use crate::policy::StopRule;

/// Where an answer in this format is complete, if its text tells.
pub fn stop_rule(format: AnswerFormat) -> Option<StopRule> {
    let is_complete: fn(&str) -> bool = match format {
        AnswerFormat::Bare | AnswerFormat::Script => return None,
        AnswerFormat::Think => |text| AnswerFormat::Think.is_complete(text),
        AnswerFormat::Answer => |text| AnswerFormat::Answer.is_complete(text),
        AnswerFormat::Json => |text| AnswerFormat::Json.is_complete(text),
        AnswerFormat::Boxed => |text| AnswerFormat::Boxed.is_complete(text),
    };
    Some(StopRule { last_byte: format.last_byte()?, is_complete })
}

//! In which form models are asked to answer: from the setting to how the rules read it and where sampling may stop.
//! [`crate::rollout`] uses it for the learner as well.

use crate::config::AnswerFormat;
use crate::game::AnswerForm;
use crate::policy::StopRule;

/// The form of answers that a setting names.
pub fn answer_form(format: AnswerFormat) -> AnswerForm {
    match format {
        AnswerFormat::Bare => AnswerForm::Bare,
        AnswerFormat::Think => AnswerForm::Think,
        AnswerFormat::Answer => AnswerForm::Answer,
        AnswerFormat::Json => AnswerForm::Json,
        AnswerFormat::Boxed => AnswerForm::Boxed,
        AnswerFormat::Script => AnswerForm::Script,
    }
}

/// Where an answer of this form is complete, if its text tells.
pub fn stop_rule(form: AnswerForm) -> Option<StopRule> {
    let is_complete: fn(&str) -> bool = match form {
        AnswerForm::Bare | AnswerForm::Script => return None,
        AnswerForm::Think => |text| AnswerForm::Think.is_complete(text),
        AnswerForm::Answer => |text| AnswerForm::Answer.is_complete(text),
        AnswerForm::Json => |text| AnswerForm::Json.is_complete(text),
        AnswerForm::Boxed => |text| AnswerForm::Boxed.is_complete(text),
    };
    Some(StopRule { last_byte: form.last_byte()?, is_complete })
}

-- SocialIQA (Sap et al., arXiv:1904.09728): a situation, a question, three answers. One question an episode.
--
-- Reads the files of `allenai/social_i_qa` (Parquet or JSONL): `context`, `question`, `answerA`, `answerB`, `answerC`, `label`
-- ("1" to "3"). The validation part is the one that is measured; the labels of the test part are not public.
--
-- Options: `games.social_iqa.data` is the file.

local bench = require("bench")

return bench.multiple_choice("social_iqa", function(row, data)
  return {
    question = bench.text(row, "context", data) .. "\n" .. bench.text(row, "question", data),
    options = { bench.text(row, "answerA", data), bench.text(row, "answerB", data), bench.text(row, "answerC", data) },
    answer = tonumber(bench.text(row, "label", data)),
    subject = "",
  }
end)

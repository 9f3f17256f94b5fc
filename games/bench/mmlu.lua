-- MMLU (Hendrycks et al., arXiv:2009.03300): four options, 57 subjects. One question an episode.
--
-- Reads the files of `cais/mmlu` as published (`all/test-*.parquet`), or JSONL with the same columns: `question`, `subject`,
-- `choices` (a list), `answer` (0 to 3).
--
-- Options: `games.mmlu.data` is the file.

local bench = require("bench")

return bench.multiple_choice("mmlu", function(row, data)
  return {
    question = bench.text(row, "question", data),
    options = gift.clone(row.choices),
    answer = tonumber(bench.text(row, "answer", data)) + 1,
    subject = tostring(row.subject or ""),
  }
end)

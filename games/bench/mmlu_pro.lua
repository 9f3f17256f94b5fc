-- MMLU-Pro (Wang et al., arXiv:2406.01574): up to ten options, 14 categories. One question an episode.
--
-- Reads the files of `TIGER-Lab/MMLU-Pro` as published (`data/test-*.parquet`), or JSONL with the same columns: `question`,
-- `options` (a list), `answer_index` (from 0), `category`.
--
-- Options: `games.mmlu_pro.data` is the file.

local bench = require("bench")

return bench.multiple_choice("mmlu_pro", function(row, data)
  return {
    question = bench.text(row, "question", data),
    options = gift.clone(row.options),
    answer = tonumber(bench.text(row, "answer_index", data)) + 1,
    subject = tostring(row.category or ""),
  }
end)

-- The host's own reward: the learner's score, plus the penalty (zero or negative) for malformed and illegal answers.
-- A starting point for a reward of your own.

return function(episode)
  return episode.outcome.scores[episode.seat] + episode.penalty
end

//! The settings by room, each with its default. Pure data.

use serde::{Deserialize, Serialize};

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

section! {
    /// How many episodes are played, and how long they may be.
    Rollout {
        /// Groups an iteration.
        groups: usize = 32,
        /// Trajectories a group (the paper: 16).
        group_size: usize = 16,
        /// Most sampled tokens a turn (the paper: 600).
        max_new_tokens: usize = 32,
        /// Most tokens a trajectory; 0 takes the model's context.
        max_context: usize = 0,
        /// Most tokens that one forward pass of a rollout takes, all sequences together; longer prompts are cut.
        max_batch_tokens: usize = 8192,
        /// Most memory for keys and values of all sequences together, in MiB; 0: no bound. Where it is full, sequences wait.
        max_cache_mib: usize = 0,
    }
}

section! {
    /// What the policy sees and how its tokens are drawn.
    Decode {
        /// Divides the logits, in sampling and in training alike (the paper: 1 in training, 0.5 in validation).
        temperature: f32 = 1.0,
        /// Keep only this many most probable tokens; 0 keeps all.
        top_k: usize = 0,
        /// Keep the most probable tokens whose probabilities sum to this; 1 keeps all.
        top_p: f32 = 1.0,
        /// Drop tokens less probable than this times the most probable one; 0 keeps all.
        min_p: f32 = 0.0,
        /// Sample answers among the legal ones (`legal`) or freely (`off`, the paper).
        constrain: Constrain = Constrain::Legal,
        /// `brief` observations for small models, or `full` prompts.
        observation: ObservationKind = ObservationKind::Brief,
        /// How an answer is read: `bare` takes the whole text, `think` the paper's tags; see [`AnswerFormat`].
        format: AnswerFormat = AnswerFormat::Bare,
        /// A system prompt at the start of every conversation; empty for what the model's chat template has by itself.
        system: String = String::new(),
        /// Ends a free answer where its format is complete, without waiting for the model's end token.
        stop: bool = true,
    }
}

/// Whether answers are sampled among the legal ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constrain {
    /// Any token.
    Off,
    /// Only tokens that spell a legal answer, where the game lists them.
    Legal,
}

/// Which text the policy sees on its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObservationKind {
    /// `game.brief` where there is one, else `game.observe`.
    Brief,
    /// `game.observe`.
    Full,
}

/// How an answer is read from the sampled text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerFormat {
    /// The whole text is the answer.
    Bare,
    /// `<think>…</think><answer>…</answer>`, as in the paper.
    Think,
    /// `<answer>…</answer>` alone.
    Answer,
    /// A JSON object with a field `answer`.
    Json,
    /// The last `\\boxed{…}` of a text.
    Boxed,
    /// What the game's own `parse` makes of the text.
    Script,
}

section! {
    /// Penalties of the built-in reward, added for each offending turn of the learner.
    Penalties {
        /// For an answer that is not in the answer format (the paper: -0.1).
        format: f64 = -0.1,
        /// For an answer that the rules refuse (the paper: -0.1).
        illegal: f64 = -0.1,
    }
}

section! {
    /// Rewards to credit.
    Advantage {
        /// The estimator.
        estimator: EstimatorKind = EstimatorKind::MeanStd,
        /// `role`: how slowly the running mean of a seat's rewards follows (SPIRAL: 0.95).
        role_decay: f64 = 0.95,
    }
}

/// How rewards become advantages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EstimatorKind {
    /// `(r - mean) / (std + 1e-6)` over the group (GRPO).
    MeanStd,
    /// `r - mean` over the group (Dr. GRPO, arXiv:2503.20783).
    Mean,
    /// `r - running mean of the game and seat` (SPIRAL, arXiv:2506.24119).
    Role,
}

section! {
    /// Which groups are kept for the update.
    Filter {
        /// The order in which groups are kept.
        kind: FilterKind = FilterKind::RewardStd,
        /// The share of the groups that is kept, at least one (the paper: 0.25).
        ratio: f64 = 0.25,
        /// Cut short the groups that will be dropped whatever their unfinished episodes bring. What is trained on stays the same;
        /// figures then count the episodes that were finished.
        cut: bool = false,
        /// `cut`: the lowest and the highest reward that there can be, penalties included. Without it, only groups that are left
        /// with fewer than two members are cut.
        reward_range: Vec<f64> = Vec::new(),
    }
}

/// The order in which groups are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilterKind {
    /// Keep every group.
    None,
    /// The highest standard deviation of the rewards first; groups without any are dropped.
    RewardStd,
}

section! {
    /// The objective.
    Loss {
        /// How token losses are averaged.
        aggregation: LossAggregation = LossAggregation::TokenMean,
        /// `constant`: the number that divides each trajectory's sum, in tokens (Dr. GRPO).
        constant: f64 = 100.0,
        /// The ratio may fall to `1 - clip_low` (DAPO: 0.2).
        clip_low: f64 = 0.2,
        /// The ratio may rise to `1 + clip_high` (DAPO: 0.28).
        clip_high: f64 = 0.28,
        /// One ratio a token, or one a sequence (GSPO).
        ratio: RatioKind = RatioKind::Token,
        /// Weight of the k3 estimate of the divergence from the frozen first policy; 0 turns it off (DAPO).
        kl_coefficient: f64 = 0.0,
        /// Weight of the entropy bonus (the paper: 0.001).
        entropy_coefficient: f64 = 0.001,
        /// Upper bound of the importance weight between sampler and trainer; 0 turns the weight off.
        max_importance_weight: f64 = 0.0,
        /// Leave truncated trajectories out of the loss (DAPO's overlong filtering).
        mask_truncated: bool = false,
    }
}

/// How token losses are averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossAggregation {
    /// Sum over all sampled tokens of the minibatch over their number (DAPO).
    TokenMean,
    /// Mean over the tokens of each trajectory, then mean over trajectories (GRPO).
    SequenceMean,
    /// Sum over tokens divided by a constant, then mean over trajectories (Dr. GRPO).
    Constant,
}

/// Over what the probability ratio is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RatioKind {
    /// Each token.
    Token,
    /// The geometric mean over a trajectory's tokens (GSPO, arXiv:2507.18071).
    Sequence,
}

section! {
    /// Who plays where the opponent is `league`.
    League {
        /// Iterations between two snapshots of the policy that become members; 0 takes none.
        snapshot_every: u64 = 20,
        /// Most snapshots at a time. One too many, and the one goes that is least worth meeting.
        max_snapshots: usize = 8,
        /// Share of the groups that meet the policy itself, trained in both seats; the rest meets the other members.
        self_share: f64 = 0.5,
        /// Members that are always there, as far as they can play the game.
        fixed: Vec<String> = ["random", "bot", "search:depth=1", "search"].map(str::to_owned).to_vec(),
        /// How often each of the other members is met.
        weighting: Weighting = Weighting::Hard,
        /// `hard`: the power of `1 - rate` (`k` of `AlphaStar`).
        power: f64 = 2.0,
        /// Share of the earlier results against a member that its rate keeps in each iteration.
        memory: f64 = 0.9,
    }
}

/// How often a member of the league is met, by the learner's rate against it (wins, and half the draws).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// `(1 - rate)^power`: who beats the learner comes often, who never does hardly.
    Hard,
    /// `rate (1 - rate)`: who is as strong as the learner comes most often.
    Variance,
    /// All alike.
    Even,
}

section! {
    /// An adapter that is trained in place of all weights.
    Lora {
        /// Its rank; 0 trains all weights.
        rank: usize = 0,
        /// What it adds counts `alpha / rank` times.
        alpha: f64 = 32.0,
        /// The projections that carry one.
        targets: Vec<LoraTarget> = LoraTarget::ALL.to_vec(),
        /// Train the length of each row apart from its direction (`DoRA`, arXiv:2402.09353).
        dora: bool = false,
        /// Count it `alpha / sqrt(rank)` times (rank-stabilized, arXiv:2312.03732).
        root_scaling: bool = false,
        /// The probability with which training leaves out an input of the adapter, from 0 to below 1.
        dropout: f64 = 0.0,
    }
}

/// A projection that may carry an adapter, by its name in Hugging Face's models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraTarget {
    /// Queries.
    QProj,
    /// Keys.
    KProj,
    /// Values.
    VProj,
    /// Attention back to the residual stream.
    OProj,
    /// The feed-forward layer's gate.
    GateProj,
    /// What the gate lets through.
    UpProj,
    /// Feed-forward back to the residual stream.
    DownProj,
}

impl LoraTarget {
    /// All, in the order of the forward pass.
    pub const ALL: [Self; 7] =
        [Self::QProj, Self::KProj, Self::VProj, Self::OProj, Self::GateProj, Self::UpProj, Self::DownProj];
}

section! {
    /// AdamW and its schedule.
    Optimizer {
        /// Highest learning rate.
        learning_rate: f64 = 5e-4,
        /// Decay of the first moment.
        beta1: f64 = 0.9,
        /// Decay of the second moment.
        beta2: f64 = 0.999,
        /// Added to the root of the second moment.
        epsilon: f64 = 1e-8,
        /// Decoupled weight decay of the matrices.
        weight_decay: f64 = 0.0,
        /// Gradients are scaled down to this global norm; 0 turns it off.
        max_gradient_norm: f64 = 1.0,
        /// Updates over which the learning rate rises from 0.
        warmup_updates: u64 = 10,
        /// What the learning rate does afterwards. A constant rate needs no end: a run may stop at any iteration and go on
        /// further, and equals the one that was never stopped.
        schedule: Schedule = Schedule::Constant,
        /// `cosine`: the share of the highest learning rate that is left in the last iteration.
        final_share: f64 = 0.1,
        /// Trajectories a minibatch (one update each); 0 takes all that are kept.
        minibatch: usize = 32,
        /// Passes over the kept trajectories.
        epochs: usize = 1,
        /// Most tokens that go forward and backward at once; a larger minibatch adds up its gradients over several such
        /// passes. 0 takes a minibatch at once.
        max_pass_tokens: usize = 65_536,
        /// Keep only the input of each layer for the backward pass and compute the rest again: a fraction of the memory of
        /// activations for about a tenth more time. On a GPU, layers whose activations do not fit are always treated so.
        gradient_checkpointing: bool = false,
        /// How both moments are stored: in 32 bits, or in 8 (arXiv:2110.02861), a quarter of the memory.
        states: OptimizerStates = OptimizerStates::F32,
    }
}

/// How the optimizer's moments are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OptimizerStates {
    /// 32 bits a value.
    #[serde(rename = "f32")]
    F32,
    /// 8 bits a value, and a scale for each block of 2048.
    #[serde(rename = "8bit")]
    EightBit,
}

/// What the learning rate does after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// It stays.
    Constant,
    /// It falls along a cosine to `final_share` at the last iteration.
    Cosine,
}

section! {
    /// Language models behind a server as opponents, `openai:URL#MODEL`.
    Remote {
        /// Most requests to a server at once.
        concurrency: usize = 8,
        /// Time of one request, in seconds.
        timeout_s: f64 = 60.0,
        /// Failed requests for one answer before its episode is voided, as long as the server answers others.
        retries: u32 = 8,
        /// Time without any answer of the server after which the run stops, in seconds.
        grace_s: f64 = 300.0,
        /// Time that one seat of an episode may take for all its answers, in seconds; past it the episode is voided.
        episode_s: f64 = 600.0,
        /// Temperature of the opponent (the paper: 0.5).
        temperature: f64 = 0.5,
        /// Most tokens of an answer (the paper: 600).
        max_tokens: u32 = 600,
        /// Answers on one turn that cannot be read or are refused before `on_invalid` happens.
        invalid_tries: usize = 3,
        /// What happens then.
        on_invalid: OnInvalid = OnInvalid::Random,
        /// The environment variable that holds the key, if the server wants one.
        key_env: String = "OPENAI_API_KEY".to_owned(),
    }
}

/// What happens when an opponent gives no valid answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInvalid {
    /// A random legal action is played.
    Random,
    /// The episode is voided.
    Void,
}

section! {
    /// Evaluation before and after training.
    Evaluation {
        /// Episodes of each game before and after training; 0 turns it off.
        episodes: usize = 200,
        /// Temperature of the policy; 0 takes the most probable token (the paper: 0.5).
        temperature: f32 = 0.5,
        /// Who plays the other seats, as `opponent`; empty for those of training (for `league`, which is there in training
        /// only, the defaults).
        opponent: String = String::new(),
        /// Episodes of single games, by name, in place of `episodes`.
        by_game: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new(),
    }
}

section! {
    /// Limits on scripts, and reloading.
    Scripts {
        /// Time of one call, in milliseconds.
        call_ms: u64 = 1000,
        /// Memory of one virtual machine, in MiB.
        memory_mib: usize = 256,
        /// Watch the scripts and use saved changes.
        reload: bool = true,
        /// A version that voids more than this share of its episodes in an iteration is replaced by the last good one.
        max_voided_share: f64 = 0.25,
    }
}

"""The config loader: what it accepts, and every way it refuses, with key, value and remedy."""

import dataclasses

import pytest

from vlarl.config.load import config_yaml, dump_config, known_keys, load_config
from vlarl.config.paths import configs_folder
from vlarl.config.schema import RunConfig
from vlarl.config.validate import check_execute_steps
from vlarl.errors import ConfigError
from vlarl.stages import STAGES


def test_defaults_are_a_valid_config():
    assert load_config(None) == RunConfig()


def test_file_then_overrides(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("seed: 3\nenv:\n  tasks: [spoon, carrot]\nppo:\n  gamma: 0.9\n")
    config = load_config(file, ["seed=4", "ppo.optimizer.betas=[0.8, 0.9]", "env.servers=1"])
    assert config.seed == 4
    assert config.env.tasks == ("spoon", "carrot")
    assert config.ppo.gamma == 0.9
    assert config.ppo.optimizer.betas == (0.8, 0.9)
    assert config.env.envs_per_server == RunConfig().env.envs_per_server


def test_result_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_config(None).seed = 1


def test_free_mapping_of_a_file_replaces_and_an_override_adds(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("ppo: {optimizer: {learning_rates: {expert: 2e-5}}}\n")
    assert load_config(file).ppo.optimizer.learning_rates == {"expert": 2e-5}
    added = load_config(file, ["ppo.optimizer.learning_rates.vision=1e-6"])
    assert added.ppo.optimizer.learning_rates == {"expert": 2e-5, "vision": 1e-6}
    on_default = load_config(None, ["ppo.optimizer.learning_rates.value=0.5"])
    assert on_default.ppo.optimizer.learning_rates == {"expert": 1e-5, "value": 0.5}


def test_dump_reads_back_equal(tmp_path):
    config = load_config(
        None,
        [
            "env.tasks=[a, b]",
            "reward.name=my.module:score",
            "reward.parameters.bonus=0.5",
            "seed=9",
        ],
    )
    dump_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert load_config(tmp_path) == config
    assert "bonus: 0.5" in config_yaml(config)


def test_every_shipped_run_config_loads():
    files = [file for stage in STAGES for file in (configs_folder() / stage).glob("*.yaml")]
    for file in files:
        assert load_config(file).stage == file.parent.name
    ablations = sorted((configs_folder() / "ablations").glob("*.yaml"))
    assert [load_config(file).stage for file in ablations] == ["cpt", "cpt", "sft", "t2a"]


@pytest.mark.parametrize(
    ("override", "key", "remedy"),
    [
        ("ppo.minibatchs=3", "ppo.minibatchs", "ppo.minibatch"),
        ("minibatch=3", "minibatch", "ppo.minibatch"),
        ("evn.suite=tabletop", "evn", "env.suite"),
        ("ppo=3", "ppo", "section"),
        ("env.servers=many", "env.servers", "whole number"),
        ("env.servers=2.5", "env.servers", "whole number"),
        ("ppo.drop_last=maybe", "ppo.drop_last", "true"),
        ("ppo.optimizer.betas=[0.9]", "ppo.optimizer.betas", "right length"),
        ("env.tasks=spoon", "env.tasks", "list"),
        ("ppo.optimizer.learning_rates.expert=fast", "ppo.optimizer.learning_rates", "mapping"),
        ("seed", "seed", "key=value"),
        ("env.tasks=[a", "env.tasks", "Quote"),
    ],
)
def test_unknown_and_ill_typed(override, key, remedy):
    with pytest.raises(ConfigError) as caught:
        load_config(None, [override])
    message = str(caught.value)
    assert message.startswith("command line: ")
    assert key in message
    assert remedy in message


ALLOCATION = "env.allocation"
EXPLORATION = "sampling.exploration"
IMPOSSIBLE = [
    # Overrides, the key that the message names, a word of the remedy or reason.
    (["stage=rll"], "stage", "Did you mean rl?"),
    (["resume=always"], "resume", "auto"),
    (["logging.prometheus_port=9100"], "logging.prometheus_port", "no effect with logging.prom"),
    (
        ["logging.prometheus=true", "logging.prometheus_port=70000"],
        "logging.prometheus_port",
        "1024 to 65535",
    ),
    (["profile=true", "ppo.iterations=1"], "profile", "ppo.iterations=2"),
    (["stage=sft", "profile=true"], "profile", "no effect with stage=sft"),
    (["seed=-1"], "seed", "at least 0"),
    (["checkpoint_every=0"], "checkpoint_every", "at least 1"),
    (["keep_checkpoints=0"], "keep_checkpoints", "at least 1"),
    (["keep_checkpoints_every=-1"], "keep_checkpoints_every", "at least 0"),
    (["keep_checkpoints_every=15"], "keep_checkpoints_every", "checkpoint_every=10"),
    (["stage=sft", "keep_checkpoints_every=10"], "keep_checkpoints_every", "supervised.save_every"),
    (["runtime.restarts=-1"], "runtime.restarts", "at least 0"),
    (["runtime.kind=inprocess", "runtime.restarts=1"], "runtime.restarts", "no effect"),
    (["env.mode=connect", "env.addresses=['@']"], "env.addresses", "@FILE"),
    (["name=a/b"], "name", "output"),
    (["output="], "output", "output=runs"),
    (["resume=auto"], "resume", "name=NAME"),
    (["seed=2000000"], "seed", "held-out"),
    (["stage=sft", "ppo.gamma=0.5"], "ppo.gamma", "no effect"),
    (["stage=sft", "reward.name=a:b"], "reward.name", "no effect"),
    (["stage=sft", "rollout.workers=2"], "rollout.workers", "no effect"),
    (["supervised.flow.repeats=2"], "supervised.flow.repeats", "no effect"),
    (["env.mode=spwan"], "env.mode", "Did you mean spawn?"),
    (["env.servers=0"], "env.servers", "at least 1"),
    (["env.restarts=-1"], "env.restarts", "at least 0"),
    (["env.deadline_seconds=0"], "env.deadline_seconds", "above zero"),
    (["env.suite="], "env.suite", "tabletop"),
    (["env.suite='gym:'"], "env.suite", "gym:ID"),
    (["env.tasks=[a, a]"], "env.tasks", "twice"),
    (["env.mode=connect"], "env.addresses", "tcp://"),
    (["env.mode=connect", "env.addresses=[here]"], "env.addresses", "tcp://"),
    (["env.addresses=['tcp://h:1']"], "env.addresses", "no effect"),
    (["env.key_file=one.key"], "env.key_file", "no effect"),
    (["env.mode=connect", "env.addresses=['tcp://10.0.0.5:1']"], "env.key_file", "vlarl key"),
    ([f"{ALLOCATION}.kind=failures"], f"{ALLOCATION}.kind", "Did you mean failure?"),
    ([f"{ALLOCATION}.kind=failure", f"{ALLOCATION}.floor=2"], f"{ALLOCATION}.floor", "0 and 1"),
    ([f"{ALLOCATION}.kind=failure", f"{ALLOCATION}.ceiling=0"], f"{ALLOCATION}.ceiling", "least 1"),
    (
        [f"{ALLOCATION}.kind=failure", f"{ALLOCATION}.smoothing=1.5"],
        f"{ALLOCATION}.smoothing",
        "0 and 1",
    ),
    ([f"{ALLOCATION}.kind=failure", f"{ALLOCATION}.margin=1"], f"{ALLOCATION}.margin", "[0, 1)"),
    ([f"{ALLOCATION}.floor=0.5"], f"{ALLOCATION}.floor", "no effect with env.allocation.kind"),
    ([f"{ALLOCATION}.ceiling=2"], f"{ALLOCATION}.ceiling", "no effect with env.allocation.kind"),
    ([f"{ALLOCATION}.smoothing=0"], f"{ALLOCATION}.smoothing", "no effect with env.alloc"),
    ([f"{ALLOCATION}.margin=0"], f"{ALLOCATION}.margin", "no effect with env.allocation.kind"),
    (["stage=sft", f"{ALLOCATION}.kind=failure"], f"{ALLOCATION}.kind", "no effect with stage=sft"),
    (["sampling.denoising_steps=0"], "sampling.denoising_steps", "at least 1"),
    (["sampling.execute_steps=0"], "sampling.execute_steps", "at least 1"),
    (["sampling.rollout_temperature=0"], "sampling.rollout_temperature", "above zero"),
    (
        ["sampling.rollout_start_temperature=-1"],
        "sampling.rollout_start_temperature",
        "at least 0",
    ),
    (["sampling.eval_temperature=-1"], "sampling.eval_temperature", "at least 0"),
    ([f"{EXPLORATION}.kind=flow_sdee"], f"{EXPLORATION}.kind", "flow_sde?"),
    ([f"{EXPLORATION}.noise_at=two"], f"{EXPLORATION}.noise_at", "one, all"),
    ([f"{EXPLORATION}.logprob_steps=some"], f"{EXPLORATION}.logprob_steps", "chunk, executed"),
    ([f"{EXPLORATION}.logprob_reduction=max"], f"{EXPLORATION}.logprob_reduction", "sum, mean"),
    ([f"{EXPLORATION}.logprob_at=all"], f"{EXPLORATION}.logprob_at", "noise_at=all"),
    ([f"{EXPLORATION}.noise_level=0"], f"{EXPLORATION}.noise_level", "above zero"),
    ([f"{EXPLORATION}.std_low=0.1"], f"{EXPLORATION}.std_low", "no effect"),
    ([f"{EXPLORATION}.last_step=4"], f"{EXPLORATION}.last_step", "0 to 3"),
    ([f"{EXPLORATION}.last_step=-2"], f"{EXPLORATION}.last_step", "0 to 3"),
    ([f"{EXPLORATION}.first_step=4"], f"{EXPLORATION}.first_step", "last_step"),
    ([f"{EXPLORATION}.kind=flow_cps"], f"{EXPLORATION}.last_step", "last_step=2"),
    (
        [f"{EXPLORATION}.kind=flow_cps", "sampling.denoising_steps=1"],
        f"{EXPLORATION}.last_step",
        "denoising_steps=2",
    ),
    (
        [f"{EXPLORATION}.kind=flow_noise", f"{EXPLORATION}.noise_level=0.3"],
        f"{EXPLORATION}.noise_level",
        "no effect",
    ),
    (
        [f"{EXPLORATION}.kind=flow_noise", f"{EXPLORATION}.std_low=0"],
        f"{EXPLORATION}.std_low",
        "above zero",
    ),
    (
        [f"{EXPLORATION}.kind=flow_noise", f"{EXPLORATION}.std_high=0.01"],
        f"{EXPLORATION}.std_high",
        "std_low",
    ),
    (["ppo.epochs=0"], "ppo.epochs", "at least 1"),
    (["stage=eval", "ppo.epochs=2"], "ppo.epochs", "no effect with stage=eval"),
    (["stage=eval", "evaluation.seed=0"], "evaluation.seed", "Use 1000000 or more"),
    (["env.mode=inprocess"], "env.mode", "runtime.kind=inprocess"),
    (["model.checkpoint=a", "model.preset=tiny-pooled"], "model.preset", "no effect"),
    (["model.checkpoint=a", "model.history=2"], "model.history", "no effect"),
    (["model.history=-2"], "model.history", "at least 0"),
    (["model.history=3"], "model.history", "pairs"),
    (["model.history=2", "model.history_hz=0"], "model.history_hz", "above zero"),
    (["model.history_hz=1"], "model.history_hz", "no effect with model.history=0"),
    (["model.dtype=float16"], "model.dtype", "Did you mean bfloat16?"),
    (["model.attention=flash"], "model.attention", "sdpa, eager, flash_attention_2"),
    (["model.attention=flash_attention_2"], "model.attention", "model.dtype=bfloat16"),
    (["model.lora.rank=-1"], "model.lora.rank", "at least 0"),
    (["model.lora.alpha=0"], "model.lora.alpha", "at least 1"),
    (["model.lora.targets=[]"], "model.lora.targets", "names no layer"),
    (["model.lora.alpha=8"], "model.lora.alpha", "no effect with model.lora.rank=0"),
    (["model.lora.targets=[a]"], "model.lora.targets", "no effect with model.lora.rank=0"),
    (["model.lora.rank=4"], "model.lora.rank", "ppo.optimizer.learning_rates.lora=1e-4"),
    (
        ["ppo.optimizer.learning_rates.lora=1e-4"],
        "ppo.optimizer.learning_rates.lora",
        "no adapters",
    ),
    (
        [
            "model.lora.rank=4",
            "ppo.optimizer.learning_rates.lora=1e-4",
            "ppo.optimizer.learning_rates.language=1e-5",
        ],
        "ppo.optimizer.learning_rates.language",
        "instead of the weights",
    ),
    (
        ["stage=sft", "model.lora.rank=4"],
        "model.lora.rank",
        "supervised.optimizer.learning_rates.lora=1e-4",
    ),
    ([f"{EXPLORATION}.logprob_steps=executed"], f"{EXPLORATION}.logprob_steps", "first_step=3"),
    ([f"{EXPLORATION}.correlation=1"], f"{EXPLORATION}.correlation", "[0, 1)"),
    (["ppo.clip_epsilon=0"], "ppo.clip_epsilon", "above zero"),
    (["ppo.gamma=1.5"], "ppo.gamma", "between 0 and 1"),
    (["ppo.gae_lambda=-0.1"], "ppo.gae_lambda", "between 0 and 1"),
    (["ppo.target_kl=-1"], "ppo.target_kl", "at least 0"),
    (["ppo.micro_batch=100"], "ppo.minibatch", "multiple"),
    (["ppo.minibatch=1024"], "ppo.minibatch", "512 decisions"),
    (["ppo.optimizer.learning_rates={}"], "ppo.optimizer.learning_rates", "trains nothing"),
    (
        ["ppo.optimizer.learning_rates.experts=1"],
        "ppo.optimizer.learning_rates.experts",
        "expert?",
    ),
    (
        ["ppo.optimizer.learning_rates.vision=0"],
        "ppo.optimizer.learning_rates.vision",
        "freeze",
    ),
    (["ppo.optimizer.betas=[0.9, 1.0]"], "ppo.optimizer.betas", "[0, 1)"),
    (["ppo.optimizer.weight_decay=-1"], "ppo.optimizer.weight_decay", "at least 0"),
    (["ppo.optimizer.final_fraction=2"], "ppo.optimizer.final_fraction", "between 0 and 1"),
    (["ppo.optimizer.max_grad_norm=0"], "ppo.optimizer.max_grad_norm", "above zero"),
    (["reward.parameters={bonus: 1}"], "reward.parameters", "no effect"),
    (["reward.name=spares_success"], "reward.name", "sparse_success"),
    (["rollout.workers=0"], "rollout.workers", "at least 1"),
    (["rollout.threads=0"], "rollout.threads", "at least 1"),
    (["rollout.mode=asinc"], "rollout.mode", "async?"),
    (["rollout.mode=async", "rollout.max_staleness=-1"], "rollout.max_staleness", "at least 0"),
    (["rollout.max_staleness=2"], "rollout.max_staleness", "no effect with rollout.mode=sync"),
    (["ppo.behavior_weight_cap=4"], "ppo.behavior_weight_cap", "no effect with rollout.mode=sync"),
    (
        ["rollout.mode=async", "ppo.behavior_weight_cap=0.5"],
        "ppo.behavior_weight_cap",
        "at least 1",
    ),
    (["rollout.batch_environments=-1"], "rollout.batch_environments", "at least 0"),
    (["rollout.batch_environments=31"], "rollout.batch_environments", "Use 32 or more, or 0"),
    (
        ["rollout.batch_environments=32", "env.servers=1"],
        "rollout.batch_environments",
        "no effect with env.servers=1",
    ),
    (
        ["rollout.batch_environments=32", "rollout.batch_deadline_seconds=-1"],
        "rollout.batch_deadline_seconds",
        "at least 0",
    ),
    (
        ["rollout.batch_deadline_seconds=1"],
        "rollout.batch_deadline_seconds",
        "no effect with rollout.batch_environments=0",
    ),
    (["rollout.epochs=-1"], "rollout.epochs", "at least 0"),
    (["rollout.control_steps=-1"], "rollout.control_steps", "at least 0"),
    (["rollout.control_steps=16"], "rollout.control_steps", "no effect with rollout.epochs=0"),
    (["rollout.epochs=8"], "rollout.control_steps", "Use 8 or more"),
    (
        ["rollout.epochs=2", "rollout.control_steps=16", "ppo.decisions_per_stream=4"],
        "ppo.decisions_per_stream",
        "no effect with rollout.epochs",
    ),
    (["rollout.epochs=2", "rollout.control_steps=16"], "ppo.minibatch", "128 decisions"),
    (["evaluation.episodes=0"], "evaluation.episodes", "at least 1"),
    (["evaluation.videos=-1"], "evaluation.videos", "at least 0"),
    (["runtime.kind=rays"], "runtime.kind", "ray?"),
    (["runtime.threads=0"], "runtime.threads", "at least 1"),
    (["runtime.object_store_mb=10"], "runtime.object_store_mb", "at least 80"),
    (["runtime.kind=inprocess", "rollout.workers=2"], "rollout.workers", "no effect"),
    (["logging.project=mine"], "logging.project", "no effect"),
]
IMPOSSIBLE_SFT = [
    (["expert_only_steps=20000"], "expert_only_steps", "not below steps"),
    (["collect.slowest_pace=0"], "collect.slowest_pace", "above zero"),
    (["collect.slowest_pace=1.5"], "collect.slowest_pace", "between 0 and 1"),
    (["collect.max_steps=-1"], "collect.max_steps", "at least 0"),
    (["collect.clumsy_steps=-1"], "collect.clumsy_steps", "at least 0"),
    (["flow.tau_distribution=gauss"], "flow.tau_distribution", "logit_normal"),
    (["flow.tau_distribution=logit_normal", "flow.alpha=2"], "flow.alpha", "no effect"),
    (["flow.beta=0"], "flow.beta", "above zero"),
    (["batch_size=0"], "batch_size", "at least 1"),
    (["micro_batch=-1"], "micro_batch", "at least 0"),
    (["micro_batch=65"], "micro_batch", "above every batch (64)"),
    (["ema=1"], "ema", "supervised.ema=0.999"),
    (["collect.action_noise=-1"], "collect.action_noise", "at least 0"),
    (["data.path=x", "collect.seed=4"], "collect.seed", "no effect"),
    (["data.memory_gigabytes=0"], "data.memory_gigabytes", "above zero"),
    (["data.workers=-1"], "data.workers", "at least 0"),
    (["data.skip_limit=1.5"], "data.skip_limit", "between 0 and 1"),
    (["grounding_batch_size=8"], "data.grounding_images", "20000"),
    (["data.grounding_images=8"], "grounding_batch_size", "without effect"),
    (["conversation_batch_size=8"], "data.conversations", "FILE.jsonl"),
    (["conversation_batch_size=-1"], "conversation_batch_size", "at least 0"),
    (["data.conversations=x.jsonl"], "conversation_batch_size", "without effect"),
    (["data.image_tokens=64"], "data.image_tokens", "no effect"),
    (
        ["data.conversations=x.jsonl", "conversation_batch_size=8", "data.conversation_tokens=2"],
        "data.conversation_tokens",
        "at least 4",
    ),
    (["steps=100"], "optimizer.warmup_steps", "below steps"),
    (["optimizer.learning_rates={}"], "optimizer.learning_rates", "trains nothing"),
]

T2A = "supervised.data.t2a"
EXPERT_ALONE = "supervised.optimizer.learning_rates={expert: 1e-3}"
IMPOSSIBLE_T2A = [
    ([], f"{T2A}.synthetic", "vlarl synth t2a"),
    ([f"{T2A}.real=x"], f"{T2A}.embodiment", "whose actions"),
    ([f"{T2A}.real=x", f"{T2A}.embodiment=y"], f"{T2A}.embodiment", "names no robot"),
    ([f"{T2A}.synthetic=x", f"{T2A}.embodiment=y"], f"{T2A}.embodiment", "without real"),
    ([f"{T2A}.synthetic=x", f"{T2A}.prediction=all"], f"{T2A}.prediction", "trajectory, chunk"),
    ([f"{T2A}.synthetic=x", f"{T2A}.synthetic_share=2"], f"{T2A}.synthetic_share", "between 0"),
    ([f"{T2A}.synthetic=x", f"{T2A}.synthetic_share=1"], f"{T2A}.synthetic_share", "both"),
    ([f"{T2A}.synthetic=x", f"{T2A}.synthetic_hz=15"], f"{T2A}.synthetic_hz", "whole fraction"),
    ([f"{T2A}.synthetic=x", f"{T2A}.synthetic_hz=0"], f"{T2A}.synthetic_hz", "whole fraction"),
    ([f"{T2A}.synthetic=x", "env.suite=navigation"], "env.suite", "no effect with stage=t2a"),
    ([f"{T2A}.synthetic=x", "supervised.eval_every=5"], "supervised.eval_every", "no effect"),
    ([f"{T2A}.synthetic=x", "model.checkpoint=y"], "model.checkpoint", "no effect"),
    ([f"{T2A}.synthetic=x", "model.init.weights=y"], "model.init.weights", "model.init.backbone"),
    (
        [f"{T2A}.synthetic=x", "supervised.optimizer.learning_rates.language=1e-3"],
        "supervised.optimizer.learning_rates.language",
        "t2a trains expert",
    ),
]
IMPOSSIBLE_START = [
    (["model.checkpoint=x"], "model.checkpoint", "says otherwise"),
    (["model.backbone=x"], "model.backbone", "says otherwise"),
    (["model.init.backbone=x"], "model.init.backbone", "says otherwise"),
    (["model.preset=tiny-pooled"], "model.preset", "no effect"),
    (["model.init.contract=data"], "model.init.contract", "without model.init.backbone"),
    ([f"{T2A}.real=x"], f"{T2A}.real", "no effect with stage=cpt"),
]


@pytest.mark.parametrize(("overrides", "key", "words"), IMPOSSIBLE_T2A)
def test_impossible_values_of_text_to_action(overrides, key, words):
    message = refusal(["stage=t2a", EXPERT_ALONE, *overrides])
    assert f": {key} = " in message
    assert words in message


@pytest.mark.parametrize(("overrides", "key", "words"), IMPOSSIBLE_START)
def test_weights_of_the_stage_before_are_said_once(overrides, key, words):
    message = refusal(["stage=cpt", "model.init.weights=y", *overrides])
    assert f": {key} = " in message
    assert words in message


def refusal(overrides):
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides)
    return str(caught.value)


@pytest.mark.parametrize(("overrides", "key", "words"), IMPOSSIBLE)
def test_impossible_values(overrides, key, words):
    message = refusal(overrides)
    assert f": {key} = " in message
    assert words in message


@pytest.mark.parametrize(("overrides", "key", "words"), IMPOSSIBLE_SFT)
def test_impossible_values_of_a_supervised_stage(overrides, key, words):
    message = refusal(["stage=sft", *(f"supervised.{override}" for override in overrides)])
    assert f": supervised.{key} = " in message
    assert words in message


def test_message_names_where_the_value_was_set(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("ppo: {gamma: 3}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: ppo\.gamma = 3\.0"):
        load_config(file)
    with pytest.raises(ConfigError, match=r"^command line: ppo\.gamma"):
        load_config(file, ["ppo.gamma=4"])
    file.write_text("ppo: {optimizer: {learning_rates: {eye: 1}}}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: ppo\.optimizer\.learning_rates\.eye"):
        load_config(file)


@pytest.mark.parametrize(
    ("text", "words"),
    [("a: [1", "not readable"), ("- 1\n", "holds a list"), ("sede: 1\n", "Did you mean seed")],
)
def test_malformed_files(tmp_path, text, words):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(file)
    assert "bad.yaml" in str(caught.value)


def test_missing_file_suggests_its_neighbor(tmp_path):
    (tmp_path / "tabletop.yaml").write_text("seed: 1\n")
    with pytest.raises(ConfigError, match=r"Did you mean .*tabletop\.yaml"):
        load_config(tmp_path / "tabeltop.yaml")


def test_execute_steps_within_the_horizon():
    config = load_config(None, ["sampling.execute_steps=9"])
    check_execute_steps(config, 9, "tabletop-sft")
    with pytest.raises(ConfigError, match=r"sampling\.execute_steps=8"):
        check_execute_steps(config, 8, "tabletop-sft")


def test_known_keys_hold_every_leaf():
    keys = known_keys()
    assert keys["ppo.optimizer.learning_rates"] == {"expert": 1e-5, "value": 1e-3}
    assert keys["evaluation.seed"] == 1_000_000
    assert "ppo" not in keys

"""Whether every loss of a supervised stage has data, and something that it trains."""

from __future__ import annotations

from vlarl.config.schema import SupervisedConfig
from vlarl.errors import ConfigError

BACKBONE = ("vision", "language", "lora")


def check_losses(
    config: SupervisedConfig, mixture: bool, actions: bool, scenes: bool, conversations: bool
) -> None:
    """Hold the config against the data that there are.

    Raises:
        ConfigError: if a loss that has weight has no data, no loss has any, or a learning rate is
            given for a part that no loss can reach.
    """
    rates = config.optimizer.learning_rates
    if "value" in rates:
        raise ConfigError("supervised.optimizer: no supervised loss trains the value head")
    if mixture:
        return
    acts, asks = config.action_weight > 0, config.grounding_batch_size > 0
    talks = config.conversation_batch_size > 0
    if acts and not actions:
        raise ConfigError("supervised.action_weight is positive but there are no actions")
    if asks and not scenes:
        raise ConfigError(
            f"supervised.grounding_batch_size is {config.grounding_batch_size} but there are "
            "no grounding scenes: set supervised.data.grounding_images"
        )
    if talks and not conversations:
        raise ConfigError(
            f"supervised.conversation_batch_size is {config.conversation_batch_size} but there "
            "are no conversations: set supervised.data.conversations"
        )
    speaks = asks or talks
    if speaks and not config.vision_language_weight > 0:
        raise ConfigError(
            "supervised.vision_language_weight must be positive with grounding or conversation "
            "batches; set supervised.grounding_batch_size and conversation_batch_size to 0 to "
            "train without"
        )
    if not (acts or speaks):
        raise ConfigError(
            "no loss to train on: give supervised.action_weight, grounding_batch_size or "
            "conversation_batch_size"
        )
    if not acts and {"expert", "expert_biases"} & rates.keys():
        raise ConfigError("supervised.optimizer: without action_weight the expert cannot train")
    if speaks and not any(part in rates for part in BACKBONE):
        raise ConfigError(
            "supervised.optimizer: grounding and conversations need a rate for vision or language"
        )

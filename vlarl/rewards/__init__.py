"""Reward functions: what one is, the built-in ones by name, and loading your own."""

from vlarl.rewards.load import REWARDS, load_reward
from vlarl.rewards.reward import RewardFunction, RewardInput

__all__ = ["REWARDS", "RewardFunction", "RewardInput", "load_reward"]

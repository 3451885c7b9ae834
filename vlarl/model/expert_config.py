"""Sizes and variants of the action expert. Numbers only; no weights."""

from __future__ import annotations

from dataclasses import dataclass

PROJECTIONS = ("zero_pad", "multi_mlp", "concatenation")


@dataclass(frozen=True)
class ExpertConfig:
    """Sizes of the action expert; saved in the checkpoint's `config.json`."""

    width: int
    """`W`"""
    blocks: int
    heads: int
    head_dim: int
    """Must equal the backbone's, whose rotary embedding is reused."""
    mlp_ratio: int = 4
    channels: int = 64
    """`K`"""
    horizon: int = 16
    """`H`"""
    prefix: bool = False
    """Context tokens are neither modulated nor see the actions, so that their keys and values are
    shared by all denoising steps and by all draws on one context."""
    pooled: bool = False
    """Needs `prefix`. The mean hidden state joins the flow time in every modulation, and context
    tokens stay as they come instead of passing through the blocks: a small expert learns what to do
    from one summary without learning to attend first, and a long context costs little."""
    state_dim: int = 0
    """`d`: numbers of the state that comes as one token more, after the context; 0: none."""
    projection: str = "zero_pad"
    """How several embodiments share the layers at the channels (paper section 5.2.2): `zero_pad`,
    `multi_mlp` or `concatenation`."""
    embodiments: tuple[int, ...] = ()
    """`d_i`: channels of each embodiment, for the latter two; empty: one, of all `K`."""

    @property
    def counts(self) -> tuple[int, ...]:
        """`d_i` of every embodiment."""
        return self.embodiments or (self.channels,)

    def __post_init__(self) -> None:
        if self.projection not in PROJECTIONS:
            raise ValueError(
                f"projection {self.projection!r} is unknown; allowed: {', '.join(PROJECTIONS)}"
            )
        if self.embodiments and self.projection == "zero_pad":
            raise ValueError("embodiments has no effect with projection zero_pad")
        if not all(1 <= count <= self.channels for count in self.counts):
            raise ValueError(f"embodiments {self.embodiments} must be within 1..{self.channels}")
        if self.pooled and not self.prefix:
            raise ValueError("pooled needs prefix: only shared context tokens can stay as they are")

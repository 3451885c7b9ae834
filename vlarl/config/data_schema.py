"""The schema of what supervised stages learn from: datasets, mixtures, and how data is collected.

Part of `schema.py`, whose first lines hold here too.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SourceConfig:
    """One source of a mixture."""

    path: str = ""
    """A dataset folder, or a folder of such; for `conversations` a file."""
    kind: str = "robot"
    """`robot`, `human` (recorded hands), `navigation` (waypoints) or `conversations`."""
    weight: float = 1.0
    """Its share of the samples, relative to those of the others; 0 leaves it out."""
    embodiment: str = ""
    """Name or YAML file; empty: what each dataset calls its robot."""
    cameras: dict[str, str] = field(default_factory=dict)
    """View -> name in the dataset, of the cameras that are read; empty: names are the views'."""
    eigengrasps: str = ""
    """The file that `vlarl data hands` wrote, for `human`."""


@dataclass(frozen=True)
class TextToActionConfig:
    """What `vlarl t2a` learns from: trajectories and sentences, no images (paper section 5.2.1)."""

    synthetic: str = ""
    """Folder of `vlarl synth t2a`; empty: none."""
    synthetic_hz: float = 50.0
    """Control frequency at which it is read: its own 50 Hz, or a whole fraction of it, which makes
    trajectories shorter."""
    real: str = ""
    """LeRobot dataset, whose images are not read; empty: none."""
    embodiment: str = ""
    """Name or YAML file of the robot of `real`."""
    synthetic_share: float = 0.2
    """Of the samples, where there are both."""
    prediction: str = "trajectory"
    """`trajectory`: the whole of it, in one sample; `chunk`: windows of the robot's horizon."""


@dataclass(frozen=True)
class DataConfig:
    """Supervised data: a LeRobot dataset and, beside it, grounding samples."""

    path: str = ""
    """Dataset folder; empty means: collect it first, as `collect` says."""
    embodiment: str = ""
    """Robot of `path`: name or YAML file; a new model sees images in the dataset's sizes. Empty:
    the robot of `env.suite`, and `env.image_size`."""
    cameras: dict[str, str] = field(default_factory=dict)
    """View -> name in `path`, of the cameras that are read; empty: names are the views'."""
    eigengrasps: str = ""
    """The file that `vlarl data hands` wrote; names `path` a dataset of recorded human hands."""
    mixture: dict[str, SourceConfig] | None = None
    """Name -> source, instead of `path` and `conversations`; `batch_size` counts samples of all."""
    memory_gigabytes: float = 8.0
    """Of decoded images. A dataset that takes more is read from its files as training goes, and
    this is what it may keep of them, not decoded."""
    workers: int = 0
    """Processes that load and collate the batches of coming steps; 0: each is loaded when its step
    begins. The steps are the same."""
    skip_limit: float = 0.01
    """Share of the episodes that may turn out to be corrupt: they are skipped and named. Beyond it
    the run stops."""
    pad_short: bool = False
    """Whether an episode may be shorter than a chunk: its last action is repeated. Otherwise such a
    dataset is refused, as its frequency or its horizon is probably not what was meant."""
    grounding_images: int = 0
    """Rendered scenes with "where is the ..." labels, made before training from the suite."""
    objects_per_answer: int = 1
    """Objects that one grounding answer places."""
    conversations: str = ""
    """File of vision-language samples (`docs/vision_language.md`); empty: none."""
    conversation_tokens: int = 1024
    """Longest conversation, its images included; a longer one is an error before training."""
    image_tokens: int = 256
    """Of one image of a conversation, at most: bigger ones are scaled down."""
    t2a: TextToActionConfig = field(default_factory=TextToActionConfig)


@dataclass(frozen=True)
class CollectConfig:
    """Demonstrations by the scripted expert."""

    episodes: int = 400
    waypoint_noise: float = 0.0
    """Standard deviation in meters of the persistent offset of each grasp and place attempt."""
    action_noise: float = 0.0
    clumsy_steps: int = 0
    """Half of the episodes begin with up to so many control steps of clumsy work, not recorded, so
    that the demonstrations show how to recover from mishaps."""
    slowest_pace: float = 1.0
    """Demonstrators take their time: each episode's speed is drawn between this share of the arm's
    and all of it."""
    max_steps: int = 0
    """Control steps that an episode may take; 0 means the suite's own limit."""
    keep_failures: bool = False
    seed: int = 0

"""`vlarl data`: what to do with a dataset; each subcommand is a file `data_*.py` of its own."""

from __future__ import annotations

from actors.commands.subcommands import dispatcher

SUBCOMMANDS = {
    "validate": ("data_validate", "every defect of a dataset, with episode and frame"),
    "stats": ("data_stats", "exact quantiles of every channel"),
    "view": ("data_view", "a picture sheet: frames, instructions, action curves"),
    "clean": ("data_clean", "a new dataset without what is unfit for training"),
    "hands": ("data_hands", "fit eigengrasps to recorded human hands, with what they lose"),
}

COMMAND = dispatcher("data", ("DATASET",), SUBCOMMANDS, "vlarl data validate datasets/tabletop")

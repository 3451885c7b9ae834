"""Data made from the simulator itself: questions about tables, motion programs on them."""

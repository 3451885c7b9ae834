"""Config: the schema (frozen dataclasses) and the loader (OmegaConf)."""

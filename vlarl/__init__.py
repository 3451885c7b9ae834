"""vlarl: the library. Types, config, actions, mathematics, model, data, rewards, evaluation.

Importing this package is cheap on purpose: env servers import its light modules (`types`,
`env_protocol`, `wire`, `errors`, `action_space`, `prompt`), which need numpy and nothing heavier.
"""

__version__ = "0.1.0"

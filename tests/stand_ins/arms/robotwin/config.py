"""Of `robotwin/config.py` and the files that it reads."""

_DEMO = {
    "embodiment": ["aloha-agilex"],
    "camera": {"head_camera_type": "D435", "wrist_camera_type": "D435"},
    "data_type": {"rgb": True, "qpos": True},
    "save_path": "./data",
    "render_freq": 0,
}
_FILES = {
    "demo_clean": {**_DEMO, "domain_randomization": {"random_light": False}},
    "demo_randomized": {**_DEMO, "domain_randomization": {"random_light": True}},
    "_embodiment_config": {"aloha-agilex": {"file_path": "./assets/embodiments/aloha-agilex/"}},
    "_camera_config": {"D435": {"fovy": 37, "w": 320, "h": 240}},
}


def load_task_config(name):
    return dict(_FILES[name])

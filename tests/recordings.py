"""Small recordings for tests, and a writer of LeRobot v2.1 that shares no code with the package."""

import io
import json

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vlarl.data.episode import Episode
from vlarl.data.lerobot_writer import LeRobotWriter
from vlarl.types import CameraSpec

FPS = 5
CAMERAS = (CameraSpec("ego", 64, 80), CameraSpec("cam_right_wrist", 64, 64))
ACTIONS = ("x", "y", "gripper")
STATES = ("joint", "yaw", "height", "opening")
SENTENCES = ("put the cup down", "öffne die Tür")


def make_episode(index: int, length: int, cameras=CAMERAS, shade: int = 10) -> Episode:
    """Smooth motion, and images that say which episode and frame they are of.

    The upper left corner is `shade * frame` (mod 256), the lower right one `40 * index`.
    """
    random = np.random.default_rng(index)
    time = np.arange(length)[:, None] / FPS
    images = {}
    for camera in cameras:
        base = random.integers(90, 160, (camera.height, camera.width, 3))
        frames = np.tile(base, (length, 1, 1, 1)).astype(np.uint8)
        half, side = camera.height // 2, camera.width // 2
        frames[:, :half, :side] = (shade * np.arange(length) % 256)[:, None, None, None]
        frames[:, half:, side:] = 40 * index % 256
        images[camera.name] = frames
    phase = random.uniform(0, 6, 7)
    motion = np.sin(time * random.uniform(1, 2, 7) + phase).astype(np.float32)
    return Episode(
        images, motion[:, :4], motion[:, 4:], SENTENCES[index % 2], {"seed": 100 + index}
    )


def make_episodes(lengths=(12, 9, 15, 10, 11), **settings) -> list[Episode]:
    return [make_episode(index, length, **settings) for index, length in enumerate(lengths)]


def write_v30(path, episodes, video: str = "", **settings):
    cameras = [CameraSpec(name, *images.shape[1:3]) for name, images in episodes[0].images.items()]
    with LeRobotWriter(
        path, FPS, cameras, ACTIONS, 4, "arm", state_names=STATES, video=video, **settings
    ) as writer:
        for episode in episodes:
            writer.add(episode)
    return path


def write_v21(path, episodes, video: bool = False, action: bool = True):
    """The layout of v2.1 as its page describes it: one file for each episode."""
    (path / "meta").mkdir(parents=True)
    sentences, rows, stats, first = [], [], [], 0
    features = {
        f"observation.images.{name}": {
            "dtype": "video" if video else "image",
            "shape": list(images.shape[1:]),
            "names": ["height", "width", "channel"],
        }
        for name, images in episodes[0].images.items()
    }
    features["observation.state"] = vector("float32", STATES)
    features |= {"action": vector("float32", ACTIONS)} if action else {}
    features |= {key: vector("int64") for key in ("frame_index", "episode_index", "index")}
    features |= {"timestamp": vector("float32"), "task_index": vector("int64")}
    for index, episode in enumerate(episodes):
        if episode.instruction not in sentences:
            sentences.append(episode.instruction)
        frames = np.arange(len(episode))
        columns = {"observation.state": episode.state.tolist()}
        columns |= {"action": episode.action.tolist()} if action else {}
        for name, images in episode.images.items():
            key = f"observation.images.{name}"
            if video:
                write_mp4(path / f"videos/chunk-000/{key}/episode_{index:06d}.mp4", images)
            else:
                columns[key] = [{"bytes": png(image), "path": None} for image in images]
        columns["timestamp"] = pa.array(frames / FPS, pa.float32())
        columns["frame_index"] = frames
        columns["episode_index"] = np.full(len(episode), index)
        columns["index"] = first + frames
        columns["task_index"] = np.full(len(episode), sentences.index(episode.instruction))
        first += len(episode)
        file = path / f"data/chunk-000/episode_{index:06d}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), file)
        row = {"episode_index": index, "tasks": [episode.instruction], "length": len(episode)}
        rows.append(row | episode.extra)
        numbers = {"observation.state": episode.state, "action": episode.action}
        found = {key: summary(v) for key, v in numbers.items() if key in features}
        stats.append({"episode_index": index, "stats": found})
    write_lines(path / "meta/episodes.jsonl", rows)
    write_lines(path / "meta/episodes_stats.jsonl", stats)
    tasks = [{"task_index": i, "task": sentence} for i, sentence in enumerate(sentences)]
    write_lines(path / "meta/tasks.jsonl", tasks)
    info = {
        "codebase_version": "v2.1",
        "robot_type": "arm",
        "fps": FPS,
        "total_episodes": len(episodes),
        "total_frames": first,
        "total_tasks": len(sentences),
        "total_chunks": 1,
        "chunks_size": 1000,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/"
        "episode_{episode_index:06d}.mp4",
        "features": features,
    }
    (path / "meta/info.json").write_text(json.dumps(info))
    return path


def vector(dtype, names=None):
    shape = [len(names)] if names else [1]
    return {"dtype": dtype, "shape": shape, "names": {"motors": list(names)} if names else None}


def summary(values):
    found = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0)}
    found |= {"std": values.std(0)}
    return {name: value.tolist() for name, value in found.items()} | {"count": [len(values)]}


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def write_mp4(path, images):
    """H.264 with B-frames and long groups of pictures, as cameras deliver it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", FPS, options={"crf": "18", "g": "12"})
        stream.pix_fmt, stream.height, stream.width = "yuv420p", *images.shape[1:3]
        for image in images:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode())


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

"""The process that runs COLMAP's compiled code: SIFT, verification of matches, the mappers.

It reads one line of JSON from standard input, writes lines of JSON to standard output (``at``, ``done`` of ``total``, and
last the ``answer``), and ends when standard input closes, because then nobody waits for it. Nothing of torch is loaded.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metriloc.children import end_with_the_parent
from metriloc.mapping.mappers import Tell, make_models

_CHUNK = 100  # pairs that are verified before somebody is told


def main() -> None:
    """The process. Its argument is the kind of job."""
    content = json.loads(sys.stdin.buffer.readline())
    end_with_the_parent()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever the library prints goes to the log

    def tell(**said: Any) -> None:
        out.write(json.dumps(said) + "\n")
        out.flush()

    import pycolmap

    pycolmap.logging.minloglevel = 1
    pycolmap.set_random_seed(0)
    try:
        answer = JOBS[sys.argv[-1]](content, tell)
    except (ValueError, OSError, RuntimeError) as error:
        answer = {"error": " ".join(str(error).split()) or type(error).__name__}
    tell(answer=answer)
    out.close()
    os._exit(0)  # not through destructors of libraries, which have crashed at exit before


# -- SIFT -------------------------------------------------------------------------------------------------------------
def _sift(job: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """Keypoints of photos, each to a file of its own; first pixel's center at (0, 0)."""
    import pycolmap

    from metriloc.io.files import InputError
    from metriloc.io.images import read_image

    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu = False
    options.num_threads = 1
    options.max_image_size = job["longest_side"]
    options.sift.max_num_features = job["max_features"]
    extractor = pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)
    messages = []
    for done, entry in enumerate(job["photos"], 1):
        tell(at=entry["photo"], done=done - 1, total=len(job["photos"]))
        try:
            rgb = read_image(entry["photo"]).rgb
        except InputError as error:
            messages.append(str(error))
            continue
        _sift_of_one(extractor, rgb, Path(entry["out"]), job["longest_side"], job["max_features"])
    tell(done=len(job["photos"]), total=len(job["photos"]))
    return {"messages": messages}


def _sift_of_one(extractor: Any, rgb: np.ndarray, out: Path, longest_side: int, most: int) -> None:
    import pycolmap
    from PIL import Image
    from safetensors.numpy import save

    from metriloc.io.files import write_atomically

    gray = Image.fromarray(rgb).convert("L")
    size = np.array(gray.size, dtype=np.float64)
    scale = min(1.0, longest_side / max(gray.size))
    if scale < 1:
        gray = gray.resize((max(1, round(size[0] * scale)), max(1, round(size[1] * scale))), Image.Resampling.LANCZOS)
    keypoints, descriptors = extractor.extract(pycolmap.Bitmap.from_array(np.asarray(gray)))
    places = pycolmap.keypoints_to_matrix(keypoints)
    values = np.asarray(descriptors.data, dtype=np.float32)
    uv = places[:, :2] * (size / np.array(gray.size)) - 0.5
    largest = _sizes(places)
    order = np.argsort(-largest, kind="stable")[:most]
    unit = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    tensors = {
        "uv": uv[order].astype(np.float32),
        "descriptors": unit[order].astype(np.float16),
        "scores": largest[order].astype(np.float32),
    }
    write_atomically(out, save(tensors))


def _sizes(places: np.ndarray) -> np.ndarray:
    """Of keypoints x, y, scale, angle, or x, y and an affine shape."""
    if places.shape[1] == 6:
        return np.sqrt(np.abs(places[:, 2] * places[:, 5] - places[:, 3] * places[:, 4]))
    return places[:, 2] if places.shape[1] > 2 else np.ones(len(places))


# -- mapping ----------------------------------------------------------------------------------------------------------
def _map(job: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """A database of verified matches, unless it is there, and the models that a mapper makes of it."""
    database = Path(job["database"])
    if not database.is_file():
        fresh = database.with_name(f".{database.name}.{os.getpid()}.tmp")
        try:
            pairs = _fill_database(fresh, job)
            _verify(fresh, pairs, job, tell)
            os.replace(fresh, database)
        finally:
            for leftover in database.parent.glob(f".{database.name}.{os.getpid()}.tmp*"):
                leftover.unlink(missing_ok=True)
    return make_models(database, job, tell)


def _fill_database(path: Path, job: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Cameras, images, keypoints (pixel centers at 0.5) and matches; returns the pairs of names that have matches.

    Images are called by their numbers: lists of pairs end names at blanks.
    """
    import pycolmap
    from safetensors.numpy import load_file

    arrays = load_file(job["arrays"])
    database = pycolmap.Database.open(str(path))
    pairs = []
    try:
        with pycolmap.DatabaseTransaction(database):
            for number, camera in enumerate(job["cameras"], 1):
                database.write_camera(_camera(number, camera), use_camera_id=True)
                rig = pycolmap.Rig(rig_id=number)
                rig.add_ref_sensor(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, number))
                database.write_rig(rig, use_rig_id=True)
            for number, image in enumerate(job["images"], 1):
                own = pycolmap.Image(name=str(number), camera_id=image["camera"] + 1, image_id=number)
                database.write_image(own, use_image_id=True)
                frame = pycolmap.Frame(frame_id=number, rig_id=image["camera"] + 1)
                frame.add_data_id(own.data_id)
                database.write_frame(frame, use_frame_id=True)
                database.write_keypoints(number, arrays[f"keypoints {number - 1}"])
            for i, j in job["pairs"]:
                database.write_matches(i + 1, j + 1, arrays[f"matches {i} {j}"].astype(np.uint32))
                pairs.append((str(i + 1), str(j + 1)))
    finally:
        database.close()
    return pairs


def _camera(number: int, camera: Mapping[str, Any]) -> Any:
    import pycolmap

    return pycolmap.Camera(
        camera_id=number,
        model=camera["model"],
        width=camera["width"],
        height=camera["height"],
        params=camera["params"],
        has_prior_focal_length=camera["prior"],
    )


def _verify(database: Path, pairs: list[tuple[str, str]], job: Mapping[str, Any], tell: Tell) -> None:
    import pycolmap

    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = 0
    options.min_num_inliers = job["min_inliers"]
    listed = database.with_name(f"{database.name}.pairs")
    for start in range(0, len(pairs), _CHUNK):
        tell(at="verification of matches", done=start, total=len(pairs))
        listed.write_text("".join(f"{a} {b}\n" for a, b in pairs[start : start + _CHUNK]), encoding="utf-8")
        pycolmap.verify_matches(str(database), str(listed), options)


JOBS: dict[str, Callable[[Mapping[str, Any], Tell], dict[str, Any]]] = {"sift": _sift, "map": _map}

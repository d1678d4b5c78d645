"""Several methods on one pair in one view: the matches of each, and where each says the camera stood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from metriloc.geometry import Pose
from metriloc.types import PoseEstimate, View
from metriloc.viz.matches import match_picture
from metriloc.viz.pictures import BACKGROUND, TEXT, Rgb, font
from metriloc.viz.scene import Frustum, Scene, frustum_of, inlier_points
from metriloc.viz.scene_picture import scene_picture
from metriloc.viz.words import FAILURES, details_of, has_pose
from metriloc.wording import metres

COLORS = ((255, 138, 76), (199, 139, 255), (255, 221, 77), (92, 219, 230), (255, 128, 190))
"""Of the methods, in order, again from the first after the last; the reference is blue and the truth green."""
_MAX_LINES, _WIDTH = 120, 960


@dataclass(frozen=True, eq=False)
class Answer:
    """What one method says of a pair. note: why it could say nothing, if not for a reason of the estimate.

    >>> Answer("sift", PoseEstimate.failure("too_few_matches")).estimate.reason
    'too_few_matches'
    """

    method: str
    estimate: PoseEstimate
    note: str = ""


def compared_picture(
    reference: View, query: View, answers: Sequence[Answer], true_query_from_reference: Pose | None = None
) -> Rgb:
    """The inlier matches of each method, one below the other. Then all cameras in one 3D view.

    - reference, query: the photos, with the cameras the methods were given.
    - answers: estimates of batch shape () by the names of the methods.
    - true_query_from_reference: drawn in green where it is known; a pose without metres is drawn at its distance, else at
      that of the first pose with metres, else at 1.

    Each method has one color, which frames its matches and draws its camera. Returns uint8 [H, 960, 3]. Raises ValueError
    without answers.

    >>> answers = [Answer(name, metriloc.relative_pose(a, b, method=name)) for name in ("mickey", "xfeat")]  # doctest: +SKIP
    >>> picture = compared_picture(a, b, answers, true_query_from_reference)  # doctest: +SKIP
    """
    if not answers:
        raise ValueError("compared_picture needs the answer of one method at least")
    rows = [
        _row(reference, query, answer, COLORS[k % len(COLORS)], true_query_from_reference)
        for k, answer in enumerate(answers)
    ]
    scene = compared_scene(reference, query, answers, true_query_from_reference)
    if scene is not None:
        rows.append(scene_picture(scene, (_WIDTH, 3 * _WIDTH // 4)))
    return np.concatenate(rows, 0)


def compared_scene(
    reference: View, query: View, answers: Sequence[Answer], true_query_from_reference: Pose | None = None
) -> Scene | None:
    """The scene of several methods' answers for one pair. It has reference, truth and the camera of each method with a
    pose, and the points of the first; None without any pose."""
    truth = None if true_query_from_reference is None else true_query_from_reference.to("cpu", torch.float64)
    truth = truth if truth is not None and bool(truth.is_finite()) else None
    found = [(k, answer) for k, answer in enumerate(answers) if has_pose(answer.estimate)]
    if not found and truth is None:
        return None
    poses = [answer.estimate.pose.to("cpu", torch.float64) for _, answer in found]
    lengths = [float(p.distance()) for p, (_, a) in zip(poses, found, strict=True) if details_of(a.estimate).metric]
    metric = truth is not None or bool(lengths)
    length = float(truth.distance()) if truth is not None else next(iter(lengths), 1.0)
    placed = [
        pose
        if details_of(answer.estimate).metric
        else Pose(pose.R, pose.t * (length / max(float(pose.distance()), 1e-12)))
        for pose, (_, answer) in zip(poses, found, strict=True)
    ]
    frusta: list[Frustum] = [frustum_of("reference", "reference", Pose.identity(dtype=torch.float64), reference)]
    if truth is not None:
        frusta.append(frustum_of("truth", "true pose", truth, query, with_photo=False))
    for pose, (k, answer) in zip(placed, found, strict=True):
        frustum = frustum_of("query", answer.method, pose, query, with_photo=answer is found[0][1])
        frusta.append(replace(frustum, color=COLORS[k % len(COLORS)]))
    points, colors = np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
    if found:
        details = details_of(found[0][1].estimate)
        points, colors, _ = inlier_points(details, placed[0], reference, query.camera)
    return Scene(tuple(frusta), points, colors, length, metric)


def answer_in_words(answer: Answer, true_query_from_reference: Pose | None = None) -> str:
    """One method's answer in words. For instance ``mickey: 499 inliers, confidence 0.53 (doubtful), off by 5.58° and
    0.33 m``, or why there is no pose."""
    estimate = answer.estimate
    if not has_pose(estimate):
        why = answer.note or FAILURES.get(estimate.reasons[0] or "", "the method gave no reason.")
        return f"{answer.method}: no pose, {why}"
    details = details_of(estimate)
    words = f"{answer.method}: {len(details.inliers)} inliers, "
    words += f"confidence {float(estimate.confidence):.2f} ({estimate.verdict})"
    if true_query_from_reference is None:
        return words
    pose = estimate.pose.to("cpu", torch.float64)
    words += f", off by {math.degrees(float(pose.angle_to(true_query_from_reference))):.2f}°"
    if not details.metric:
        return f"{words} (no metres)"
    return f"{words} and {metres(float(pose.center_distance(true_query_from_reference)))}"


def _row(reference: View, query: View, answer: Answer, color: tuple[int, int, int], truth: Pose | None) -> Rgb:
    """The matches of one method in a frame of its color, with a line of words above."""
    from PIL import Image, ImageDraw

    inliers = details_of(answer.estimate).inliers
    matches = Image.fromarray(match_picture(reference.image, query.image, inliers, _MAX_LINES))
    border, bar = 4, 30
    size = (_WIDTH - 2 * border, max(1, round(matches.height * (_WIDTH - 2 * border) / matches.width)))
    picture = Image.new("RGB", (_WIDTH, size[1] + bar + 2 * border), color)
    picture.paste(matches.resize(size, Image.Resampling.LANCZOS), (border, bar + border))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((border, border, _WIDTH - border - 1, bar + border - 1), fill=BACKGROUND)
    draw.rectangle((12, bar // 2 - 2, 24, bar // 2 + 10), fill=color)
    words, written = answer_in_words(answer, truth)[:160], font(15)
    while draw.textlength(words, font=written) > _WIDTH - 48:
        words = f"{words[:-4]}..."
    draw.text((34, border + bar / 2), words, fill=TEXT, font=written, anchor="lm")
    return np.asarray(picture)

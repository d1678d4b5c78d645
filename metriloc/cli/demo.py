"""``metriloc demo``: the bundled example, two pictures that metriloc's own renderer made, so that the truth is known."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from metriloc.calibration import calibrations_of
from metriloc.choose import MethodChoice, choose_method
from metriloc.cli.options import MethodArgument
from metriloc.cli.terminal import complain, print_lines
from metriloc.io import load_view, read_true_poses
from metriloc.methods.matching.hub_models import licenses_of
from metriloc.runs.relpose_files import RelposeFolder
from metriloc.runs.relpose_results import RelposeRun, pair_result, position_in_words, relpose_summary


def demo(out: Path | None = None, method: MethodArgument = "auto", weights: str | None = None, seed: int = 0) -> int:
    """Find the pose of the bundled example and print the true one beside it.

    Args:
        out: Folder for pose.json, pictures and an HTML report.
        method: auto is metriloc's default, two photos and nothing else; mickey is metriloc-small alone; matching takes the
            depth map of the example too.
        weights: Other MicKey weights.
        seed: Same seed, same answer (on one machine, with as many threads).
    """
    chosen = choose_method(MethodChoice(method, weights=weights))
    output = None if out is None else RelposeFolder.prepare(out, single=True)
    for line in licenses_of(method):
        complain("demo", line)
    with resources.as_file(resources.files("metriloc").joinpath("data/example")) as folder:
        uses_depth = method == "matching"
        reference = load_view(folder / "reference.jpg", depth=folder / "reference.depth.png" if uses_depth else None)
        query_path = folder / "query.jpg"
        query = load_view(query_path)
        truth = read_true_poses(folder / "poses.txt", folder / "reference.jpg", [query_path])[str(query_path)]
        features0, features1 = chosen.extract(reference), chosen.extract(query)
        run = RelposeRun(
            reference,
            chosen.name,
            chosen.weights_id,
            {"seed": seed},
            calibrations=calibrations_of(chosen),
            truths={str(query_path): truth},
        )
        estimate = chosen.relative_pose(features0, features1, seed=seed)
        result = pair_result(query_path, estimate, features1, truth)
        run.results.append(result)
        print_lines([f"method: {chosen.name}, weights {chosen.weights_id}", *relpose_summary(result)])
        print_lines([f"  true camera position (m): {position_in_words(truth)}"])
        if output is not None:
            output.write_query(run, 0, result, features0)
            output.write_run(run)
            print(f"report: {output.path / 'report.html'}")
    return 0 if result.success else 1

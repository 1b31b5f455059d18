from dataclasses import replace

from helpers import altered

from s11_fastai.report.groups import (
    differing_settings,
    group_by_settings,
    images_of,
    measurements,
)
from s11_fastai.runs.records import read_records


def test_the_same_seed_twice_is_no_second_sample(finished, tmp_path):
    again = altered(finished[0], tmp_path / "again", 0.5)
    groups = group_by_settings([read_records(path) for path in (finished[0], again, finished[0])])
    assert [each.name for each in groups] == [finished[0].name, "again"]


def test_runs_of_other_images_or_that_are_not_over_are_another_group(finished, tmp_path):
    run = read_records(finished[0])
    stopped = replace(run, path=tmp_path / "b", results=None)
    others = replace(run, path=tmp_path / "c", env=run.env | {"data_fingerprint": "0" * 64})
    seed = replace(run, path=tmp_path / "d", settings=replace(run.settings, seed=7))
    groups = group_by_settings([run, stopped, others, seed])
    assert [[each.path.name for each in group.runs] for group in groups] == [
        ["a", "d"],
        ["b"],
        ["c"],
    ]
    own = f"pets, test images, fingerprint {run.env['data_fingerprint'][:12]}"
    assert images_of(groups) == [own, own, "pets, test images, fingerprint 000000000000"]
    assert images_of(groups[:2]) == ["pets, test images"] * 2


def test_old_runs_without_a_fingerprint_are_apart_by_the_name_of_their_images(finished, tmp_path):
    run = read_records(finished[0])
    old = [
        replace(
            run,
            path=tmp_path / name,
            env={"data": name},
            settings=replace(run.settings, seed=seed),
        )
        for seed, name in enumerate(("digits", "pets"))
    ]
    assert len(group_by_settings(old)) == 2


def test_runs_whose_auto_came_to_another_precision_are_another_group(finished, tmp_path):
    run = read_records(finished[0])
    seven = replace(run.settings, seed=7)
    other = replace(run, path=tmp_path, settings=seven, env=run.env | {"precision": "fp16"})
    groups = group_by_settings([run, other])
    assert len(groups) == 2
    assert differing_settings(groups) == {"precision": [run.env["precision"], "fp16"]}
    assert len(group_by_settings([run, replace(other, env=run.env)])) == 1


def test_settings_that_differ_are_given_for_every_group(finished, tmp_path):
    run = read_records(finished[0])
    other = replace(run, path=tmp_path, settings=replace(run.settings, wd=0.1, seed=3, lr_min=0.01))
    assert differing_settings(group_by_settings([run, other])) == {"wd": ["0.0005", "0.1"]}


def test_what_is_measured_is_a_mean_with_its_deviation(finished):
    run = read_records(finished[0])
    runs = [
        replace(
            run,
            history=[run.history[0]._replace(valid_accuracy=a, valid_loss=x, seconds=s)],
            bounds=replace(run.bounds, lr_min=low, lr_max=100 * low),
        )
        for a, x, s, low in ((0.5, 1, 60, 0.01), (0.7, 3, 180, 0.0001))
    ]
    assert measurements(runs) == [
        "60.00 ± 14.14",
        "60.00 ± 14.14",
        "2.000 ± 1.414",
        "2",
        "0.001-0.1",
    ]
    assert measurements(runs[:1]) == ["50.00", "50.00", "1.000", "1", "0.01-1"]
    assert measurements([replace(run, history=[])]) == ["-"] * 5
    long = [row._replace(seconds=74_040.0) for row in run.history[:1]]
    assert measurements([replace(run, history=long)])[3] == "1234"

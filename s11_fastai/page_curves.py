"""Which curves the page of a run has."""

from s11_fastai import reference
from s11_fastai.charts import Chart, Series, chart
from s11_fastai.lr_bounds import LRBounds
from s11_fastai.plots.style import highest_loss
from s11_fastai.records import Records


def charts_of(records: Records) -> list[Chart]:
    """Accuracy, loss and lr of the epochs that are over, and the range test where there was one."""
    found = []
    if records.history:
        found += [_accuracy(records), _loss(records), _lr(records)]
    if records.bounds and records.bounds.lrs:
        found.append(_range_test(records.bounds))
    return found


def _accuracy(records: Records) -> Chart:
    return chart(
        "accuracy",
        "Accuracy of each epoch",
        "epoch",
        "accuracy, %",
        _both_parts(records, "accuracy", scale=100)
        + _reference(records, test=reference.TEST_ACCURACY, train=reference.TRAIN_ACCURACY),
        x_text="epoch {:.0f}".format,
        x_range=(1, records.config["epochs"]),
        y_text="{:.2f}%".format,
    )


def _loss(records: Records) -> Chart:
    lines = _both_parts(records, "loss")
    lowest = min(min(line.y) for line in lines)
    return chart(
        "loss",
        "Loss of each epoch",
        "epoch",
        "loss, nats",
        lines,
        x_text="epoch {:.0f}".format,
        x_range=(1, records.config["epochs"]),
        y_text="{:.4f}".format,
        y_range=(lowest, highest_loss(*(line.y for line in lines))),
    )


def _lr(records: Records) -> Chart:
    steps, per_epoch = records.steps, len(records.steps) / len(records.history)
    places = [i / per_epoch for i in range(len(steps))]
    lines = [Series("lr", "valid", places, [step.lr for step in steps])]
    lines += _reference(records, lr=reference.LR)
    return chart(
        "lr",
        "Learning rate of each step",
        "epoch",
        "learning rate",
        lines,
        x_text="epoch {:.2f}".format,
        x_range=(0, records.config["epochs"]),
        y_range=(0, max(max(line.y) for line in lines)),
    )


def _range_test(bounds: LRBounds) -> Chart:
    # The end of the test is a wall; what matters is the valley before it.
    lowest = min(bounds.losses)
    height = max(bounds.losses[: bounds.losses.index(lowest) + 1]) - lowest
    return chart(
        "lr_find",
        "Learning-rate range test",
        "learning rate",
        "training loss, smoothed",
        [Series("loss", "valid", bounds.lrs, bounds.losses)],
        x_text="lr {:.3g}".format,
        y_text="{:.4f}".format,
        y_range=(lowest - 0.1 * height, lowest + 1.4 * height),
        log_x=True,
        marks=[
            (bounds.lr_min, f"LRMIN {bounds.lr_min:.3g}"),
            (bounds.lr_max, f"LRMAX {bounds.lr_max:.3g}"),
        ],
    )


def _both_parts(records: Records, quantity: str, scale: float = 1) -> list[Series]:
    epochs = [row.epoch for row in records.history]
    return [
        Series(
            name, part, epochs, [scale * getattr(r, f"{part}_{quantity}") for r in records.history]
        )
        for name, part in (("train", "train"), (records.evaluated_on, "valid"))
    ]


def _reference(records: Records, **logs: tuple[float, ...]) -> list[Series]:
    """The reference's log as far as the run's plan, where it is of the same images; in percent."""
    if not records.is_cifar10:
        return []
    logs = {name: log[: records.config["epochs"]] for name, log in logs.items()}
    return [
        Series(
            f"reference, {name}",
            f"reference {name}",
            range(1, len(log) + 1),
            [value if name == "lr" else 100 * value for value in log],
        )
        for name, log in logs.items()
    ]

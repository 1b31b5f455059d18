"""Several processes for a test, as a launcher would start them, but forked: imports are done."""

import io
import multiprocessing
import os
import socket
from collections.abc import Callable

import torch


def in_processes(count: int, work: Callable[[], object], timeout: float = 600) -> list:
    """What `work` returns in each of `count` processes; for SystemExit, its code."""
    variables = {
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": _free_port(),
    }
    context = multiprocessing.get_context("fork")
    pipes, children = [], []
    for rank in range(count):
        receiver, sender = context.Pipe(duplex=False)
        own = {k: str(v) for k, v in (variables | {"RANK": rank, "LOCAL_RANK": rank}).items()}
        children.append(context.Process(target=_run, args=(work, own, sender)))
        children[-1].start()
        sender.close()
        pipes.append(receiver)
    try:
        return [_received(pipe, timeout) for pipe in pipes]
    finally:
        for child in children:
            child.join(5)
            child.kill()


def _run(work: Callable[[], object], variables: dict[str, str], sender) -> None:
    os.environ.update(variables)
    torch.set_num_threads(1)  # the parent's other threads are not here
    torch.cuda.is_available = lambda: False  # nor can a forked process use CUDA where it is there
    try:
        result = work()
    except SystemExit as stop:
        result = stop.code
    except BaseException as error:
        sender.send_bytes(_packed(repr(error)))
        raise
    sender.send_bytes(_packed([result]))


def _packed(value: object) -> bytes:
    # By value: the tensors' own way of being sent needs this process to stay alive.
    packed = io.BytesIO()
    torch.save(value, packed)
    return packed.getvalue()


def _received(pipe, timeout: float) -> object:
    assert pipe.poll(timeout), f"a process did not answer within {timeout} s"
    result = torch.load(io.BytesIO(pipe.recv_bytes()), weights_only=False)
    assert isinstance(result, list), f"a process failed: {result}"
    return result[0]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

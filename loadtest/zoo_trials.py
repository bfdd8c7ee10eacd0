"""The test samples of the zoo's networks, and the records that streams of them are sent as."""

from dataclasses import replace
from pathlib import Path

from loadtest.traffic import sample_record
from router.payload import pack
from router.records import SPIKES, Data
from topologies.compiled import CompiledNetwork
from topologies.loader import load_samples
from topologies.stages.base import Array
from topologies.trials import Trial, trial_of

__all__ = ["load_trial", "records"]


def load_trial(path: Path, network: CompiledNetwork) -> Trial:
    """The samples of a file, in the shape of the network's input. Raises TrialError."""
    return trial_of(load_samples(path), network.input)


def records(name: str, stream: Array, network: CompiledNetwork) -> list[Data]:
    """The input records of a stream (S, *shape): a whole request if one says all."""
    if network.input.encoder == "events":
        found = [_spikes(name, step) for step in stream]
    else:
        found = [sample_record(name, sample) for sample in stream]
    if len(found) == 1:
        return [replace(found[0], request=True)]
    last = len(found) - 1
    return [replace(record, seq=i, end=i == last) for i, record in enumerate(found)]


def _spikes(name: str, step: Array) -> Data:
    (payload,) = pack(step.reshape(1, 1, -1), 0, 1)
    return Data(name=name, payload=payload, dtype=SPIKES, steps=1)

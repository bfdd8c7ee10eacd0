from typing import Any

import numpy as np
import pytest

from topologies.importers.build import Face
from topologies.importers.modules import import_module
from topologies.importers.original import run_original
from topologies.model import NetworkError

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning"),
]


def refusal(module: Any, shape: tuple[int, ...] = (4,)) -> str:
    with pytest.raises(NetworkError) as error:
        import_module(module, shape, Face("net"))
    return str(error.value)


def test_every_module_that_is_not_known_is_named_with_its_path() -> None:
    from torch import nn

    inner = nn.Sequential(nn.GELU(), nn.Linear(4, 4), nn.LSTM(4, 4))
    text = refusal(nn.Sequential(nn.Linear(4, 4), inner, nn.Softmax(1)))
    assert "3 faults" in text
    for path, name in (("1.0", "GELU"), ("1.2", "LSTM"), ("2", "Softmax")):
        assert f"\n  {path}: a torch.nn.modules." in text
        assert f".{name} is not known: " in text
    assert "legal are" in text
    assert "Linear" in text


def test_module_with_a_forward_of_its_own_is_not_guessed() -> None:
    from torch import nn

    class Residual(nn.Sequential):
        def forward(self, x: Any) -> Any:
            return x + super().forward(x)

    text = refusal(nn.Sequential(Residual(nn.Linear(4, 4))))
    assert "Residual is not known: its forward is its own, and legal are" in text


def test_subclass_that_keeps_the_forward_is_read_as_what_it_is() -> None:
    from spikingjelly.activation_based import neuron
    from torch import nn

    class Block(nn.Sequential):
        pass

    net = nn.Sequential(Block(nn.Linear(4, 3), neuron.IFNode()))
    found = import_module(net, (4,), Face("net"))
    assert [layer.name for layer in found.network.layers] == ["0.0", "0.1"]
    assert found.neurons == {"0.1": "0.1"}


def test_batch_norm_is_left_to_the_compiler() -> None:
    from spikingjelly.activation_based import neuron
    from torch import nn

    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), neuron.IFNode())
    kinds = [x.kind for x in import_module(net, (1, 5, 5), Face("net")).network.layers]
    assert kinds == ["conv2d", "batch_norm", "if"]


def test_what_is_only_for_training_leaves_no_layer() -> None:
    from spikingjelly.activation_based import layer, neuron
    from torch import nn

    passing = (nn.Dropout(), nn.Identity(), layer.Dropout())
    net = nn.Sequential(*passing, nn.Linear(4, 3), neuron.IFNode())
    assert len(import_module(net, (4,), Face("net")).network.layers) == 2


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda nn: nn.Linear(5, 2), r"1: it reads (5,), but is given (4,)"),
        (lambda nn: nn.Conv2d(1, 2, 3), "1: it reads 1 channels, but is given (4,)"),
        (lambda nn: nn.MaxPool2d(2), "1: it reads (channels, height, width), but is given (4,)"),
        (
            lambda nn: nn.BatchNorm1d(4, track_running_stats=False),
            "1: it has no running statistics",
        ),
    ],
)
def test_module_that_does_not_fit_is_named_with_its_path(make: Any, sentence: str) -> None:
    from torch import nn

    assert sentence in refusal(nn.Sequential(nn.Identity(), make(nn)))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda nn: nn.Conv2d(1, 2, 3, padding_mode="reflect"), "padding_mode is 'reflect'"),
        (lambda nn: nn.Conv2d(1, 2, 2, padding="same"), "padding 'same' of a kernel (2, 2)"),
        (lambda nn: nn.MaxPool2d(3, dilation=2), "dilation is 2: legal is 1"),
        (lambda nn: nn.AvgPool2d(2, ceil_mode=True), "ceil_mode reaches beyond the edge"),
        (lambda nn: nn.AvgPool2d(3, padding=1, count_include_pad=False), "count_include_pad"),
        (lambda nn: nn.AvgPool2d(3, divisor_override=2), "divisor_override is set"),
        (lambda nn: nn.AdaptiveAvgPool2d(2), "output_size is 2: legal is 1"),
        (lambda nn: nn.Flatten(0), "start_dim 0 joins the batch with the values"),
    ],
)
def test_settings_that_networks_cannot_say_are_refused(make: Any, sentence: str) -> None:
    from torch import nn

    assert sentence in refusal(nn.Sequential(make(nn)), (1, 5, 5))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"inhibition": True}, "0: inhibition is set"),
        ({"graded_spikes_factor": 2.0}, "0: graded_spikes_factor is not 1"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*nhibition.*:UserWarning")
def test_options_of_snntorch_that_networks_cannot_say_are_refused(
    options: dict[str, Any], sentence: str
) -> None:
    import snntorch
    from torch import nn

    assert sentence in refusal(nn.Sequential(snntorch.Leaky(0.5, init_hidden=True, **options)))


def test_nothing_may_follow_a_membrane_that_is_read_out() -> None:
    import snntorch
    from torch import nn

    last = snntorch.Leaky(0.5, reset_mechanism="none", init_hidden=True)
    text = refusal(nn.Sequential(nn.Linear(4, 4), last, nn.Linear(4, 4)))
    assert "2: it stands behind a module that is read out: nothing may follow" in text


def test_surrogate_that_does_not_spike_is_refused() -> None:
    from spikingjelly.activation_based import neuron, surrogate
    from torch import nn

    node = neuron.IFNode(surrogate_function=surrogate.Sigmoid(spiking=False))
    assert "0: its surrogate function is not spiking" in refusal(nn.Sequential(node))


def test_single_module_is_a_network() -> None:
    from spikingjelly.activation_based import neuron

    found = import_module(neuron.IFNode(), (4,), Face("net"))
    assert found.neurons == {"module": "module"}
    spikes = run_original(neuron.IFNode(), np.ones((3, 2, 4), np.float32), found.neurons)
    assert spikes.spikes["module"].shape == (3, 2, 4)


def test_module_without_layers_is_refused() -> None:
    from torch import nn

    assert "it has no layers" in refusal(nn.Identity())


def test_loop_of_norse_that_feeds_back_sums_is_refused() -> None:
    import norse.torch as norse
    from torch import nn

    loop = norse.RecurrentSequential(nn.Linear(4, 4), norse.LIFBoxCell(), output_modules=0)
    assert "what it feeds back must be spikes, or a Linear behind spikes" in refusal(
        norse.SequentialState(loop)
    )

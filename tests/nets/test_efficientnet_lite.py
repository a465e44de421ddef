"""EfficientNet-Lite against what is known about it, and the distance on its features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sg3cli.errors import ModelError
from sg3cli.nets.efficientnet_lite import LITE0, LITE1, EfficientNetLite, PerceptualDistance, SameConv2d
from sg3cli.nets.encoder import Encoder, EncoderConfig, with_detail
from sg3cli.weights import store
from sg3cli.weights.efficientnet import BN_EPSILON, load_efficientnet_lite

ESPRESSO, CATS = 967, {281, 282, 285}


def _stored(depths: tuple[int, ...] = (1, 2, 2, 3, 3, 4, 1)) -> dict[str, Tensor]:
    """A random state dict with the published names and shapes."""
    noise = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return 0.3 * torch.randn(*shape, generator=noise)

    state: dict[str, Tensor] = {}

    def conv(name: str, norm: str, out: int, into: int, kernel: int) -> None:
        state[f"{name}.weight"] = normal(out, into, kernel, kernel)
        state[f"{norm}.weight"], state[f"{norm}.bias"] = 1 + normal(out), normal(out)
        state[f"{norm}.running_mean"], state[f"{norm}.running_var"] = normal(out), normal(out).square() + 0.5
        state[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    conv("_conv_stem", "_bn0", 32, 3, 3)
    channels, number = 32, 0
    shapes = ((3, 1, 16), (3, 6, 24), (5, 6, 40), (3, 6, 80), (5, 6, 112), (5, 6, 192), (3, 6, 320))
    for (kernel, expansion, out), count in zip(shapes, depths, strict=True):
        for _ in range(count):
            inner, block = channels * expansion, f"_blocks.{number}"
            if expansion > 1:
                conv(f"{block}._expand_conv", f"{block}._bn0", inner, channels, 1)
            conv(f"{block}._depthwise_conv", f"{block}._bn1", inner, 1, kernel)
            conv(f"{block}._project_conv", f"{block}._bn2", out, inner, 1)
            channels, number = out, number + 1
    conv("_conv_head", "_bn1", 1280, 320, 1)
    state["_fc.weight"], state["_fc.bias"] = normal(1000, 1280), normal(1000)
    return state


def test_same_padding_puts_the_odd_pixel_right_and_below() -> None:
    conv = SameConv2d(1, 1, 3, stride=2)
    nn.init.ones_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    y = conv(torch.ones(1, 1, 4, 4))
    assert y.shape == (1, 1, 2, 2)
    assert y[0, 0].tolist() == [[9, 6], [6, 4]]  # the first window lies inside, the last hangs over


@pytest.mark.parametrize(("size", "stride"), [(7, 2), (8, 2), (5, 1)])
def test_same_padding_gives_the_rounded_up_size(size: int, stride: int) -> None:
    assert SameConv2d(1, 2, 5, stride)(torch.zeros(1, 1, size, size)).shape[-1] == -(-size // stride)


def test_weights_are_folded_as_batch_norm_would_compute(tmp_path: Path) -> None:
    stored = _stored()
    torch.save(stored, tmp_path / "lite0.pth")
    net = load_efficientnet_lite(tmp_path / "lite0.pth")
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    y = F.conv2d(F.pad((x * 127.5 + 127.5 - 127) / 128, (0, 1, 0, 1)), stored["_conv_stem.weight"], stride=2)
    mean, variance = stored["_bn0.running_mean"], stored["_bn0.running_var"]
    y = F.batch_norm(y, mean, variance, stored["_bn0.weight"], stored["_bn0.bias"], eps=BN_EPSILON).clamp(0, 6)
    y = F.conv2d(y, stored["_blocks.0._depthwise_conv.weight"], padding=1, groups=32)
    norms = [
        [stored[f"_blocks.0.{bn}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
        for bn in ("_bn1", "_bn2")
    ]
    y = F.batch_norm(y, *norms[0], eps=BN_EPSILON).clamp(0, 6)
    y = F.batch_norm(F.conv2d(y, stored["_blocks.0._project_conv.weight"]), *norms[1], eps=BN_EPSILON)
    torch.testing.assert_close(net.features(x, (0,))[0], y, rtol=1e-4, atol=1e-4)


def test_features_have_the_sizes_of_their_stages() -> None:
    maps = EfficientNetLite().features(torch.zeros(2, 3, 64, 64))
    assert [tuple(m.shape) for m in maps] == [(2, 16, 32, 32), (2, 24, 16, 16), (2, 40, 8, 8), (2, 112, 4, 4)]


def test_a_deeper_network_needs_its_own_file(tmp_path: Path) -> None:
    torch.save(_stored(), tmp_path / "lite0.pth")
    with pytest.raises(ModelError, match="does not fit efficientnet-lite1"):
        load_efficientnet_lite(tmp_path / "lite0.pth", LITE1)
    torch.save(_stored((1, 3, 3, 4, 4, 5, 1)), tmp_path / "lite1.pth")
    load_efficientnet_lite(tmp_path / "lite1.pth", LITE1)
    with pytest.raises(ModelError, match="does not fit efficientnet-lite0"):
        load_efficientnet_lite(tmp_path / "lite1.pth", LITE0)


@pytest.mark.parametrize("bad", ["text", "list"])
def test_what_is_no_table_of_weights_is_refused(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "x.pth"
    if bad == "text":
        path.write_text("no weights")
    else:
        torch.save([1, 2], path)
    with pytest.raises(ModelError):
        load_efficientnet_lite(path)


def test_distance_is_zero_for_equal_pictures_and_reaches_only_the_drawing() -> None:
    torch.manual_seed(0)
    distance = PerceptualDistance(EfficientNetLite())
    x, y = (torch.rand(2, 3, 32, 32).mul(2).sub(1).requires_grad_() for _ in range(2))
    assert distance(x, x).abs().max() < 1e-6
    d = distance(y, x)
    assert d.shape == (2,) and d.min() > 0
    d.sum().backward()
    assert y.grad is not None and y.grad.abs().sum() > 0 and x.grad is None


def test_weight_says_where_the_distance_is_taken() -> None:
    torch.manual_seed(0)
    distance = PerceptualDistance(EfficientNetLite())
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    y = x.clone()
    y[..., 32:] = -y[..., 32:]
    left, right = torch.zeros(1, 1, 64, 64), torch.zeros(1, 1, 64, 64)
    left[..., :16], right[..., 48:] = 1, 1
    assert distance(y, x, right) > 2 * distance(y, x, left)
    torch.testing.assert_close(distance(y, x, torch.full((1, 1, 64, 64), 5.0)), distance(y, x), rtol=1e-4, atol=1e-5)


def test_published_weights_name_what_pictures_show() -> None:
    data = pytest.importorskip("skimage.data")
    if not store.is_present("perceptual"):
        pytest.skip("the perceptual backbone is not here: sg3 models pull perceptual")
    import cv2

    net = load_efficientnet_lite(store.path_of("perceptual"))
    for picture, classes in ((data.coffee(), {ESPRESSO}), (data.chelsea(), CATS)):
        side = min(picture.shape[:2])
        top, left = ((n - side) // 2 for n in picture.shape[:2])
        square = np.ascontiguousarray(picture[top : top + side, left : left + side])
        small = cv2.resize(square, (224, 224), interpolation=cv2.INTER_AREA)
        x = torch.from_numpy(small).permute(2, 0, 1)[None].float() / 127.5 - 1
        assert int(net(x).argmax()) in classes


def test_an_encoder_with_a_detail_branch_gives_the_same_codes_at_first() -> None:
    torch.manual_seed(0)
    config = EncoderConfig(input_size=16, stem=4, stages=((8, 1),), head_dim=8, num_ws=3, w_dim=8, se_reduction=4)
    encoder = Encoder(config).eval()
    wider = with_detail(encoder, 6)
    x = torch.rand(2, 6, 32, 32)
    assert wider.config.input_size == 32 and wider.config.map_size == config.map_size
    assert torch.equal(wider(x), encoder(F.avg_pool2d(x, 2)))
    wider(x).sum().backward()
    last = [p for n, p in wider.named_parameters() if n.startswith("detail.convs.4")]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in last)  # it can learn
    with pytest.raises(ModelError, match="detail"):
        EncoderConfig(input_size=15, detail=4)

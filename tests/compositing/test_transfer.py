"""An edit brought over to the frame: identities that hold for any maps, and for those made from drawings."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sg3cli.compositing.learned_maps import in_hue, on_source, with_grain, with_learned
from sg3cli.compositing.map_maker import MapMaker
from sg3cli.compositing.motion_maps import lost_texture, motion_maps, unfolded
from sg3cli.compositing.optical_flow import GRID, motion_between
from sg3cli.compositing.own_lines import OwnLines
from sg3cli.compositing.paste import paste
from sg3cli.compositing.transfer import Transfer
from sg3cli.nets.transfer_net import TransferConfig, TransferNet

SHAPES = st.sampled_from(["motion", "learned"])


def cloth(size: int, seed: int = 0, grain: float = 6.0) -> np.ndarray:
    """Smooth random colours with structure of every size down to `grain` pixels, `[size, size, 3]` float32."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size, 3), 128, np.float32)
    while grain < size:
        layer = cv2.GaussianBlur(rng.normal(size=(size, size, 3)).astype(np.float32), (0, 0), grain / 2)
        image += 18 * layer / layer.std()
        grain *= 2
    return image.clip(20, 235)


def levels(image: np.ndarray) -> np.ndarray:
    return np.rint(image).clip(0, 255).astype(np.uint8)


def whole(size: int) -> np.ndarray:
    """The window that is the frame itself."""
    return np.array([[0, 0], [0, size], [size, size], [size, 0]], np.float64)


def untrained(seed: int = 0) -> TransferNet:
    """A network whose every weight counts."""
    torch.manual_seed(seed)
    net = TransferNet(TransferConfig((8, 8, 8, 8)))
    torch.nn.init.normal_(net.head.weight, std=0.3)
    return net.eval().requires_grad_(False)


def still(shape=(GRID, GRID)) -> dict[str, np.ndarray]:
    """Maps that add what the drawings differ by."""
    blank, nowhere = np.zeros((*shape, 1), np.float32), np.zeros((*shape, 2), np.float32)
    return {"motion": nowhere, "follows": nowhere, "gain": blank, "added": blank + 1, "new": blank,
            "residual": np.zeros((*shape, 3), np.float32), "texture": blank}  # fmt: skip


def transferred(frame, plain, edited, transfer, window=None, alpha=None, **options):
    """The frame with the transfer in its window."""
    window = whole(len(frame)) if window is None else window
    alpha = np.ones(plain.shape[:2], np.float32) if alpha is None else alpha
    return paste(frame, edited, window, alpha, plain=plain, transfer=transfer, **options)


# ---- nothing changes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", [None, untrained()], ids=["motion", "learned"])
@settings(max_examples=15, deadline=None)
@given(
    centre=st.tuples(st.floats(40, 160), st.floats(40, 110)),
    half=st.floats(10, 90),
    turn=st.floats(-1, 1),
    seed=st.integers(0, 99),
    blend=st.sampled_from(["alpha", "gradient"]),
)
def test_a_drawing_that_does_not_change_gives_the_frame_bit_for_bit(net, centre, half, turn, seed, blend):
    frame, drawing = levels(cloth(200, seed))[:150], levels(cloth(32, seed + 1))
    x = half * np.array([np.cos(turn), np.sin(turn)])
    y = np.array([-x[1], x[0]])
    window = np.asarray(centre) + np.array([-x - y, -x + y, x + y, x - y])
    transfer = MapMaker(net).make(frame, window, drawing, drawing, (GRID, GRID)).transfer
    assert not transfer.motion.any() and not transfer.gain.any()
    assert np.array_equal(transferred(frame, drawing, drawing, transfer, window, blend=blend), frame)


def test_outside_the_window_nothing_changes():
    frame, drawing = levels(cloth(120)), levels(cloth(GRID, 1))
    edited = levels(np.roll(cloth(GRID, 1), 4, axis=1))
    window = np.array([[30, 30], [30, 80], [80, 80], [80, 30]], np.float64)
    transfer = MapMaker(untrained()).make(frame, window, drawing, edited, (GRID, GRID)).transfer
    result = transferred(frame, drawing, edited, transfer, window)
    inside = np.zeros((120, 120), bool)
    inside[29:81, 29:81] = True
    assert np.array_equal(result[~inside], frame[~inside])
    assert not np.array_equal(result[inside], frame[inside])


def test_where_the_drawing_loses_its_stubble_the_source_loses_what_is_finer():
    """Below, the drawing has noise that goes; the source has noise of single pixels there, and above."""
    rng = np.random.default_rng(4)
    size, below = 4 * GRID, slice(2 * GRID + 40, -40)
    plain = np.full((GRID, GRID, 3), 120.0)
    plain[GRID // 2 :] += rng.normal(0, 14, (GRID // 2, GRID, 1))
    edited = np.full((GRID, GRID, 3), 120.0)
    frame = np.full((size, size, 3), 120.0) + rng.normal(0, 10, (size, size, 1))
    result = transferred(levels(frame), levels(plain), levels(edited), motion_maps(levels(plain), levels(edited)))
    fine = cv2.Laplacian(result.mean(axis=2), cv2.CV_64F)
    before = cv2.Laplacian(levels(frame).mean(axis=2), cv2.CV_64F)
    above = slice(40, 2 * GRID - 60)
    assert fine[below].std() < 0.6 * before[below].std()
    assert fine[above].std() > 0.97 * before[above].std()
    assert not lost_texture(edited.astype(np.float32), plain.astype(np.float32)).any()  # nothing is made up


def test_skin_that_moves_by_half_a_pixel_keeps_its_grain():
    """Interpolation alone takes half of it. Where nothing moves the frame stays to the bit."""
    rng = np.random.default_rng(5)
    size = 256
    frame = levels(128 + rng.normal(0, 6, (size, size, 1)) + np.zeros((size, size, 3)))
    motion = np.zeros((GRID, GRID, 2), np.float32)
    motion[:, GRID // 2 :] = 0.5 / size  # in shares of the square: half a pixel to the right and down
    transfer = Transfer(**still() | {"motion": motion}, side=GRID)
    drawing = levels(cloth(GRID, 3))
    result = transferred(frame, drawing, drawing, transfer)
    sharp = [cv2.Laplacian(i.astype(np.float32).mean(axis=2), cv2.CV_32F) for i in (frame, result)]
    moved, stood = np.s_[40:-40, size // 2 + 20 : -20], np.s_[40:-40, 20 : size // 2 - 20]
    assert sharp[1][moved].var() > 0.7 * sharp[0][moved].var()
    assert np.array_equal(result[stood], frame[stood])
    x, y = np.meshgrid(*[np.arange(size, dtype=np.float32) + 0.5] * 2)
    plain = cv2.remap(frame, x, y, cv2.INTER_LANCZOS4).astype(np.float32)
    assert cv2.Laplacian(plain.mean(axis=2), cv2.CV_32F)[moved].var() < 0.5 * sharp[0][moved].var()


# ---- motion --------------------------------------------------------------------------------------------------------


def warped(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """`image` at `matrix @ (x, y, 1)` in continuous coordinates in shares of its side."""
    size = len(image)
    x, y = np.meshgrid(*[(np.arange(size) + 0.5) / size] * 2)
    at = np.stack([x, y, np.ones_like(x)], -1) @ matrix.T * size - 0.5
    return cv2.remap(
        image, *at.astype(np.float32).transpose(2, 0, 1), cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT
    )


def similar(shift, degrees: float, zoom: float) -> np.ndarray:
    """Turn and zoom about the middle, then a shift, in shares: `[2, 3]`."""
    c, s = zoom * np.cos(np.radians(degrees)), zoom * np.sin(np.radians(degrees))
    linear = np.array([[c, -s], [s, c]])
    return np.c_[linear, np.array([0.5, 0.5]) - linear @ [0.5, 0.5] + shift]


def motion_of(matrix: np.ndarray, size: int = GRID) -> np.ndarray:
    x, y = np.meshgrid(*[(np.arange(size) + 0.5) / size] * 2)
    return (np.stack([x, y, np.ones_like(x)], -1) @ matrix.T - np.stack([x, y], -1)).astype(np.float32)


CASES = [((0.02, -0.013), 0, 1), ((0, 0), 4, 1), ((0, 0), 0, 1.05), ((-0.01, 0.02), -3, 0.96)]


@pytest.mark.parametrize(("shift", "degrees", "zoom"), CASES)
@pytest.mark.parametrize("size", [256, 400])
def test_pixels_go_where_the_maps_say_to_a_twentieth_of_a_pixel(shift, degrees, zoom, size):
    matrix = similar(shift, degrees, zoom)
    drawing = np.full((64, 64, 3), 100, np.uint8)
    transfer = Transfer(**still() | {"motion": motion_of(matrix)}, side=GRID)
    result = transferred(levels(waves(size)), drawing, drawing, transfer).astype(np.float32)
    middle = slice(size // 6, -size // 6)
    assert displacement(result[middle, middle], waves(size, matrix)[middle, middle]) < 0.05


def waves(size: int, matrix: np.ndarray | None = None) -> np.ndarray:
    """A picture known everywhere, not at its pixels alone, at `matrix @ (x, y, 1)`."""
    x, y = np.meshgrid(*[(np.arange(size) + 0.5) / size] * 2)
    matrix = np.eye(2, 3) if matrix is None else matrix
    x, y = (np.stack([x, y, np.ones_like(x)], -1) @ matrix.T * size).transpose(2, 0, 1)
    grey = 128 + 30 * np.sin(x / 3.1) + 30 * np.cos(y / 2.7) + 25 * np.sin((x + 2 * y) / 7) + 20 * np.cos((x - y) / 5)
    return np.repeat(grey[..., None], 3, axis=2)


def displacement(image: np.ndarray, other: np.ndarray) -> float:
    """Largest distance in pixels by which one picture is off from the other, over windows of about 40 pixels: least
    squares on the gradient."""
    a, b = image.mean(axis=2), other.mean(axis=2)
    gx, gy, d = np.gradient(b, axis=1), np.gradient(b, axis=0), a - b
    sums = [cv2.GaussianBlur(v, (0, 0), 12)[20:-20, 20:-20] for v in (gx * gx, gx * gy, gy * gy, gx * d, gy * d)]
    xx, xy, yy, xd, yd = sums
    determinant = xx * yy - xy * xy
    u, v = (yy * xd - xy * yd) / determinant, (xx * yd - xy * xd) / determinant
    return float(np.hypot(u, v).max())


@pytest.mark.parametrize(("shift", "degrees", "zoom"), CASES)
def test_the_motion_of_a_drawing_is_found(shift, degrees, zoom):
    matrix = similar(shift, degrees, zoom)
    found = motion_between(levels(waves(GRID)), levels(waves(GRID, matrix)))
    error = np.linalg.norm(found - motion_of(matrix), axis=2)[16:-16, 16:-16] * GRID
    assert np.median(error) < 0.1 and error.max() < 0.5  # pixels of the drawing


@pytest.mark.parametrize(("shift", "degrees", "zoom"), CASES)
def test_the_source_follows_its_drawing(shift, degrees, zoom):
    """The frame is another picture than the drawing, with finer structure: it moves as the drawing does."""
    drawing, frame, matrix = cloth(GRID, 3, grain=8), cloth(384, 4, grain=12), similar(shift, degrees, zoom)
    plain, edited = levels(drawing), levels(warped(drawing, matrix))
    result = transferred(levels(frame), plain, edited, motion_maps(plain, edited)).astype(np.float32)
    middle = slice(60, -60)
    error = np.abs(result - warped(frame, matrix))[middle, middle].mean()
    assert error < 0.4 * np.abs(frame - warped(frame, matrix))[middle, middle].mean()


def test_where_a_flow_folds_nothing_moves():
    y, x = np.mgrid[:GRID, :GRID].astype(np.float32)
    turn = np.stack([0.05 * (y - 64), -0.05 * (x - 64)], -1) / GRID
    assert unfolded(turn.astype(np.float32)).min() > 0.99
    fold = np.zeros((GRID, GRID, 2), np.float32)
    fold[..., 0] = np.where(x < 64, 6, -6) * np.exp(-((y - 64) ** 2 + (x - 64) ** 2) / 200) / GRID
    share = unfolded(fold)
    assert share[60:68, 63:65].max() < 0.4 and share[:20].min() > 0.99


# ---- light ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [0.6, 0.9, 1.25])
def test_a_gain_changes_each_pixel_by_that_gain(gain):
    plain = cloth(GRID, 5).clip(40, 180)
    edited = levels(gain * np.rint(plain))
    frame = levels(cloth(300, 6).clip(40, 180))
    result = transferred(frame, levels(plain), edited, motion_maps(levels(plain), edited)).astype(np.float32)
    inside = slice(4, -4)  # at the very edge of the window nothing of a crop is seen in full
    error = np.abs(result - gain * frame)[inside, inside]
    assert error.max() < 6 and error.mean() < 1  # levels
    assert abs(np.median((result / frame)[inside, inside]) - gain) < 0.01


def test_a_local_change_of_the_drawing_is_added():
    plain = np.full((GRID, GRID, 3), 120, np.uint8)
    edited = plain.copy()
    edited[60:64, 40:90] -= 25  # a wrinkle: finer than light, and nothing moved
    frame = levels(120 + 8 * np.random.default_rng(0).normal(size=(256, 256, 3)))
    difference = transferred(frame, plain, edited, motion_maps(plain, edited)).astype(int) - frame
    assert -28 < difference[121:127, 100:160].mean() < -19
    assert np.abs(difference[:90]).max() == 0


# ---- what stays the same -------------------------------------------------------------------------------------------


def test_the_size_of_the_drawing_does_not_blur_the_source():
    frame = levels(cloth(256, 7, grain=2))
    sharpness = []
    for size in (64, 128, 256):
        plain = levels(cloth(64, 8).repeat(size // 64, 0).repeat(size // 64, 1))
        edited = levels(np.clip(plain.astype(float) * 1.1, 0, 255))
        result = transferred(frame, plain, edited, motion_maps(plain, edited))
        sharpness.append(cv2.Laplacian(result.mean(axis=2), cv2.CV_64F).var())
    assert max(sharpness) < 1.12 * min(sharpness)
    assert min(sharpness) > cv2.Laplacian(frame.mean(axis=2), cv2.CV_64F).var()


@pytest.mark.parametrize("shape", [(GRID, GRID), (GRID + 24, GRID + 40)])
def test_the_network_s_maps_fit_any_window_and_do_not_depend_on_other_frames(shape):
    net, height, width = untrained(2), *shape
    source = levels(cloth(2 * width)[: 2 * height])
    plain, edited = (levels(cloth(width, seed)[:height]) for seed in (1, 2))
    maps = motion_maps(plain, edited, shape)
    first = with_learned(net, source, plain, edited, maps)
    with_learned(net, source[::-1].copy(), edited, plain, maps)
    again = with_learned(net, source, plain, edited, maps)
    assert first.motion is maps.motion and first.residual.shape == (2 * height, 2 * width, 3)
    assert first.residual.any() and np.array_equal(first.residual, again.residual)


def test_the_network_begins_with_motion_and_light_alone():
    plain, edited = levels(cloth(GRID, 1)), levels(cloth(GRID, 1) + 30)
    maps = motion_maps(plain, edited)
    assert not with_learned(TransferNet().eval(), levels(cloth(2 * GRID)), plain, edited, maps).residual.any()


def test_what_the_network_sees_is_what_the_frame_becomes():
    """Of a frame that is as large as what the network sees, its base is the result without it."""
    frame, plain = levels(cloth(2 * GRID)), levels(cloth(GRID, 1))
    edited = levels(plain * np.float32(1.1))
    maps = motion_maps(plain, edited)
    assert np.array_equal(on_source(frame, plain, edited, maps), transferred(frame, plain, edited, maps))
    assert np.abs(on_source(frame, plain, edited, maps).astype(int) - frame).mean() > 3


def test_what_the_network_adds_is_added_to_the_frame():
    frame, plain = levels(cloth(2 * GRID)), levels(cloth(GRID, 1))
    edited, net = levels(plain * np.float32(1.1)), untrained(3)
    torch.nn.init.normal_(net.head.weight, std=0.02)
    maps = MapMaker().make(frame, whole(2 * GRID), plain, edited, (GRID, GRID)).transfer
    learned = MapMaker(net).make(frame, whole(2 * GRID), plain, edited, (GRID, GRID)).transfer
    added = transferred(frame, plain, edited, learned).astype(int) - transferred(frame, plain, edited, maps)
    inside = (slice(8, -8), slice(8, -8))
    assert np.abs(learned.residual).mean() > 1 and np.abs(added - learned.residual)[inside].mean() < 1.5


def test_the_network_may_add_detail_and_folds_but_not_take_the_finest_detail_away():
    base = cloth(2 * GRID, 4, grain=2.0)
    fine = base - cv2.GaussianBlur(base, (0, 0), 1.5)
    assert np.abs(with_grain(-0.4 * fine, base)).mean() < 0.35 * np.abs(0.4 * fine).mean()
    assert np.allclose(with_grain(0.4 * fine, base), 0.4 * fine)
    fold = np.zeros_like(base)
    fold[100:104, 60:200] = -25
    kept = with_grain(fold, base)[100:104, 60:200].mean()
    assert -27 < kept < -20
    assert not with_grain(np.zeros_like(base), base).any()


# ---- around the face -----------------------------------------------------------------------------------------------


def test_around_the_face_motion_is_smooth_and_on_it_as_it_is():
    rng = np.random.default_rng(3)
    trembling = (0.02 + 0.02 * rng.normal(size=(GRID, GRID, 2))).astype(np.float32)
    transfer = Transfer(**still() | {"motion": trembling}, side=GRID)
    face = np.zeros((GRID, GRID), np.float32)
    face[40:80, 40:80] = 1
    share = np.ones_like(face)
    share[:10] = 0
    motion = transfer.within(face, share, share).motion
    assert np.allclose(motion[50:70, 50:70], trembling[50:70, 50:70], atol=1e-6) and not motion[:10].any()
    assert motion[90:].std() < 0.1 * trembling.std() and abs(motion[90:].mean() - 0.02) < 0.002
    assert not Transfer(**still(), side=GRID).within(face, share, share).motion.any()


def test_beyond_the_face_nothing_is_left_but_motion():
    """Hair beside a drawn jaw that moved turned black."""
    frame, plain, edited = levels(cloth(2 * GRID)), levels(cloth(GRID, 1)), levels(cloth(GRID, 2))
    face = np.zeros((GRID, GRID), np.float32)
    face[:, : GRID // 2] = 1
    maps = MapMaker(untrained()).make(frame, whole(2 * GRID), plain, edited, (GRID, GRID)).transfer
    result, before = (transferred(frame, plain, edited, t) for t in (maps.lit_on(face), maps))
    bare = Transfer(**still() | {"motion": maps.motion, "added": 0 * maps.added}, side=GRID)
    moved = transferred(frame, plain, edited, bare)
    inside, outside = np.s_[:, : GRID - 12], np.s_[:, GRID + 12 :]
    assert np.array_equal(result[inside], before[inside]) and np.array_equal(result[outside], moved[outside])
    assert np.abs(before[outside].astype(int) - moved[outside]).mean() > 5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["rim", "stubble"])
def test_what_is_added_in_place_pulls_nothing_along(kind, seed):
    """Glasses looked a little like brows, and brows came down to explain them."""
    plain = cloth(GRID, seed, grain=12.0)
    edited = plain.copy()
    if kind == "rim":
        cv2.circle(edited, (64, 64), 24, (40, 35, 30), 2, cv2.LINE_AA)
    else:
        hairs = cv2.GaussianBlur(np.random.default_rng(seed + 100).normal(size=(GRID, GRID)), (0, 0), 1.2)
        beard = cv2.ellipse(np.zeros((GRID, GRID)), (64, 84), (34, 22), 0, 0, 360, 1.0, -1)
        dark = cv2.GaussianBlur(beard, (0, 0), 3) * (0.35 + 0.25 * hairs / hairs.std())
        edited *= (1 - dark).clip(0.2, 1.3)[..., None].astype(np.float32)
    motion = np.linalg.norm(motion_maps(levels(plain), levels(edited)).motion, axis=2) * GRID
    assert motion.max() < 0.5, motion.max()


def test_a_fold_that_is_added_has_the_hue_of_the_skin() -> None:
    """As dark as the network says, in all colours alike; nothing where nothing is added."""
    base = np.full((2 * GRID, 2 * GRID, 3), (200, 150, 120), np.uint8)
    orange = np.zeros(base.shape, np.float32)
    orange[100:110] = np.array([-0.1, -0.3, -0.6], np.float32) * base[100:110]
    kept = in_hue(orange, base, 2 * GRID)
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    assert np.abs((kept - orange) @ weights).max() < 0.5
    share = kept[105, 128] / base[105, 128]
    assert np.ptp(share) < 0.03 and share.max() < -0.2
    np.testing.assert_array_equal(in_hue(np.zeros_like(orange), base, 2 * GRID), 0)


def test_skin_that_keeps_its_hue_has_the_source_s_down_to_a_fold_that_a_drawing_paints():
    """Half of the square is skin; with directions about colour, nothing is held."""
    frame = levels(np.full((2 * GRID, 2 * GRID, 3), (200, 150, 120)) + cloth(2 * GRID) / 4 - 32)
    plain = levels(np.full((GRID, GRID, 3), (200, 150, 120)))
    edited = plain.copy()
    edited[60:63, 20:108] = (150, 80, 20)  # orange, and finer than an area
    skin = np.ones((GRID, GRID), np.float32)
    skin[:, GRID // 2 :] = 0

    def result(hue: bool) -> np.ndarray:
        maker = MapMaker(untrained(3))
        drawn = maker.make(frame, whole(2 * GRID), plain, edited, (GRID, GRID), OwnLines(skin, hue=hue))
        return transferred(frame, plain, drawn.edited, drawn.transfer).astype(np.float32) + 4

    def off(hue: bool, where: slice) -> float:
        factor = (result(hue) / (frame + 4.0))[122:124, where].mean(axis=(0, 1))
        return float(np.ptp(factor))

    skinned, other = slice(60, 110), slice(146, 196)
    assert off(False, skinned) > 0.2
    assert off(True, skinned) < 0.3 * off(False, skinned)
    assert off(True, other) == pytest.approx(off(False, other), abs=0.01)
    light = [(result(hue) @ np.array([0.299, 0.587, 0.114]))[122:124, skinned].mean() for hue in (True, False)]
    assert light[0] == pytest.approx(light[1], abs=3)

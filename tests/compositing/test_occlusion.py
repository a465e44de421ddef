"""What the source keeps of the face: hair, and what stands before it; smoothed over time."""

import cv2
import numpy as np
import pytest
from schematic_faces import crop_face as face

from sg3cli.compositing.face_mask import convex_distance, face_mask, face_outline, pixel_centres
from sg3cli.compositing.occlusion import smooth_maps, stretches, visible
from sg3cli.compositing.paste import paste

SIZE = 96
SKIN, HAIR, HAND = (205, 160, 135), (60, 45, 35), (120, 150, 190)
WINDOW = np.array([[0, 0], [0, SIZE], [SIZE, SIZE], [SIZE, 0]], float)


def face_image(fringe: float = 0.3, hair: tuple[int, int, int] = HAIR, light: float = 0.0) -> np.ndarray:
    """`[96, 96, 3]` float32: skin lit from one side, brows and mouth, hair down to `fringe` of the height."""
    rng = np.random.default_rng(0)
    image = np.full((SIZE, SIZE, 3), (90, 110, 140), np.float32)
    cv2.ellipse(image, (48, 50), (29, 38), 0, 0, 360, SKIN, -1)
    image[: round(fringe * SIZE)] = hair
    for x in (30, 56):
        image[37:40, x : x + 12] = HAIR
    cv2.ellipse(image, (48, 66), (9, 3), 0, 0, 360, (150, 70, 70), -1)
    slope = 1 + light * (np.arange(SIZE) / SIZE - 0.5)
    return (image * slope[None, :, None] + rng.normal(0, 3, image.shape)).clip(0, 255).astype(np.float32)


@pytest.mark.parametrize("hair", [HAIR, (170, 172, 176), (25, 22, 24)])
@pytest.mark.parametrize("light", [0.0, 0.5])
def test_hair_in_the_mask_is_the_source_s_and_the_face_is_not(hair, light):
    seen = visible(face_image(0.33, hair, light), None, face(SIZE))
    assert seen.shape == (SIZE, SIZE) and seen.dtype == np.float32
    assert face_mask(face(SIZE), SIZE, 0.08)[26, 40:56].min() == 1  # the fringe lies in the mask
    assert seen[20:29, 30:66].max() < 0.1
    assert seen[36:76, 32:64].min() > 0.95  # brows, eyes, mouth and cheeks change
    assert visible(face_image(0.1), None, face(SIZE))[30:76, 30:66].min() > 0.95  # a bare forehead changes too


def test_glasses_are_no_hair():
    image = face_image(0.1)
    image[43:45, 5:91] = 20  # arms that reach beyond the face
    for x in (36, 60):
        cv2.circle(image, (x, 46), 9, (20, 20, 20), 1)
    assert least(visible(image, None, face(SIZE)), 38, 76) > 0.9


def least(seen: np.ndarray, first: int, last: int) -> float:
    """The smallest share that may change well inside the face's outline, between two rows."""
    landmarks = face(SIZE)
    height = np.linalg.norm(landmarks[17:27].mean(axis=0) - landmarks[8])
    inside = convex_distance(face_outline(landmarks), pixel_centres((SIZE, SIZE))) < -0.14 * height
    return float(seen[first:last][inside[first:last]].min())


def occluded(centre: tuple[int, int] = (56, 62)) -> np.ndarray:
    image = face_image(0.1)
    cv2.ellipse(image, centre, (16, 10), 20, 0, 360, HAND, -1)
    return image


def test_what_stands_before_the_face_is_the_source_s():
    plain = cv2.GaussianBlur(face_image(0.1), (0, 0), 2)
    seen = visible(occluded(), plain, face(SIZE))
    assert seen[58:66, 48:64].max() < 0.1
    assert seen[34:44, 32:64].min() > 0.95  # the eyes are free
    assert least(visible(face_image(0.1), plain, face(SIZE)), 36, 80) > 0.9  # nothing before it


def test_what_an_inversion_cannot_draw_is_no_occlusion():
    """Wrinkles, glasses, an overall cast, and a face that is a few pixels off."""
    source = face_image(0.1)
    source[28:34:2, 30:66] -= 50
    for x in (36, 60):
        cv2.circle(source, (x, 46), 9, (20, 20, 20), 2)
    plain = np.roll(cv2.GaussianBlur(face_image(0.1), (0, 0), 2.5), 1, axis=1) + np.array([12, 6, -8], np.float32)
    assert least(visible(source.clip(0, 255), plain, face(SIZE)), 36, 80) > 0.9
    assert visible(source.clip(0, 255), plain, face(SIZE))[28:40, 36:60].min() > 0.9


def test_a_hand_survives_the_paste_and_the_face_beside_it_changes():
    source, plain = occluded(), face_image(0.1)
    edited = (plain + np.array([-40, -30, 20], np.float32)).clip(0, 255)
    frame = np.rint(source).astype(np.uint8)
    seen = visible(source, plain, face(SIZE))
    alpha = face_mask(face(SIZE), SIZE, 0.08)
    for detail in (0.0, 1.0):
        result = paste(frame, edited, WINDOW, alpha, plain=plain, detail=detail, visible=seen).astype(int)
        assert np.abs(result - frame)[59:65, 50:62].max() <= 4  # the hand
        assert np.abs(result - frame)[38:46, 34:44].mean() > 15  # the cheek


def test_the_background_under_the_soft_edge_stays_as_it_is():
    seen = visible(face_image(0.1), None, face(SIZE))
    assert face_mask(face(SIZE), SIZE, 0.08)[60, 16:20].max() > 0.5  # the mask's edge lies on the wall by the cheek
    assert seen[60, :20].max() < 0.1
    assert seen[60, 24:72].min() > 0.9


def test_nothing_is_known_without_landmarks():
    assert visible(face_image(), face_image(), np.full((68, 2), np.nan)).min() == 1


# ---- over time -----------------------------------------------------------------------------------------------------


def test_maps_are_steadied_without_lag_and_within_a_stretch():
    times = np.arange(60) / 30
    maps = np.ones((60, 4, 4), np.float32)
    maps[20:40] = 0
    maps[10] = 0.5  # a flicker
    assert smooth_maps(maps, times, np.zeros(60, int))[10].min() > 0.7
    maps[10] = 1
    forward = smooth_maps(maps, times, np.zeros(60, int))
    np.testing.assert_allclose(forward, smooth_maps(maps[::-1], times, np.zeros(60, int))[::-1], atol=1e-3)
    centre = (np.arange(60) * (1 - forward[:, 0, 0])).sum() / (1 - forward[:, 0, 0]).sum()
    assert centre == pytest.approx(29.5, abs=1e-3)
    parted = smooth_maps(maps, times, (np.arange(60) >= 20).astype(int))
    assert parted[:20].min() == 1 and parted[20].max() == 0


def test_stretches_end_where_the_face_is_lost_and_at_a_cut():
    present = np.array([1, 1, 0, 0, 1, 1, 1, 1], bool)
    shots = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    assert stretches(present, shots).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]

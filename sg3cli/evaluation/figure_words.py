"""What the figures of a project and of a video say, in words: pairs of a name and what is known of it.

The commands print them as tables, the report shows them; a figure that is None is `not computed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

MOVED = 0.25  # standard deviations of a label; what moves less is noise of the reading
MISSING = "not computed"

Row = tuple[str, str]

# ---- of a project


def figure_rows(figures: dict[str, Any]) -> Iterator[Row]:
    """The figures as a table for people."""
    if not figures["timing"]:
        yield ("timing", MISSING)
    for entry in figures["timing"]:
        yield from timing_rows(entry)
    yield from face_rows(figures["faces"])
    yield from reconstruction_rows(figures["reconstruction"], figures["resolution"])
    identity = figures["identity"] or {"reconstruction": None, "edited": None}
    for name, cosine in identity.items():
        words = MISSING if cosine is None else f"mean {cosine['mean']:.4f}, min {cosine['min']:.4f}"
        yield (f"identity, {name}", words)
    yield from label_rows(figures["labels"])
    outside = figures["outside"]
    words = MISSING if outside is None else f"{outside['max_difference']} levels at most, {outside['frames']} frames"
    yield ("outside the mask", words)
    yield from transfer_rows(figures["transfer"])
    yield from verdict_rows(figures)


def transfer_rows(transfer: dict[str, Any] | None) -> Iterator[Row]:
    """How the edit went over to the source."""
    if transfer is None:
        yield ("face against the source", MISSING)
        return
    words = f"sharpness {transfer['sharpness']:.3f}, flicker {transfer['flicker']:.3f} of the source's"
    yield ("face against the source", f"{words}, {transfer['pairs']} pairs of frames")
    if transfer["motion"] is not None:
        yield ("  transferred", f"moved by {transfer['motion']:.2f} pixels, {transfer['new']:.1%} drawn new")


def timing_rows(entry: dict[str, Any]) -> Iterator[Row]:
    yield ("output", entry["output"])
    yield ("  frames", f"{entry['frames']} of {entry['source_frames']}")
    apart = "" if entry["pts_equal"] else f", up to {number(entry['pts_max_difference'])} s apart"
    yield ("  timestamps", equal(entry["pts_equal"]) + apart)
    yield ("  duration", f"{equal(entry['duration_equal'])}, {entry['duration']:.3f} s")
    sound = "no sound" if entry["audio_equal"] is None else f"{equal(entry['audio_equal'])}, {entry['audio_packets']}"
    yield ("  audio packets", sound)


def face_rows(faces: dict[str, Any] | None) -> Iterator[Row]:
    if faces is None:
        yield ("faces", MISSING)
        return
    words = f"found {faces['found']}, interpolated {faces['interpolated']}, absent {faces['absent']}"
    yield ("faces", f"{words}, longest gap {faces['longest_gap']} frames")
    jitter = f"{number(faces['jitter_raw'], 1)} measured, {number(faces['jitter_smoothed'], 1)} smoothed (px/s^2)"
    yield ("  jitter", jitter)


def reconstruction_rows(scores: dict[str, Any] | None, size: int | None) -> Iterator[Row]:
    for name in ("tuned", "untuned"):
        report = scores and scores[name]
        if not report:
            yield (f"reconstruction, {name}", MISSING)
            continue
        psnr = f"PSNR {number(report['psnr_mean'], 2)} dB (min {number(report['psnr_min'], 2)})"
        distance = f"{report['perceptual']} {number(report['perceptual_mean'])}"
        words = f"{psnr}, MS-SSIM {number(report['ms_ssim_mean'])}, {distance}, at {size} px"
        yield (f"reconstruction, {name}", words)


def label_rows(labels: dict[str, Any] | None) -> Iterator[Row]:
    """Labels by how far the edits move them, those that move; the others are noise of the reading."""
    if labels is None:
        yield ("labels", MISSING)
        return
    moved = {name: entry for name, entry in labels.items() if abs(entry["change_std"]) >= MOVED}
    yield ("labels", f"moved by the edits: {len(moved)} of {len(labels)} (by {MOVED:g} std and more; --json has all)")
    for name, entry in sorted(moved.items(), key=lambda item: -abs(item[1]["change_std"])):
        yield (f"  {name}", f"{entry['change']:+10.4f} {entry['change_std']:+8.2f} std")


def verdict_rows(figures: dict[str, Any]) -> Iterator[Row]:
    """What of it is not as it should be, in words; `nothing` when all is."""
    wrong = []
    for entry in figures["timing"]:
        name = Path(entry["output"]).name
        if entry["frames"] != entry["source_frames"] or not entry["pts_equal"] or not entry["duration_equal"]:
            wrong.append(f"{name} has other frames or times than its source")
        if entry["audio_equal"] is False:
            wrong.append(f"{name} has other sound than its source")
    if figures["outside"] is not None and figures["outside"]["max_difference"]:
        wrong.append("pixels outside of the mask are changed")
    if figures["faces"] is not None and figures["faces"]["absent"]:
        wrong.append(f"{figures['faces']['absent']} frames show no face and pass through")
    yield ("to look at", "; ".join(wrong) or "nothing")


# ---- of a video against its source


def video_rows(figures: dict[str, Any]) -> Iterator[Row]:
    """The figures as a table for people."""
    faces, shown = figures["faces"], figures["frames"]
    yield ("edited", figures["edited"])
    yield ("frames", f"{shown} of {figures['source_frames']}, {figures['judged']} judged")
    yield ("faces", f"{faces['source']} in the source, {faces['edited']} edited")
    distance, temporal = figures["distance"], figures["temporal"]
    words = f"{number(distance['mean'])} (max {number(distance['max'])}), over time {number(temporal['mean'])}"
    yield (f"LPIPS-Vid ({distance['network']})", words)
    yield from frechet_rows(figures["frechet"])
    who = figures["identity"]
    yield ("likeness to the source", f"mean {number(who['mean'])}, min {number(who['min'])} ({who['network']})")
    yield ("TL-ID, TG-ID", f"{number(who['local'])}, {number(who['global'])} ({who['network']})")
    warping = figures["warping"]
    yield ("warping error", f"{number(warping['ratio'], 3)} of the source's, {number(warping['edited'], 6)}")
    yield ("landmark jitter", f"{number(figures['jitter']['ratio'], 3)} of the source's")
    flicker = figures["flicker"]
    yield ("flicker", f"{number(flicker['ratio'], 3)} of the source's, {number(flicker['levels'], 3)} levels apart")
    yield ("frozen", f"{figures['frozen']} of {figures['steps']} steps")
    yield ("sharpness", f"{number(figures['sharpness'], 3)} of the source's")
    yield ("seam", f"{number(figures['seam'], 3)} levels per pixel")
    beyond = figures["outside"]
    words = f"{beyond['mean']:.3f} levels, {beyond['max']} at most, {beyond['share']:.2%} of pixels not by coding"
    yield ("outside the face's square", words)
    yield ("sound", sound_words(figures["sound"]))
    yield from attribute_rows(figures["attributes"])


def frechet_rows(frechet: dict[str, Any]) -> Iterator[Row]:
    """Distances with what they stand on."""
    for kind, name in (("frames", "FID over frames"), ("clips", "FID over clips of 16")):
        used, least = frechet[f"{kind}_used"], frechet[f"min_{kind}"]
        value = frechet[kind]
        why = f"{used} {kind}, {least} at least" if value is None else f"{used} {kind}, {frechet['network']}"
        yield (name, f"{number(value)} ({why})")


def sound_words(sound: dict[str, Any] | None) -> str:
    if sound is None:
        return MISSING
    if sound["offset"] is None:
        return f"not the source's (correlation {sound['likeness']:.2f})"
    return f"{1000 * sound['offset']:+.1f} ms against the images"


def attribute_rows(attributes: dict[str, Any] | None) -> Iterator[Row]:
    """Labels that were asked for, and those that moved all the same."""
    if attributes is None:
        yield ("attributes", MISSING)
        return
    yield ("attributes", f"in standard deviations, by the {attributes['network']}")
    for name, entry in sorted(attributes["labels"].items(), key=lambda item: -abs(item[1]["change_std"])):
        if "asked" in entry:
            follows = f", follows over time {number(entry['follows'], 2)}"
            yield (f"  {name}", f"{entry['change_std']:+8.2f}, asked {entry['asked']:+.2f}{follows}")
        elif abs(entry["change_std"]) >= MOVED:
            yield (f"  {name}", f"{entry['change_std']:+8.2f}")


# ---- words


def equal(value: bool) -> str:
    return "equal" if value else "DIFFERENT"


def number(value: float | None, digits: int = 4) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"

"""Fits both towers: which captions of a batch hold for which pictures (pairwise logistic loss, Zhai et al. 2023).

    s_ij = scale <image_i, text_j>      mean of softplus(-s) over what holds + mean of softplus(s) over what does not

Every picture comes with a caption of its own and with one in which a single state was exchanged. Those tell the words
apart: "an old man, smiling" and "an old man, serious" differ in one thing only. The image tower starts as what
regression reads of the labels, so that minutes are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sg3cli.latents.text_directions import templates
from sg3cli.nets.text_tower import TextConfig, TextNet
from sg3cli.nets.word_pieces import words_of
from sg3cli.training.text.captions import Captioner
from sg3cli.training.text.phrases import AXES, DECADES, NOBODY, OLDEST, SAME, STATES, YOUNGEST

FILLERS = (
    "a an the this is here you see in of with and or at as who has have having he she it his her their plain wall "
    "not no without looking does whose wearing wears expression"
)
SMALL = 1e-3  # added to deviations of features
RIDGE = 0.02  # of the components' mean square
COMMON = 2.0  # beside readings of deviation 1
CHECK_EVERY = 100


@dataclass(frozen=True)
class FitConfig:
    """One fit. `noise` is added to standardised components of the features."""

    steps: int = 1600
    batch: int = 128
    lr: float = 3e-3
    lr_image: float = 3e-4
    weight_decay: float = 0.02
    noise: float = 0.1
    components: int = 600
    width: int = 64
    inner: int = 64
    seed: int = 0


def config_of(labels: set[str], width: int = 64, inner: int = 64) -> TextConfig:
    """The words that captions of these labels consist of, and what they are about."""
    plain = {word for text in (*templates(), *NOBODY, FILLERS) for word in words_of(text.replace("{}", ""))}
    unsaid = {word for text in (*NOBODY, FILLERS) for word in words_of(text)}
    states, vocabulary = [state for state in STATES if state.label in labels], set(plain)
    about: dict[str, set[tuple[str, ...]]] = {}
    for state in states:
        said = [words_of(text) for text in (*state.before, *state.nouns, *state.with_, *state.after)]
        vocabulary |= {word for words in said for word in words}
        keys = {tuple(sorted(set(words) - unsaid)) for words in said} - {()}
        about[state.label] = about.get(state.label, set()) | keys
    if "age" in labels:
        years = {*DECADES, "year", "years", "aged", "age"}
        vocabulary |= years
        about["age"] |= {(word,) for word in years}
    words = tuple(sorted(word for word in vocabulary if not word.isdigit()))
    axes = {label: pair for label, pair in AXES.items() if label in labels}
    told = {label: tuple(sorted(keys)) for label, keys in about.items()}
    return TextConfig(words, tuple(range(10, 101, 10)), (YOUNGEST, OLDEST), told, axes, SAME, width=width, inner=inner)


def fit_text(
    features: Tensor,
    facts: Mapping[str, np.ndarray],
    config: FitConfig,
    say: Callable[[str], None] = lambda line: None,
    kinds: np.ndarray | None = None,
) -> TextNet:
    """Towers trained on descriptions `[N,DIMENSION]` of pictures and what is known of these; see `Captioner`."""
    captioner = Captioner(facts, kinds)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        net = TextNet(config_of(set(facts), config.width, config.inner))
        seen, basis = components_of(net, features, config.components)
        mix = first_readings(seen, facts, config.width)
        groups = [{"params": list(mix.parameters()), "most": config.lr_image},
                  {"params": [*net.text.parameters(), net.log_scale], "most": config.lr}]  # fmt: skip
        optimiser = torch.optim.AdamW(groups, config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.99))
        net.train()
        total = 0.0
        for step in range(config.steps):
            for group in optimiser.param_groups:
                group["lr"] = (
                    group["most"]
                    * min(1.0, (step + 1) / max(1, min(100, config.steps // 10)))
                    * (1 - step / config.steps)
                )
            loss = step_loss(net, mix, seen, captioner, config, step)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            total += float(loss.detach())
            if step % CHECK_EVERY == CHECK_EVERY - 1:
                say(f"step {step + 1}: loss {total / CHECK_EVERY:.3f}")
                total = 0.0
    with torch.no_grad():
        net.image.project.weight.copy_(mix.weight @ basis.T)
        net.image.project.bias.copy_(mix.bias)
        net.eval().requires_grad_(False)
        rows = torch.cat([net.image(part.float()) for part in features.split(1024)])
        net.covariance.copy_(torch.cov(rows.T))
        wrong = misread(net)
        if wrong:
            say(f"misread: {', '.join(wrong)}")
        net.config = replace(net.config, misread=wrong)
    return net


@torch.no_grad()
def misread(net: TextNet) -> tuple[str, ...]:
    """Phrases of one end of an axis that the towers take for the other end."""
    wrong = []
    for label, ends in net.config.axes.items():
        first, second = net.text(list(ends))
        for state in (
            state for state in STATES if state.label == label and np.isinf(state.low) != np.isinf(state.high)
        ):
            said = [(p, f"a {p} face") for p in state.before] + [(p, f"a {p}") for p in state.nouns]
            said += [(p, f"a face with {p}") for p in state.with_] + [(p, f"a person {p}") for p in state.after]
            if not said:
                continue
            place = (2 * net.text([text for _, text in said]) - first - second) @ (first - second)
            sign = 1 if np.isinf(state.high) else -1
            wrong += [p for (p, _), value in zip(said, (sign * place).tolist(), strict=True) if value < 0]
    return tuple(" ".join(words_of(phrase)) for phrase in wrong)


@torch.no_grad()
def first_readings(seen: Tensor, facts: Mapping[str, np.ndarray], width: int) -> torch.nn.Linear:
    """From components `[N,K]` to `width` numbers: the labels and their states, by ridge regression; random where these
    are fewer. The constant last bias keeps a part that all pictures have in common."""
    mix = torch.nn.Linear(seen.shape[1], width)
    targets = [(values - np.nanmean(values)) / (np.nanstd(values) + SMALL) for values in facts.values()]
    for state in STATES:
        if state.label in facts:
            values = facts[state.label]
            targets.append(np.where(np.isnan(values), np.nan, state.holds(values)))
    solved: dict[bytes, list[int]] = {}
    for k, target in enumerate(targets[:width]):
        solved.setdefault(np.isnan(target).tobytes(), []).append(k)
    for some in solved.values():  # labels that are known of the same pictures together
        known = torch.from_numpy(np.flatnonzero(~np.isnan(targets[some[0]])))
        x, y = seen[known], torch.from_numpy(np.stack([targets[k] for k in some], 1)).float()[known]
        centre = x.mean(0)
        gram = (x - centre).T @ (x - centre)
        ridge = RIDGE * gram.trace() / len(gram)
        rows = torch.linalg.solve(gram + ridge * torch.eye(len(gram)), (x - centre).T @ (y - y.mean(0))).T
        mix.weight[some], mix.bias[some] = rows, -(rows @ centre)
    mix.bias[width - 1] += COMMON
    return mix


def step_loss(
    net: TextNet, mix: torch.nn.Module, seen: Tensor, captioner: Captioner, config: FitConfig, step: int
) -> Tensor:
    """The loss of one batch, which follows from the seed and the step."""
    rng = np.random.default_rng([config.seed, step])
    rows = captioner.draw_rows(config.batch, rng)
    said = [captioner.said_of(row, rng) for row in rows]
    said += [captioner.changed(own, row, rng) for own, row in zip(said, rows, strict=True)]
    texts = net.text([captioner.sentence(own, rng) for own in said])
    x = seen[torch.from_numpy(rows)]
    noise = torch.from_numpy(rng.standard_normal(x.shape, np.float32))
    images = F.normalize(mix(x + config.noise * noise), dim=1)
    fits = torch.from_numpy(captioner.fits(rows, said))
    return pairwise_loss(net.log_scale.exp() * images @ texts.T, fits)


def pairwise_loss(scores: Tensor, fits: Tensor) -> Tensor:
    """[]: scores `[B,C]` of pictures and captions; fits: 1 holds, -1 not, 0 not known. Both kinds count the same."""
    yes, no = (fits == 1).float(), (fits == -1).float()
    held = (F.softplus(-scores) * yes).sum() / yes.sum().clamp(min=1)
    return held + (F.softplus(scores) * no).sum() / no.sum().clamp(min=1)


def components_of(net: TextNet, features: Tensor, count: int, some: int = 2500) -> tuple[Tensor, Tensor]:
    """(features in their principal components `[N,K]`, basis `[DIMENSION,K]`); sets mean and scale of the tower.

    Components are scaled so that the first have more weight: by the root of their deviation.
    """
    parts = [part.float() for part in features[:: max(1, len(features) // some)].split(1024)]
    sample = torch.cat(parts)
    net.image.mean.copy_(sample.mean(0))
    net.image.scale.copy_(1 / (sample.std(0) + SMALL))
    z = (sample - net.image.mean) * net.image.scale
    _, singular, vectors = torch.svd_lowrank(z, q=min(count, *z.shape), niter=2)
    basis = vectors / (singular / len(z) ** 0.5).sqrt() / (singular[0] / len(z) ** 0.5).sqrt()
    seen = [((part.float() - net.image.mean) * net.image.scale) @ basis for part in features.split(1024)]
    return torch.cat(seen), basis

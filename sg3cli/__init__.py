"""sg3: edit the face in a video with StyleGAN3, in the original frames, with the original sound."""

__version__ = "0.2.0"

"""Training of our own models: attribute probe, generator with its encoder, directions.

Imports torch, numpy, scipy and safetensors only (image decoding lazily), so that it runs on a bare GPU machine.
"""

"""Training of our own models: attribute attribute net, generator with its encoder, directions.

Imports torch, numpy, scipy and safetensors only (image decoding lazily), so that it runs on a bare GPU machine.
"""

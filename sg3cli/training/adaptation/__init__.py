"""A generator adapted to a text or to a few pictures without data of its own (StyleGAN-NADA, Gal et al. 2021)."""

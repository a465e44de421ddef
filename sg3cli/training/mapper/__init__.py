"""A latent mapper trained towards a text (StyleCLIP, Patashnik et al. 2021, section 5)."""

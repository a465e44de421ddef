"""Directions in latent space: reading them, combining them. (Fitting them is `training`'s.)"""

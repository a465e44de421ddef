"""Who is where in a frame: detection, landmarks in the 68-point iBUG convention, tracks, selection, alignment.

Coordinates are continuous frame pixels: the centre of the first pixel lies at (0.5, 0.5).
"""

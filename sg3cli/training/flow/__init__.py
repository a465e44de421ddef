"""A flow on codes under the attributes of their faces: fitted, and told what belongs to each attribute."""

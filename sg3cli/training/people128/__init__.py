"""Training of the embedded model: pairs that differ in known attributes, and photographs."""

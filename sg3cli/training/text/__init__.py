"""A text model of faces: captions made from labels, and two small towers that learn which caption fits a picture."""

"""Generated rules of protovalidate, which the annotated messages import."""

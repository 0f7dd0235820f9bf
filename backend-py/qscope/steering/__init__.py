"""Steering: from a spec to edits of the residual stream, their proof, their controls and what they cost."""

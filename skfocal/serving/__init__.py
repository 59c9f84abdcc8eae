"""ONNX graphs: written with torch, read and batched without it."""

from skfocal.serving._batcher import OnnxBatcher
from skfocal.serving._classifier import OnnxClassifier

__all__ = ["OnnxBatcher", "OnnxClassifier"]

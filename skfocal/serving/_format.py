"""What a folder with a graph holds, for who writes and who reads it."""

FORMAT = "skfocal.onnx"
FORMAT_VERSION = 2  # 1: neither pairs nor documents of several pieces
HEAD, GRAPH, TOKENIZER = "skfocal-onnx.json", "model.onnx", "tokenizer.json"
FILES = (HEAD, GRAPH, TOKENIZER)
OUTPUTS = ("logits", "scores", "proba", "decision_scores")

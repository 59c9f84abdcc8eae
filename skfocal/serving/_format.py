"""What a folder with a graph holds, for who writes and who reads it."""

FORMAT = "skfocal.onnx"
FORMAT_VERSION = 3  # 2: windows had another name; 1: neither pairs nor windows
HEAD, GRAPH, TOKENIZER = "skfocal-onnx.json", "model.onnx", "tokenizer.json"
FILES = (HEAD, GRAPH, TOKENIZER)
OUTPUTS = ("logits", "scores", "proba", "decision_scores")

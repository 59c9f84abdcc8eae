"""The names in a folder with a graph, for the code that writes it and the code that reads it."""

FORMAT = "skfocal.onnx"
FORMAT_VERSION = 3  # 2: windows had another name; 1: neither pairs nor windows
HEAD, GRAPH, TOKENIZER = "skfocal-onnx.json", "model.onnx", "tokenizer.json"
FILES = (HEAD, GRAPH, TOKENIZER)
LIMIT = "max_length"  # in the graph's metadata: the number of positions of the encoder
OUTPUTS = ("logits", "scores", "proba", "decision_scores")

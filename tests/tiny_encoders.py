"""Tiny encoders with random weights, one of each family that people use, laid out as on the hub."""

import functools
import json

import torch
import transformers as tr
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

WORDS = "win money prize cash now free offer meeting lunch project report team moved monday".split()
CORPUS = [" ".join(WORDS[i:] + WORDS[:i]) + " 0 1 2 3 4 5 6 7 8 9" for i in range(len(WORDS))] * 3
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
ROBERTA = {
    **SIZES,
    "max_position_embeddings": 66,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
DECODER = {
    **SIZES,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


# -- tokenizers ----------------------------------------------------------------------------


def wordpiece(folder, length=64):
    """Write BERT's kind of tokenizer; return the number of its tokens."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted({c for text in CORPUS for c in text if c != " "})
    words = [*specials, *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    tokenizer = tr.BertTokenizer(vocab=vocabulary, model_max_length=length)
    tokenizer.save_pretrained(folder)
    return len(vocabulary)


def subwords(folder, first="<s>", last="</s>", pad="<pad>", specials=None, length=64):
    """Write a byte-level BPE tokenizer; `first` and `last` stand around a text."""
    specials = specials or list(dict.fromkeys(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]))
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    around = [token for token in (first, last) if token]
    backend.post_processor = processors.TemplateProcessing(
        single=" ".join(filter(None, [first, "$A", last])),
        pair=" ".join(filter(None, [first, "$A", last, "$B", last])),
        special_tokens=[(token, backend.token_to_id(token)) for token in dict.fromkeys(around)],
    )
    names = {"bos_token": first or specials[0], "eos_token": last or specials[0]}
    names |= {"pad_token": pad} if pad else {}
    tokenizer = tr.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=length,
        model_input_names=["input_ids", "attention_mask"],
        **names,
    )
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def write(kind, config, folder):
    """Write a model with random weights, large enough that a wrong reading shows."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(4)
        model.save_pretrained(folder)


def change(path, **changes):
    """Change a JSON file; None removes a key."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


# -- families ------------------------------------------------------------------------------

FAMILIES = {}


def family(build):
    """Make a function a builder of a folder."""
    FAMILIES[build.__name__] = build
    return build


def of_bert_kind(name, kind, config, tokenizer=wordpiece, **settings):
    """Add a family whose encoder takes BERT's sizes, if this transformers has it."""
    if not hasattr(tr, kind):
        return

    def build(folder):
        n_tokens = tokenizer(folder)
        write(getattr(tr, kind), getattr(tr, config)(vocab_size=n_tokens, **settings), folder)

    FAMILIES[name] = build


BERT = {**SIZES, "max_position_embeddings": 64}
of_bert_kind("bert", "BertForPreTraining", "BertConfig", **BERT)
of_bert_kind("electra", "ElectraForPreTraining", "ElectraConfig", embedding_size=16, **BERT)
of_bert_kind("convbert", "ConvBertModel", "ConvBertConfig", **BERT, embedding_size=32,
             head_ratio=1, conv_kernel_size=3)  # fmt: skip
of_bert_kind("nomic_bert", "NomicBertForMaskedLM", "NomicBertConfig", **BERT)
of_bert_kind("albert", "AlbertForMaskedLM", "AlbertConfig", embedding_size=16, **BERT)
of_bert_kind("distilbert", "DistilBertForMaskedLM", "DistilBertConfig", dim=32, n_layers=2,
             n_heads=2, hidden_dim=64, max_position_embeddings=64)  # fmt: skip
of_bert_kind("deberta", "DebertaForMaskedLM", "DebertaConfig", **BERT, relative_attention=True,
             pos_att_type=["c2p", "p2c"], type_vocab_size=0)  # fmt: skip
of_bert_kind("deberta_v3", "DebertaV2ForMaskedLM", "DebertaV2Config", **BERT,
             relative_attention=True, position_buckets=16, share_att_key=True,
             norm_rel_ebd="layer_norm", pos_att_type=["c2p", "p2c"], type_vocab_size=0,
             position_biased_input=False)  # fmt: skip
of_bert_kind("roberta", "RobertaForMaskedLM", "RobertaConfig", subwords, **ROBERTA)
of_bert_kind("xlm_roberta", "XLMRobertaForMaskedLM", "XLMRobertaConfig", subwords, **ROBERTA)
of_bert_kind("camembert", "CamembertForMaskedLM", "CamembertConfig", subwords, **ROBERTA)
of_bert_kind("mpnet", "MPNetModel", "MPNetConfig", subwords, **SIZES, pad_token_id=1,
             max_position_embeddings=66)  # fmt: skip
of_bert_kind("gte", "GteModel", "GteConfig", subwords, **SIZES, max_position_embeddings=64,
             pad_token_id=1)  # fmt: skip
of_bert_kind("longformer", "LongformerForMaskedLM", "LongformerConfig", subwords,
             **{**ROBERTA, "max_position_embeddings": 130}, attention_window=16)  # fmt: skip
of_bert_kind("big_bird", "BigBirdForMaskedLM", "BigBirdConfig", subwords, **SIZES, block_size=8,
             num_random_blocks=1, max_position_embeddings=128, pad_token_id=1)  # fmt: skip
of_bert_kind("modernbert", "ModernBertForMaskedLM", "ModernBertConfig",
             functools.partial(subwords, length=96), **{**SIZES, "num_hidden_layers": 3},
             max_position_embeddings=96, pad_token_id=1, cls_token_id=0, sep_token_id=2,
             bos_token_id=0, eos_token_id=2, local_attention=8)  # fmt: skip
of_bert_kind("bart", "BartModel", "BartConfig", subwords, d_model=32, encoder_layers=2,
             decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
             encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64, pad_token_id=1,
             bos_token_id=0, eos_token_id=2, decoder_start_token_id=2,
             forced_eos_token_id=2)  # fmt: skip
of_bert_kind("t5", "T5ForConditionalGeneration", "T5Config",
             functools.partial(subwords, first=None, specials=["<pad>", "</s>", "<unk>"]),
             d_model=32, d_kv=16, d_ff=64, num_layers=2, num_decoder_layers=2, num_heads=2,
             decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)  # fmt: skip

_END = "<|end|>"
_PADDED = functools.partial(subwords, first=None, last=None, pad="<|pad|>",
                            specials=[_END, "<|pad|>"])  # fmt: skip
_UNPADDED = functools.partial(subwords, first=None, last=None, pad=None, specials=[_END])
of_bert_kind("gpt2", "GPT2LMHeadModel", "GPT2Config", _UNPADDED, n_embd=32, n_layer=2, n_head=2,
             n_positions=64, bos_token_id=0, eos_token_id=0)  # fmt: skip
of_bert_kind("qwen3", "Qwen3ForCausalLM", "Qwen3Config", _PADDED, **DECODER)
of_bert_kind("llama", "LlamaForCausalLM", "LlamaConfig", _UNPADDED, **DECODER)
of_bert_kind("gemma3", "Gemma3ForCausalLM", "Gemma3TextConfig", _PADDED, **DECODER,
             sliding_window=8)  # fmt: skip
of_bert_kind("smollm3", "SmolLM3ForCausalLM", "SmolLM3Config", _PADDED, **DECODER)


@family
def eurobert(folder):
    """Write an architecture that transformers has, with code of its own beside it."""
    n_tokens = subwords(folder)
    config = tr.EuroBertConfig(
        vocab_size=n_tokens,
        **SIZES,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        mask_token_id=4,
    )
    write(tr.EuroBertForMaskedLM, config, folder)
    code = {"AutoConfig": "code.Config", "AutoModelForSequenceClassification": "code.Model"}
    change(folder / "config.json", auto_map=code)
    (folder / "code.py").write_text("raise SystemExit('the code ran')")


_CODE = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class Config(PretrainedConfig):
    model_type = "own_code"

    def __init__(self, vocab_size=100, hidden_size=32, num_hidden_layers=2, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.num_hidden_layers = num_hidden_layers


class Base(PreTrainedModel):
    config_class = Config
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        self.encoder = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(config.hidden_size, 2, 64, 0.0, batch_first=True)
            for _ in range(config.num_hidden_layers)
        )
        self.post_init()

    def get_input_embeddings(self):
        return self.encoder

    def forward(self, input_ids, attention_mask=None, **kwargs):
        x = self.encoder(input_ids)
        for block in self.blocks:
            x = block(x, src_key_padding_mask=attention_mask == 0)
        return x


class Model(PreTrainedModel):
    config_class = Config
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        self.model = Base(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, **kwargs):
        x = self.model(input_ids, attention_mask)[:, 0]
        return SequenceClassifierOutput(logits=self.classifier(x))
"""


@family
def own_code(folder):
    """Write an architecture that only code in the folder knows."""
    n_tokens = wordpiece(folder)
    (folder / "code.py").write_text(_CODE)
    scope = {"__name__": "own_code"}
    exec(_CODE, scope)
    write(scope["Model"], scope["Config"](vocab_size=n_tokens), folder)
    weights = load_file(folder / "model.safetensors")
    weights = {name: w for name, w in weights.items() if "classifier" not in name}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    change(
        folder / "config.json",
        auto_map={"AutoConfig": "code.Config", "AutoModelForSequenceClassification": "code.Model"},
    )

"""Makes a random-weight Idefics3 of about half a million parameters, for the real vLLM to serve on a CPU.

    .venv-vllm/bin/python tests/vllm/make_model.py OUT

Run with the vLLM environment's Python. What it says has no meaning but is printable, and differs by picture. An image
takes 7 tokens of the prompt, a word of the built-in prompts one or two: eight images and sixty words fit in 512.
The same seed gives the same bytes.
"""

import sys
from pathlib import Path

import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor, PreTrainedTokenizerFast
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

BOS, EOS, PAD = "<s>", "<end_of_utterance>", "<pad>"
IMAGE_TOKENS = ("<image>", "<fake_token_around_image>", "<global-img>")
VOCABULARY = 640
IMAGE_PIXELS, PATCH_PIXELS, SHUFFLE = 32, 8, 2  # (32 / 8)² patches, SHUFFLE² of them to one image token
TEXT_WIDTH, IMAGE_WIDTH, HEAD_WIDTH = 128, 64, 64
INIT_STD = 0.1  # wide enough that the picture changes which token is likeliest
EMBEDDING_GAIN, STOP_GAIN = 8.0, 1.3  # by trial: most answers end by themselves within 128 tokens, some do not

TEMPLATE = """{{ bos_token }}{% for message in messages %}{{ message['role'] | capitalize }}: \
{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}\
{% endfor %}<end_of_utterance>
{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"""

VIEWS = yaml.safe_load((Path(__file__).parents[2] / "pipeline" / "captioning" / "views.yaml").read_text("utf-8"))
SENTENCES = (
    "User: Assistant: System:",
    "These 8 pictures are frames of one video, in order, taken at 0.0 s, 1.5 s, 2.0 s, 3.5 s, 4.0 s, 5.5 s, 6.0 s. ",
    *(view["prompt"].replace("{media}", medium) for view in VIEWS.values() for medium in ("picture", "video")),
    "A man in a blue shirt rides a red bicycle down a street with trees and parked cars.",
    "Two brown dogs run across the grass in a park while a woman throws a yellow ball.",
    "A white plate with bread, cheese and a cup of coffee stands on a wooden table beside a window.",
    "The small cat sleeps on a green sofa. A black bag and three books are next to it.",
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=1,
        special_tokens=[BOS, EOS, PAD, *IMAGE_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=list(IMAGE_TOKENS),
        model_max_length=4096,
    )


def make_processor(tokenizer: PreTrainedTokenizerFast) -> Idefics3Processor:
    edge = {"longest_edge": IMAGE_PIXELS}
    images = Idefics3ImageProcessorPil(size=edge, max_image_size=edge, do_image_splitting=False)
    seq_len = (IMAGE_PIXELS // PATCH_PIXELS // SHUFFLE) ** 2
    return Idefics3Processor(images, tokenizer, image_seq_len=seq_len, chat_template=TEMPLATE)


def make_config(tokenizer: PreTrainedTokenizerFast) -> Idefics3Config:
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in (("bos", BOS), ("eos", EOS), ("pad", PAD))}
    special = {f"{name}_token_id": number for name, number in ids.items()}
    text = {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 2 * TEXT_WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": TEXT_WIDTH // HEAD_WIDTH,
        "num_key_value_heads": 1,
        "head_dim": HEAD_WIDTH,
        "max_position_embeddings": 4096,
        "initializer_range": INIT_STD,
        **special,
    }
    vision = {
        "hidden_size": IMAGE_WIDTH,
        "intermediate_size": 2 * IMAGE_WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": IMAGE_WIDTH // HEAD_WIDTH,
        "image_size": IMAGE_PIXELS,
        "patch_size": PATCH_PIXELS,
        "initializer_range": INIT_STD,
    }
    image_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKENS[0])
    return Idefics3Config(
        text_config=text,
        vision_config=vision,
        scale_factor=SHUFFLE,
        image_token_id=image_id,
        dtype="float32",
        **special,
    )


def give_grammar(model: Idefics3ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
    """Bends the random weights so that answers are printable, never empty, and end after a full stop.

    Token embeddings are made as large as what the layers add to them, so the last hidden state tells which token it
    stands at. The end is likely at a full stop alone, and neither comes right after the colon of `Assistant:`.
    """
    embeddings, heads = model.model.text_model.embed_tokens.weight.data, model.lm_head.weight.data
    embeddings *= EMBEDDING_GAIN
    for number in range(VOCABULARY):
        text = tokenizer.decode([number], skip_special_tokens=True)
        if not (text and text.isascii() and text.isprintable()):
            heads[number] = 0.0  # under the largest of several hundred random logits
    stop, colon = (tokenizer.convert_tokens_to_ids(token) for token in ".:")
    at_stop, at_colon = (embeddings[number] / embeddings[number].norm() for number in (stop, colon))
    heads[tokenizer.eos_token_id] = at_stop - at_colon
    heads[stop] = STOP_GAIN * heads[stop] - at_colon


def main(folder: str) -> None:
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    model = Idefics3ForConditionalGeneration(make_config(tokenizer))
    give_grammar(model, tokenizer)
    model.save_pretrained(folder)
    make_processor(tokenizer).save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1])

"""Vision and text towers of Transformers, by name or folder with their weights, or from a spec with random ones.

M pictures · P tokens per picture · B texts · T tokens · D width
"""

import contextlib
import inspect
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import AutoConfig, PreTrainedModel
from transformers.utils.hub import cached_file

from model.batch import Texts
from model.encoders.tiny import masked_mean, visible_tokens

# Of towers that AutoModel maps to another class. It does not know all that are half of a model with two towers.
CLASSES = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
CLASSES["vit_mae"] = "ViTModel"  # the MAE class sees a random quarter of each picture
HALVES = ("_vision_model", "_text_model")
CLIPS = ("clip", "metaclip_2", "chinese_clip", "altclip")
SUMMARY_FIRST = (*CLIPS, "vit", "dinov2", "dinov3", "deit", "beit")  # token 0 is CLS
SUMMARY_POOLED = ("siglip", "convnext")  # the pooled output, which has its own weights
UNMASKED = ("SiglipTextModel", "Siglip2TextModel")  # trained with padding as tokens; the summary is the last
POOLED = ("CLIPTextModel", "MetaClip2TextModel", *UNMASKED)  # their summary is their own pooled output
# Given a mask of padding, Transformers waits for the GPU to see whether anything is masked. These take a whole mask.
CAUSAL = ("CLIPTextModel", "MetaClip2TextModel")
BIDIRECTIONAL = ("XLMRobertaModel", "RobertaModel", "BertModel", "DistilBertModel")
# Their positions are counted from that of the padding.
AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "altclip", "mpnet", "longformer", "data2vec-text", "xmod")
NO_POSITIONS = 512  # tokens for a tower that has no positions of its own
WITHOUT_SUMMARY = ("T5EncoderModel", "MT5EncoderModel", "UMT5EncoderModel")  # no token stands for the sentence
LORA = ".lora_"  # in the names of its weights
POOLINGS = ("auto", "cls", "mean", "last", "pooler")
SENTENCE_MODULES = ("Transformer", "Pooling", "Dense", "Normalize")  # vectors are normalised in any case
SENTENCE_POOLINGS = {"cls": "cls", "mean": "mean", "lasttoken": "last"}  # as Sentence Transformers names them


class VisionTower(nn.Module):
    """Pictures [M,3,H,W] → tokens [M,P,D], the summary first: CLS, or else the pooled output or the mean.

    With `projection` all tokens go through the pretrained projection into the space that both towers share.
    """

    def __init__(self, tower: PreTrainedModel, projection: int = 0):
        super().__init__()
        family = tower.config.model_type
        self.cls_first = family.startswith(SUMMARY_FIRST)
        self.pooled = family.startswith(SUMMARY_POOLED) and getattr(tower.config, "vision_use_head", True)
        self.tower = without_dead_parameters(tower, keep_pooler=self.pooled)
        self.normalizes = family.removesuffix("_vision_model") in CLIPS
        self.interpolates = "interpolate_pos_encoding" in _reads(tower)
        self.patch_size = int(tower.config.patch_size) if "spatial_shapes" in _reads(tower) else 0
        self.projection = _projection(width(tower), projection)

    def forward(self, pixels_M3HW: Tensor) -> Tensor:
        """Encode normalised pixels."""
        return self.projection(self._tokens(pixels_M3HW))

    def _tokens(self, pixels_M3HW: Tensor) -> Tensor:
        if self.patch_size:
            out = self.tower(**patches(pixels_M3HW, self.patch_size))
        else:
            more = {"interpolate_pos_encoding": True} if self.interpolates else {}
            out = self.tower(pixel_values=pixels_M3HW, **more)
        states_MPD: Tensor = out.last_hidden_state
        if states_MPD.dim() == 4:  # a grid of features: channels first
            states_MPD = states_MPD.flatten(2).transpose(1, 2)
        if self.normalizes:  # CLIP's last states come before its last norm
            inner: Any = getattr(self.tower, "vision_model", self.tower)
            states_MPD = inner.post_layernorm(states_MPD)
        if self.cls_first:
            return states_MPD
        summary_MD = out.pooler_output if self.pooled else states_MPD.mean(1)
        return torch.cat([summary_MD[:, None], states_MPD], 1)


class TextTower(nn.Module):
    """Token ids → states [B,T,D] and a summary [B,pooled_width].

    Args:
        tower: The Transformers model.
        pooling: "cls", "mean", "last" or "pooler"; "auto" is the model's own pooled output for CLIP and SigLIP, else
            "cls". Padding is on the right.
        projection: Width of the pretrained projection of summaries, 0 for none; or dense layers, see `sentence_layers`.
    """

    def __init__(self, tower: PreTrainedModel, pooling: str = "auto", projection: int | list[list[Any]] = 0):
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling={pooling}: expected {' or '.join(POOLINGS)}")
        kind = type(tower).__name__
        self.pooling = ("pooler" if kind in POOLED else "cls") if pooling == "auto" else pooling
        if self.pooling == "pooler" and kind not in POOLED and getattr(tower, "pooler", None) is None:
            raise ValueError(f"pooling=pooler: {kind} has no pooler, expected auto, cls, mean or last")
        self.unmasked = kind in UNMASKED
        self.tower = without_dead_parameters(tower, keep_pooler=self.pooling == "pooler")
        self.width = width(tower)
        own = getattr(tower.config, "projection_size", None) if kind in UNMASKED else None
        summary_width = int(own or self.width) if self.pooling == "pooler" else self.width
        self.projection: nn.Module
        if isinstance(projection, list):
            layers = [(nn.Linear(width, out, bias), getattr(nn, name)()) for width, out, bias, name in projection]
            self.projection, self.pooled_width = nn.Sequential(*itertools.chain(*layers)), projection[-1][1]
        else:
            self.projection, self.pooled_width = _projection(summary_width, projection), projection or summary_width

    def forward(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """States and summaries."""
        states_BTD, summary_BI = self._states(texts)
        return states_BTD, self.projection(summary_BI)

    def _states(self, texts: Texts) -> tuple[Tensor, Tensor]:
        mask_BT = visible_tokens(texts)
        out = self.tower(input_ids=texts.tokens, attention_mask=self._attention_mask(mask_BT))
        states_BTD = out.last_hidden_state
        if self.pooling == "pooler":
            return states_BTD, out.pooler_output
        if self.pooling == "cls":
            return states_BTD, states_BTD[:, 0]
        if self.pooling == "last":
            last_B = (mask_BT * torch.arange(mask_BT.shape[1], device=mask_BT.device)).argmax(1)
            return states_BTD, states_BTD[torch.arange(len(last_B), device=last_B.device), last_B]
        return states_BTD, masked_mean(states_BTD, mask_BT)

    def _attention_mask(self, mask_BT: Tensor) -> Tensor | None:
        """The mask as the tower takes it: none, which keys each query reads [B,1,·,T] bool, or where padding is not."""
        kind, config = type(self.tower).__name__, self.tower.config
        if self.unmasked:
            return None
        if config._attn_implementation != "sdpa" or getattr(config, "is_decoder", False):
            return mask_BT.long()
        if kind in BIDIRECTIONAL:
            return mask_BT[:, None, None]
        if kind in CAUSAL:
            length = mask_BT.shape[1]
            return mask_BT[:, None, None] & torch.ones(length, length, dtype=torch.bool, device=mask_BT.device).tril()
        return mask_BT.long()


def set_projection(encoder: nn.Module, weight_ED: Tensor | None) -> None:
    """Give an encoder's projection the weights that it was pretrained with."""
    layer = encoder.projection
    if isinstance(layer, nn.Linear) and weight_ED is not None:
        with torch.no_grad():
            layer.weight.copy_(weight_ED)


def _projection(width: int, shared: int) -> nn.Module:
    return nn.Linear(width, shared, bias=False) if shared else nn.Identity()


def patches(pixels_M3HW: Tensor, size: int) -> dict[str, Tensor]:
    """Inputs of towers that take pictures of any shape (SigLIP 2 NaFlex): patches row by row, rows and columns."""
    grid_M3HsWs = pixels_M3HW.unfold(2, size, size).unfold(3, size, size)
    count, _, rows, columns = grid_M3HsWs.shape[:4]
    patches_MPL = grid_M3HsWs.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
    whole_MP = torch.ones(patches_MPL.shape[:2], dtype=torch.int32, device=pixels_M3HW.device)
    shapes_M2 = torch.tensor([[rows, columns]], device=pixels_M3HW.device).expand(count, 2)
    return {"pixel_values": patches_MPL, "pixel_attention_mask": whole_MP, "spatial_shapes": shapes_M2}


def load_tower(name: str, part: str) -> tuple[PreTrainedModel, set[str], Tensor | None]:
    """Load one tower of a Transformers model.

    Args:
        name: Name or folder of the model.
        part: "vision" or "text".

    Returns:
        The tower, the names of the weights that were not found, and its projection [E,D] in a model with two towers.

    Raises:
        ValueError: There is no such model, or it has no such tower.
    """
    try:
        with quiet():
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
            if config.model_type == "leccr":
                raise ValueError("it is a LECCR model: start a run from its weights with init=")
            own = type(config).__name__.replace("Config", "Model")  # SiglipTextConfig → SiglipTextModel
            kind = CLASSES.get(config.model_type, own if config.model_type.endswith(HALVES) else "AutoModel")
            loader = getattr(transformers, kind, transformers.AutoModel)
            tower, report = loader.from_pretrained(
                name, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{name} is not a Transformers model, or not a folder of one, with a {part} tower: {reason}"
        ) from error
    prefix = f"{part}_model."
    projection = getattr(tower, "visual_projection" if part == "vision" else "text_projection", None)
    if hasattr(config, f"{part}_config"):  # a model with two towers; some towers do not find their weights on their own
        tower = getattr(tower, f"{part}_model", tower)
    reads = [key for key in ("pixel_values", "input_ids", "decoder_input_ids") if key in _reads(tower)]
    if reads != ["pixel_values" if part == "vision" else "input_ids"]:
        read = " and ".join(reads) or "neither pictures nor tokens"
        raise ValueError(f"{name} is a {type(tower).__name__}, which reads {read}: expected a {part} tower")
    weight = projection.weight.detach() if isinstance(projection, nn.Linear) else None
    return tower, {key.removeprefix(prefix) for key in report["missing_keys"]}, weight


def resize_positions(tower: PreTrainedModel, image_size: int) -> None:
    """Interpolate the position embeddings of a CLIP or SigLIP tower to pictures of this many pixels per side, once.

    Transformers would do so in every step, and train embeddings of the grid that the tower was pretrained with.
    """
    embeddings: Any = getattr(getattr(tower, "vision_model", tower), "embeddings", None)
    positions = getattr(embeddings, "position_embedding", None)
    config = tower.config
    if not (isinstance(positions, nn.Embedding) and hasattr(config, "image_size")):
        return
    old, new = (pixels // config.patch_size for pixels in (config.image_size, image_size))
    extra = positions.num_embeddings - old**2  # of CLS
    weights = positions.weight.detach()
    if new != old:
        grid_1DGG = weights[extra:].T.reshape(1, -1, old, old)
        grid_1DGG = interpolate(grid_1DGG, size=(new, new), mode="bicubic", align_corners=False)
        weights = torch.cat([weights[:extra], grid_1DGG[0].flatten(1).T])
        embeddings.position_embedding = nn.Embedding.from_pretrained(weights, freeze=False)
        embeddings.position_ids = torch.arange(len(weights))[None]
        embeddings.num_patches, embeddings.num_positions = new**2, len(weights)
    config.image_size = embeddings.image_size = image_size


def check_weights(name: str, tower: PreTrainedModel, missing: set[str]) -> None:
    """Raise ValueError if a weight of the tower was not found: it would stay random."""
    lost = sorted(missing & tower.state_dict().keys())
    if lost:
        kind = type(tower).__name__
        raise ValueError(f"{name} lacks {len(lost)} weights of {kind}, such as {lost[0]}: choose another model")


def add_adapters(tower: PreTrainedModel, rank: int) -> None:
    """Put LoRA on the linear layers of a tower's attention, in place; the weights that it has are frozen.

    Raises:
        ValueError: The package is missing, or the tower has no such layer.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError("lora needs the package peft. Install it: pip install 'leccr[lora]'") from error
    # Other classes of linear layers belong to torch's own attention, which does not call them.
    names = [name for name, layer in tower.named_modules() if type(layer) is nn.Linear and "att" in name.lower()]
    if not names:
        raise ValueError(f"lora={rank}: a {type(tower).__name__} has no linear layer in its attention, set lora=0")
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names), tower)


def merged_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model with LoRA added to them, under the names that they have without it."""
    weights = dict(model.state_dict())
    for name, layer in model.named_modules():
        if hasattr(layer, "get_delta_weight"):
            weights[f"{name}.base_layer.weight"] = layer.base_layer.weight + layer.get_delta_weight("default")
    return {name.replace(".base_layer.", "."): tensor for name, tensor in weights.items() if LORA not in name}


def build_tower(kind: str | None, config: dict[str, Any]) -> PreTrainedModel:
    """Build a tower of the Transformers class `kind` with random weights; raises ValueError for an unknown class."""
    tower_class = getattr(transformers, str(kind), None)
    if not (isinstance(tower_class, type) and issubclass(tower_class, PreTrainedModel)):
        raise ValueError(f"class={kind}: expected a model class of Transformers {transformers.__version__}")
    with quiet():
        return tower_class(tower_class.config_class.from_dict(config))  # type: ignore[union-attr]


def spec_of(tower: PreTrainedModel, projection: Tensor | None, **more: Any) -> dict[str, Any]:
    """The spec that `build_tower` builds this tower from, without its weights, and the width of its projection."""
    if projection is not None:
        more["projection"] = len(projection)
    return {"kind": "transformers", "class": type(tower).__name__, "config": tower.config.to_diff_dict(), **more}


def without_dead_parameters(tower: PreTrainedModel, keep_pooler: bool) -> PreTrainedModel:
    """Remove the parts that the last states do not need: weights without a gradient would stall other processes."""
    for owner in (tower, getattr(tower, "vision_model", None), getattr(tower, "text_model", None)):
        if owner is None:
            continue
        pooler = getattr(owner, "pooler", None)
        if not keep_pooler and isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters()):
            owner.pooler = None
        if not keep_pooler and isinstance(getattr(owner, "head", None), nn.Module):
            owner.head = nn.Identity()  # it is still called
    for name, parameter in tower.named_parameters():
        if name.endswith("mask_token"):
            parameter.requires_grad_(False)
    return tower


def width(tower: PreTrainedModel) -> int:
    """D, the width of the last states: that of the last stage where it grows; AltCLIP projects its texts."""
    config = tower.config
    stages = getattr(config, "hidden_sizes", None)
    return int(stages[-1] if stages else getattr(config, "project_dim", None) or config.hidden_size)


def own_pooling(name: str, tower: PreTrainedModel) -> str:
    """How the summary of a text was trained: as the files of Sentence Transformers say, else by the tower itself.

    Of a causal tower it is the last token, the only one that sees the whole text; of T5's encoder the mean.

    Raises:
        ValueError: The model pools in a way that `TextTower` does not.
    """
    if type(tower).__name__ in POOLED:
        return "auto"
    for module in _read_json(name, "modules.json") or ():
        if module["type"].endswith("Pooling"):
            options = _read_json(name, f"{module['path']}/config.json") or {}
            modes = [key for key, value in options.items() if key.startswith("pooling_mode_") and value is True]
            modes = [mode.removeprefix("pooling_mode_").split("_")[0] for mode in modes] or [options["pooling_mode"]]
            if len(modes) != 1 or modes[0] not in SENTENCE_POOLINGS:
                raise ValueError(f"{name} pools its tokens by {modes}: expected {' or '.join(SENTENCE_POOLINGS)}")
            return SENTENCE_POOLINGS[modes[0]]
    if type(tower).__name__ in WITHOUT_SUMMARY:
        return "mean"
    return "last" if _is_causal(name, tower) else "auto"


def sentence_layers(name: str) -> tuple[list[list[Any]], dict[str, Tensor]]:
    """The dense layers of a model of Sentence Transformers: width in, width out, bias, activation; and their weights.

    Raises:
        ValueError: The model has a module that `TextTower` does not.
    """
    layers, weights = list[list[Any]](), dict[str, Tensor]()
    for module in _read_json(name, "modules.json") or ():
        kind = module["type"].rpartition(".")[2]
        if kind not in SENTENCE_MODULES:
            raise ValueError(f"{name} has a module {kind}: expected {', '.join(SENTENCE_MODULES)}")
        if kind == "Dense":
            saved = _dense_weights(name, module["path"])
            weights |= {key.replace("linear", str(2 * len(layers))): tensor for key, tensor in saved.items()}
            options = _read_json(name, f"{module['path']}/config.json")
            activation = options["activation_function"].rpartition(".")[2]
            layers.append([options["in_features"], options["out_features"], options["bias"], activation])
    return layers, weights


def _dense_weights(name: str, folder: str) -> dict[str, Tensor]:
    path = cached_file(name, f"{folder}/model.safetensors", _raise_exceptions_for_missing_entries=False)
    if path:
        return load_file(path)
    weights: dict[str, Tensor] = torch.load(str(cached_file(name, f"{folder}/pytorch_model.bin")), weights_only=True)
    return weights


def sentence_prompts(name: str) -> dict[str, str]:
    """What a model of Sentence Transformers puts before a query and before a description."""
    config = _read_json(name, "config_sentence_transformers.json") or {}
    prompts = config.get("prompts") or {}
    default = prompts.get(config.get("default_prompt_name"), "")
    return {f"{kind}_prompt": prompts.get(key, default) for kind, key in (("query", "query"), ("view", "document"))}


def _is_causal(name: str, tower: PreTrainedModel) -> bool:
    """Whether the first token does not see the last."""
    try:
        embeddings: Any = tower.get_input_embeddings()
        size = embeddings.num_embeddings
        ids_2T = torch.tensor([[size - 3, size - 2, size - 1], [size - 3, size - 2, size - 2]])
        with torch.no_grad():
            first_2D = tower(input_ids=ids_2T, attention_mask=torch.ones_like(ids_2T)).last_hidden_state[:, 0]
    except (TypeError, AttributeError, RuntimeError) as error:
        kind = type(tower).__name__
        raise ValueError(f"{name}: a {kind} does not read tokens with a mask. Choose another text tower") from error
    return torch.allclose(first_2D[0], first_2D[1], rtol=0, atol=1e-6)


def _read_json(name: str, file: str) -> Any:
    path = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
    return json.loads(Path(path).read_text("utf-8")) if path else None


def text_positions(config: Any) -> int:
    """Number of tokens that a text tower has positions for; RoBERTa and its like count them from after the padding."""
    inner = getattr(config, "text_config", None) or config
    positions = int(getattr(inner, "max_position_embeddings", None) or 0)
    counts_from = (inner.pad_token_id or 0) + 1 if inner.model_type.startswith(AFTER_PADDING) else 0
    return positions - counts_from if positions > 0 else NO_POSITIONS


def _reads(tower: PreTrainedModel) -> set[str]:
    return set(inspect.signature(tower.forward).parameters)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Transformers' progress bars and its warnings about weights that are not used."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()

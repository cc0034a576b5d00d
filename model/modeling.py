"""The LECCR model: descriptions → semantic slots → interaction of slots and the picture → matching.

Slots are the views themselves, projected like captions, or (as released) learned queries that read the tokens of all
views.

B samples · N visual tokens · V views · T text tokens · K slots · D width of visual tokens · C width of the text tower's
states · I width of its summaries · E width of the shared space
"""

import copy
import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import normalize, pad
from transformers import AutoModel, PreTrainedModel
from transformers.utils.hub import cached_file

from model.batch import Batch, Features, Media, Texts
from model.config import LeccrConfig
from model.encoders import build_media_encoder, build_text_encoder, load_media_encoder, load_text_encoder
from model.encoders.frames import FrameEncoder
from model.encoders.tiny import TinyText
from model.encoders.transformers_towers import LORA, TextTower, add_adapters, merged_weights
from model.heads import ResidualHead, ViewReader, media_head
from model.losses import slot_cosines
from model.slots import Interaction, SemanticSlots

WEIGHTS = "model.safetensors"
SENTENCE_FILES: dict[str, Any] = {
    "modules.json": [{"idx": 0, "name": "0", "path": "", "type": "model.encoders.sentence_towers.Towers"}],
    "sentence_bert_config.json": {"modality_config": {"text": {}, "image": {}, "video": {}}},  # for MTEB
    "config_sentence_transformers.json": {"model_type": "SentenceTransformer", "similarity_fn_name": "cosine"},
}
LARGEST_SCALE = 100.0  # of the logits, a temperature of 0.01


class LeccrModel(PreTrainedModel):
    """Embeds items and texts in one space. With `slots="none"` it is a two-tower model of the same encoders.

    >>> model, processor = LeccrModel.from_pretrained("RUN/best"), LeccrProcessor.from_pretrained("RUN/best")
    >>> media_BE, slots_BKE = model.encode_media(processor.media([[photo]]), processor.descriptions([["A cat."]]))
    >>> similarity_BM = media_BE @ model.encode_text(processor.texts(["eine Katze", "un chien"])).T
    """

    config_class = LeccrConfig
    base_model_prefix = ""
    supports_gradient_checkpointing = True  # of pretrained towers

    def __init__(self, config: LeccrConfig):
        super().__init__(config)
        self.media_encoder = build_media_encoder(config.media_encoder)
        self.text_encoder = build_text_encoder(config.text_encoder)
        media_width, text_width, shared = self.media_encoder.width, self.text_encoder.width, config.embed_dim
        aligned, layer = config.heads == "aligned", config.layer()
        self.text_head = (ResidualHead if aligned else nn.Linear)(self.text_encoder.pooled_width, shared)
        self.media_head = (  # W_v
            media_head(media_width, shared, config.media_dropout) if aligned else nn.Linear(media_width, shared)
        )
        if config.slots == "views":
            self.reader = ViewReader(
                shared, max(1, len(config.views)), config.read_views, config.trust, config.read_start
            )
            self._add_temperature("local_tau", "log_local_scale")
        if config.slots == "queries":
            self.slots = SemanticSlots(
                media_width, text_width, config.num_slots, config.slot_layers, config.slot_init, **layer
            )
            self.interaction = Interaction(media_width, config.interaction_layers, **layer)
            self.slot_head = nn.Linear(media_width, shared)  # W_l
            self.slot_caption_head = nn.Linear(media_width, media_width)  # W_cp
            self.token_vision_head = nn.Linear(media_width, media_width)  # W_vp
        self._add_temperature("tau", "log_scale")
        self._freeze_encoders()
        self.add_lora(config.lora)
        self.post_init()  # type: ignore[no-untyped-call]

    @classmethod
    def create(
        cls, media: str | dict[str, Any], text: str | dict[str, Any], image_size: int | None = None, **settings: Any
    ) -> Self:
        """Create a model to train.

        Args:
            media: Media encoder: a Transformers model with its weights, by name or folder, or a spec.
            text: Text encoder, likewise.
            image_size: Pixels per side of the pictures to come; None: as a Transformers model was trained.
            **settings: Settings of `LeccrConfig`.

        Raises:
            ValueError: An encoder cannot be built, or a setting is out of its range.
        """
        loaded: dict[str, nn.Module] = {}
        if isinstance(media, str):
            loaded["media_encoder"], media = load_media_encoder(media, image_size)
        if isinstance(text, str):
            loaded["text_encoder"], text = load_text_encoder(text)
        if not settings.get("embed_dim"):
            encoder = loaded.get("text_encoder") or build_text_encoder(text)
            settings["embed_dim"] = encoder.pooled_width
        rank = settings.pop("lora", 0)
        model = cls(LeccrConfig(media_encoder=media, text_encoder=text, **settings))
        for name, tower in loaded.items():
            setattr(model, name, tower)
        model._freeze_encoders()
        model.add_lora(rank)
        return model

    @classmethod
    def from_pretrained(cls, name: str, config: LeccrConfig | None = None, **hub: Any) -> Self:  # type: ignore[override]
        """Load a saved model for inference.

        Args:
            name: A folder, or a name on the Hub.
            config: In place of the configuration that was saved.
            **hub: Arguments for the Hub, such as `revision` and `token`.

        Raises:
            OSError: There are no weights.
            ValueError: The weights do not fit the configuration.
        """
        hub.pop("_from_auto", None)  # of AutoModel
        config = config or LeccrConfig.from_pretrained(name, **hub)
        path = str(cached_file(name, WEIGHTS, **hub))
        model = cls(config)
        try:
            model.load_state_dict(load_file(path))
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip()
            raise ValueError(f"{path} has weights of a model with other settings. {first}") from error
        return model.train(False)

    def save_pretrained(self, folder: str | Path, merged: bool = True, **_: Any) -> None:  # type: ignore[override]
        """Write `config.json` and `model.safetensors`, which is also what `push_to_hub` uploads.

        And what makes the folder a model of Sentence Transformers, see `model.encoders.sentence_towers`.

        Weights keep the names they have here; Transformers would rename those of its towers to older ones.

        Args:
            folder: The folder.
            merged: Whether LoRA is added to the weights, so that the model loads as one without it; else training can
                continue bit-identically.
        """
        home = Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        self.config.architectures = [type(self).__name__]
        config = copy.deepcopy(self.config)
        config.lora = 0 if merged else config.lora
        config.save_pretrained(home)
        weights = merged_weights(self) if merged else self.state_dict()
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        save_file(weights, home / WEIGHTS, {"format": "pt"})
        if merged and config.slots != "queries":
            for name, content in SENTENCE_FILES.items():
                (home / name).write_text(json.dumps(content, indent=1) + "\n", "utf-8")

    def _init_weights(self, module: nn.Module) -> None:
        """Do nothing: every part initialises its own weights."""

    def _freeze_encoders(self) -> None:
        """Freeze the towers of `freeze`, and a copy of the text tower to read descriptions with, if it trains."""
        specs = {"media": self.config.media_encoder, "text": self.config.text_encoder}
        for name in self.config.freeze:
            if specs[name]["kind"] != "transformers":
                raise ValueError(f"freeze={name}: only a pretrained tower can be frozen; embedded ones always are")
            self.get_submodule(f"{name}_encoder").requires_grad_(False)
        copied = self.config.slots != "none" and self.config.description_encoder == "frozen" and not self.text_frozen
        self.description_encoder = copy.deepcopy(self.text_encoder).requires_grad_(False).eval() if copied else None

    def add_lora(self, rank: int) -> None:
        """Train low-rank updates of this rank of the pretrained towers that are not frozen, in place of their weights.

        Raises:
            ValueError: There is no such tower, or the package is missing.
        """
        self.config.lora = rank
        if not rank:
            return
        specs = {"media": self.config.media_encoder, "text": self.config.text_encoder}
        names = [
            name for name, spec in specs.items() if spec["kind"] == "transformers" and name not in self.config.freeze
        ]
        if not names:
            raise ValueError(f"lora={rank}: neither tower is a pretrained one that is trained, set lora=0")
        for name in names:
            modules = self.get_submodule(f"{name}_encoder").modules()
            add_adapters(next(module for module in modules if isinstance(module, PreTrainedModel)), rank)

    @property
    def media_frozen(self) -> bool:
        """Whether what `media_states` returns stays the same during training."""
        return isinstance(self.media_encoder, FrameEncoder) and self.media_encoder.frozen

    @property
    def text_frozen(self) -> bool:
        """Whether the summaries of texts stay the same during training."""
        return not any(weights.requires_grad for weights in self.text_encoder.parameters())

    def train(self, mode: bool = True) -> Self:
        """Set training mode; frozen encoders stay in evaluation mode."""
        super().train(mode)
        for encoder in (self.media_encoder, self.text_encoder, self.description_encoder):
            if encoder is not None and not any(weights.requires_grad for weights in encoder.parameters()):
                encoder.eval()
        return self

    def _add_temperature(self, tau: str, log_scale: str) -> None:
        """Add the parameter behind a temperature under the name that says what it is: τ, or the logarithm of 1/τ."""
        start, logarithm = self.config.init_temperature, self.config.learned_temperature == "log"
        value = torch.tensor(math.log(1 / start) if logarithm else start)
        self.register_parameter(log_scale if logarithm else tau, nn.Parameter(value))

    @property
    def temperature_parameters(self) -> list[nn.Parameter]:
        """What is learned of τ, for the global and, where slots are views, for the local similarity."""
        names = ("log_scale", "log_local_scale", "tau", "local_tau")
        return [getattr(self, name) for name in names if name in self._parameters]

    @property
    def logit_scales(self) -> Tensor:
        """1/τ [2] of the global and of the local similarity; they are one parameter unless slots are views."""
        parameters = self.temperature_parameters
        both = torch.stack([parameters[0], parameters[-1]])
        return both.exp() if self.config.learned_temperature == "log" else 1 / both

    @torch.no_grad()
    def limit_temperatures(self) -> None:
        """Keep every τ at 1/LARGEST_SCALE or more; called after each step of the optimiser."""
        for parameter in self.temperature_parameters:
            if self.config.learned_temperature == "log":
                parameter.clamp_(max=math.log(LARGEST_SCALE))
            else:
                parameter.clamp_(min=1 / LARGEST_SCALE)

    def new_parameters(self) -> set[str]:
        """Names of the trainable parameters that did not come with a pretrained encoder."""
        specs = {"media_encoder.": self.config.media_encoder, "text_encoder.": self.config.text_encoder}
        pretrained = tuple(prefix for prefix, spec in specs.items() if spec["kind"] == "transformers")
        return {
            name
            for name, parameter in self.named_parameters()
            if parameter.requires_grad and (LORA in name or not name.startswith(pretrained))
        }

    def forward(self, batch: Batch) -> Features:
        """Encode a batch, sample by sample, so that it can also be encoded in parts."""
        source_BE, target_BE = self.encode_text(_concatenate(batch.source, batch.target)).chunk(2)
        tokens_BND, mask_BN, pool_BN = self.media_encoder(batch.media)
        if self.config.slots == "views":
            own_BE, media_BE, views_BVE, present_BV, mean_BE = self._read_views(
                _pool(tokens_BND, pool_BN), batch.descriptions
            )
            share_BV = present_BV.to(views_BVE.dtype) / present_BV.sum(1, keepdim=True).clamp(min=1)
            local_B1E = torch.einsum("bv,bve->be", share_BV, views_BVE)[:, None]
            return Features(media_BE, local_B1E, mean_BE, own_BE, slot_cosines(views_BVE), source_BE, target_BE, own_BE)
        slots_BKD = self._slots(batch.descriptions)
        media_BE, slots_BKE = self._project(tokens_BND, mask_BN, pool_BN, slots_BKD)
        if slots_BKD is None:
            slot_mean_BD = token_mean_BD = media_BE.new_zeros(len(media_BE), 1)
            cosines_BKK = media_BE.new_zeros(len(media_BE), 0, 0)
        else:
            slot_mean_BD = self._unit_mean(self.slot_caption_head(slots_BKD), None)
            counted_BN = None if self.config.caption_vision_padding else mask_BN
            token_mean_BD = self._unit_mean(self.token_vision_head(tokens_BND), counted_BN)
            with torch.autocast(slots_BKD.device.type, enabled=False):
                cosines_BKK = slot_cosines(_full(slots_BKD))
        return Features(
            media_BE, slots_BKE, slot_mean_BD, token_mean_BD, cosines_BKK, source_BE, target_BE, media_BE[:, :0]
        )

    def encode_media(self, media: Media, descriptions: Texts, fused: bool = True) -> tuple[Tensor, Tensor]:
        """Encode items for the score.

        Args:
            media: The items.
            descriptions: Their descriptions.
            fused: Whether views are weighed and pooled as the configuration has it, or returned as they are, zeros
                where absent, to choose that. Slots that are pooled by logsumexp are returned as for "max".

        Returns:
            ĥ_v [B,E] of unit length, and slots [B,K,E] for local matching. Where slots are views, K is 1 for their
            mean, else V; the picture's own vector stands for those of an item that has none.
        """
        tokens_BND, mask_BN, pool_BN = self.media_encoder(media)
        if not self.slots_are_views:
            return self._project(tokens_BND, mask_BN, pool_BN, self._slots(descriptions))
        _, media_BE, views_BVE, _, _ = self._read_views(_pool(tokens_BND, pool_BN), descriptions)
        if not fused:
            return media_BE, views_BVE
        fusion = self.config.fusion
        if fusion.pooling == "logsumexp":
            fusion = dataclasses.replace(fusion, pooling="max")
        return media_BE, fusion.slots(views_BVE, media_BE, self.config.views)[0]

    def trust(self, media: Media, descriptions: Texts) -> Tensor:
        """The trust [B,V] in each view of items whose slots are views, 0 where absent: to inspect a few items."""
        tokens_BND, _, pool_BN = self.media_encoder(media)
        own_BE, _, views_BVE, present_BV, _ = self._read_views(_pool(tokens_BND, pool_BN), descriptions)
        return self.reader.trust(own_BE, views_BVE, present_BV)

    @property
    def slots_are_views(self) -> bool:
        """Whether `encode_media` has a slot for each view."""
        return bool(self.config.slots == "views")

    def attention(self, media: Media, descriptions: Texts) -> tuple[Tensor, Tensor, Tensor]:
        """Compute what each slot reads, to inspect a few items; `forward` does not keep these weights.

        Returns:
            The slots [B,K,E] of `encode_media`; and per head of the last layer of each stack, over what is there, the
            weights [B,H,K,T] of description tokens, views one after another, all 0 for an item without any, and
            [B,H,K,N] of visual tokens.

        Raises:
            ValueError: The model has no slots.
        """
        if self.config.slots != "queries":
            raise ValueError(f"attention needs slots=queries, but slots={self.config.slots}")
        states = self._states(descriptions)
        states_BTC = states.tokens.to(self.temperature_parameters[0].dtype)
        tokens_BND, mask_BN, pool_BN = self.media_encoder(media)
        slots_BKD = self.slots(states_BTC, states.mask)
        _, slots_BKE = self._project(tokens_BND, mask_BN, pool_BN, slots_BKD)
        words_BHKT = self.slots.attention(states_BTC, states.mask)
        media_BHKN = self.interaction.attention(tokens_BND, mask_BN, slots_BKD)
        return slots_BKE, words_BHKT, media_BHKN

    def encode_text(self, texts: Texts) -> Tensor:
        """Encode captions or queries: h [B,E] of unit length."""
        return normalize(_full(self.text_head(self.summarize(texts))), dim=-1)

    def summarize(self, texts: Texts) -> Tensor:
        """Summaries [B,I] of captions or queries by the text tower, which can be stored if it is frozen.

        Stored ones take the place of the texts: [B,1,I]. The embedded encoder's sentence vectors are summaries already.
        """
        if texts.tokens.is_floating_point():
            texts = texts._replace(tokens=texts.tokens.to(self.temperature_parameters[0].dtype))
            if isinstance(self.text_encoder, TextTower | TinyText):
                return texts.tokens[:, 0]
        return self.text_encoder(texts)[1]

    def media_states(self, media: Media) -> list[Tensor]:
        """What the frozen part of the media encoder makes of each item, [F,P,·], to be stored in place of pixels.

        Only the tokens that this model reads: all of a picture with slots=queries, else the summary of each frame.

        Raises:
            ValueError: The media encoder is not frozen.
        """
        if not self.media_frozen:
            raise ValueError("what the media encoder computes changes during training unless it is frozen")
        items = self.media_encoder.features(media).split(media.mask.sum(1).tolist())
        whole = self.config.slots == "queries"
        return [item_FPD if whole and len(item_FPD) == 1 else item_FPD[:, :1] for item_FPD in items]

    def describe_states(self, descriptions: Texts) -> Texts:
        """Compute the states of descriptions, which the model takes in place of the descriptions.

        [B,V·T,C] of their tokens; unless slots are queries the summaries of views [B,V,I].

        They do not change during training, so they can be computed once and stored.

        Raises:
            ValueError: The description encoder is not frozen.
        """
        if not self.describes_frozen:
            raise ValueError("the states of descriptions change during training unless description_encoder=frozen")
        return self._states(descriptions)

    @property
    def describes_frozen(self) -> bool:
        """Whether the states of descriptions stay the same during training."""
        return self.description_encoder is not None or self.text_frozen

    def _states(self, descriptions: Texts) -> Texts:
        if descriptions.tokens.is_floating_point() and descriptions.tokens.dim() == 3:
            if not self.describes_frozen:
                raise ValueError("descriptions are states, but this model trains their encoder and needs token ids")
            return descriptions
        batch, views = descriptions.tokens.shape[:2]
        flat = Texts(descriptions.tokens.flatten(0, 1), descriptions.mask.flatten(0, 1))
        encoder = self.text_encoder if self.description_encoder is None else self.description_encoder
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.description_encoder == "trained"):
            states, summaries = encoder(flat)
        if self.config.slots != "queries":
            return Texts(summaries.unflatten(0, (batch, views)), descriptions.mask.any(2))
        return Texts(states.reshape(batch, -1, states.shape[-1]), descriptions.mask.flatten(1))

    def _read_views(self, summary_BD: Tensor, descriptions: Texts) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The picture's own vector g [B,E], ĥ_v [B,E], the views m [B,V,E] and which are there [B,V], their mean m̄."""
        states = self._states(descriptions)
        present_BV = states.mask
        if self.training and self.config.view_dropout:
            present_BV = present_BV & (torch.rand_like(present_BV, dtype=torch.float) >= self.config.view_dropout)
        own_BE = normalize(_full(self.media_head(summary_BD)), dim=-1)
        views_BVE = normalize(_full(self.text_head(states.tokens.to(self.temperature_parameters[0].dtype))), dim=-1)
        views_BVE = views_BVE * present_BV[..., None]
        with torch.autocast(own_BE.device.type, enabled=False):
            media_BE, mean_BE = self.reader(own_BE, views_BVE, present_BV)
        return own_BE, media_BE, views_BVE, present_BV, mean_BE

    def _slots(self, descriptions: Texts) -> Tensor | None:
        """M [B,K,D] (equation 2); None without slots."""
        if self.config.slots == "none":
            return None
        states = self._states(descriptions)
        return self.slots(states.tokens.to(self.temperature_parameters[0].dtype), states.mask)

    def _project(
        self, tokens_BND: Tensor, mask_BN: Tensor, pool_BN: Tensor, slots_BKD: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """ĥ_v [B,E] and W_l M̂ [B,K,E] (equations 4 to 6)."""
        if slots_BKD is None:
            read_BND, slots_BKE = tokens_BND, tokens_BND.new_zeros(len(tokens_BND), 0, self.config.embed_dim)
        else:
            read_BND, read_BKD = self.interaction(tokens_BND, mask_BN, slots_BKD)
            slots_BKE = _full(self.slot_head(read_BKD))
            if self.config.normalize_slots:
                slots_BKE = normalize(slots_BKE, dim=-1)
        return normalize(_full(self.media_head(_pool(read_BND, pool_BN))), dim=-1), slots_BKE

    def _unit_mean(self, tokens_BND: Tensor, mask_BN: Tensor | None) -> Tensor:
        """Mean [B,D] of unit vectors (equation 7); the released code normalises over the tokens instead."""
        tokens_BND = _full(tokens_BND)
        if mask_BN is not None:
            tokens_BND = tokens_BND * mask_BN[..., None]
        unit_BND = normalize(tokens_BND, dim=-1 if self.config.caption_vision_axis == "features" else 1)
        count = tokens_BND.shape[1] if mask_BN is None else mask_BN.sum(1, keepdim=True).clamp(min=1)
        return unit_BND.sum(1) / count


AutoModel.register(LeccrConfig, LeccrModel)


def _pool(tokens_BND: Tensor, pool_BN: Tensor) -> Tensor:
    """The weighted sum [B,D] of tokens."""
    return (pool_BN[..., None].to(tokens_BND.dtype) * tokens_BND).sum(1)


def _concatenate(*parts: Texts) -> Texts:
    """One batch of texts, the shorter ones padded, so that the tower runs once instead of twice."""
    length = max(part.tokens.shape[1] for part in parts)
    tokens, masks = [], []
    for part in parts:
        missing = length - part.tokens.shape[1]
        width = (0, 0) if part.tokens.is_floating_point() else ()
        tokens.append(pad(_full(part.tokens), (*width, 0, missing)))  # autocast to bfloat16 cannot join float16
        masks.append(pad(part.mask, (0, missing)))
    return Texts(torch.cat(tokens), torch.cat(masks))


def _full(values: Tensor) -> Tensor:
    """At least float32: what is compared or normalised is never rounded to half precision."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values

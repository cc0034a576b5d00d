"""An adapted dual encoder as a model of Sentence Transformers that needs neither this package nor `trust_remote_code`.

    text   tokens → last token x → its projection u → norm → hidden layer h; [h, x] → dense layer → unit length
    image  projected summary → dense layer → unit length

The text head is a sum, A u + b + γ ∘ MLP(u), and no module of that package adds two tensors. Its `Pooling` puts
poolings side by side, and takes `cls_token_embeddings`, where h is stored, for the first of them.
"""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, PROCESSOR_MAPPING, AutoModel

from model.encoders.transformers_towers import VisionTower, quiet
from model.heads import ResidualHead
from model.modeling import LeccrModel
from model.processing import PROBES, LeccrProcessor

FAMILIES = {"CLIPTextModel": "clip", "MetaClip2TextModel": "metaclip_2", "SiglipTextModel": "siglip"}
MODALITIES: Any = {
    "text": {"method": "get_text_features", "method_output_name": "last_hidden_state"},
    "image": {"method": "get_image_features", "method_output_name": "pooler_output"},
}
TOLERANCE = 1e-5  # of the values of a vector


@torch.no_grad()
def export_towers(model: LeccrModel, processor: LeccrProcessor, folder: Path) -> None:
    """Write the towers and heads of a model that was loaded for inference. Videos and descriptions have no part in it.

    Raises:
        ValueError: The package is missing, or its modules do not give the same vectors.
    """
    try:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer import modules as parts
    except ImportError as error:
        raise ValueError("a package is missing. Install it: pip install 'leccr[sentence]'") from error
    text: Any = model.text_encoder
    head: Any = model.text_head
    media_head: Any = model.media_head
    vision = getattr(model.media_encoder, "tower", None)
    kind = type(getattr(text, "tower", None)).__name__
    paired = isinstance(vision, VisionTower) and type(vision.tower).__name__ == kind.replace("Text", "Vision")
    aligned = isinstance(head, ResidualHead) and isinstance(media_head, nn.Linear)
    if not (kind in FAMILIES and paired and aligned and processor.image_processor):
        raise ValueError("it is not a CLIP, MetaCLIP 2 or SigLIP with aligned heads and pictures of its own size")

    def dense(weight: Tensor, bias: Tensor | None, activation: nn.Module | None = None, **names: Any) -> Any:
        outputs, inputs = weight.shape
        return parts.Dense(inputs, outputs, bias is not None, activation or nn.Identity(), weight, bias, **names)

    norm = parts.LayerNorm(text.pooled_width)
    norm.norm, hidden, activation, _, outward = head.mlp
    projection = text.tower.head if FAMILIES[kind] == "siglip" else text.projection
    origin_E = head.project(projection(torch.zeros(text.width)))
    last_EX = (head.project(projection(torch.eye(text.width))) - origin_E).T
    last_EX = torch.cat([head.gate_E[:, None] * outward.weight, last_EX], 1)
    text_route = [
        parts.Pooling(text.width, "lasttoken"),
        dense(projection.weight, projection.bias),
        norm,
        dense(hidden.weight, hidden.bias, activation, module_output_name="cls_token_embeddings"),
        parts.Pooling(text.width, ("cls", "lasttoken")),
        dense(last_EX, origin_E + head.gate_E * outward.bias),
        parts.Normalize(),
    ]
    names: dict[str, Any] = {"module_input_name": "token_embeddings", "module_output_name": "sentence_embedding"}
    image_route = [dense(media_head.weight, media_head.bias, **names), parts.Normalize()]
    with quiet():
        towers = _towers(model, processor, folder)
        router = parts.Router({"text": text_route, "image": image_route})
        SentenceTransformer(modules=[towers, router], device="cpu").save(str(folder))
        loaded = SentenceTransformer(str(folder), device="cpu")
    picture = Image.linear_gradient("L").resize((300, 200)).convert("RGB")
    media_1E, _ = model.encode_media(processor.media([[picture]]), processor.descriptions([[]]))
    for inputs, vectors in ((list(PROBES), model.encode_text(processor.texts(PROBES))), ([picture], media_1E)):
        if (difference := abs(loaded.encode(inputs) - vectors.numpy()).max()) > TOLERANCE:
            raise ValueError(f"its vectors would differ by {difference:.1g}")


def _towers(model: LeccrModel, processor: LeccrProcessor, folder: Path) -> Any:
    """Both towers as the dual encoder of Transformers that they were, written to the folder, as the first module."""
    from sentence_transformers.sentence_transformer.modules import Transformer

    text, vision, policy = model.text_encoder, model.media_encoder.tower, processor.policy
    configs = {"text_config": text.tower.config.to_dict(), "vision_config": vision.tower.config.to_dict()}
    make: Any = CONFIG_MAPPING[FAMILIES[type(text.tower).__name__]]
    config = make(**configs, projection_dim=text.pooled_width)
    dual: Any = AutoModel.from_config(config)
    dual.text_model, dual.vision_model = text.tower, vision.tower
    if hasattr(dual, "text_projection"):
        dual.text_projection, dual.visual_projection = text.projection, vision.projection
    processor.tokenizer.model_max_length = policy.max_tokens
    dual.save_pretrained(folder)
    both = {"image_processor": processor.image_processor, "tokenizer": processor.tokenizer}
    combine: Any = PROCESSOR_MAPPING[make]
    combine(**both).save_pretrained(folder)
    padding = {"padding": "max_length", "max_length": min(policy.pad_to, policy.max_tokens)}
    return Transformer(
        str(folder),
        modality_config=MODALITIES,
        module_output_name="token_embeddings",
        processing_kwargs={"text": padding | {"return_attention_mask": False}} if policy.pad_to else None,
        do_lower_case=policy.lower_case,
    )

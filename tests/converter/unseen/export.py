"""Exports small attention modules as PyTorch's TorchScript exporter writes them, one file a module, into models/.

    python3 export.py        (PyTorch 1.13, as Debian 12 packages it; other versions write other graphs)

Each module spells the attention of one model family that the model zoo does not hold, with random weights of its own.
"""

import pathlib
import warnings
from typing import NamedTuple

import torch

from families import language, look_alikes, sound, vision


class Case(NamedTuple):
    name: str
    module: type
    shapes: list
    opset: int
    axes: list = None
    integers: tuple = ()
    flags: tuple = ()
    names: list = None


CASES = [
    Case("nn_decoder_static", language.NnDecoderStatic, [(2, 7, 32), (2, 9, 32)], opset=16),
    Case("nn_mha_bias_kv", language.NnMhaBiasKv, [(7, 2, 32)], opset=13, axes=[{1: "batch"}]),
    Case("nn_mha_zero_attn", language.NnMhaZeroAttn, [(7, 2, 32)], opset=13, axes=[{1: "batch"}]),
    Case(
        "conformer_relshift_masked",
        sound.ConformerRelshiftMasked,
        [(2, 9, 32), (2, 1, 9)],
        opset=11,
        axes=[{0: "batch", 1: "seq"}, {0: "batch", 2: "seq"}],
        flags=(1,),
        names=["x", "mask"],
    ),
    Case("xlnet_einsum", language.XlnetEinsum, [(9, 2, 32)], opset=12, axes=[{0: "seq", 1: "batch"}]),
    Case("transfoxl", language.Transfoxl, [(9, 2, 32)], opset=16),
    Case(
        "deberta_v1",
        language.DebertaV1,
        [(2, 9, 32), (2, 9)],
        opset=13,
        axes=[{0: "batch", 1: "seq"}] * 2,
        integers=(1,),
        names=["x", "attention_mask"],
    ),
    Case("funnel", language.Funnel, [(2, 8, 32)], opset=12),
    Case("swinv2_cosine_logcpb", vision.Swinv2CosineLogcpb, [(4, 16, 32)], opset=13),
    Case(
        "diffusers_baddbmm_cross",
        vision.DiffusersBaddbmmCross,
        [(2, 16, 32), (2, 7, 24)],
        opset=13,
        axes=[{0: "batch", 1: "pixels"}, {0: "batch", 1: "text"}],
    ),
    Case(
        "diffusers_attnblock_conv",
        vision.DiffusersAttnblockConv,
        [(2, 32, 4, 5)],
        opset=11,
        axes=[{0: "batch", 2: "height", 3: "width"}],
    ),
    Case(
        "openai_unet_qkvattention",
        vision.OpenaiUnetQkvattention,
        [(2, 32, 16)],
        opset=12,
        axes=[{0: "batch"}],
    ),
    Case(
        "sam_two_way",
        vision.SamTwoWay,
        [(2, 5, 32), (2, 16, 32)],
        opset=13,
        axes=[{0: "batch", 1: "points"}, {0: "batch"}],
    ),
    Case(
        "falcon_mqa_alibi",
        language.FalconMqaAlibi,
        [(2, 9, 32), (2, 9)],
        opset=16,
        axes=[{0: "batch", 1: "seq"}, {0: "batch", 1: "seq"}],
        integers=(1,),
        names=["x", "attention_mask"],
    ),
    Case(
        "gptbigcode_mqa",
        language.GptbigcodeMqa,
        [(2, 9, 32), (2, 1, 9, 9)],
        opset=13,
        axes=[{0: "batch", 1: "seq"}, {0: "batch", 2: "seq", 3: "seq"}],
        flags=(1,),
        names=["x", "mask"],
    ),
    Case(
        "codegen",
        language.Codegen,
        [(2, 9, 32), (2, 9)],
        opset=11,
        axes=[{0: "batch", 1: "seq"}, {0: "batch", 1: "seq"}],
        integers=(1,),
        names=["x", "attention_mask"],
    ),
    Case(
        "stablelm_partial_rope_gqa",
        language.StablelmPartialRopeGqa,
        [(2, 9, 32)],
        opset=16,
        axes=[{0: "batch", 1: "seq"}],
    ),
    Case("mla_deepseek", language.MlaDeepseek, [(2, 9, 32)], opset=16, axes=[{0: "batch", 1: "seq"}]),
    Case(
        "whisper_cached_cross",
        sound.WhisperCachedCross,
        [(2, 1, 32), (2, 4, 6, 8), (2, 4, 6, 8), (2, 4, 11, 8), (2, 4, 11, 8)],
        opset=13,
        axes=[
            {0: "batch"},
            {0: "batch", 2: "past"},
            {0: "batch", 2: "past"},
            {0: "batch", 2: "enc"},
            {0: "batch", 2: "enc"},
        ],
        names=["x", "past_key", "past_value", "cross_key", "cross_value"],
    ),
    Case(
        "clip_text_causal_buffer",
        language.ClipTextCausalBuffer,
        [(2, 9, 32), (2, 9)],
        opset=13,
        axes=[{0: "batch", 1: "seq"}, {0: "batch", 1: "seq"}],
        integers=(1,),
        names=["x", "attention_mask"],
    ),
    Case("svtr_paddle_like", vision.SvtrPaddleLike, [(2, 32, 16)], opset=9),
    Case("linformer", language.Linformer, [(2, 16, 32)], opset=12, axes=[{0: "batch"}]),
    Case("agent_attention", vision.AgentAttention, [(2, 16, 32)], opset=14),
    Case(
        "evoformer_triangle_gated",
        vision.EvoformerTriangleGated,
        [(1, 6, 9, 32), (1, 6, 9)],
        opset=14,
        names=["x", "mask"],
    ),
    Case("axial_height_einsum", vision.AxialHeightEinsum, [(2, 4, 5, 32)], opset=12),
    Case(
        "reformer_shared_qk", language.ReformerSharedQk, [(2, 9, 32)], opset=16, axes=[{0: "batch", 1: "seq"}]
    ),
    Case(
        "mask2former_masked_attention",
        vision.Mask2formerMaskedAttention,
        [(2, 5, 32), (2, 16, 32)],
        opset=13,
        names=["q", "feat"],
    ),
    Case("wavlm_gated_relpos", sound.WavlmGatedRelpos, [(2, 9, 32)], opset=13, axes=[{0: "batch"}]),
    Case("set_transformer_isab", vision.SetTransformerIsab, [(2, 9, 32)], opset=11),
    Case("music_transformer_skew", sound.MusicTransformerSkew, [(2, 9, 32)], opset=12),
    Case("halo_unfold", vision.HaloUnfold, [(1, 32, 8, 8)], opset=13),
    Case(
        "tensor2tensor_headloop",
        language.Tensor2tensorHeadloop,
        [(2, 9, 32)],
        opset=11,
        axes=[{0: "batch", 1: "seq"}],
    ),
    Case("sig_softplus", look_alikes.SigSoftplus, [(2, 9, 32)], opset=13, axes=[{0: "batch", 1: "seq"}]),
    Case("sig_logsigmoid", look_alikes.SigLogsigmoid, [(2, 9, 32)], opset=13, axes=[{0: "batch", 1: "seq"}]),
    Case(
        "sig_len_bias_runtime",
        look_alikes.SigLenBiasRuntime,
        [(2, 9, 32), (2, 9)],
        opset=13,
        axes=[{0: "batch", 1: "seq"}, {0: "batch", 1: "seq"}],
        integers=(1,),
        names=["x", "mask"],
    ),
    Case("sig_one_minus", look_alikes.SigOneMinus, [(2, 9, 32)], opset=11, axes=[{0: "batch", 1: "seq"}]),
    Case("danet_cam_maxpool", look_alikes.DanetCamMaxpool, [(2, 32, 8, 8)], opset=13),
    Case("restormer_mdta", look_alikes.RestormerMdta, [(2, 32, 8, 8)], opset=13),
    Case("capsule_routing", look_alikes.CapsuleRouting, [(2, 16, 8)], opset=12),
    Case("slot_attention", look_alikes.SlotAttention, [(2, 16, 32)], opset=12),
    Case("diff_transformer", look_alikes.DiffTransformer, [(2, 9, 32)], opset=13),
    Case("gptoss_sink", look_alikes.GptossSink, [(2, 9, 32)], opset=13, axes=[{0: "batch", 1: "seq"}]),
    Case("cosformer", look_alikes.Cosformer, [(2, 9, 32)], opset=13),
    Case("nonlocal_dot", look_alikes.NonlocalDot, [(2, 32, 4, 4)], opset=11),
    Case(
        "vits_relative_attention",
        sound.VitsRelativeAttention,
        [(2, 9, 32)],
        opset=13,
        axes=[{0: "batch", 1: "seq"}],
    ),
    Case("bigbird_band_einsum", language.BigbirdBandEinsum, [(1, 32, 32)], opset=12),
]


def export(case, folder):
    torch.manual_seed(1)
    module = case.module().eval()
    inputs = []
    for i, shape in enumerate(case.shapes):
        if i in case.integers:
            inputs.append(torch.ones(shape, dtype=torch.int64))
        elif i in case.flags:
            inputs.append(torch.rand(shape) > 0.3)
        else:
            inputs.append(torch.randn(shape))
    names = case.names or [f"x{i}" for i in range(len(inputs))]
    axes = None if case.axes is None else dict(zip(names, case.axes))
    torch.onnx.export(
        module,
        tuple(inputs),
        str(folder / f"{case.name}.onnx"),
        opset_version=case.opset,
        input_names=names,
        dynamic_axes=axes,
    )


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    models = pathlib.Path(__file__).parent / "models"
    models.mkdir(exist_ok=True)
    for entry in CASES:
        export(entry, models)

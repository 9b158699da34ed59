/** What the converter owes each file of models/, which export.py makes from the modules in families/. */
import type { ReasonCode } from '../../../converter/reasons.js';

export interface ExportedModel {
  readonly file: string;
  /** Sites that have to be replaced. */
  readonly sites: number;
  readonly mask?: string;
  /** Why the other sites stay. */
  readonly stays?: ReasonCode;
}

export const EXPORTED: readonly ExportedModel[] = [
  { file: 'agent_attention', sites: 2 },
  { file: 'axial_height_einsum', sites: 1 },
  { file: 'bigbird_band_einsum', sites: 1, stays: 'scores-changed' },
  { file: 'capsule_routing', sites: 0, stays: 'axis-mismatch' },
  { file: 'clip_text_causal_buffer', sites: 1, mask: 'causal+padding' },
  { file: 'codegen', sites: 1, mask: 'causal+padding' },
  { file: 'conformer_relshift_masked', sites: 1 },
  { file: 'cosformer', sites: 0 },
  { file: 'danet_cam_maxpool', sites: 0, stays: 'channel-attention' },
  { file: 'deberta_v1', sites: 1 },
  { file: 'diff_transformer', sites: 0, stays: 'mixed-weights' },
  { file: 'diffusers_attnblock_conv', sites: 1 },
  { file: 'diffusers_baddbmm_cross', sites: 2 },
  { file: 'evoformer_triangle_gated', sites: 1 },
  { file: 'falcon_mqa_alibi', sites: 1 },
  { file: 'funnel', sites: 1 },
  { file: 'gptbigcode_mqa', sites: 1 },
  { file: 'gptoss_sink', sites: 0, stays: 'attention-sink' },
  { file: 'halo_unfold', sites: 1 },
  { file: 'linformer', sites: 1 },
  { file: 'mask2former_masked_attention', sites: 1 },
  { file: 'mla_deepseek', sites: 1, mask: 'causal' },
  { file: 'music_transformer_skew', sites: 1 },
  { file: 'nn_decoder_static', sites: 4 },
  { file: 'nn_mha_bias_kv', sites: 1 },
  { file: 'nn_mha_zero_attn', sites: 1 },
  { file: 'nonlocal_dot', sites: 0 },
  { file: 'openai_unet_qkvattention', sites: 1 },
  { file: 'reformer_shared_qk', sites: 1, mask: 'tensor' },
  { file: 'restormer_mdta', sites: 0, stays: 'channel-attention' },
  { file: 'sam_two_way', sites: 2 },
  { file: 'set_transformer_isab', sites: 2 },
  { file: 'sig_len_bias_runtime', sites: 1, mask: 'padding' },
  { file: 'sig_logsigmoid', sites: 1 },
  { file: 'sig_one_minus', sites: 1 },
  { file: 'sig_softplus', sites: 1 },
  { file: 'slot_attention', sites: 0, stays: 'mixed-weights' },
  { file: 'stablelm_partial_rope_gqa', sites: 1, mask: 'causal' },
  { file: 'svtr_paddle_like', sites: 1, mask: 'window' },
  { file: 'swinv2_cosine_logcpb', sites: 1 },
  { file: 'tensor2tensor_headloop', sites: 4 },
  { file: 'transfoxl', sites: 1 },
  { file: 'vits_relative_attention', sites: 0, stays: 'weights-used-elsewhere' },
  { file: 'wavlm_gated_relpos', sites: 1 },
  { file: 'whisper_cached_cross', sites: 2 },
  { file: 'xlnet_einsum', sites: 1 },
];

/**
 * The cases of ONNX's own tests of Attention (`test_attention_*`, opset 23 to 25) that have a meaning for SigmoidAttention,
 * under the same names and with the same sizes and options; the numbers differ. Left out are those about
 * qk_matmul_output, softmax_precision and their combinations, which this operator does not have.
 */

import { type Case, type CaseOptions, type CaseSizes, conformanceCase, sizes } from './case.js';

const MHA = sizes(2, 3, 3, 4, 6, 8);
const GQA = sizes(2, 9, 3, 4, 6, 8);
const DIFF = sizes(2, 3, 3, 4, 6, 8, 10);
const withPast = (of: CaseSizes): CaseSizes => ({ ...of, keyLength: 18 });

const mirror = (name: string, caseSizes: CaseSizes, options: CaseOptions = {}): Case =>
  conformanceCase(`attention_${name}`, caseSizes, options);

const scaled: CaseOptions = { attributes: { scale: 1e-2 } };
const causal: CaseOptions = { attributes: { is_causal: true } };
const mask2d: CaseOptions = { mask: { type: 'T', dims: 'QK', hides: 'none' } };
const mask3d: CaseOptions = { mask: { type: 'T', dims: 'B1QK', hides: 'none' } };
const mask4d: CaseOptions = { mask: { type: 'T', dims: 'BHQK', hides: 'none' } };
const past: CaseOptions = { past: 12 };
const rank3: CaseOptions = { rank: 3 };
const float16: CaseOptions = { type: 'float16' };
const bool = (dims: string, hides: 'random' | 'rows' = 'random'): CaseOptions => ({
  mask: { type: 'bool', dims, hides },
});
const window = (left: number, right = -1, is_causal = right < 0): CaseOptions => ({
  attributes: { left_window_size: left, right_window_size: right, is_causal },
});

const RANK_4: readonly Case[] = [
  mirror('4d', MHA),
  mirror('4d_fp16', MHA, float16),
  mirror('4d_gqa', GQA),
  mirror('4d_diff_heads_sizes', DIFF),
  mirror('4d_scaled', MHA, scaled),
  mirror('4d_gqa_scaled', GQA, scaled),
  mirror('4d_diff_heads_sizes_scaled', DIFF, scaled),
  mirror('4d_causal', MHA, causal),
  mirror('4d_gqa_causal', GQA, causal),
  mirror('4d_diff_heads_sizes_causal', DIFF, causal),
  mirror('4d_attn_mask', MHA, mask2d),
  mirror('4d_attn_mask_3d', MHA, mask3d),
  mirror('4d_attn_mask_3d_causal', MHA, { ...mask3d, ...causal }),
  mirror('4d_attn_mask_4d', MHA, mask4d),
  mirror('4d_attn_mask_4d_causal', MHA, { ...mask4d, ...causal }),
  mirror('4d_attn_mask_bool', MHA, bool('QK')),
  mirror('4d_attn_mask_bool_4d', MHA, bool('BHQK')),
  mirror('4d_gqa_attn_mask', GQA, mask2d),
  mirror('4d_diff_heads_sizes_attn_mask', DIFF, mask2d),
  mirror('4d_with_past_and_present', withPast(MHA), { ...mask2d, ...past }),
  mirror('4d_gqa_with_past_and_present', withPast(GQA), { ...mask2d, ...past }),
  mirror('4d_gqa_with_past_and_present_fp16', withPast(GQA), { ...mask2d, ...past, ...float16 }),
  mirror('4d_diff_heads_with_past_and_present', withPast(DIFF), { ...mask2d, ...past }),
  mirror('4d_diff_heads_with_past_and_present_mask3d', withPast(DIFF), { ...mask3d, ...past }),
  mirror('4d_diff_heads_with_past_and_present_mask4d', withPast(DIFF), { ...mask4d, ...past }),
  mirror('4d_causal_with_past_and_present', sizes(2, 3, 3, 4, 7, 8), { ...causal, past: 3 }),
  mirror('4d_softcap', MHA, { attributes: { softcap: 2 } }),
  mirror('4d_gqa_softcap', GQA, { attributes: { softcap: 2 } }),
  mirror('4d_diff_heads_sizes_softcap', DIFF, { attributes: { softcap: 2 } }),
  mirror('4d_softcap_neginf_mask', sizes(1, 1, 1, 4, 6, 8), {
    attributes: { softcap: 0.5 },
    mask: { type: 'T', dims: 'QK', hides: 'tail' },
  }),
  mirror('4d_softcap_neginf_mask_poison', sizes(1, 1, 1, 4, 6, 8), {
    attributes: { softcap: 0.5 },
    mask: { type: 'T', dims: 'QK', hides: 'tail' },
    poison: [{ input: 'V', rows: [4, 5], value: 1000 }],
  }),
  mirror('4d_diff_heads_mask4d_padded_kv', DIFF, { ...mask4d, nonpad: [3, 4] }),
];

const MASKED: readonly Case[] = [
  mirror('4d_gqa_causal_nonpad_decode', sizes(2, 4, 2, 1, 8, 8), { ...causal, nonpad: [8, 5] }),
  mirror('4d_gqa_causal_nonpad_decode_fp16', sizes(2, 4, 2, 1, 8, 8), {
    ...causal,
    ...float16,
    nonpad: [8, 5],
  }),
  mirror('4d_causal_nonpad_continued_prefill', sizes(1, 2, 2, 2, 4, 8), { ...causal, nonpad: [4] }),
  mirror('4d_causal_nonpad_batch_prefill', sizes(3, 2, 2, 2, 6, 8), { ...causal, nonpad: [4, 5, 6] }),
  mirror('4d_causal_nonpad_negative_offset_structural_empty', sizes(1, 2, 2, 4, 4, 8), {
    ...causal,
    nonpad: [2],
  }),
  mirror('4d_causal_nonpad_attn_mask_composition', sizes(2, 2, 2, 3, 6, 8), {
    ...causal,
    ...bool('B1QK'),
    nonpad: [4, 5],
  }),
  mirror('causal_boolmask_nan_robustness', sizes(1, 2, 2, 2, 2, 8), { ...causal, ...bool('QK', 'rows') }),
  mirror('23_boolmask_fullymasked_row_nan_robustness', sizes(1, 2, 2, 2, 2, 8), bool('QK', 'rows')),
  mirror('local_window', MHA, window(2)),
  mirror('local_window_default', MHA, window(-1, -1, false)),
  mirror('bidirectional_window', sizes(1, 1, 1, 5, 5, 1), window(1, 2)),
  mirror('local_window_rank1_boolean_mask', MHA, { ...window(2), ...bool('K') }),
  mirror('local_window_with_past', withPast(MHA), { ...window(2), ...past }),
  mirror('local_window_ext_cache_rank2_mask', MHA, { ...window(2), ...mask2d, nonpad: [4, 6] }),
  mirror('local_window_ext_cache_rank3_head_mask', MHA, {
    ...window(2),
    mask: { type: 'T', dims: 'HQK', hides: 'none' },
    nonpad: [4, 6],
  }),
  mirror('local_window_ext_cache_rank4_batch_mask', MHA, { ...window(2), ...mask3d, nonpad: [4, 6] }),
  mirror('local_window_ext_cache_float16_mask', MHA, { ...window(2), ...mask2d, ...float16, nonpad: [4, 6] }),
  mirror('local_window_gqa_rank4_mask', GQA, { ...window(2), ...mask4d }),
];

const RANK_3: readonly Case[] = [
  mirror('3d', MHA, rank3),
  mirror('3d_gqa', GQA, rank3),
  mirror('3d_diff_heads_sizes', DIFF, rank3),
  mirror('3d_scaled', MHA, { ...rank3, ...scaled }),
  mirror('3d_gqa_scaled', GQA, { ...rank3, ...scaled }),
  mirror('3d_diff_heads_sizes_scaled', DIFF, { ...rank3, ...scaled }),
  mirror('3d_causal', MHA, { ...rank3, ...causal }),
  mirror('3d_gqa_causal', GQA, { ...rank3, ...causal }),
  mirror('3d_diff_heads_sizes_causal', DIFF, { ...rank3, ...causal }),
  mirror('3d_attn_mask', MHA, { ...rank3, ...mask2d }),
  mirror('3d_gqa_attn_mask', GQA, { ...rank3, ...mask2d }),
  mirror('3d_diff_heads_sizes_attn_mask', DIFF, { ...rank3, ...mask2d }),
  mirror('3d_softcap', MHA, { ...rank3, attributes: { softcap: 3 } }),
  mirror('3d_gqa_softcap', GQA, { ...rank3, attributes: { softcap: 3 } }),
  mirror('3d_diff_heads_sizes_softcap', DIFF, { ...rank3, attributes: { softcap: 3 } }),
  mirror('3d_with_past_and_present', withPast(MHA), { ...rank3, ...mask2d, ...past }),
  mirror('3d_gqa_with_past_and_present', withPast(GQA), { ...rank3, ...mask2d, ...past }),
  mirror('3d_diff_heads_with_past_and_present', withPast(DIFF), { ...rank3, ...mask2d, ...past }),
  mirror('3d_transpose_verification', sizes(1, 3, 3, 2, 2, 4), rank3),
  mirror('3d_local_window', MHA, { ...rank3, ...window(2) }),
];

export const ONNX_CASES: readonly Case[] = [...RANK_4, ...MASKED, ...RANK_3];

/**
 * The one table of conformance cases that every device walks. Case names say what a case is about; its numbers come from
 * its name (see case.ts), so rows can be added, moved and removed freely.
 */

import type { BiasMode } from '../../op/schema.js';
import { ELEMENT_TYPES, type ElementType } from '../../op/tensor.js';
import {
  type Case,
  type CaseOptions,
  type CaseSizes,
  conformanceCase as row,
  type MaskForm,
  sizes,
} from './case.js';
import { ONNX_CASES } from './onnx-cases.js';

/** The same case in each type. */
function eachType(name: string, caseSizes: CaseSizes, options: CaseOptions = {}): Case[] {
  return ELEMENT_TYPES.map((type) => row(`${name}_${type}`, caseSizes, { ...options, type }));
}

const SMALL = sizes(2, 4, 2, 5, 7, 8);
const MEDIUM = sizes(2, 4, 2, 33, 47, 16, 24);

/** Lengths and head sizes around and between the tile sizes of kernels. */
const SIZES: readonly Case[] = [
  ...eachType('size_one', sizes(1, 1, 1, 1, 1, 1)),
  ...eachType('size_64_64_64', sizes(1, 2, 2, 64, 64, 64)),
  ...eachType('size_odd_17_31_13_29', sizes(3, 2, 2, 17, 31, 13, 29)),
  ...eachType('size_300_300_32', sizes(1, 1, 1, 300, 300, 32)),
  ...[1, 2, 3, 5, 7, 9, 15, 31, 33, 63, 65, 127, 129, 255, 257, 300].map((n) =>
    row(`size_keys_${n}`, sizes(1, 2, 1, 3, n, 16), { attributes: { bias_mode: 'neg_log_total' } }),
  ),
  ...[2, 3, 6, 11, 16, 21, 32, 48, 65, 100, 129, 257].map((n) =>
    row(`size_queries_${n}`, sizes(1, 2, 2, n, 19, 8), { attributes: { bias: -3 } }),
  ),
  ...[1, 2, 3, 5, 7, 12, 20, 33, 40, 72, 80, 96, 100, 112, 127, 128, 192, 256, 300].map((n) =>
    row(`size_head_${n}`, sizes(1, 2, 2, 7, 18, n), { attributes: { bias: -2 } }),
  ),
  ...[1, 3, 8, 17, 40, 65, 129, 256, 300].map((n) =>
    row(`size_value_head_${n}`, sizes(1, 2, 1, 6, 11, 8, n)),
  ),
  row('size_batch_7', sizes(7, 3, 1, 2, 9, 4, 5)),
  row('size_many_heads', sizes(1, 32, 8, 2, 10, 16)),
  row('size_one_query_long', sizes(1, 8, 8, 1, 1000, 64), { attributes: { bias_mode: 'neg_log_total' } }),
];

const HEADS: readonly Case[] = [
  ...eachType('gqa_8_2', sizes(2, 8, 2, 9, 21, 16)),
  ...eachType('mqa_6_1', sizes(2, 6, 1, 9, 21, 16)),
  ...eachType('gqa_rank3_6_3', sizes(2, 6, 3, 9, 21, 16, 8), { rank: 3 }),
  ...eachType('per_head_all', SMALL, { headBias: 'H', headScale: true, headGain: true, alibi: 'H' }),
  ...eachType('per_head_batch', SMALL, { headBias: 'BH', alibi: 'BH' }),
  row('head_bias', SMALL, { headBias: 'H' }),
  row('head_bias_batch', SMALL, { headBias: 'BH' }),
  row('head_scale', SMALL, { headScale: true }),
  row('head_scale_softcap', SMALL, { headScale: true, attributes: { softcap: 1 } }),
  row('head_gain', SMALL, { headGain: true }),
  row('head_gain_normalize', SMALL, { headGain: true, attributes: { normalize: true } }),
  row('per_head_rank3', MEDIUM, { rank: 3, headBias: 'BH', headScale: true, headGain: true, alibi: 'H' }),
  row('per_head_odd_6_2', sizes(2, 6, 2, 7, 11, 8), { headBias: 'BH', headScale: true, headGain: true }),
];

const maskName = ({ type, dims, hides }: MaskForm): string => `mask_${type}_${dims || 'scalar'}_${hides}`;
const MASK_DIMS = [
  '',
  'K',
  '1',
  'QK',
  '1K',
  'Q1',
  'HQK',
  '1QK',
  'H11',
  'BHQK',
  'B1QK',
  '1HQK',
  'B11K',
  'BH1K',
  'BHQ1',
];
const masked = (mask: MaskForm, options: CaseOptions = {}, caseSizes = SMALL): Case =>
  row(maskName(mask), caseSizes, { ...options, mask });

const MASKS: readonly Case[] = [
  ...MASK_DIMS.map((dims) => masked({ type: 'bool', dims, hides: 'random' })),
  ...MASK_DIMS.map((dims) => masked({ type: 'float', dims, hides: 'random' })),
  ...ELEMENT_TYPES.flatMap((type) =>
    (['bool', 'float', 'T'] as const).flatMap((maskType) =>
      (['rows', 'all', 'lowest'] as const)
        .filter((hides) => maskType !== 'bool' || hides !== 'lowest')
        .map((hides) => {
          const mask: MaskForm = { type: maskType, dims: 'B1QK', hides };
          return row(`${maskName(mask)}_${type}`, MEDIUM, { type, mask, attributes: { bias: -3 } });
        }),
    ),
  ),
  ...eachType('mask_all_hidden_normalize', SMALL, {
    mask: { type: 'bool', dims: 'QK', hides: 'rows' },
    attributes: { normalize: true, bias: -5 },
  }),
  row('mask_large_odd', sizes(1, 3, 3, 65, 129, 16), {
    mask: { type: 'bool', dims: '1HQK', hides: 'random' },
  }),
  row('mask_rank3_inputs', MEDIUM, { rank: 3, mask: { type: 'float', dims: 'BHQK', hides: 'random' } }),
  row('mask_softcap', SMALL, {
    mask: { type: 'float', dims: 'QK', hides: 'random' },
    attributes: { softcap: 2 },
  }),
  row('mask_gqa_key_padding', sizes(3, 6, 2, 8, 20, 8), {
    mask: { type: 'bool', dims: 'B11K', hides: 'tail' },
  }),
];

const VISIBILITY: readonly Case[] = [
  ...eachType('causal_33_47', MEDIUM, { attributes: { is_causal: true, bias_mode: 'neg_log_visible' } }),
  row('causal_more_queries_than_keys', sizes(1, 2, 2, 40, 17, 8), { attributes: { is_causal: true } }),
  row('causal_tiles', sizes(1, 1, 1, 130, 130, 16), { attributes: { is_causal: true } }),
  row('causal_past', sizes(2, 4, 2, 5, 70, 8), { attributes: { is_causal: true }, past: 65 }),
  row('causal_past_empty', SMALL, { attributes: { is_causal: true }, past: 0 }),
  row('causal_past_decode', sizes(2, 4, 2, 1, 66, 16), { attributes: { is_causal: true }, past: 65 }),
  row('causal_nonpad_ends_at_query', MEDIUM, { attributes: { is_causal: true }, nonpad: [33, 47] }),
  row('causal_nonpad_shorter_than_query', MEDIUM, { attributes: { is_causal: true }, nonpad: [3, 0] }),
  row('window_left_0', MEDIUM, { attributes: { left_window_size: 0 } }),
  row('window_right_0', MEDIUM, { attributes: { right_window_size: 0 } }),
  row('window_5_3', MEDIUM, { attributes: { left_window_size: 5, right_window_size: 3 } }),
  row('window_0_0_is_the_diagonal', MEDIUM, { attributes: { left_window_size: 0, right_window_size: 0 } }),
  row('window_larger_than_keys', SMALL, { attributes: { left_window_size: 1000, right_window_size: 1000 } }),
  row('window_right_beyond_causal', MEDIUM, { attributes: { is_causal: true, right_window_size: 4 } }),
  row('window_left_tiles', sizes(1, 1, 1, 150, 150, 16), {
    attributes: { is_causal: true, left_window_size: 70 },
  }),
  row('window_past', sizes(1, 2, 2, 9, 40, 8), {
    attributes: { left_window_size: 6, right_window_size: 2 },
    past: 31,
  }),
  row('window_nonpad', MEDIUM, {
    attributes: { left_window_size: 6, right_window_size: 2 },
    nonpad: [20, 47],
  }),
  row('window_before_all_keys', sizes(1, 2, 2, 30, 6, 8), { attributes: { left_window_size: 3 } }),
  ...eachType('nonpad', MEDIUM, { nonpad: [20, 47] }),
  row('nonpad_zero', MEDIUM, { nonpad: [0, 1] }),
  row('nonpad_full_is_bottom_right', MEDIUM, { attributes: { is_causal: true }, nonpad: [47, 47] }),
  row('nonpad_rank3', MEDIUM, { rank: 3, nonpad: [13, 46], attributes: { is_causal: true } }),
  row('nonpad_mask_window', MEDIUM, {
    nonpad: [13, 46],
    mask: { type: 'bool', dims: 'BHQK', hides: 'random' },
    attributes: { is_causal: true, left_window_size: 9 },
  }),
  row('nonpad_with_past_takes_offset_from_past', sizes(2, 4, 2, 5, 17, 8), {
    attributes: { is_causal: true },
    past: 10,
    nonpad: [12, 17],
  }),
  row('alibi', MEDIUM, { alibi: 'H' }),
  row('alibi_batch', MEDIUM, { alibi: 'BH' }),
  row('alibi_causal_past', sizes(2, 4, 2, 5, 70, 8), {
    alibi: 'H',
    attributes: { is_causal: true },
    past: 65,
  }),
  row('alibi_nonpad', MEDIUM, { alibi: 'BH', nonpad: [20, 47] }),
  row('alibi_mask_window', MEDIUM, {
    alibi: 'H',
    mask: { type: 'float', dims: '1QK', hides: 'random' },
    attributes: { left_window_size: 10, right_window_size: 10 },
  }),
];

const CACHE: readonly Case[] = [
  ...eachType('past', sizes(2, 4, 2, 5, 23, 8, 12), { past: 18 }),
  ...eachType('past_rank3', sizes(2, 4, 2, 5, 23, 8, 12), { past: 18, rank: 3 }),
  row('past_zero_length', SMALL, { past: 0 }),
  row('past_only', sizes(1, 2, 2, 3, 11, 8), { past: 11 }),
  row('past_without_present', sizes(1, 2, 2, 3, 11, 8), { past: 6, presents: false }),
  row('present_without_past', SMALL, { presents: true }),
  row('present_without_past_rank3', SMALL, { presents: true, rank: 3 }),
  row('past_mask_bool', sizes(1, 4, 2, 3, 20, 8), {
    past: 16,
    mask: { type: 'bool', dims: 'QK', hides: 'random' },
  }),
  row('past_normalize', sizes(1, 4, 2, 3, 20, 8), { past: 16, attributes: { normalize: true, bias: -10 } }),
];

const MODES: readonly BiasMode[] = ['none', 'neg_log_total', 'neg_log_valid', 'neg_log_visible'];
const BIAS: readonly Case[] = [
  ...MODES.flatMap((bias_mode) => [
    ...eachType(`bias_mode_${bias_mode}`, MEDIUM, { attributes: { bias_mode } }),
    row(`bias_mode_${bias_mode}_nonpad_window`, MEDIUM, {
      attributes: { bias_mode, is_causal: true, left_window_size: 7 },
      nonpad: [20, 47],
    }),
    row(`bias_mode_${bias_mode}_past`, sizes(1, 2, 2, 4, 30, 8), {
      attributes: { bias_mode, is_causal: true, bias: 0.5 },
      past: 26,
    }),
    row(`bias_mode_${bias_mode}_mask`, MEDIUM, {
      attributes: { bias_mode },
      mask: { type: 'bool', dims: 'B11K', hides: 'tail' },
    }),
  ]),
  row('bias_positive', SMALL, { attributes: { bias: 2.5 } }),
  row('bias_mode_visible_empty_rows', MEDIUM, {
    attributes: { bias_mode: 'neg_log_visible', is_causal: true },
    nonpad: [5, 0],
  }),
  row('scale_negative', SMALL, { attributes: { scale: -0.3 } }),
  row('scale_zero', SMALL, { attributes: { scale: 0, bias: -1 } }),
  row('scale_large', SMALL, { attributes: { scale: 4 } }),
  row('softcap_small', SMALL, { attributes: { softcap: 0.25 } }),
  row('softcap_large', SMALL, { attributes: { softcap: 50 }, spread: 20 }),
  ...eachType('softcap_bias_causal', MEDIUM, {
    attributes: { softcap: 5, bias: -4, is_causal: true },
    spread: 8,
  }),
];

/** Long rows of small weights, where a sigmoid without relative precision or a rounded weight shows. */
const PRECISION: readonly Case[] = [
  ...eachType('long_rows_neg_log_4096', sizes(1, 1, 1, 3, 4096, 64), {
    attributes: { bias_mode: 'neg_log_total' },
  }),
  ...eachType('long_rows_bias_neg_log_4096', sizes(1, 1, 1, 3, 4096, 16), {
    attributes: { bias: -Math.log(4096) },
  }),
  ...[-10, -15, -20].flatMap((bias) => eachType(`small_weights_${-bias}`, SMALL, { attributes: { bias } })),
  ...eachType('normalize', MEDIUM, { attributes: { normalize: true } }),
  ...eachType('normalize_bias_40', MEDIUM, { attributes: { normalize: true, bias: -40 } }),
  ...eachType('normalize_bias_40_causal_gqa', sizes(1, 8, 2, 20, 20, 16), {
    attributes: { normalize: true, bias: -40, is_causal: true },
  }),
  ...eachType('normalize_bias_40_long', sizes(1, 1, 1, 2, 2048, 32), {
    attributes: { normalize: true, bias: -40 },
  }),
  row('normalize_bias_40_mask_spread', MEDIUM, {
    attributes: { normalize: true, bias: -40 },
    mask: { type: 'float', dims: 'BHQK', hides: 'rows' },
    spread: 6,
  }),
  row('normalize_positive_bias', SMALL, { attributes: { normalize: true, bias: 30 } }),
  row('normalize_no_visible_key', MEDIUM, {
    attributes: { normalize: true, is_causal: true },
    nonpad: [0, 2],
  }),
  ...eachType('scores_extreme', SMALL, { spread: 200 }),
  ...eachType('scores_extreme_normalize', SMALL, { spread: 10, attributes: { normalize: true, bias: -20 } }),
  row('scores_all_saturated', SMALL, { attributes: { bias: 80 } }),
  row('scores_vanishing', SMALL, { attributes: { bias: -80 } }),
];

const LEAVES_TYPES: readonly ElementType[] = ['float', 'float16'];
/** A NaN or Inf that takes no part must not reach Y; one that does must. */
const NON_FINITE: readonly Case[] = [
  ...[NaN, Infinity, -Infinity].flatMap((value) =>
    LEAVES_TYPES.flatMap((type) => {
      const suffix = `${value}_${type}`;
      const poison = (input: 'K' | 'V', ...rows: number[]): CaseOptions => ({
        type,
        poison: [{ input, rows, value }],
      });
      const tail: CaseOptions = { mask: { type: 'bool', dims: 'QK', hides: 'tail' } };
      const infinite: CaseOptions = { mask: { type: 'float', dims: 'B1QK', hides: 'tail' } };
      const causal: CaseOptions = { attributes: { is_causal: true, bias: -1 } };
      return [
        row(`poison_value_behind_bool_mask_${suffix}`, SMALL, { ...tail, ...poison('V', 5, 6) }),
        row(`poison_key_behind_bool_mask_${suffix}`, SMALL, { ...tail, ...poison('K', 5, 6) }),
        row(`poison_value_behind_infinite_mask_${suffix}`, SMALL, { ...infinite, ...poison('V', 5, 6) }),
        row(`poison_key_behind_infinite_mask_${suffix}`, SMALL, { ...infinite, ...poison('K', 5, 6) }),
        row(`poison_value_beyond_causal_${suffix}`, SMALL, { ...causal, ...poison('V', 3, 6) }),
        row(`poison_key_beyond_causal_${suffix}`, SMALL, { ...causal, ...poison('K', 3, 6) }),
        row(`poison_visible_value_${suffix}`, SMALL, poison('V', 2)),
      ];
    }),
  ),
  ...(['float', 'T'] as const).flatMap((maskType) =>
    eachType(`poison_value_behind_lowest_mask_${maskType}`, SMALL, {
      mask: { type: maskType, dims: 'QK', hides: 'lowest-tail' },
      poison: [{ input: 'V', rows: [5, 6], value: NaN }],
    }),
  ),
  row('poison_behind_nonpad', SMALL, {
    nonpad: [4, 6],
    poison: [
      { input: 'K', rows: [4, 5, 6], value: NaN, batch: 0 },
      { input: 'V', rows: [4, 5, 6], value: NaN, batch: 0 },
      { input: 'V', rows: [6], value: Infinity, batch: 1 },
    ],
  }),
  row('poison_behind_window', sizes(1, 2, 2, 9, 9, 8), {
    attributes: { left_window_size: 1, right_window_size: 1 },
    poison: [{ input: 'V', rows: [0, 8], value: NaN }],
  }),
  row('poison_in_past', sizes(1, 2, 2, 3, 12, 8), {
    past: 9,
    attributes: { left_window_size: 4 },
    poison: [
      { input: 'past_key', rows: [0, 1, 6], value: NaN },
      { input: 'past_value', rows: [2, 6], value: Infinity },
    ],
  }),
  row('poison_normalize', SMALL, {
    attributes: { normalize: true, is_causal: true },
    poison: [{ input: 'V', rows: [3], value: NaN }],
  }),
  row('poison_rank3', SMALL, {
    rank: 3,
    nonpad: [4, 4],
    poison: [
      { input: 'K', rows: [5], value: NaN },
      { input: 'V', rows: [4, 6], value: -Infinity },
    ],
  }),
  row('poison_both_infinities', SMALL, {
    attributes: { is_causal: true },
    poison: [
      { input: 'V', rows: [1], value: Infinity },
      { input: 'V', rows: [3], value: -Infinity },
    ],
  }),
];

const EMPTY: readonly Case[] = [
  row('empty_batch', sizes(0, 2, 2, 3, 4, 8)),
  row('empty_queries', sizes(2, 4, 2, 0, 4, 8)),
  ...eachType('empty_keys', sizes(2, 4, 2, 3, 0, 8, 6)),
  row('empty_keys_normalize', sizes(2, 4, 2, 3, 0, 8), {
    attributes: { normalize: true, bias_mode: 'neg_log_total' },
  }),
  row('empty_keys_mask', sizes(2, 4, 2, 3, 0, 8), { mask: { type: 'bool', dims: 'B1QK', hides: 'none' } }),
  row('empty_keys_causal_visible', sizes(1, 2, 2, 3, 0, 8), {
    attributes: { is_causal: true, bias_mode: 'neg_log_visible' },
  }),
  row('empty_keys_past', sizes(1, 2, 2, 3, 0, 8), { past: 0 }),
  row('empty_batch_rank3', sizes(0, 2, 2, 3, 4, 8), { rank: 3 }),
  row('empty_queries_rank3', sizes(2, 4, 2, 0, 4, 8), { rank: 3, presents: true }),
  row('empty_keys_rank3', sizes(2, 4, 2, 3, 0, 8), { rank: 3, presents: true }),
  row('empty_everything', sizes(0, 2, 2, 0, 0, 8), { attributes: { is_causal: true } }),
];

const COMBINED: readonly Case[] = [
  ...eachType('everything', sizes(2, 6, 2, 13, 37, 16, 20), {
    attributes: {
      scale: 0.2,
      bias: -1,
      bias_mode: 'neg_log_visible',
      is_causal: true,
      left_window_size: 20,
      softcap: 4,
      normalize: true,
    },
    mask: { type: 'T', dims: 'BHQK', hides: 'random' },
    past: 24,
    nonpad: [30, 37],
    headBias: 'BH',
    headScale: true,
    headGain: true,
    alibi: 'H',
  }),
  ...eachType('everything_rank3', sizes(2, 6, 2, 13, 37, 16, 20), {
    rank: 3,
    attributes: { bias_mode: 'neg_log_valid', right_window_size: 5, softcap: 4 },
    mask: { type: 'bool', dims: 'B1QK', hides: 'rows' },
    nonpad: [30, 37],
    headBias: 'H',
    headGain: true,
    alibi: 'BH',
  }),
];

export const CASES: readonly Case[] = [
  ...ONNX_CASES,
  ...SIZES,
  ...HEADS,
  ...MASKS,
  ...VISIBILITY,
  ...CACHE,
  ...BIAS,
  ...PRECISION,
  ...NON_FINITE,
  ...EMPTY,
  ...COMBINED,
];

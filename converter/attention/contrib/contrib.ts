/**
 * Which attention operators of ONNX Runtime's contrib domain, com.microsoft, have a reading, and which are refused and why.
 */
import { nodeLabel } from '../../graph/node.js';
import { Refused } from '../form.js';
import type { FusedReader } from '../fused-call.js';
import { readContribAttention } from './attention.js';
import { readGroupQuery } from './group-query-attention.js';
import { readMultiHead } from './multi-head-attention.js';
import { readPacked } from './packed-multi-head-attention.js';

/** Attention operators without a reading here, and why. */
const REFUSED: Readonly<Record<string, readonly ['quantized' | 'unsupported-attribute', string]>> = {
  QAttention: ['quantized', 'works on quantised weights'],
  QOrderedAttention: ['quantized', 'works on quantised weights'],
  LongformerAttention: ['unsupported-attribute', 'combines a window with global tokens'],
  SparseAttention: ['unsupported-attribute', 'uses a block-sparse layout'],
  PagedAttention: ['unsupported-attribute', 'reads keys and values from pages'],
  PackedAttention: ['unsupported-attribute', 'packs its projections and its tokens'],
  DecoderAttention: ['unsupported-attribute', 'chooses between self and cross attention at run time'],
  DecoderMaskedSelfAttention: ['unsupported-attribute', 'keeps its cache in a shared buffer'],
  DecoderMaskedMultiHeadAttention: ['unsupported-attribute', 'keeps its cache in a shared buffer'],
};

const READERS: Readonly<Record<string, FusedReader>> = {
  Attention: readContribAttention,
  MultiHeadAttention: readMultiHead,
  GroupQueryAttention: readGroupQuery,
  PackedMultiHeadAttention: readPacked,
};

export function readContrib(opType: string): FusedReader | null {
  const refusal = REFUSED[opType];
  if (refusal === undefined) return READERS[opType] ?? null;
  return (node) => {
    throw new Refused(refusal[0], `'${nodeLabel(node)}' (${opType}) ${refusal[1]}`, [node]);
  };
}

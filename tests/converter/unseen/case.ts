/** A small model that spells attention (or something like it) as one exporter does, and what the converter owes it. */
import type { Feeds, Sample } from '../../../converter/data/tensor.js';
import type { ReasonCode } from '../../../converter/reasons.js';
import { numberToFloat16 } from '../../../op/half.js';
import { Random } from '../generator/random.js';
import type { ModelBuilder } from '../../../proving/model-builder.js';

export interface UnseenCase {
  readonly title: string;
  readonly opset?: number;
  readonly build: (b: ModelBuilder) => void;
  readonly feeds: (random: Random) => Feeds;
  /** Sites that have to be replaced. */
  readonly sites?: number;
  /** What the mask of the first site is called. */
  readonly mask?: string;
  /** Refusals, or what is passed over, in any order. */
  readonly reasons?: readonly ReasonCode[];
  readonly irVersion?: number;
}

export const [B, N, M, H, D] = [2, 6, 9, 4, 8] as const;
export const C = H * D;

export function floats(random: Random, dims: readonly number[], deviation = 1): Sample {
  const count = dims.reduce((a, b) => a * b, 1);
  return { type: 'float32', dims, data: Float32Array.from(random.normals(count, deviation)) };
}

export function halves(random: Random, dims: readonly number[]): Sample {
  const count = dims.reduce((a, b) => a * b, 1);
  return { type: 'float16', dims, data: Uint16Array.from(random.normals(count), numberToFloat16) };
}

export function int32s(dims: readonly number[], values: readonly number[]): Sample {
  return { type: 'int32', dims, data: Int32Array.from(values) };
}

export function int64s(dims: readonly number[], values: readonly number[]): Sample {
  return { type: 'int64', dims, data: BigInt64Array.from(values, BigInt) };
}

export function booleans(dims: readonly number[], values: readonly number[]): Sample {
  return { type: 'bool', dims, data: Uint8Array.from(values) };
}

/** 1 for real tokens: the first sequence is full, each further one shorter by two. */
export function padding(batch: number, length: number): number[] {
  return Array.from({ length: batch * length }, (_, i) =>
    i % length < length - 2 * Math.floor(i / length) ? 1 : 0,
  );
}

/** Weights of a layer, small enough that scores stay moderate. */
export function weights(b: ModelBuilder, dims: readonly number[], seed: number, deviation = 0.3): string {
  const count = dims.reduce((x, y) => x * y, 1);
  return b.constant(1, dims, new Random(seed).normals(count, deviation));
}

/** What a shape rule is given and yields, and the rules that operators of several domains share. */
import type { GraphNode } from './node.js';
import { broadcastDims, type NumericTensor } from './numeric.js';

/** Sizes that stand for unknown dimensions start here, above any real one a graph computes with. */
export const FRESH_BASE = 1_000_003;

export type Dims = readonly number[];

export interface ShapeContext {
  readonly node: GraphNode;
  readonly opset: number;
  dims(input: number): Dims | null;
  value(input: number): NumericTensor | null;
  /** A size that equals no other: for what cannot be known. */
  fresh(): number;
  /** Shapes that had to agree did not; the caller may learn from it. */
  mismatch(a: number, b: number): void;
}

export type ShapeRule = (context: ShapeContext) => readonly (Dims | null)[] | null;

export function broadcast(context: ShapeContext, shapes: readonly (Dims | null)[]): Dims | null {
  if (shapes.some((dims) => dims === null)) return null;
  const known = shapes as readonly Dims[];
  const fitting = broadcastDims(...known);
  if (fitting !== null) return fitting;
  const rank = Math.max(...known.map((dims) => dims.length));
  const out = new Array<number>(rank).fill(1);
  for (const dims of known) {
    dims.forEach((dim, axis) => {
      const at = rank - dims.length + axis;
      if (dim === 1 || dim === out[at]) return;
      // An open size is whatever it meets.
      if (out[at] === 1 || out[at]! >= FRESH_BASE) out[at] = dim;
      else if (dim >= FRESH_BASE) return;
      else context.mismatch(out[at]!, dim);
    });
  }
  return out;
}

export const first: ShapeRule = (context) => [context.dims(0)];

/** Product shape of two matrices or stacks of them, with optional transposition of the last two axes. */
export function matMulDims(context: ShapeContext, transA = false, transB = false): Dims | null {
  let a = context.dims(0);
  let b = context.dims(1);
  if (a === null || b === null || a.length === 0 || b.length === 0) return null;
  const vectorA = a.length === 1;
  const vectorB = b.length === 1;
  if (vectorA) a = [1, a[0]!];
  if (vectorB) b = [b[0]!, 1];
  const swap = (dims: Dims): Dims => [...dims.slice(0, -2), dims.at(-1)!, dims.at(-2)!];
  if (transA) a = swap(a);
  if (transB) b = swap(b);
  if (a.at(-1) !== b.at(-2)) context.mismatch(a.at(-1)!, b.at(-2)!);
  const batch = broadcast(context, [a.slice(0, -2), b.slice(0, -2)]) ?? [];
  return [...batch, ...(vectorA ? [] : [a.at(-2)!]), ...(vectorB ? [] : [b.at(-1)!])];
}

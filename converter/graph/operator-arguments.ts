/**
 * Arguments of operators that values and shapes are worked out from alike: axes, target shapes, slices and sizes of parts,
 * from an input or an attribute, as the opset has it.
 */
import { ModelFormatError } from '../onnx/error.js';
import { elementCount } from '../onnx/tensor.js';
import { intAttribute, intsAttribute, nodeLabel, type GraphNode } from './node.js';
import type { NumericTensor } from './numeric.js';

/** Axes of a reduction or a squeeze: an input since some opset, an attribute before. */
export function axesOf(
  node: GraphNode,
  rank: number,
  fromInput: NumericTensor | null | undefined,
): number[] | null {
  const axes = fromInput ? Array.from(fromInput.data) : intsAttribute(node, 'axes');
  return axes === null ? null : axes.map((axis) => (axis < 0 ? axis + rank : axis));
}

/** Target of a Reshape with its 0 and -1 resolved; `null` when the counts do not fit. */
export function reshapeDims(
  from: readonly number[],
  target: ArrayLike<number>,
  allowZero: boolean,
): number[] | null {
  const out = Array.from(target, (dim, axis) => (dim === 0 && !allowZero ? (from[axis] ?? NaN) : dim));
  const open = out.indexOf(-1);
  const total = elementCount(from);
  if (open >= 0) {
    out[open] = 1;
    const rest = elementCount(out);
    out[open] = rest === 0 ? 0 : total / rest;
  }
  return out.every((dim) => Number.isInteger(dim) && dim >= 0) && elementCount(out) === total ? out : null;
}

export interface SliceAxis {
  readonly axis: number;
  readonly start: number;
  readonly step: number;
  readonly count: number;
}

/** Axes, starts, steps and counts of a Slice on a tensor of the given shape. */
export function sliceAxes(
  node: GraphNode,
  dims: readonly number[],
  inputs: readonly (NumericTensor | null | undefined)[],
): SliceAxis[] | null {
  const fromInput = (at: number): readonly number[] | null => {
    const tensor = inputs[at];
    return tensor ? Array.from(tensor.data) : null;
  };
  const starts = fromInput(1) ?? intsAttribute(node, 'starts');
  const ends = fromInput(2) ?? intsAttribute(node, 'ends');
  if (starts === null || ends === null) return null;
  const axes = fromInput(3) ?? intsAttribute(node, 'axes') ?? starts.map((_, axis) => axis);
  const steps = fromInput(4) ?? starts.map(() => 1);
  const out: SliceAxis[] = [];
  for (let i = 0; i < axes.length; i++) {
    const axis = axes[i]! < 0 ? axes[i]! + dims.length : axes[i]!;
    const dim = dims[axis];
    const step = steps[i] ?? 1;
    if (dim === undefined || step === 0) return null;
    const clamp = (value: number, low: number, high: number): number => Math.min(Math.max(value, low), high);
    const from = starts[i]! < 0 ? starts[i]! + dim : starts[i]!;
    const to = ends[i]! < 0 ? ends[i]! + dim : ends[i]!;
    const start = step > 0 ? clamp(from, 0, dim) : clamp(from, 0, dim - 1);
    const end = step > 0 ? clamp(to, 0, dim) : clamp(to, -1, dim - 1);
    out.push({ axis, start, step, count: Math.max(0, Math.ceil((end - start) / step)) });
  }
  return out;
}

const MAX_PARTS = 1 << 16;

/** Sizes of the parts of a Split. */
export function splitSizes(
  node: GraphNode,
  dim: number,
  given: NumericTensor | null | undefined,
  parts: number,
): number[] {
  const sizes = given ? Array.from(given.data) : intsAttribute(node, 'split');
  if (sizes !== null && sizes.length > 0) return [...sizes];
  const count = intAttribute(node, 'num_outputs', parts);
  if (!(count >= 1 && count <= MAX_PARTS)) {
    throw new ModelFormatError(
      `'${nodeLabel(node)}' splits into ${count} parts, allowed are 1 to ${MAX_PARTS}`,
      node.span.start,
    );
  }
  const size = Math.ceil(dim / count);
  return Array.from({ length: count }, (_, i) => Math.max(0, Math.min(size, dim - i * size)));
}

/** Small tensors with their numbers, as the partial evaluator passes them around. */
import { DataType, elementCount } from '../onnx/tensor.js';

export interface NumericTensor {
  readonly type: number;
  readonly dims: readonly number[];
  readonly data: Float64Array;
}

const INTEGERS: ReadonlySet<number> = new Set([2, 3, 4, 5, 6, 7, 12, 13]);

export function isIntegerType(type: number): boolean {
  return INTEGERS.has(type);
}

export function isFloatType(type: number): boolean {
  return (
    type === DataType.float ||
    type === DataType.float16 ||
    type === DataType.double ||
    type === DataType.bfloat16
  );
}

/** Rounds a number to what a tensor of the type can hold (float16 and bfloat16 as float32). */
export function rounder(type: number): (value: number) => number {
  if (isIntegerType(type)) return Math.trunc;
  if (type === DataType.bool) return (value) => (value !== 0 ? 1 : 0);
  if (type === DataType.double) return (value) => value;
  return Math.fround;
}

export function numeric(type: number, dims: readonly number[], data: ArrayLike<number>): NumericTensor {
  return { type, dims, data: data instanceof Float64Array ? data : Float64Array.from(data) };
}

export function scalar(type: number, value: number): NumericTensor {
  return numeric(type, [], [value]);
}

export function strides(dims: readonly number[]): number[] {
  const out = new Array<number>(dims.length).fill(1);
  for (let axis = dims.length - 2; axis >= 0; axis--) out[axis] = out[axis + 1]! * dims[axis + 1]!;
  return out;
}

/** Shape of a numpy-style broadcast; `null` when the shapes do not fit. */
export function broadcastDims(...shapes: (readonly number[])[]): number[] | null {
  const rank = Math.max(0, ...shapes.map((dims) => dims.length));
  const out = new Array<number>(rank).fill(1);
  for (const dims of shapes) {
    for (let axis = 0; axis < dims.length; axis++) {
      const at = rank - dims.length + axis;
      const dim = dims[axis]!;
      if (dim === 1 || dim === out[at]) continue;
      if (out[at] !== 1) return null;
      out[at] = dim;
    }
  }
  return out;
}

/** For each element of `dims`, the element of a tensor of shape `from` that broadcasts to it. */
export function broadcastIndex(from: readonly number[], dims: readonly number[]): Int32Array {
  const count = elementCount(dims);
  const out = new Int32Array(count);
  const source = strides(from);
  const offset = dims.length - from.length;
  const step = dims.map((_, axis) =>
    axis < offset || from[axis - offset] === 1 ? 0 : source[axis - offset]!,
  );
  const counter = new Array<number>(dims.length).fill(0);
  let at = 0;
  for (let i = 0; i < count; i++) {
    out[i] = at;
    for (let axis = dims.length - 1; axis >= 0; axis--) {
      at += step[axis]!;
      if (++counter[axis]! < dims[axis]!) break;
      at -= step[axis]! * dims[axis]!;
      counter[axis] = 0;
    }
  }
  return out;
}

/** Reads `source` at strides and offset that describe a view of shape `dims`. */
export function gatherView(
  source: Float64Array,
  dims: readonly number[],
  step: readonly number[],
  offset: number,
): Float64Array {
  const count = elementCount(dims);
  const out = new Float64Array(count);
  const counter = new Array<number>(dims.length).fill(0);
  let at = offset;
  for (let i = 0; i < count; i++) {
    out[i] = source[at]!;
    for (let axis = dims.length - 1; axis >= 0; axis--) {
      at += step[axis]!;
      if (++counter[axis]! < dims[axis]!) break;
      at -= step[axis]! * dims[axis]!;
      counter[axis] = 0;
    }
  }
  return out;
}

export function expandTo(tensor: NumericTensor, dims: readonly number[]): NumericTensor {
  const index = broadcastIndex(tensor.dims, dims);
  const data = new Float64Array(index.length);
  for (let i = 0; i < index.length; i++) data[i] = tensor.data[index[i]!]!;
  return { type: tensor.type, dims, data };
}

/** Every element equal, so that the tensor stands for one number. */
export function uniformValue(tensor: NumericTensor | null): number | null {
  if (tensor === null || tensor.data.length === 0) return null;
  const first = tensor.data[0]!;
  for (const value of tensor.data)
    if (value !== first && !(Number.isNaN(value) && Number.isNaN(first))) return null;
  return first;
}

/** Where the rows of a call's tensors lie, and the part of a buffer that a dispatch binds for a range of them. */

import { lengthOf, type Range, type RowTensor } from './plan.js';
import { BYTES_PER_ELEMENT, type CallTensor, type Role } from './tensor.js';
import type { Strides } from './uniform.js';

/** A tensor with the way its rows lie. */
export interface Rows extends RowTensor {
  readonly tensor: CallTensor;
}

/** A range of a buffer: of ours, or of the one that plays a part in the call. */
export interface Bound {
  readonly buffer: GPUBuffer | Role;
  readonly offset?: number;
  readonly size?: number;
}

/** What is bound for a tensor, and its strides counted from there. */
export interface Binding {
  readonly resource: Bound;
  readonly strides: Strides;
}

export const NO_STRIDES: Strides = { base: 0, batch: 0, head: 0, row: 0 };

/** Rows of `size` elements of a tensor [B,heads,length,size] or [B,length,heads*size]. */
export function rowsOf(tensor: CallTensor, heads: number, length: number, size: number): Rows {
  const strides =
    tensor.dims.length === 4 ? { head: length * size, row: size } : { head: size, row: heads * size };
  return {
    tensor,
    batch: heads * length * size,
    ...strides,
    size,
    bytesPerElement: BYTES_PER_ELEMENT[tensor.type],
  };
}

/** Rows of a mask that is broadcast to [B,Hq,Nq,Nk], and the stride between its keys. */
export function maskRows(tensor: CallTensor, keyLength: number): { rows: Rows; column: number } {
  const dims = [1, 1, 1, 1, ...tensor.dims].slice(-4);
  const strides = [0, 0, 0, 0];
  for (let axis = 3, stride = 1; axis >= 0; axis--) {
    strides[axis] = dims[axis] === 1 ? 0 : stride;
    stride *= dims[axis]!;
  }
  const [batch = 0, head = 0, row = 0, column = 0] = strides;
  const size = column === 0 ? 1 : keyLength;
  return {
    rows: { tensor, batch, head, row, size, bytesPerElement: BYTES_PER_ELEMENT[tensor.type] },
    column,
  };
}

/** Binds elements [begin, end) of a tensor; the binding starts at a multiple of `alignment` bytes at or before them. */
export function bindElements(tensor: CallTensor, { begin, end }: Range, alignment: number): Binding {
  const bytesPerElement = BYTES_PER_ELEMENT[tensor.type];
  const start = tensor.offset;
  const first = Math.floor((start + begin * bytesPerElement) / alignment) * alignment;
  // A vector of four is the largest thing that a shader reads, and its buffer's declared element.
  const last = Math.ceil((start + end * bytesPerElement) / 16) * 16;
  const size = Math.min(last, Math.floor(tensor.bufferBytes / 4) * 4) - first;
  return {
    resource: { buffer: tensor.role, offset: first, size },
    strides: { ...NO_STRIDES, base: (start - first) / bytesPerElement },
  };
}

/** Binds f32 partial sums: for each split, rows of `row` elements for the given batch entries, heads and query rows. */
export function partialBinding(
  buffer: GPUBuffer,
  { batch, heads, rows }: { batch: Range; heads: Range; rows: Range },
  row: number,
  split: number,
): Binding {
  const head = row * lengthOf(rows);
  const perBatch = head * lengthOf(heads);
  const perSplit = perBatch * lengthOf(batch);
  const base = split * perSplit - (batch.begin * perBatch + heads.begin * head + rows.begin * row);
  return { resource: { buffer }, strides: { base, batch: perBatch, head, row } };
}

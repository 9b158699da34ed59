/** Tensors that lie in GPU buffers, in the layout that ONNX Runtime's WebGPU provider gives them. */

import type { InputName } from '../op/schema.js';

export type GpuTensorType = 'float' | 'float16' | 'bool' | 'int64';

/**
 * Dense and row-major from `offset` on. bool takes a byte an element, int64 eight. The buffer needs the usage STORAGE and
 * must reach to the next multiple of 4 bytes; it may be larger.
 */
export interface GpuTensor {
  readonly buffer: GPUBuffer;
  /** In bytes; a multiple of 16. 0 when absent. */
  readonly offset?: number;
  readonly type: GpuTensorType;
  readonly dims: readonly number[];
}

export type GpuInputs = { readonly [name in InputName]?: GpuTensor };

export interface GpuOutputs {
  readonly Y: GpuTensor;
  readonly present_key?: GpuTensor;
  readonly present_value?: GpuTensor;
}

/** The part that a tensor plays in a call. */
export type Role = InputName | keyof GpuOutputs;

/** A tensor of a call without its buffer: all that the choice of kernels depends on. */
export interface CallTensor {
  readonly role: Role;
  readonly type: GpuTensorType;
  readonly dims: readonly number[];
  readonly offset: number;
  readonly bufferBytes: number;
}

export const BYTES_PER_ELEMENT: Readonly<Record<GpuTensorType, number>> = {
  float: 4,
  float16: 2,
  bool: 1,
  int64: 8,
};

/**
 * The tensors that the operator's TypeScript code reads and returns: an ONNX element type, dimensions and a flat,
 * row-major typed array. float16 and bfloat16 are kept as bits (see half.ts), bool as one byte an element.
 */

import { bfloat16ToNumber, float16ToNumber, numberToBfloat16, numberToFloat16 } from './half.js';

/** The types `T` of Q, K, V and Y. */
export const ELEMENT_TYPES = ['float', 'float16', 'bfloat16'] as const;
export type ElementType = (typeof ELEMENT_TYPES)[number];

export type Tensor =
  | { readonly type: 'float'; readonly dims: readonly number[]; readonly data: Float32Array }
  | { readonly type: 'float16' | 'bfloat16'; readonly dims: readonly number[]; readonly data: Uint16Array }
  | { readonly type: 'bool'; readonly dims: readonly number[]; readonly data: Uint8Array }
  | { readonly type: 'int64'; readonly dims: readonly number[]; readonly data: BigInt64Array };

export type TensorType = Tensor['type'];

/** Number of elements that the dimensions hold. */
export function sizeOf(dims: readonly number[]): number {
  return dims.reduce((product, dim) => product * dim, 1);
}

/** The tensor's elements as doubles, exactly; true is 1 and false 0. */
export function toNumbers(tensor: Tensor): Float64Array {
  switch (tensor.type) {
    case 'float16':
      return Float64Array.from(tensor.data, float16ToNumber);
    case 'bfloat16':
      return Float64Array.from(tensor.data, bfloat16ToNumber);
    case 'int64':
      return Float64Array.from(tensor.data, Number);
    default:
      return Float64Array.from(tensor.data);
  }
}

/** A tensor of the given floating type; every value is rounded once, to nearest even. */
export function fromNumbers(type: ElementType, dims: readonly number[], values: ArrayLike<number>): Tensor {
  switch (type) {
    case 'float':
      return { type, dims, data: Float32Array.from(values) };
    case 'float16':
      return { type, dims, data: Uint16Array.from(values, numberToFloat16) };
    case 'bfloat16':
      return { type, dims, data: Uint16Array.from(values, numberToBfloat16) };
  }
}

/** True for the types that `T` may be. */
export function isElementType(type: TensorType): type is ElementType {
  return (ELEMENT_TYPES as readonly string[]).includes(type);
}

/** Tensors between onnxruntime-common and the addon, with the checks and error texts of stock onnxruntime-node. */

import type { OnnxValue, Tensor } from 'onnxruntime-common';
import type { NativeTensor } from './native-addon.js';

const STRING = 8;
const FLOAT16 = 10;

/** Index: number of TensorProto.DataType. Value: onnxruntime-common's name; holes are types it does not know. */
export const TYPE_NAMES: readonly (string | undefined)[] = [
  undefined,
  'float32',
  'uint8',
  'int8',
  'uint16',
  'int16',
  'int32',
  'int64',
  'string',
  'bool',
  'float16',
  'float64',
  'uint32',
  'uint64',
];

const ARRAY_TYPES: Readonly<Record<string, string>> = {
  float32: 'Float32Array',
  uint8: 'Uint8Array',
  int8: 'Int8Array',
  uint16: 'Uint16Array',
  int16: 'Int16Array',
  int32: 'Int32Array',
  int64: 'BigInt64Array',
  bool: 'Uint8Array',
  float16: 'Uint16Array',
  float64: 'Float64Array',
  uint32: 'Uint32Array',
  uint64: 'BigUint64Array',
};

/** Throws a TypeError or RangeError for anything that is not a CPU tensor of a supported type. */
export function toNative(value: OnnxValue): NativeTensor {
  if (typeof value !== 'object' || value === null) throw new TypeError('Tensor must be an object.');
  const tensor = value as Tensor;
  const { dims, location, type } = tensor;
  if (!Array.isArray(dims)) throw new TypeError('Tensor.dims must be an array.');
  dims.forEach((dim: unknown, i) => {
    if (typeof dim !== 'number') throw new TypeError(`Tensor.dims[${i}] is not a number.`);
    if (!Number.isInteger(dim) || dim < 0 || dim > 0xffffffff) {
      throw new RangeError(`Tensor.dims[${i}] is invalid: ${dim}`);
    }
  });
  if (typeof location !== 'string') throw new TypeError('Tensor.location must be a string.');
  if (typeof type !== 'string') throw new TypeError('Tensor.type must be a string.');
  if (location !== 'cpu' && location !== 'cpu-pinned') {
    throw new TypeError(
      `Tensor.location is '${location}', must be 'cpu' for a model with SigmoidAttention nodes.`,
    );
  }
  if (type === 'string') return { type: STRING, dims, data: strings(tensor.data) };
  const number = TYPE_NAMES.indexOf(type);
  if (number < 0) throw new TypeError(`Tensor.type is not supported: ${type}`);
  return { type: number, dims, data: numbers(tensor.data, type, number) };
}

function strings(data: unknown): string[] {
  if (!Array.isArray(data)) throw new TypeError('Tensor.data must be an array for string tensors.');
  data.forEach((text: unknown, i) => {
    if (typeof text !== 'string') throw new TypeError(`Tensor.data[${i}] must be a string.`);
  });
  return data as string[];
}

function numbers(data: unknown, type: string, number: number): ArrayBufferView {
  if (!ArrayBuffer.isView(data) || data instanceof DataView) {
    throw new TypeError('Tensor.data must be a typed array for numeric tensor.');
  }
  const found = Object.prototype.toString.call(data).slice('[object '.length, -1);
  const wanted = ARRAY_TYPES[type];
  if (found === wanted) return data;
  if (number === FLOAT16 && found === 'Float16Array') {
    return new Uint16Array(data.buffer, data.byteOffset, data.byteLength / 2);
  }
  throw new TypeError(
    `Tensor.data must be a typed array (${wanted}) for ${type} tensors, but got typed array (${found}).`,
  );
}

/** What `InferenceSession.run` of onnxruntime-common makes a Tensor of. */
export interface RawTensor {
  readonly type: string;
  readonly data: NativeTensor['data'];
  readonly dims: readonly number[];
}

export function fromNative(tensor: NativeTensor): RawTensor {
  const type = TYPE_NAMES[tensor.type];
  if (type === undefined) throw new Error(`Tensor type (${tensor.type}) is not supported.`);
  return { type, data: tensor.data, dims: tensor.dims };
}

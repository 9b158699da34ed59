/** The parts of ONNX Runtime Web that this package uses, and the tables between its types, ONNX's and the kernels'. */

import type {
  Env,
  InferenceSession,
  InferenceSessionFactory,
  Tensor,
  TensorConstructor,
} from 'onnxruntime-common';
import type { GpuTensorType } from '../../wgsl/tensor.js';

/** The module `onnxruntime-web` (or its entry `onnxruntime-web/webgpu`). */
export interface OrtModule {
  readonly InferenceSession: InferenceSessionFactory;
  readonly Tensor: TensorConstructor & typeof Tensor;
  readonly env: Env;
}

export type SessionOptions = InferenceSession.SessionOptions;
export type Feeds = Readonly<Record<string, Tensor>>;
/** `null`: the runtime allocates the output. */
export type Fetches = Readonly<Record<string, Tensor | null>>;
export type Results = Record<string, Tensor>;

/** The interface behind an InferenceSession, which its class drives after checking the arguments of `run`. */
export interface SessionHandler {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly inputMetadata: readonly InferenceSession.ValueMetadata[];
  readonly outputMetadata: readonly InferenceSession.ValueMetadata[];
  run(feeds: Feeds, fetches: Fetches, options: InferenceSession.RunOptions): Promise<Results>;
  startProfiling(): void;
  endProfiling(): void;
  dispose(): Promise<void>;
}

/** A session object of the runtime's own class over our handler: checks, errors and `instanceof` stay the runtime's. */
export function sessionOver(ort: OrtModule, handler: SessionHandler): InferenceSession {
  const Session = ort.InferenceSession as unknown as new (handler: SessionHandler) => InferenceSession;
  return new Session(handler);
}

/** ONNX element types by the runtime's names. */
export const DATA_TYPES: Readonly<Record<Tensor.Type, number>> = {
  float32: 1,
  uint8: 2,
  int8: 3,
  uint16: 4,
  int16: 5,
  int32: 6,
  int64: 7,
  string: 8,
  bool: 9,
  float16: 10,
  float64: 11,
  uint32: 12,
  uint64: 13,
  uint4: 21,
  int4: 22,
};

export function tensorTypeOf(dataType: number): Tensor.Type | undefined {
  return (Object.keys(DATA_TYPES) as Tensor.Type[]).find((type) => DATA_TYPES[type] === dataType);
}

const KERNEL_TYPES: Readonly<Partial<Record<Tensor.Type, GpuTensorType>>> = {
  float32: 'float',
  float16: 'float16',
  bool: 'bool',
  int64: 'int64',
};

/** The kernels' name of a type; throws for a type that no input of the operator may have. */
export function kernelType(type: Tensor.Type, value: string): GpuTensorType {
  const found = KERNEL_TYPES[type];
  if (found === undefined)
    throw new Error(
      `'${value}' has type ${type}; an input of SigmoidAttention must be one of ${Object.keys(KERNEL_TYPES).join(', ')}`,
    );
  return found;
}

/** Bytes of an element of the types that can lie in a GPU buffer. */
const ELEMENT_BYTES: Readonly<Partial<Record<Tensor.Type, number>>> = {
  float32: 4,
  float16: 2,
  int32: 4,
  uint32: 4,
  int64: 8,
  uint64: 8,
  uint8: 1,
  int8: 1,
  bool: 1,
};

export function byteLengthOf(type: Tensor.Type, dims: readonly number[]): number {
  return dims.reduce((product, dim) => product * dim, ELEMENT_BYTES[type] ?? 0);
}

/** A CPU tensor over the given bytes. */
export function tensorFromBytes(
  ort: OrtModule,
  type: Tensor.Type,
  bytes: ArrayBuffer,
  dims: readonly number[],
): Tensor {
  return new ort.Tensor(type as 'float32', arrayOf(type, bytes) as Float32Array, dims);
}

type BytesConstructor = new (bytes: ArrayBuffer) => ArrayBufferView;

function arrayOf(type: Tensor.Type, bytes: ArrayBuffer): ArrayBufferView {
  const float16 = (globalThis as { Float16Array?: BytesConstructor }).Float16Array ?? Uint16Array;
  const constructors: Partial<Record<Tensor.Type, BytesConstructor>> = {
    float32: Float32Array,
    float16,
    int32: Int32Array,
    uint32: Uint32Array,
    int64: BigInt64Array,
    uint64: BigUint64Array,
    int8: Int8Array,
  };
  return new (constructors[type] ?? Uint8Array)(bytes);
}

/**
 * Tensors as sample data holds them: ONNX Runtime's type names, dimensions and a flat row-major typed array.
 * They go into `session.run` as they are (an ort.Tensor is one of them).
 */

const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
} as const;

export type SampleType = keyof typeof ARRAYS;
export type SampleArray =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

export interface Sample {
  readonly type: SampleType;
  readonly dims: readonly number[];
  readonly data: SampleArray;
}

/** The inputs of one run, by name. */
export type Feeds = Readonly<Record<string, Sample>>;

export const SAMPLE_TYPES = Object.keys(ARRAYS) as readonly SampleType[];

export function isSampleType(type: string): type is SampleType {
  return Object.hasOwn(ARRAYS, type);
}

export function bytesPerElement(type: SampleType): number {
  return ARRAYS[type].BYTES_PER_ELEMENT;
}

export function elementCount(dims: readonly number[]): number {
  return dims.reduce((product, dim) => product * dim, 1);
}

/** A tensor over little-endian bytes, copied so that the array is aligned. Throws where the length does not fit. */
export function sampleFromBytes(type: SampleType, dims: readonly number[], bytes: Uint8Array): Sample {
  const expected = elementCount(dims) * bytesPerElement(type);
  if (bytes.byteLength !== expected) {
    throw new Error(`${type} [${dims.join(', ')}] needs ${expected} bytes, found ${bytes.byteLength}`);
  }
  return { type, dims, data: new ARRAYS[type](Uint8Array.from(bytes).buffer) };
}

/** A tensor of zeros. */
export function zeros(type: SampleType, dims: readonly number[]): Sample {
  return { type, dims, data: new ARRAYS[type](elementCount(dims)) };
}

/** Rows `from` to `to` (exclusive) of axis 0, sharing memory. */
export function sliceRows(sample: Sample, from: number, to: number): Sample {
  const row = elementCount(sample.dims.slice(1));
  return {
    type: sample.type,
    dims: [to - from, ...sample.dims.slice(1)],
    data: sample.data.subarray(from * row, to * row),
  };
}

/** `float32 [2, 8]` */
export function describe(sample: Pick<Sample, 'type' | 'dims'>): string {
  return `${sample.type} [${sample.dims.join(', ')}]`;
}

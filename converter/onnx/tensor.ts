/**
 * Tensors as a model stores them: the description is read at once, the numbers only on demand, inline or from an external
 * file. Numbers are handed out as float64, which holds every type but int64 beyond 2^53 exactly.
 */
import { ModelFormatError } from './error.js';
import type { ByteSource, ExternalData, Span } from './source.js';
import { Cursor } from './wire.js';

export const DataType = {
  undefined: 0,
  float: 1,
  uint8: 2,
  int8: 3,
  uint16: 4,
  int16: 5,
  int32: 6,
  int64: 7,
  string: 8,
  bool: 9,
  float16: 10,
  double: 11,
  uint32: 12,
  uint64: 13,
  bfloat16: 16,
} as const;

const NAMES: Readonly<Record<number, string>> = {
  1: 'float32',
  2: 'uint8',
  3: 'int8',
  4: 'uint16',
  5: 'int16',
  6: 'int32',
  7: 'int64',
  8: 'string',
  9: 'bool',
  10: 'float16',
  11: 'float64',
  12: 'uint32',
  13: 'uint64',
  16: 'bfloat16',
};

export function dataTypeName(type: number): string {
  return NAMES[type] ?? `type ${type}`;
}

const BYTES: Readonly<Record<number, number>> = {
  1: 4,
  2: 1,
  3: 1,
  4: 2,
  5: 2,
  6: 4,
  7: 8,
  9: 1,
  10: 2,
  11: 8,
  12: 4,
  13: 8,
  16: 2,
};

/** A tensor of the file: what it is, and where its numbers are. */
export interface StoredTensor {
  readonly name: string;
  readonly dims: readonly number[];
  readonly dataType: number;
  readonly span: Span;
  readonly raw: Span | null;
  readonly external: ReadonlyMap<string, string> | null;
  /** Numbers of the typed fields (`float_data` and so on); `null` when raw or external. */
  readonly typed: (() => number[]) | null;
}

export function elementCount(dims: readonly number[]): number {
  return dims.reduce((product, dim) => product * dim, 1);
}

export function readTensor(cursor: Cursor, span: Span): StoredTensor {
  const dims: number[] = [];
  let name = '';
  let dataType = 0;
  let raw: Span | null = null;
  let external: Map<string, string> | null = null;
  let isExternal = false;
  let hasTyped = false;
  while (cursor.next()) {
    switch (cursor.field) {
      case 1:
        cursor.integers(dims);
        break;
      case 2:
        dataType = cursor.integer();
        break;
      case 4:
      case 5:
      case 7:
      case 10:
      case 11:
        hasTyped = true;
        break;
      case 8:
        name = cursor.text();
        break;
      case 9:
        raw = cursor.span;
        break;
      case 13: {
        const entry = cursor.message();
        let key = '';
        let value = '';
        while (entry.next()) {
          if (entry.field === 1) key = entry.text();
          if (entry.field === 2) value = entry.text();
        }
        external ??= new Map();
        external.set(key, value);
        break;
      }
      case 14:
        isExternal = cursor.integer() === 1;
        break;
    }
  }
  const { window } = cursor;
  return {
    name,
    dims,
    dataType,
    span,
    raw,
    external: isExternal ? (external ?? new Map<string, string>()) : null,
    typed: hasTyped ? () => readTyped(new Cursor(window, span.start, span.end)) : null,
  };
}

function readTyped(cursor: Cursor): number[] {
  const out: number[] = [];
  while (cursor.next()) {
    if (cursor.field === 4) cursor.floats(out);
    else if (cursor.field === 5 || cursor.field === 7 || cursor.field === 11) cursor.integers(out);
    else if (cursor.field === 10) {
      const view = cursor.bytes();
      const data = new DataView(view.buffer, view.byteOffset, view.length);
      for (let i = 0; i + 8 <= view.length; i += 8) out.push(data.getFloat64(i, true));
    }
  }
  return out;
}

/** The numbers of a stored tensor, or `null` when its external file is not at hand or its type is not numeric. */
export function tensorNumbers(
  tensor: StoredTensor,
  source: ByteSource,
  external: ExternalData,
): Float64Array | null {
  const width = BYTES[tensor.dataType];
  if (width === undefined) return null;
  const count = checkedCount(tensor);
  if (count === 0) return new Float64Array(0);
  let bytes: Uint8Array;
  if (tensor.external !== null) {
    const file = external(tensor.external.get('location') ?? '');
    if (file === null) return null;
    const offset = externalNumber(tensor, 'offset', 0);
    const length = externalNumber(tensor, 'length', count * width);
    if (offset + length > file.size) {
      throw new ModelFormatError(
        `tensor '${tensor.name}' lies at bytes ${offset} to ${offset + length} of '${tensor.external.get('location') ?? ''}', which has ${file.size}`,
        tensor.span.start,
      );
    }
    if (length !== count * width) throw sizeError(tensor, length, count * width, 'bytes');
    bytes = file.read(offset, offset + length);
  } else if (tensor.raw !== null) {
    const length = tensor.raw.end - tensor.raw.start;
    if (length !== count * width) throw sizeError(tensor, length, count * width, 'bytes');
    bytes = source.read(tensor.raw.start, tensor.raw.end);
  } else {
    const typed = tensor.typed?.() ?? [];
    if (typed.length !== count) throw sizeError(tensor, typed.length, count, 'numbers');
    const isHalf = tensor.dataType === DataType.float16 || tensor.dataType === DataType.bfloat16;
    return Float64Array.from(typed, (value) => (isHalf ? halfToNumber(value, tensor.dataType) : value));
  }
  return decodeNumbers(bytes, tensor.dataType, count);
}

/** Elements that the shape asks for; nothing of that size is made before the data has been seen to have it. */
function checkedCount(tensor: StoredTensor): number {
  const wrong = tensor.dims.find((dim) => !Number.isSafeInteger(dim) || dim < 0);
  if (wrong !== undefined) {
    throw new ModelFormatError(
      `tensor '${tensor.name}' has a dimension of ${wrong}, allowed are 0 to 2^53 - 1`,
      tensor.span.start,
    );
  }
  return elementCount(tensor.dims);
}

function externalNumber(tensor: StoredTensor, key: 'offset' | 'length', fallback: number): number {
  const text = tensor.external?.get(key);
  if (text === undefined) return fallback;
  const value = /^\d+$/.test(text) ? Number(text) : NaN;
  if (Number.isSafeInteger(value)) return value;
  throw new ModelFormatError(
    `tensor '${tensor.name}' has the external data ${key} '${text.slice(0, 40)}', a whole number of bytes is needed`,
    tensor.span.start,
  );
}

function sizeError(tensor: StoredTensor, found: number, expected: number, unit: string): ModelFormatError {
  return new ModelFormatError(
    `tensor '${tensor.name}' of shape [${tensor.dims.join(', ')}] holds ${found} ${unit}, ${expected} are needed`,
    tensor.span.start,
  );
}

function decodeNumbers(bytes: Uint8Array, dataType: number, count: number): Float64Array {
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const out = new Float64Array(count);
  const read = readers[dataType];
  if (read !== undefined) for (let i = 0; i < count; i++) out[i] = read(data, i);
  return out;
}

const readers: Readonly<Record<number, (data: DataView, index: number) => number>> = {
  [DataType.float]: (data, i) => data.getFloat32(4 * i, true),
  [DataType.uint8]: (data, i) => data.getUint8(i),
  [DataType.int8]: (data, i) => data.getInt8(i),
  [DataType.uint16]: (data, i) => data.getUint16(2 * i, true),
  [DataType.int16]: (data, i) => data.getInt16(2 * i, true),
  [DataType.int32]: (data, i) => data.getInt32(4 * i, true),
  [DataType.int64]: (data, i) => data.getUint32(8 * i, true) + data.getInt32(8 * i + 4, true) * 2 ** 32,
  [DataType.bool]: (data, i) => data.getUint8(i),
  [DataType.float16]: (data, i) => halfToNumber(data.getUint16(2 * i, true), DataType.float16),
  [DataType.double]: (data, i) => data.getFloat64(8 * i, true),
  [DataType.uint32]: (data, i) => data.getUint32(4 * i, true),
  [DataType.uint64]: (data, i) => data.getUint32(8 * i, true) + data.getUint32(8 * i + 4, true) * 2 ** 32,
  [DataType.bfloat16]: (data, i) => halfToNumber(data.getUint16(2 * i, true), DataType.bfloat16),
};

const scratch = new DataView(new ArrayBuffer(4));

/** Value of the 16 bits of a float16 or bfloat16. */
export function halfToNumber(bits: number, dataType: number): number {
  if (dataType === DataType.bfloat16) {
    scratch.setUint32(0, (bits & 0xffff) * 2 ** 16);
    return scratch.getFloat32(0);
  }
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction !== 0 ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Reads NumPy's .npy format (versions 1 to 3): little- or big-endian numbers and booleans, C or Fortran order. */
import { elementCount, sampleFromBytes, bytesPerElement, type Sample, type SampleType } from './tensor.js';

const MAGIC = '\x93NUMPY';

const TYPES: Readonly<Record<string, SampleType>> = {
  f2: 'float16',
  f4: 'float32',
  f8: 'float64',
  i1: 'int8',
  i2: 'int16',
  i4: 'int32',
  i8: 'int64',
  u1: 'uint8',
  u2: 'uint16',
  u4: 'uint32',
  u8: 'uint64',
  b1: 'bool',
};

/** @param name what errors call the array. Throws an Error with one sentence on anything that is not a readable array. */
export function parseNpy(bytes: Uint8Array, name: string): Sample {
  const latin1 = new TextDecoder('latin1');
  if (bytes.length < 10 || latin1.decode(bytes.subarray(0, 6)) !== MAGIC) {
    throw new Error(`${name}: not a .npy array (it does not begin with the NumPy mark)`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const wide = bytes[6]! > 1;
  if (wide && bytes.length < 12) throw new Error(`${name}: the .npy header is cut short`);
  const headerStart = wide ? 12 : 10;
  const bodyStart = headerStart + (wide ? view.getUint32(8, true) : view.getUint16(8, true));
  if (bodyStart > bytes.length) throw new Error(`${name}: the .npy header is cut short`);

  const header = latin1.decode(bytes.subarray(headerStart, bodyStart));
  const descr = /'descr':\s*'([<>|=])(\w+)'/.exec(header);
  const shape = /'shape':\s*\(([^)]*)\)/.exec(header);
  const order = /'fortran_order':\s*(True|False)/.exec(header);
  if (!shape || !order) throw new Error(`${name}: the .npy header names no shape or order`);
  const type = descr ? TYPES[descr[2]!] : undefined;
  if (!descr || !type) {
    const found = /'descr':\s*('[^']*'|\[)/.exec(header)?.[1] ?? 'nothing';
    throw new Error(
      `${name}: element type ${found} is not supported; allowed are ${Object.keys(TYPES).join(', ')}`,
    );
  }
  const dims = (shape[1]!.match(/\d+/g) ?? []).map(Number);
  const size = elementCount(dims) * bytesPerElement(type);
  if (bytes.length - bodyStart < size) {
    throw new Error(`${name}: the array is cut short (${bytes.length - bodyStart} of ${size} bytes)`);
  }
  let body = bytes.subarray(bodyStart, bodyStart + size);
  if (descr[1] === '>') body = swapBytes(body, bytesPerElement(type));
  if (order[1] === 'True') body = toRowMajor(body, dims, bytesPerElement(type));
  return sampleFromBytes(type, dims, body);
}

function swapBytes(bytes: Uint8Array, width: number): Uint8Array {
  const swapped = Uint8Array.from(bytes);
  for (let at = 0; at < swapped.length; at += width) swapped.subarray(at, at + width).reverse();
  return swapped;
}

function toRowMajor(bytes: Uint8Array, dims: readonly number[], width: number): Uint8Array {
  const result = new Uint8Array(bytes.length);
  const index = dims.map(() => 0);
  const strides = dims.map((_, axis) => elementCount(dims.slice(0, axis)));
  for (let to = 0; to < bytes.length; to += width) {
    const from = width * index.reduce((sum, i, axis) => sum + i * strides[axis]!, 0);
    result.set(bytes.subarray(from, from + width), to);
    for (let axis = dims.length - 1; axis >= 0 && ++index[axis]! === dims[axis]; axis--) index[axis] = 0;
  }
  return result;
}

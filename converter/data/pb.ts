/** Reads one ONNX TensorProto file, as the ONNX test-data layout stores inputs (`test_data_set_0/input_0.pb`). */
import proto from 'onnx-proto';
import { elementCount, sampleFromBytes, zeros, type Sample, type SampleType } from './tensor.js';

const { TensorProto } = proto.onnx;
const { DataType } = TensorProto;

const TYPES: Readonly<Record<number, SampleType>> = {
  [DataType.FLOAT]: 'float32',
  [DataType.DOUBLE]: 'float64',
  [DataType.FLOAT16]: 'float16',
  [DataType.INT8]: 'int8',
  [DataType.UINT8]: 'uint8',
  [DataType.INT16]: 'int16',
  [DataType.UINT16]: 'uint16',
  [DataType.INT32]: 'int32',
  [DataType.UINT32]: 'uint32',
  [DataType.INT64]: 'int64',
  [DataType.UINT64]: 'uint64',
  [DataType.BOOL]: 'bool',
};

/** @param file what errors call the tensor. The tensor's own name may be empty. */
export function parseTensorProto(bytes: Uint8Array, file: string): { name: string; tensor: Sample } {
  let stored: proto.onnx.TensorProto;
  try {
    stored = TensorProto.decode(bytes);
  } catch (error) {
    throw new Error(`${file}: not an ONNX tensor (${(error as Error).message})`, { cause: error });
  }
  const type = TYPES[stored.dataType];
  if (!type) throw new Error(`${file}: element type ${stored.dataType} is not supported as sample data`);
  const dims = stored.dims.map(Number);
  const wrong = dims.find((dim) => !Number.isSafeInteger(dim) || dim < 0);
  if (wrong !== undefined) throw new Error(`${file}: dimension ${wrong}, allowed are 0 to 2^53 - 1`);
  if (stored.rawData.length > 0) {
    try {
      return { name: stored.name, tensor: sampleFromBytes(type, dims, stored.rawData) };
    } catch (error) {
      throw new Error(`${file}: ${(error as Error).message}`, { cause: error });
    }
  }
  const values = valuesOf(stored, type);
  if (values.length !== elementCount(dims)) {
    throw new Error(
      `${file}: [${dims.join(', ')}] needs ${elementCount(dims)} values, found ${values.length}`,
    );
  }
  const tensor = zeros(type, dims);
  if (tensor.data instanceof BigInt64Array || tensor.data instanceof BigUint64Array) {
    for (const [i, value] of values.entries()) tensor.data[i] = BigInt(value.toString());
  } else {
    for (const [i, value] of values.entries()) tensor.data[i] = Number(value);
  }
  return { name: stored.name, tensor };
}

function valuesOf(
  stored: proto.onnx.TensorProto,
  type: SampleType,
): readonly (number | { toString(): string })[] {
  switch (type) {
    case 'float32':
      return stored.floatData;
    case 'float64':
      return stored.doubleData;
    case 'int64':
      return stored.int64Data;
    case 'uint32':
    case 'uint64':
      return stored.uint64Data;
    default:
      return stored.int32Data;
  }
}

/** Tensors to and from ONNX's TensorProto, always through raw_data (little endian, as ONNX asks). */

import proto from 'onnx-proto';

import type { Tensor, TensorType } from './tensor.js';

const { TensorProto } = proto.onnx;

const DATA_TYPES: Readonly<Record<TensorType, proto.onnx.TensorProto.DataType>> = {
  float: TensorProto.DataType.FLOAT,
  float16: TensorProto.DataType.FLOAT16,
  bfloat16: TensorProto.DataType.BFLOAT16,
  bool: TensorProto.DataType.BOOL,
  int64: TensorProto.DataType.INT64,
};

/** The number that ONNX gives to a type. */
export function onnxDataType(type: TensorType): proto.onnx.TensorProto.DataType {
  return DATA_TYPES[type];
}

export function tensorProto(tensor: Tensor, name = ''): proto.onnx.TensorProto {
  const { buffer, byteOffset, byteLength } = tensor.data;
  return TensorProto.create({
    name,
    dataType: onnxDataType(tensor.type),
    dims: [...tensor.dims],
    rawData: new Uint8Array(buffer, byteOffset, byteLength),
  });
}

/** The tensor of a TensorProto of one of the operator's types; throws for other types and for data outside raw_data. */
export function tensorFromProto(message: proto.onnx.ITensorProto): Tensor {
  const type = (Object.keys(DATA_TYPES) as TensorType[]).find(
    (each) => DATA_TYPES[each] === message.dataType,
  );
  const raw = message.rawData;
  if (type === undefined || raw === undefined || raw === null)
    throw new Error(
      `tensor "${message.name ?? ''}" has type ${message.dataType ?? 0} or no raw data, ` +
        `must be raw data of ${Object.keys(DATA_TYPES).join(', ')}`,
    );
  const dims = (message.dims ?? []).map(Number);
  const bytes = Uint8Array.from(raw).buffer;
  switch (type) {
    case 'float':
      return { type, dims, data: new Float32Array(bytes) };
    case 'float16':
    case 'bfloat16':
      return { type, dims, data: new Uint16Array(bytes) };
    case 'bool':
      return { type, dims, data: new Uint8Array(bytes) };
    case 'int64':
      return { type, dims, data: new BigInt64Array(bytes) };
  }
}

/** Small ONNX models from lists of nodes. */
import onnx from 'onnx-proto';
import { tensorProto } from '../../op/tensor-proto.js';
import type { Tensor } from '../../op/tensor.js';

export type AttributeValue = number | string | readonly number[] | { readonly float: number };

export interface Node {
  readonly op: string;
  readonly domain?: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes?: Readonly<Record<string, AttributeValue>>;
}

export interface ValueType {
  readonly type: 'float' | 'float16' | 'int32' | 'int64';
  readonly dims: readonly number[];
}

const proto = onnx.onnx;
const DATA_TYPES = { float: 1, float16: 10, int32: 6, int64: 7 } as const;

function attribute(name: string, value: AttributeValue): onnx.onnx.IAttributeProto {
  const types = proto.AttributeProto.AttributeType;
  if (typeof value === 'string') return { name, type: types.STRING, s: new TextEncoder().encode(value) };
  if (typeof value === 'number') return { name, type: types.INT, i: value };
  if ('float' in value) return { name, type: types.FLOAT, f: value.float };
  return { name, type: types.INTS, ints: [...value] };
}

function valueInfo(name: string, { type, dims }: ValueType): onnx.onnx.IValueInfoProto {
  const shape = { dim: dims.map((dimValue) => ({ dimValue })) };
  return { name, type: { tensorType: { elemType: DATA_TYPES[type], shape } } };
}

export function model(
  inputs: Readonly<Record<string, ValueType>>,
  outputs: Readonly<Record<string, ValueType>>,
  constants: Readonly<Record<string, Tensor>>,
  nodes: readonly Node[],
): Uint8Array {
  const message = proto.ModelProto.create({
    irVersion: 10,
    opsetImport: [
      { domain: '', version: 23 },
      { domain: 'com.microsoft', version: 1 },
      ...(nodes.some(({ domain }) => domain === 'ort.sigmoid')
        ? [{ domain: 'ort.sigmoid', version: 1 }]
        : []),
    ],
    graph: {
      name: 'attention',
      input: Object.entries(inputs).map(([name, type]) => valueInfo(name, type)),
      output: Object.entries(outputs).map(([name, type]) => valueInfo(name, type)),
      initializer: Object.entries(constants).map(([name, tensor]) => tensorProto(tensor, name)),
      node: nodes.map(({ op, domain, inputs: input, outputs: output, attributes = {} }) => ({
        opType: op,
        domain: domain ?? '',
        input: [...input],
        output: [...output],
        attribute: Object.entries(attributes).map(([name, value]) => attribute(name, value)),
      })),
    },
  });
  return proto.ModelProto.encode(message).finish();
}

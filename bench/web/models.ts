/** ONNX models of chains of attention nodes: the time of one node is the slope over the length of the chain. */

import proto from 'onnx-proto';
import { functionFor, nodeAttributes } from '../../op/function.js';
import { type Attributes, DOMAIN, OP_TYPE } from '../../op/schema.js';
import type { BenchShape } from './shapes.js';

const { AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TypeProto, ValueInfoProto } =
  proto.onnx;

const OPSET = 17;
const ELEMENT_TYPES = { f32: 1, f16: 10 } as const;

export type PeerKind = 'MultiHeadAttention' | 'function';

export function attributesOf({ heads, keyLength }: BenchShape): Attributes {
  return { q_num_heads: heads, kv_num_heads: heads, bias: -Math.log(keyLength), bias_mode: 'none' };
}

/** x [1,N,H*D] through `nodes` attention nodes over the same K and V [1,Nk,H*D]. */
export function chainModel(shape: BenchShape, kind: PeerKind, nodes: number): Uint8Array {
  const width = shape.heads * shape.headSize;
  const attributes = attributesOf(shape);
  const elemType = ELEMENT_TYPES[shape.type];
  const info = (name: string, length: number): proto.onnx.ValueInfoProto =>
    ValueInfoProto.create({
      name,
      type: TypeProto.create({
        tensorType: { elemType, shape: { dim: [1, length, width].map((dimValue) => ({ dimValue })) } },
      }),
    });
  const node = Array.from({ length: nodes }, (_, index) =>
    NodeProto.create({
      name: `attention${index}`,
      opType: kind === 'function' ? OP_TYPE : kind,
      domain: kind === 'function' ? DOMAIN : 'com.microsoft',
      input: [index === 0 ? 'x' : `y${index}`, 'k', 'v'],
      output: [index === nodes - 1 ? 'y' : `y${index + 1}`],
      attribute:
        kind === 'function'
          ? nodeAttributes(attributes)
          : [
              AttributeProto.create({
                name: 'num_heads',
                type: AttributeProto.AttributeType.INT,
                i: shape.heads,
              }),
            ],
    }),
  );
  const use = {
    type: shape.type === 'f32' ? ('float' as const) : ('float16' as const),
    rank: 3 as const,
    attributes,
    inputs: [],
    presents: false,
  };
  return ModelProto.encode(
    ModelProto.create({
      irVersion: 8,
      producerName: 'bench',
      opsetImport: ['', 'com.microsoft', DOMAIN].map((domain) =>
        OperatorSetIdProto.create({ domain, version: domain === '' ? OPSET : 1 }),
      ),
      functions: kind === 'function' ? [functionFor([use], OPSET)] : [],
      graph: GraphProto.create({
        name: 'chain',
        node,
        input: [info('x', shape.queryLength), info('k', shape.keyLength), info('v', shape.keyLength)],
        output: [info('y', shape.queryLength)],
      }),
    }),
  ).finish();
}

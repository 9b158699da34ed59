/**
 * Transformer models in float16 with ONNX Runtime's fused attention, for timing whole sessions on a GPU. All layers share one
 * set of random weights: the file stays small and every layer does its full work. Token ids go in and one row comes out, so
 * that copies between host and device do not hide the model's time.
 */
import proto from 'onnx-proto';

import { fromNumbers } from '../../op/tensor.js';

const { AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto } =
  proto.onnx;
const { DataType } = proto.onnx.TensorProto;
const { AttributeType } = proto.onnx.AttributeProto;

export interface TransformerShape {
  readonly layers: number;
  readonly length: number;
  readonly hidden: number;
  readonly heads: number;
  readonly kvHeads: number;
  /** MultiHeadAttention, or GroupQueryAttention, which is always causal. */
  readonly attention: 'MultiHeadAttention' | 'GroupQueryAttention';
  readonly causal: boolean;
}

const VOCABULARY = 256;
/** Random values of a weight before they repeat; prime, so that no two rows are equal. */
const DISTINCT_VALUES = 65_537;

export function transformerModel(shape: TransformerShape): Uint8Array {
  const { layers, length, hidden, heads, kvHeads } = shape;
  const kvWidth = (hidden / heads) * kvHeads;
  const random = gaussian(1);
  const half = (name: string, dims: number[], deviation: number): proto.onnx.ITensorProto => {
    const size = dims.reduce((a, b) => a * b, 1);
    const some = Array.from({ length: Math.min(size, DISTINCT_VALUES) }, () => deviation * random());
    const pattern = fromNumbers('float16', [some.length], some).data as Uint16Array;
    const bits = Uint16Array.from({ length: size }, (_, i) => pattern[i % pattern.length]!);
    return TensorProto.create({
      name,
      dims,
      dataType: DataType.FLOAT16,
      rawData: new Uint8Array(bits.buffer, bits.byteOffset, bits.byteLength),
    });
  };
  const initializer = [
    half('embedding', [VOCABULARY, hidden], 1),
    half('w_q', [hidden, hidden], 1 / Math.sqrt(hidden)),
    half('w_k', [hidden, kvWidth], 1 / Math.sqrt(hidden)),
    half('w_v', [hidden, kvWidth], 1 / Math.sqrt(hidden)),
    half('w_o', [hidden, hidden], 1 / Math.sqrt(hidden)),
    half('w_up', [hidden, 4 * hidden], 1 / Math.sqrt(hidden)),
    half('w_down', [4 * hidden, hidden], 1 / Math.sqrt(4 * hidden)),
    half('norm_scale', [hidden], 1),
    int32('seqlens_k', [1], length - 1),
    int32('total_length', [], length),
  ];
  const node = [apply('Gather', ['embedding', 'ids'], 'x0')];
  for (let layer = 0; layer < layers; layer++) node.push(...block(shape, layer));
  node.push(apply('ReduceMean', [`x${layers}`], 'pooled', { axes: [1], keepdims: 0 }));

  return ModelProto.encode(
    ModelProto.create({
      irVersion: 8,
      opsetImport: [
        OperatorSetIdProto.create({ domain: '', version: 17 }),
        OperatorSetIdProto.create({ domain: 'com.microsoft', version: 1 }),
      ],
      graph: GraphProto.create({
        name: 'transformer',
        node,
        initializer,
        input: [valueInfo('ids', DataType.INT64, [1, length])],
        output: [valueInfo('pooled', DataType.FLOAT16, [1, hidden])],
      }),
    }),
  ).finish();
}

function block(shape: TransformerShape, layer: number): proto.onnx.NodeProto[] {
  const { heads, kvHeads, attention, causal } = shape;
  const at = (name: string): string => `${name}_${layer}`;
  const fused =
    attention === 'GroupQueryAttention'
      ? apply(
          attention,
          [at('q'), at('k'), at('v'), '', '', 'seqlens_k', 'total_length'],
          [at('mix'), at('present_key'), at('present_value')],
          { num_heads: heads, kv_num_heads: kvHeads },
          'com.microsoft',
        )
      : apply(
          attention,
          [at('q'), at('k'), at('v')],
          at('mix'),
          { num_heads: heads, unidirectional: Number(causal) },
          'com.microsoft',
        );
  return [
    apply('LayerNormalization', [`x${layer}`, 'norm_scale'], at('n')),
    apply('MatMul', [at('n'), 'w_q'], at('q')),
    apply('MatMul', [at('n'), 'w_k'], at('k')),
    apply('MatMul', [at('n'), 'w_v'], at('v')),
    fused,
    apply('MatMul', [at('mix'), 'w_o'], at('o')),
    apply('Add', [`x${layer}`, at('o')], at('r')),
    apply('LayerNormalization', [at('r'), 'norm_scale'], at('m')),
    apply('MatMul', [at('m'), 'w_up'], at('up')),
    apply('FastGelu', [at('up')], at('act'), {}, 'com.microsoft'),
    apply('MatMul', [at('act'), 'w_down'], at('down')),
    apply('Add', [at('r'), at('down')], `x${layer + 1}`),
  ];
}

function apply(
  opType: string,
  input: string[],
  output: string | string[],
  attributes: Record<string, number | number[]> = {},
  domain = '',
): proto.onnx.NodeProto {
  const outputs = typeof output === 'string' ? [output] : output;
  return NodeProto.create({
    name: `${opType}/${outputs[0]}`,
    opType,
    domain,
    input,
    output: outputs,
    attribute: Object.entries(attributes).map(([name, value]) =>
      typeof value === 'number'
        ? AttributeProto.create({ name, type: AttributeType.INT, i: value })
        : AttributeProto.create({ name, type: AttributeType.INTS, ints: value }),
    ),
  });
}

function int32(name: string, dims: number[], value: number): proto.onnx.ITensorProto {
  return TensorProto.create({ name, dims, dataType: DataType.INT32, int32Data: [value] });
}

function valueInfo(name: string, elemType: number, dims: number[]): proto.onnx.ValueInfoProto {
  return ValueInfoProto.create({
    name,
    type: { tensorType: { elemType, shape: { dim: dims.map((dimValue) => ({ dimValue })) } } },
  });
}

/** Normal deviates from a linear congruential generator, by Box and Muller. */
function gaussian(seed: number): () => number {
  let state = seed >>> 0;
  const uniform = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}

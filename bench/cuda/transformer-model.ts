/**
 * Transformer models in float16 with ONNX Runtime's fused attention, for timing whole sessions on a GPU. All layers share one
 * set of random weights: the file stays small and every layer does its full work. Token ids go in and one row comes out, so
 * that copies between host and device do not hide the model's time.
 */
import { RandomNumbers } from '../../converter/data/random-numbers.js';
import { numberToFloat16 } from '../../op/half.js';
import { tensorProto } from '../../op/tensor-proto.js';
import { sizeOf } from '../../op/tensor.js';
import { FLOAT16, INT32, INT64, ModelBuilder } from '../../proving/model-builder.js';

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
  const model = new ModelBuilder(17);
  const random = new RandomNumbers(1);
  const half = (name: string, dims: number[], deviation: number): void => {
    const size = sizeOf(dims);
    const some = Array.from({ length: Math.min(size, DISTINCT_VALUES) }, () =>
      numberToFloat16(deviation * random.normal()),
    );
    const data = Uint16Array.from({ length: size }, (_, i) => some[i % some.length]!);
    model.initializers.push(tensorProto({ type: 'float16', dims, data }, name));
  };
  half('embedding', [VOCABULARY, hidden], 1);
  half('w_q', [hidden, hidden], 1 / Math.sqrt(hidden));
  half('w_k', [hidden, kvWidth], 1 / Math.sqrt(hidden));
  half('w_v', [hidden, kvWidth], 1 / Math.sqrt(hidden));
  half('w_o', [hidden, hidden], 1 / Math.sqrt(hidden));
  half('w_up', [hidden, 4 * hidden], 1 / Math.sqrt(hidden));
  half('w_down', [4 * hidden, hidden], 1 / Math.sqrt(4 * hidden));
  half('norm_scale', [hidden], 1);
  model.constant(INT32, [1], [length - 1], 'seqlens_k');
  model.constant(INT32, [], [length], 'total_length');
  let x = model.op('Gather', ['embedding', model.input('ids', INT64, [1, length])]);
  for (let layer = 0; layer < layers; layer++) x = block(model, shape, x, layer);
  model.op('ReduceMean', [x], { axes: [1], keepdims: 0 }, 'pooled');
  model.output('pooled', FLOAT16, [1, hidden]);
  return model.toBytes();
}

function block(model: ModelBuilder, shape: TransformerShape, x: string, layer: number): string {
  const normed = model.op('LayerNormalization', [x, 'norm_scale']);
  const operands = ['w_q', 'w_k', 'w_v'].map((weight) => model.op('MatMul', [normed, weight]));
  const mixed = attention(model, shape, operands, layer);
  const attended = model.op('Add', [x, model.op('MatMul', [mixed, 'w_o'])]);
  const up = model.op('MatMul', [model.op('LayerNormalization', [attended, 'norm_scale']), 'w_up']);
  const active = model.op('FastGelu', [up], {}, `active_${layer}`, 'com.microsoft');
  return model.op('Add', [attended, model.op('MatMul', [active, 'w_down'])]);
}

function attention(
  model: ModelBuilder,
  { heads, kvHeads, attention: operator, causal }: TransformerShape,
  operands: readonly string[],
  layer: number,
): string {
  const mixed = `mixed_${layer}`;
  if (operator === 'MultiHeadAttention') {
    const attributes = { num_heads: heads, unidirectional: Number(causal) };
    return model.op(operator, operands, attributes, mixed, 'com.microsoft');
  }
  model.node(
    operator,
    [...operands, '', '', 'seqlens_k', 'total_length'],
    [mixed, `present_key_${layer}`, `present_value_${layer}`],
    { num_heads: heads, kv_num_heads: kvHeads },
    'com.microsoft',
  );
  return mixed;
}

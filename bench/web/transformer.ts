/**
 * Transformers as exporters write them, attention spelled out in ONNX operators: what a user converts. All layers share one set
 * of random weights, so that the file stays small and every layer does its full work.
 */
import { RandomNumbers } from '../../converter/data/random-numbers.js';
import { FLOAT, ModelBuilder } from '../../proving/model-builder.js';

export interface TransformerShape {
  readonly layers: number;
  readonly length: number;
  readonly heads: number;
  readonly headSize: number;
  readonly causal: boolean;
  /** `sum`: q + v instead of attention, so that nothing but the layer around it is left. */
  readonly attention: 'softmax' | 'sum';
}

const EXPANSION = 4;

/** x [1,N,W] -> y [1,W], the mean of the last layer's rows: what comes back to the host is small. */
export function transformer(shape: TransformerShape): Uint8Array {
  const { layers, length, heads, headSize, causal } = shape;
  const width = heads * headSize;
  const model = new ModelBuilder(17);
  const random = new RandomNumbers(7);
  const matrix = (name: string, rows: number, columns: number): void => {
    const bound = Math.sqrt(3 / rows);
    const values = Float32Array.from({ length: rows * columns }, () => bound * (2 * random.uniform() - 1));
    model.constant(FLOAT, [rows, columns], values, name);
  };
  for (const name of ['w_q', 'w_k', 'w_v', 'w_o']) matrix(name, width, width);
  matrix('w_up', width, EXPANSION * width);
  matrix('w_down', EXPANSION * width, width);
  model.constant(FLOAT, [width], new Float32Array(width).fill(1), 'norm_scale');
  model.constant(FLOAT, [width], new Float32Array(width), 'norm_shift');
  model.constant(FLOAT, [], [1 / Math.sqrt(headSize)], 'scale');
  if (causal) model.constant(FLOAT, [1, 1, length, length], causalMask(length), 'mask');
  let x = model.input('x0', FLOAT, [1, length, width]);
  const split = model.ints([1, length, heads, headSize]);
  const join = model.ints([1, length, width]);
  for (let layer = 0; layer < layers; layer++) x = block(model, shape, x, split, join);
  model.op('ReduceMean', [x], { axes: [1], keepdims: 0 }, 'y');
  model.output('y', FLOAT, [1, width]);
  return model.toBytes();
}

function block(
  model: ModelBuilder,
  { causal, attention }: TransformerShape,
  x: string,
  split: string,
  join: string,
): string {
  const normed = model.op('LayerNormalization', [x, 'norm_scale', 'norm_shift']);
  const project = (weight: string, perm: number[]): string =>
    model.op('Transpose', [model.op('Reshape', [model.op('MatMul', [normed, weight]), split])], { perm });
  const q = project('w_q', [0, 2, 1, 3]);
  const v = project('w_v', [0, 2, 1, 3]);
  const softmaxAttention = (): string => {
    const scores = model.op('MatMul', [q, project('w_k', [0, 2, 3, 1])]);
    const scaled = model.op('Mul', [scores, 'scale']);
    const weights = model.op('Softmax', [causal ? model.op('Add', [scaled, 'mask']) : scaled], { axis: -1 });
    return model.op('MatMul', [weights, v]);
  };
  const mixed = attention === 'sum' ? model.op('Add', [q, v]) : softmaxAttention();
  const joined = model.op('Reshape', [model.op('Transpose', [mixed], { perm: [0, 2, 1, 3] }), join]);
  const attended = model.op('Add', [x, model.op('MatMul', [joined, 'w_o'])]);
  const up = model.op('MatMul', [
    model.op('LayerNormalization', [attended, 'norm_scale', 'norm_shift']),
    'w_up',
  ]);
  return model.op('Add', [attended, model.op('MatMul', [gelu(model, up), 'w_down'])]);
}

function gelu(model: ModelBuilder, x: string): string {
  const erf = model.op('Erf', [model.op('Div', [x, model.scalar(FLOAT, Math.SQRT2)])]);
  const gated = model.op('Mul', [x, model.op('Add', [erf, model.scalar(FLOAT, 1)])]);
  return model.op('Mul', [gated, model.scalar(FLOAT, 0.5)]);
}

function causalMask(length: number): Float32Array {
  return Float32Array.from({ length: length * length }, (_, n) =>
    n % length > Math.floor(n / length) ? -3.4028234663852886e38 : 0,
  );
}

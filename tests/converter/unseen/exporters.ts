/** Attention as exporters write it that the model zoo does not hold: tf2onnx and Keras, JAX, Paddle, ONNX Runtime's optimiser. */
import { FLOAT, FLOAT16, INT32, INT64, type ModelBuilder } from '../../../proving/model-builder.js';
import {
  B,
  booleans,
  C,
  D,
  floats,
  H,
  halves,
  int32s,
  int64s,
  M,
  N,
  padding,
  weights,
  type UnseenCase,
} from './case.js';

type Names = readonly [string, string, string];

/** Keras MultiHeadAttention: kernels of shape [C, H, D] in Einsum. */
function kerasProjections(b: ModelBuilder, x: string, context: string): Names {
  const project = (input: string, seed: number): string =>
    b.op('Add', [
      b.op('Einsum', [input, weights(b, [C, H, D], seed)], { equation: 'abc,cde->abde' }),
      weights(b, [H, D], seed + 9),
    ]);
  return [project(x, 1), project(context, 2), project(context, 3)];
}

function kerasOutput(b: ModelBuilder, y: string): void {
  b.op('Einsum', [y, weights(b, [H, D, C], 4)], { equation: 'abcd,cde->abe' }, 'y');
  b.output('y');
}

/** (1 - mask) * -10000 of a [B, M] int32 mask, as TensorFlow's BERT cuts it with tf.newaxis. */
function tensorFlowMask(b: ModelBuilder, name: string, lowest: number): string {
  const wide = b.unsqueeze(name, [1, 2]);
  const number = b.op('Cast', [wide], { to: FLOAT });
  return b.op('Mul', [b.op('Sub', [b.scalar(FLOAT, 1), number]), b.scalar(FLOAT, lowest)]);
}

/** softmax = exp(x - max) / sum */
function writtenSoftmax(b: ModelBuilder, scores: string, axis = -1): string {
  const top = b.reduce('ReduceMax', scores, axis);
  const exponential = b.op('Exp', [b.op('Sub', [scores, top])]);
  return b.op('Div', [exponential, b.reduce('ReduceSum', exponential, axis)]);
}

function dense(b: ModelBuilder, x: string, seed: number, width = C): string {
  return b.op('Add', [b.op('MatMul', [x, weights(b, [C, width], seed)]), weights(b, [width], seed + 50)]);
}

function heads(b: ModelBuilder, x: string, perm: readonly number[] = [0, 2, 1, 3]): string {
  return b.op('Transpose', [b.op('Reshape', [x, b.ints([0, -1, H, D])])], { perm });
}

function merged(b: ModelBuilder, x: string): void {
  b.op('Reshape', [b.op('Transpose', [x], { perm: [0, 2, 1, 3] }), b.ints([0, -1, C])], {}, 'y');
  b.output('y');
}

const tokens = ['batch', 'seq', C] as const;

export const EXPORTERS: readonly UnseenCase[] = [
  {
    title: 'Keras MultiHeadAttention with Einsum kernels and a mask of -1e9',
    opset: 13,
    sites: 1,
    mask: 'padding',
    feeds: (r) => ({ x: floats(r, [B, N, C]), c: floats(r, [B, M, C]), m: int32s([B, M], padding(B, M)) }),
    build(b) {
      const [q, k, v] = kerasProjections(
        b,
        b.input('x', FLOAT, tokens),
        b.input('c', FLOAT, ['batch', 'keys', C]),
      );
      const scaled = b.op('Mul', [q, b.scalar(FLOAT, D ** -0.5)]);
      const scores = b.op('Einsum', [k, scaled], { equation: 'aecd,abcd->acbe' });
      const masked = b.op('Add', [scores, tensorFlowMask(b, b.input('m', INT32, ['batch', 'keys']), -1e9)]);
      kerasOutput(
        b,
        b.op('Einsum', [b.op('Softmax', [masked], { axis: -1 }), v], { equation: 'acbe,aecd->abcd' }),
      );
    },
  },
  {
    title: 'Keras Attention layer: one head, scores from a reduced key axis, scaled by a learned scalar',
    opset: 13,
    sites: 1,
    feeds: (r) => ({ x: floats(r, [B, N, C]), c: floats(r, [B, M, C]) }),
    build(b) {
      b.input('x', FLOAT, tokens);
      b.input('c', FLOAT, ['batch', 'keys', C]);
      const scores = b.op('Mul', [
        b.op('MatMul', ['x', b.op('Transpose', ['c'], { perm: [0, 2, 1] })]),
        b.constant(FLOAT, [1], [0.2]),
      ]);
      b.op('MatMul', [writtenSoftmax(b, scores), 'c'], {}, 'y');
      b.output('y');
    },
  },
  {
    title: 'TensorFlow BERT at opset 11: layers on flattened tokens, keys transposed to [0, 2, 3, 1]',
    opset: 11,
    sites: 1,
    mask: 'padding',
    feeds: (r) => ({ x: floats(r, [B, N, C]), m: int32s([B, N], padding(B, N)) }),
    build(b) {
      b.input('x', FLOAT, [B, N, C]);
      b.input('m', INT32, [B, N]);
      const flat = b.op('Reshape', ['x', b.ints([-1, C])]);
      const layer = (seed: number): string => b.op('Reshape', [dense(b, flat, seed), b.ints([B, N, H, D])]);
      const q = b.op('Transpose', [layer(1)], { perm: [0, 2, 1, 3] });
      const k = b.op('Transpose', [layer(2)], { perm: [0, 2, 3, 1] });
      const v = b.op('Transpose', [layer(3)], { perm: [0, 2, 1, 3] });
      const scores = b.op('Mul', [b.op('MatMul', [q, k]), b.scalar(FLOAT, D ** -0.5)]);
      const weightsOf = b.op('Softmax', [b.op('Add', [scores, tensorFlowMask(b, 'm', -10000)])], { axis: 3 });
      const rows = b.op('Transpose', [b.op('MatMul', [weightsOf, v])], { perm: [0, 2, 1, 3] });
      b.op('Reshape', [rows, b.ints([-1, C])], {}, 'y');
      b.output('y');
    },
  },
  {
    title: 'TensorFlow Lite: softmax over the rows of a matrix',
    opset: 11,
    sites: 1,
    feeds: (r) => ({ x: floats(r, [B, N, C]) }),
    build(b) {
      b.input('x', FLOAT, [B, N, C]);
      const [q, k, v] = [1, 2, 3].map((seed) => heads(b, dense(b, 'x', seed)));
      const scores = b.op('MatMul', [
        b.op('Mul', [q!, b.scalar(FLOAT, 0.3)]),
        b.op('Transpose', [k!], { perm: [0, 1, 3, 2] }),
      ]);
      const flat = b.op('Softmax', [b.op('Reshape', [scores, b.ints([-1, N])])], { axis: 1 });
      merged(b, b.op('MatMul', [b.op('Reshape', [flat, b.ints([B, H, N, N])]), v!]));
    },
  },
  {
    title: 'Keras image attention in NHWC between convolutions',
    opset: 13,
    sites: 1,
    feeds: (r) => ({ x: floats(r, [B, 3, 4, C]) }),
    build(b) {
      b.input('x', FLOAT, ['batch', 3, 4, C]);
      const first = b.op('Transpose', ['x'], { perm: [0, 3, 1, 2] });
      const conv = (seed: number): string => {
        const y = b.op('Conv', [first, weights(b, [C, C, 1, 1], seed, 0.1)]);
        return b.op('Reshape', [b.op('Transpose', [y], { perm: [0, 2, 3, 1] }), b.ints([0, 12, C])]);
      };
      const scores = b.op('MatMul', [conv(1), b.op('Transpose', [conv(2)], { perm: [0, 2, 1] })]);
      const y = b.op('MatMul', [b.op('Softmax', [scores], { axis: -1 }), conv(3)]);
      b.op('Add', ['x', b.op('Reshape', [y, b.ints([0, 3, 4, C])])], {}, 'y');
      b.output('y');
    },
  },
  {
    title: 'flax dot_product_attention: Einsum with ellipsis, where, and a written softmax',
    opset: 17,
    sites: 1,
    feeds: (r) => ({
      q: floats(r, [B, N, H, D]),
      k: floats(r, [B, M, H, D]),
      v: floats(r, [B, M, H, D]),
      m: booleans([B, 1, 1, M], padding(B, M)),
    }),
    build(b) {
      b.input('q', FLOAT, ['batch', 'n', H, D]);
      b.input('k', FLOAT, ['batch', 'm', H, D]);
      b.input('v', FLOAT, ['batch', 'm', H, D]);
      b.input('m', 9, ['batch', 1, 1, 'm']);
      const scaled = b.op('Div', ['q', b.scalar(FLOAT, D ** 0.5)]);
      const scores = b.op('Einsum', [scaled, 'k'], { equation: '...qhd,...khd->...hqk' });
      const masked = b.op('Where', ['m', scores, b.scalar(FLOAT, -3.4028234663852886e38)]);
      b.op('Einsum', [writtenSoftmax(b, masked), 'v'], { equation: '...hqk,...khd->...qhd' }, 'y');
      b.output('y');
    },
  },
  {
    title: 'JAX dot_general lowered to three-dimensional products',
    opset: 17,
    sites: 1,
    mask: 'causal',
    feeds: (r) => ({ q: floats(r, [B, N, H, D]), k: floats(r, [B, N, H, D]), v: floats(r, [B, N, H, D]) }),
    build(b) {
      for (const name of ['q', 'k', 'v']) b.input(name, FLOAT, [B, N, H, D]);
      const flat = (name: string, perm: readonly number[], dims: readonly number[]): string =>
        b.op('Reshape', [b.op('Transpose', [name], { perm }), b.ints(dims)]);
      const scores = b.op('MatMul', [
        flat('q', [0, 2, 1, 3], [B * H, N, D]),
        flat('k', [0, 2, 3, 1], [B * H, D, N]),
      ]);
      const four = b.op('Mul', [b.op('Reshape', [scores, b.ints([B, H, N, N])]), b.scalar(FLOAT, D ** -0.5)]);
      const iota = b.ints(Array.from({ length: N }, (_, i) => i));
      const causal = b.op('GreaterOrEqual', [
        b.op('Reshape', [iota, b.ints([N, 1])]),
        b.op('Reshape', [iota, b.ints([1, N])]),
      ]);
      const masked = b.op('Where', [
        b.unsqueeze(causal, [0, 1]),
        four,
        b.op('Expand', [b.scalar(FLOAT, -1e10), b.ints([B, H, N, N])]),
      ]);
      const top = b.op('Max', [b.scalar(FLOAT, -Infinity), b.reduce('ReduceMax', masked, 3, 0)]);
      const shifted = b.op('Sub', [masked, b.op('Identity', [b.unsqueeze(top, [3])])]);
      const exponential = b.op('Exp', [shifted]);
      const sum = b.unsqueeze(b.reduce('ReduceSum', exponential, 3, 0), [3]);
      const p = b.op('Reshape', [b.op('Div', [exponential, sum]), b.ints([B * H, N, N])]);
      const y = b.op('Reshape', [
        b.op('MatMul', [p, flat('v', [0, 2, 1, 3], [B * H, N, D])]),
        b.ints([B, H, N, D]),
      ]);
      b.op('Transpose', [y], { perm: [0, 2, 1, 3] }, 'y');
      b.output('y');
    },
  },
  {
    title: 'Paddle: scale as Mul and Add of 0, query, key and value by Slice and Squeeze',
    opset: 11,
    sites: 1,
    feeds: (r) => ({ x: floats(r, [B, N, C]) }),
    build(b) {
      b.input('x', FLOAT, ['batch', N, C]);
      const five = b.op('Transpose', [b.op('Reshape', [dense(b, 'x', 1, 3 * C), b.ints([0, -1, 3, H, D])])], {
        perm: [2, 0, 3, 1, 4],
      });
      const [q, k, v] = [0, 1, 2].map((i) =>
        b.squeeze(b.op('Slice', [five, b.ints([i]), b.ints([i + 1]), b.ints([0])]), [0]),
      );
      const scaled = b.op('Add', [
        b.op('Mul', [q!, b.constant(FLOAT, [1], [D ** -0.5])]),
        b.constant(FLOAT, [1], [0]),
      ]);
      const scores = b.op('MatMul', [scaled, b.op('Transpose', [k!], { perm: [0, 1, 3, 2] })]);
      merged(b, b.op('MatMul', [b.op('Softmax', [scores], { axis: 3 }), v!]));
    },
  },
  {
    title: 'Paddle before opset 13: a softmax that is moved to the last axis',
    opset: 11,
    sites: 1,
    feeds: (r) => ({ q: floats(r, [B, H, N, D]), k: floats(r, [B, H, M, D]), v: floats(r, [B, H, M, D]) }),
    build(b) {
      b.input('q', FLOAT, [B, H, N, D]);
      b.input('k', FLOAT, [B, H, M, D]);
      b.input('v', FLOAT, [B, H, M, D]);
      const scores = b.op('MatMul', ['k', b.op('Transpose', ['q'], { perm: [0, 1, 3, 2] })]);
      const turned = b.op('Softmax', [b.op('Transpose', [scores], { perm: [0, 1, 3, 2] })], { axis: 3 });
      const p = b.op('Transpose', [turned], { perm: [0, 1, 3, 2] });
      b.op('MatMul', [b.op('Transpose', [p], { perm: [0, 1, 3, 2] }), 'v'], {}, 'y');
      b.output('y');
    },
  },
  {
    title: 'ONNX Runtime: FusedMatMul with alpha and transB',
    opset: 17,
    sites: 1,
    feeds: (r) => ({ x: floats(r, [B, N, C]), m: floats(r, [B, 1, 1, N], 3) }),
    build(b) {
      b.input('x', FLOAT, ['batch', N, C]);
      b.input('m', FLOAT, ['batch', 1, 1, N]);
      const [q, k, v] = [1, 2, 3].map((seed) => heads(b, dense(b, 'x', seed)));
      const scores = b.op(
        'FusedMatMul',
        [q!, k!],
        { transB: 1, alpha: { float: D ** -0.5 } },
        undefined,
        'com.microsoft',
      );
      const p = b.op('Softmax', [b.op('Add', [scores, 'm'])], { axis: 3 });
      merged(b, b.op('MatMul', [p, v!]));
    },
  },
  {
    title: 'ONNX Runtime: FusedMatMul with transBatchA and transBatchB over [N, B*H, D]',
    opset: 17,
    sites: 1,
    feeds: (r) => ({ q: floats(r, [N, B * H, D]), k: floats(r, [M, B * H, D]), v: floats(r, [M, B * H, D]) }),
    build(b) {
      b.input('q', FLOAT, ['n', 'heads', D]);
      b.input('k', FLOAT, ['m', 'heads', D]);
      b.input('v', FLOAT, ['m', 'heads', D]);
      const fused = (inputs: string[], attributes: Record<string, number>, output?: string): string =>
        b.op('FusedMatMul', inputs, { ...attributes, alpha: { float: 0.5 } }, output, 'com.microsoft');
      const scores = fused(['q', 'k'], { transBatchA: 1, transB: 1, transBatchB: 1 });
      fused([b.op('Softmax', [scores]), 'v'], { transBatchB: 1 }, 'y');
      b.output('y');
    },
  },
  {
    title:
      'ONNX Runtime: patches in the blocked layout of its convolutions, as it saves a model fully optimised',
    opset: 17,
    sites: 1,
    feeds: (r) => ({ x: floats(r, [B, 3, 8, 8]) }),
    build(b) {
      b.input('x', FLOAT, ['batch', 3, 8, 8]);
      const kernel = {
        kernel_shape: [4, 4],
        strides: [4, 4],
        pads: [0, 0, 0, 0],
        dilations: [1, 1],
        group: 1,
      };
      const blocked = 'com.microsoft.nchwc';
      const patches = b.op('Conv', ['x', weights(b, [C, 3, 4, 4], 8, 0.05)], kernel, undefined, blocked);
      const plain = b.op('ReorderOutput', [patches], { channels: C, channels_last: 0 }, undefined, blocked);
      const rows = b.op('Transpose', [b.op('Reshape', [plain, b.ints([0, C, -1])])], { perm: [0, 2, 1] });
      const [q, k, v] = [1, 2, 3].map((seed) => heads(b, b.op('MatMul', [rows, weights(b, [C, C], seed)])));
      const scores = b.op('MatMul', [q!, b.op('Transpose', [k!], { perm: [0, 1, 3, 2] })]);
      merged(b, b.op('MatMul', [b.op('Softmax', [scores]), v!]));
    },
  },
  {
    title: 'ONNX Runtime: layers of 4-bit weights (MatMulNBits) and SkipLayerNormalization around the site',
    opset: 17,
    sites: 1,
    feeds: (r) => ({ x: floats(r, [B, N, C]), s: floats(r, [B, N, C]) }),
    build(b) {
      b.input('x', FLOAT, ['batch', 'seq', C]);
      b.input('s', FLOAT, ['batch', 'seq', C]);
      b.op(
        'SkipLayerNormalization',
        ['x', 's', weights(b, [C], 8), weights(b, [C], 9)],
        { epsilon: { float: 1e-5 } },
        'h',
        'com.microsoft',
      );
      const layer = (seed: number): string => {
        const bytes = Array.from({ length: C * 16 }, (_, i) => (i * 37 * seed + 11) % 256);
        b.initializers.push({
          name: `w${seed}`,
          dataType: 2,
          dims: [C, 1, 16],
          rawData: Uint8Array.from(bytes),
        });
        return b.op(
          'MatMulNBits',
          ['h', `w${seed}`, b.constant(FLOAT, [C], new Array<number>(C).fill(0.05))],
          { K: C, N: C, bits: 4, block_size: 32 },
          undefined,
          'com.microsoft',
        );
      };
      const [q, k, v] = [1, 2, 3].map((seed) => heads(b, layer(seed)));
      const scores = b.op('Mul', [
        b.op('MatMul', [q!, b.op('Transpose', [k!], { perm: [0, 1, 3, 2] })]),
        b.scalar(FLOAT, D ** -0.5),
      ]);
      merged(b, b.op('MatMul', [b.op('Softmax', [scores], { axis: -1 }), v!]));
    },
  },
  {
    title: 'MXNet: interleaved query, key and value, sequence first',
    opset: 13,
    sites: 1,
    feeds: (r) => ({ x: floats(r, [N, B, 3 * C]) }),
    build(b) {
      b.input('x', FLOAT, ['seq', 'batch', 3 * C]);
      const parts = b.split(b.op('Reshape', ['x', b.ints([0, 0, H, 3, D])]), 3, [1, 1, 1]);
      const [q, k, v] = parts.map((part) => {
        const four = b.op('Transpose', [b.op('Reshape', [part, b.ints([0, 0, -1, D])])], {
          perm: [1, 2, 0, 3],
        });
        return b.op('Reshape', [
          four,
          b.op('Concat', [b.ints([-1]), b.size('x', 0), b.ints([D])], { axis: 0 }),
        ]);
      });
      const scores = b.op('MatMul', [
        b.op('Div', [q!, b.scalar(FLOAT, Math.sqrt(D))]),
        b.op('Transpose', [k!], { perm: [0, 2, 1] }),
      ]);
      const y = b.op('MatMul', [b.op('Softmax', [scores], { axis: 2 }), v!]);
      const four = b.op('Reshape', [
        y,
        b.op('Concat', [b.size('x', 1), b.ints([H]), b.size('x', 0), b.ints([D])], { axis: 0 }),
      ]);
      b.op('Reshape', [b.op('Transpose', [four], { perm: [2, 0, 1, 3] }), b.ints([0, 0, -1])], {}, 'y');
      b.output('y');
    },
  },
  {
    title: 'a file of IR version 3, whose weights are inputs too',
    opset: 9,
    sites: 1,
    irVersion: 3,
    feeds: (r) => ({ x: floats(r, [B, N, C]) }),
    build(b) {
      b.input('x', FLOAT, [B, N, C]);
      const [q, k, v] = [1, 2, 3].map((seed) => heads(b, dense(b, 'x', seed)));
      const scores = b.op('Div', [
        b.op('MatMul', [q!, b.op('Transpose', [k!], { perm: [0, 1, 3, 2] })]),
        b.scalar(FLOAT, D ** 0.5),
      ]);
      merged(b, b.op('MatMul', [b.op('Softmax', [scores], { axis: 3 }), v!]));
      for (const { name, dataType, dims } of [...b.initializers]) b.input(name!, dataType!, dims as number[]);
    },
  },
  {
    title: 'float16 with the softmax on an island of float32 and a mask of -65504',
    opset: 17,
    sites: 1,
    feeds: (r) => ({ x: halves(r, [B, N, C]), m: int64s([B, N], padding(B, N)) }),
    build(b) {
      b.input('x', FLOAT16, ['batch', 'seq', C]);
      b.input('m', INT64, ['batch', 'seq']);
      const [q, k, v] = [0, 1, 2].map(() => heads(b, 'x'));
      const scores = b.op('Mul', [
        b.op('MatMul', [q!, b.op('Transpose', [k!], { perm: [0, 1, 3, 2] })]),
        b.scalar(FLOAT16, 0.25),
      ]);
      const flags = b.op('Sub', [
        b.scalar(FLOAT16, 1),
        b.op('Cast', [b.unsqueeze('m', [1, 2])], { to: FLOAT16 }),
      ]);
      const masked = b.op('Add', [scores, b.op('Mul', [flags, b.scalar(FLOAT16, -65504)])]);
      const p = b.op('Cast', [b.op('Softmax', [b.op('Cast', [masked], { to: FLOAT })])], { to: FLOAT16 });
      b.op(
        'Reshape',
        [b.op('Transpose', [b.op('MatMul', [p, v!])], { perm: [0, 2, 1, 3] }), b.ints([0, -1, C])],
        {},
        'y',
      );
      b.output('y', FLOAT16);
    },
  },
  {
    title: 'older TorchScript: a factor that went through a sequence of tensors',
    opset: 14,
    sites: 1,
    feeds: (r) => ({
      q: floats(r, [B, H, N, D]),
      k: floats(r, [B, H, M, D]),
      v: floats(r, [B, H, M, D]),
      f: floats(r, [N, D]),
    }),
    build(b) {
      b.input('q', FLOAT, ['batch', H, 'n', D]);
      b.input('k', FLOAT, ['batch', H, 'm', D]);
      b.input('v', FLOAT, ['batch', H, 'm', D]);
      b.input('f', FLOAT, ['n', D]);
      const parts = b.op('SplitToSequence', ['f'], { axis: 1 });
      const whole = b.op('Cos', [b.op('ConcatFromSequence', [parts], { axis: 1 })]);
      const scores = b.op('MatMul', [
        b.op('Mul', ['q', whole]),
        b.op('Transpose', ['k'], { perm: [0, 1, 3, 2] }),
      ]);
      b.op('MatMul', [b.op('Softmax', [scores]), 'v'], {}, 'y');
      b.output('y');
    },
  },
  {
    title: 'DETR in transformers.js form: position added to queries and keys, values without',
    opset: 12,
    sites: 1,
    feeds: (r) => ({ x: floats(r, [B, N, C]), p: floats(r, [1, N, C]) }),
    build(b) {
      b.input('x', FLOAT, ['batch', 'seq', C]);
      b.input('p', FLOAT, [1, 'seq', C]);
      const placed = b.op('Add', ['x', 'p']);
      const three = (name: string): string =>
        b.op('Reshape', [
          heads(b, name),
          b.op('Concat', [b.ints([-1]), b.size('x', 1), b.ints([D])], { axis: 0 }),
        ]);
      const q = three(b.op('Mul', [dense(b, placed, 1), b.scalar(FLOAT, D ** -0.5)]));
      const scores = b.op('MatMul', [
        q,
        b.op('Transpose', [three(dense(b, placed, 2))], { perm: [0, 2, 1] }),
      ]);
      const y = b.op('MatMul', [b.op('Softmax', [scores], { axis: 2 }), three(dense(b, 'x', 3))]);
      const four = b.op('Reshape', [
        y,
        b.op('Concat', [b.size('x', 0), b.ints([H]), b.size('x', 1), b.ints([D])], { axis: 0 }),
      ]);
      merged(b, four);
    },
  },
];

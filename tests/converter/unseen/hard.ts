/** What looks like attention and is none, is attention that cannot be kept, or hides it well. */
import { BOOL, FLOAT, INT64, type ModelBuilder } from '../../../proving/model-builder.js';
import { B, booleans, C, D, floats, H, int64s, M, N, padding, weights, type UnseenCase } from './case.js';

const FOUR = ['batch', H, 'n', D] as const;

function operands(b: ModelBuilder): void {
  for (const name of ['q', 'k', 'v']) b.input(name, FLOAT, FOUR);
}

const triple: UnseenCase['feeds'] = (r) => ({
  q: floats(r, [B, H, N, D]),
  k: floats(r, [B, H, N, D]),
  v: floats(r, [B, H, N, D]),
});

function scoresOf(b: ModelBuilder): string {
  const turned = b.op('Transpose', ['k'], { perm: [0, 1, 3, 2] });
  return b.op('Mul', [b.op('MatMul', ['q', turned]), b.scalar(FLOAT, D ** -0.5)]);
}

function finish(b: ModelBuilder, weightsName: string): void {
  b.op('MatMul', [weightsName, 'v'], {}, 'y');
  b.output('y');
}

/** A case that differs from plain attention by what stands between scores and values. */
function between(
  title: string,
  rest: Omit<UnseenCase, 'title' | 'build' | 'feeds'>,
  weigh: (b: ModelBuilder, scores: string) => string,
): UnseenCase {
  return {
    title,
    feeds: triple,
    ...rest,
    build(b) {
      operands(b);
      finish(b, weigh(b, scoresOf(b)));
    },
  };
}

const number = (b: ModelBuilder, value: number): string => b.scalar(FLOAT, value);

/** Whole rows of scores are replaced by a number too small to hide them beside others. */
function replacedRows(title: string, hide: (b: ModelBuilder, scores: string) => string): UnseenCase {
  const pairs = Array.from({ length: B * N * N }, (_, at) => {
    const [batch, i, j] = [Math.floor(at / (N * N)), Math.floor(at / N) % N, at % N];
    const length = N - 2 * batch;
    return i < length && j < length ? 1 : 0;
  });
  return {
    title,
    sites: 1,
    feeds: (r) => ({
      ...triple(r),
      bias: floats(r, [1, H, N, N]),
      seen: booleans([B, 1, N, N], pairs),
    }),
    build(b) {
      operands(b);
      b.input('bias', FLOAT, [1, H, 'n', 'n']);
      b.input('seen', BOOL, ['batch', 1, 'n', 'n']);
      finish(b, b.op('Softmax', [hide(b, scoresOf(b))]));
    },
  };
}

export const HARD: readonly UnseenCase[] = [
  replacedRows('rows replaced by -1e4 as a whole, after a bias was added (DeBERTa)', (b, s) =>
    b.op('Where', ['seen', b.op('Add', [s, 'bias']), number(b, -1e4)]),
  ),
  replacedRows('rows replaced twice by -65504', (b, s) => {
    const once = b.op('Where', ['seen', s, number(b, -65504)]);
    return b.op('Where', [b.op('Not', ['seen']), number(b, -65504), b.op('Add', [once, number(b, 0)])]);
  }),
  replacedRows('rows replaced by -1e9 as a whole, and a bias added afterwards', (b, s) =>
    b.op('Add', [b.op('Where', ['seen', s, number(b, -1e9)]), b.op('Mul', ['bias', number(b, 1e-9)])]),
  ),
  between('exp(log(sigmoid))', { sites: 1 }, (b, s) => b.op('Exp', [b.op('Log', [b.op('Sigmoid', [s])])])),
  between('exp(-softplus(-x))', { sites: 1 }, (b, s) =>
    b.op('Exp', [b.op('Neg', [b.op('Softplus', [b.op('Neg', [s])])])]),
  ),
  between('exp(x - softplus(x))', { sites: 1 }, (b, s) =>
    b.op('Exp', [b.op('Sub', [s, b.op('Softplus', [s])])]),
  ),
  between('(1 + e^-x)^-1', { sites: 1 }, (b, s) => {
    const power = b.op('Pow', [number(b, Math.E), b.op('Neg', [s])]);
    return b.op('Pow', [b.op('Add', [number(b, 1), power]), number(b, -1)]);
  }),
  between('a sigmoid to the base of 2', { sites: 1 }, (b, s) => {
    const power = b.op('Pow', [number(b, 2), b.op('Neg', [s])]);
    return b.op('Reciprocal', [b.op('Add', [power, number(b, 1)])]);
  }),
  between('1 - sigmoid(2 - x), after a soft cap', { sites: 1 }, (b, s) => {
    const capped = b.op('Mul', [b.op('Tanh', [b.op('Div', [s, number(b, 2)])]), number(b, 2)]);
    return b.op('Sub', [number(b, 1), b.op('Sigmoid', [b.op('Sub', [number(b, 2), capped])])]);
  }),
  between('0.5 tanh(x / 2) + 0.5', { sites: 1 }, (b, s) =>
    b.op('Add', [
      b.op('Mul', [b.op('Tanh', [b.op('Mul', [s, number(b, 0.5)])]), number(b, 0.5)]),
      number(b, 0.5),
    ]),
  ),
  between('a sigmoid divided by the number of keys', { sites: 1 }, (b, s) =>
    b.op('Div', [b.op('Sigmoid', [s]), b.op('Cast', [b.size('k', 2)], { to: FLOAT })]),
  ),
  between('1 - sigmoid behind a mask on its scores, which then all count', { sites: 0 }, (b, s) => {
    const masked = b.op('Add', [s, b.constant(FLOAT, [1, 1, 1, 1], [-1e9])]);
    return b.op('Sub', [number(b, 2), b.op('Sigmoid', [masked])]);
  }),
  between('HardSigmoid', { sites: 0 }, (b, s) => b.op('HardSigmoid', [s])),
  between('a squared sigmoid', { sites: 0 }, (b, s) => {
    const p = b.op('Sigmoid', [s]);
    return b.op('Mul', [p, p]);
  }),
  between('a sigmoid times its scores (SiLU)', { sites: 0 }, (b, s) =>
    b.op('Mul', [s, b.op('Sigmoid', [s])]),
  ),
  between('a sigmoid cut at one half', { sites: 0 }, (b, s) => {
    const p = b.op('Sigmoid', [s]);
    return b.op('Mul', [p, b.op('Cast', [b.op('Greater', [p, number(b, 0.5)])], { to: FLOAT })]);
  }),
  between('1 + tanh(x), which reaches 2 and is a sigmoid of 2x all the same', { sites: 1 }, (b, s) =>
    b.op('Mul', [b.op('Add', [b.op('Tanh', [s]), number(b, 1)]), number(b, 0.5)]),
  ),
  between('tanh without an offset', { sites: 0 }, (b, s) => b.op('Tanh', [s])),
  between('a softmax with a power of its weights (sharpening)', { sites: 0 }, (b, s) =>
    b.op('Pow', [b.op('Softmax', [s]), number(b, 2)]),
  ),
  between('entmax-like: the softmax minus a threshold, clipped', { sites: 0 }, (b, s) =>
    b.op('Relu', [b.op('Sub', [b.op('Softmax', [s]), number(b, 0.05)])]),
  ),
  between('a softmax over all heads and queries at once', { sites: 0 }, (b, s) => {
    const flat = b.op('Softmax', [b.op('Reshape', [s, b.ints([0, -1])])], { axis: 1 });
    return b.op('Reshape', [flat, b.op('Shape', [s])]);
  }),
  between('softmax over heads', { sites: 0, reasons: ['axis-mismatch'] }, (b, s) =>
    b.op('Softmax', [s], { axis: 1 }),
  ),
  {
    title: 'a mask of -2 that leaves keys a weight',
    sites: 1,
    feeds: (r) => ({ ...triple(r), m: floats(r, [N]) }),
    build(b) {
      operands(b);
      b.input('m', FLOAT, ['n']);
      finish(b, b.op('Softmax', [b.op('Add', [scoresOf(b), b.op('Mul', ['m', number(b, -2)])])]));
    },
  },
  between('keys shuffled by Gather after the softmax', { sites: 0 }, (b, s) =>
    b.op('Gather', [b.op('Softmax', [s]), b.ints(Array.from({ length: N }, (_, i) => (i + 1) % N))], {
      axis: 3,
    }),
  ),
  between('weights reversed by a Slice with step -1', { sites: 0 }, (b, s) =>
    b.op('Slice', [b.op('Softmax', [s]), b.ints([-1]), b.ints([-(2 ** 31)]), b.ints([3]), b.ints([-1])]),
  ),
  between('cumulative weights', { sites: 0 }, (b, s) =>
    b.op('CumSum', [b.op('Softmax', [s]), b.constant(INT64, [], [3])]),
  ),
  between('noise added to the weights', { sites: 0 }, (b, s) => {
    const p = b.op('Softmax', [s]);
    return b.op('Add', [p, b.op('Sub', [p, p])]);
  }),
  between(
    'heads mixed before the softmax (talking heads)',
    { sites: 0, reasons: ['scores-changed'] },
    (b, s) => {
      const last = b.op('Transpose', [s], { perm: [0, 2, 3, 1] });
      const mixed = b.op('MatMul', [last, weights(b, [H, H], 3)]);
      return b.op('Softmax', [b.op('Transpose', [mixed], { perm: [0, 3, 1, 2] })]);
    },
  ),
  {
    title: 'a router whose logits are made of attention, without an output layer between',
    sites: 1,
    reasons: ['linear-scores'],
    feeds: triple,
    build(b) {
      operands(b);
      const attended = b.op('MatMul', [b.op('Softmax', [scoresOf(b)]), 'v']);
      const router = b.op('Softmax', [b.op('MatMul', [attended, weights(b, [D, M], 5)])]);
      const experts = Array.from({ length: M }, (_, i) =>
        b.unsqueeze(b.op('MatMul', ['v', weights(b, [D, D], 20 + i)]), [3]),
      );
      b.op('MatMul', [b.unsqueeze(router, [3]), b.op('Concat', experts, { axis: 3 })], {}, 'y');
      b.output('y');
    },
  },
  {
    title: 'a mask after the softmax that the scores did not see',
    sites: 0,
    reasons: ['weights-changed'],
    feeds: (r) => ({ ...triple(r), m: booleans([B, 1, 1, N], padding(B, N)) }),
    build(b) {
      operands(b);
      b.input('m', BOOL, ['batch', 1, 1, 'n']);
      finish(b, b.op('Where', ['m', b.op('Softmax', [scoresOf(b)]), number(b, 0)]));
    },
  },
  {
    title: 'the same mask before and after the softmax, computed twice',
    sites: 1,
    mask: 'padding',
    feeds: (r) => ({ ...triple(r), m: int64s([B, N], padding(B, N)) }),
    build(b) {
      operands(b);
      b.input('m', INT64, ['batch', 'n']);
      const hidden = (): string => b.op('Equal', [b.unsqueeze('m', [1, 2]), b.scalar(INT64, 0)]);
      const p = b.op('Softmax', [b.op('Where', [hidden(), number(b, -3.4e38), scoresOf(b)])]);
      finish(b, b.op('Where', [hidden(), number(b, 0), p]));
    },
  },
  {
    title: 'a wider mask after the softmax than before',
    sites: 0,
    reasons: ['weights-changed'],
    feeds: (r) => ({
      ...triple(r),
      m: int64s([B, N], padding(B, N)),
      w: int64s(
        [B, N],
        padding(B, N).map((flag, i) => (i % 2 === 0 ? flag : 0)),
      ),
    }),
    build(b) {
      operands(b);
      b.input('m', INT64, ['batch', 'n']);
      b.input('w', INT64, ['batch', 'n']);
      const hidden = (name: string): string => b.op('Equal', [b.unsqueeze(name, [1, 2]), b.scalar(INT64, 0)]);
      const p = b.op('Softmax', [b.op('Where', [hidden('m'), number(b, -3.4e38), scoresOf(b)])]);
      finish(b, b.op('Where', [hidden('w'), number(b, 0), p]));
    },
  },
  {
    title: 'weights times the float mask whose complement lowered the scores',
    sites: 1,
    feeds: (r) => ({
      ...triple(r),
      m: { type: 'float32', dims: [B, N], data: Float32Array.from(padding(B, N)) },
    }),
    build(b) {
      operands(b);
      b.input('m', FLOAT, ['batch', 'n']);
      const wide = b.unsqueeze('m', [1, 2]);
      const lowered = b.op('Mul', [b.op('Sub', [number(b, 1), wide]), number(b, -1e9)]);
      finish(b, b.op('Mul', [b.op('Softmax', [b.op('Add', [scoresOf(b), lowered])]), wide]));
    },
  },
  {
    title: 'oneself at -1e5 and the future at -1e9: the first row attends to itself (Reformer)',
    sites: 1,
    feeds: triple,
    build(b) {
      operands(b);
      const square = (of: (i: number, j: number) => boolean): string =>
        b.constant(
          BOOL,
          [N, N],
          Array.from({ length: N * N }, (_, at) => Number(of(Math.floor(at / N), at % N))),
        );
      const own = b.op('Where', [square((i, j) => i === j), number(b, -1e5), scoresOf(b)]);
      finish(b, b.op('Softmax', [b.op('Where', [square((i, j) => j <= i), own, number(b, -1e9)])]));
    },
  },
  {
    title: 'channel attention behind pooling and HardSwish (DANet)',
    sites: 0,
    feeds: (r) => ({ x: floats(r, [B, 3, 8, 8]) }),
    reasons: ['channel-attention'],
    build(b) {
      b.input('x', FLOAT, ['batch', 3, 8, 8]);
      const conv = b.op('Conv', ['x', weights(b, [C, 3, 3, 3], 1)], { pads: [1, 1, 1, 1] });
      const gate = b.op('Mul', [conv, b.op('HardSigmoid', [conv])]);
      const pooled = b.op('MaxPool', [gate], { kernel_shape: [2, 2], strides: [2, 2] });
      const flat = b.op('Reshape', [pooled, b.ints([0, C, 16])]);
      const energy = b.op('MatMul', [flat, b.op('Transpose', [flat], { perm: [0, 2, 1] })]);
      b.op('MatMul', [b.op('Softmax', [energy], { axis: -1 }), flat], {}, 'y');
      b.output('y');
    },
  },
  {
    title: 'keys projected along the sequence (Linformer)',
    sites: 1,
    feeds: (r) => ({ x: floats(r, [B, N, C]) }),
    build(b) {
      b.input('x', FLOAT, ['batch', N, C]);
      const layer = (seed: number): string => b.op('MatMul', ['x', weights(b, [C, C], seed)]);
      const shorter = (name: string, seed: number): string => {
        const turned = b.op('Transpose', [name], { perm: [0, 2, 1] });
        return b.op('Transpose', [b.op('MatMul', [turned, weights(b, [N, 3], seed)])], { perm: [0, 2, 1] });
      };
      const four = (name: string): string =>
        b.op('Transpose', [b.op('Reshape', [name, b.ints([0, -1, H, D])])], { perm: [0, 2, 1, 3] });
      const [q, k, v] = [four(layer(1)), four(shorter(layer(2), 4)), four(shorter(layer(3), 5))];
      const scores = b.op('MatMul', [q, b.op('Transpose', [k], { perm: [0, 1, 3, 2] })]);
      b.op('MatMul', [b.op('Softmax', [scores]), v], {}, 'y');
      b.output('y');
    },
  },
  {
    title: 'scores of two key blocks joined for one softmax (BigBird)',
    sites: 0,
    reasons: ['scores-changed'],
    feeds: triple,
    build(b) {
      operands(b);
      const joined = b.op('Concat', [scoresOf(b), scoresOf(b)], { axis: 3 });
      const p = b.op('Softmax', [joined]);
      const part = (from: number, to: number): string =>
        b.op('Slice', [p, b.ints([from]), b.ints([to]), b.ints([3])]);
      b.op('Add', [b.op('MatMul', [part(0, N), 'v']), b.op('MatMul', [part(N, 2 * N), 'v'])], {}, 'y');
      b.output('y');
    },
  },
  {
    title: 'a gated layer whose gate is multiplied by a matrix afterwards (SwiGLU)',
    sites: 0,
    feeds: (r) => ({ x: floats(r, [B, N, C]) }),
    build(b) {
      b.input('x', FLOAT, ['batch', 'n', C]);
      const gate = b.op('MatMul', ['x', weights(b, [C, C], 1)]);
      const up = b.op('MatMul', ['x', weights(b, [C, C], 2)]);
      const hidden = b.op('Mul', [b.op('Mul', [gate, b.op('Sigmoid', [gate])]), up]);
      const centred = b.op('Sub', [hidden, b.op('ReduceMean', [hidden, b.ints([-1])])]);
      b.op('MatMul', [centred, weights(b, [C, C], 3)], {}, 'y');
      b.output('y');
    },
  },
  {
    title: 'experts weighed by a router whose matrix is computed',
    sites: 0,
    feeds: (r) => ({ x: floats(r, [B, N, C]) }),
    build(b) {
      b.input('x', FLOAT, ['batch', 'n', C]);
      const router = b.op('Softmax', [
        b.op('MatMul', ['x', b.op('Transpose', [weights(b, [M, C], 1)], { perm: [1, 0] })]),
      ]);
      const experts = Array.from({ length: M }, (_, i) =>
        b.unsqueeze(b.op('MatMul', ['x', weights(b, [C, C], 10 + i)]), [2]),
      );
      const stacked = b.op('Concat', experts, { axis: 2 });
      b.op('MatMul', [b.unsqueeze(router, [2]), stacked], {}, 'y');
      b.output('y');
    },
  },
  {
    title: 'attention on quantised integers',
    sites: 0,
    reasons: ['quantized'],
    feeds: triple,
    build(b) {
      operands(b);
      const quantised = (name: string): readonly [string, string, string] => {
        const out = [`${name}_q`, `${name}_s`, `${name}_z`] as const;
        b.node('DynamicQuantizeLinear', [name], out);
        return out;
      };
      const product = (x: string, y: string): string => {
        const [a, as, az] = quantised(x);
        const [c, cs, cz] = quantised(y);
        const whole = b.op('Cast', [b.op('MatMulInteger', [a, c, az, cz])], { to: FLOAT });
        return b.op('Mul', [whole, b.op('Mul', [as, cs])]);
      };
      const scores = product('q', b.op('Transpose', ['k'], { perm: [0, 1, 3, 2] }));
      b.op('Identity', [product(b.op('Softmax', [scores]), 'v')], {}, 'y');
      b.output('y');
    },
  },
  {
    title:
      'statically quantised scores and weights (QuantizeLinear and DequantizeLinear around each product)',
    sites: 0,
    reasons: ['quantized'],
    feeds: triple,
    build(b) {
      operands(b);
      const zero = ((): string => {
        b.initializers.push({ name: 'zero', dataType: 2, dims: [], rawData: Uint8Array.from([128]) });
        return 'zero';
      })();
      const round = (name: string, scale: number): string => {
        const s = number(b, scale);
        return b.op('DequantizeLinear', [b.op('QuantizeLinear', [name, s, zero]), s, zero]);
      };
      const scores = b.op('MatMul', [
        round('q', 0.05),
        round(b.op('Transpose', ['k'], { perm: [0, 1, 3, 2] }), 0.05),
      ]);
      const p = round(b.op('Softmax', [round(scores, 0.1)]), 1 / 255);
      finish(b, p);
    },
  },
];

/**
 * The float64 reference against what it does not share code with: closed forms, ONNX Runtime's softmax Attention, and
 * identities between calls that must give the same result in different ways.
 */

import assert from 'node:assert/strict';

import type { AttentionInputs } from '../../op/constraints.js';
import { sigmoid, sigmoidAttention } from '../../op/reference.js';
import type { Attributes } from '../../op/schema.js';
import { fromNumbers, type Tensor, toNumbers } from '../../op/tensor.js';
import { type CaseOptions, type CaseSizes, conformanceCase, sizes } from './case.js';
import { inputsOf } from './case-inputs.js';

const SIZES = sizes(2, 4, 4, 5, 7, 8, 6);

interface Made {
  inputs: AttentionInputs & { Q: Tensor; K: Tensor; V: Tensor };
  attributes: Attributes;
}

function make(options: CaseOptions = {}, caseSizes: CaseSizes = SIZES): Made {
  const made = conformanceCase('reference', caseSizes, options);
  return { inputs: inputsOf(made) as Made['inputs'], attributes: made.attributes };
}

const evaluate = (inputs: AttentionInputs, attributes: Attributes = {}): Float64Array =>
  sigmoidAttention(inputs, attributes).Y.data;

function assertClose(found: ArrayLike<number>, wanted: ArrayLike<number>, tolerance = 1e-12): void {
  assert.equal(found.length, wanted.length);
  for (let index = 0; index < found.length; index++)
    assert.ok(
      Math.abs(found[index]! - wanted[index]!) <= tolerance,
      `element ${index} is ${found[index]}, must be ${wanted[index]}`,
    );
}

/** The tensor with its axes in another order. */
function transpose(tensor: Tensor, perm: readonly number[]): Tensor {
  const dims = perm.map((axis) => tensor.dims[axis]!);
  return build(tensor.type as 'float', dims, (index) => {
    const source: number[] = [];
    perm.forEach((axis, to) => (source[axis] = index[to]!));
    return at(tensor, source);
  });
}

function build(type: 'float', dims: readonly number[], value: (index: number[]) => number): Tensor {
  const values: number[] = [];
  const walk = (index: number[]): void => {
    if (index.length === dims.length) values.push(value(index));
    else for (let k = 0; k < dims[index.length]!; k++) walk([...index, k]);
  };
  walk([]);
  return fromNumbers(type, dims, values);
}

const at = (tensor: Tensor, index: readonly number[]): number =>
  Number(tensor.data[index.reduce((offset, k, axis) => offset * tensor.dims[axis]! + k, 0)]);

const sliceKeys = (tensor: Tensor, from: number, to: number): Tensor => {
  const [b = 0, h = 0, , d = 0] = tensor.dims;
  return build('float', [b, h, to - from, d], ([i = 0, j = 0, n = 0, k = 0]) =>
    at(tensor, [i, j, n + from, k]),
  );
};

/** A bool mask [Nq,Nk] of the keys that a row sees. */
const boolMask = (rows: number, keys: number, sees: (i: number, j: number) => boolean): Tensor => ({
  type: 'bool',
  dims: [rows, keys],
  data: Uint8Array.from({ length: rows * keys }, (_, at) => (sees(Math.floor(at / keys), at % keys) ? 1 : 0)),
});

describe('reference: closed forms', () => {
  it('gives every key the weight sigmoid(bias) when all scores are 0', () => {
    const { inputs } = make();
    const Y = evaluate(
      { ...inputs, Q: fromNumbers('float', inputs.Q.dims, new Float32Array(320)) },
      { bias: -3 },
    );
    const wanted = build('float', [2, 4, 5, 6], ([b = 0, h = 0, , d = 0]) => {
      let sum = 0;
      for (let j = 0; j < 7; j++) sum += at(inputs.V, [b, h, j, d]);
      return sum / (1 + Math.exp(3));
    });
    assertClose(Y, toNumbers(wanted), 1e-6);
  });

  it('is the paper formula, spelled out', () => {
    const { inputs } = make();
    const wanted: number[] = [];
    for (let b = 0; b < 2; b++)
      for (let h = 0; h < 4; h++)
        for (let i = 0; i < 5; i++)
          for (let d = 0; d < 6; d++) {
            let y = 0;
            for (let j = 0; j < 7; j++) {
              let s = 0;
              for (let k = 0; k < 8; k++) s += at(inputs.Q, [b, h, i, k]) * at(inputs.K, [b, h, j, k]);
              y += at(inputs.V, [b, h, j, d]) / (1 + Math.exp(-(s / Math.sqrt(8) - Math.log(7))));
            }
            wanted.push(y);
          }
    assertClose(evaluate(inputs, { bias_mode: 'neg_log_total' }), wanted);
  });

  it('tends to softmax under normalize as the bias goes down', () => {
    const { inputs } = make();
    const softmax = softmaxAttention(inputs);
    const error = (bias: number): number =>
      Math.max(
        ...evaluate(inputs, { normalize: true, bias }).map((y, index) => Math.abs(y - softmax[index]!)),
      );
    assert.ok(error(-600) < 1e-13);
    assert.ok(error(-20) < 1e-6);
    assert.ok(error(-5) < error(0));
    assert.ok(error(-10) < error(-5) / 50);
  });

  it('keeps the relative precision of sigmoid far below zero and saturates above', () => {
    for (const x of [-700, -300, -40, -20, -1, 0, 1, 30]) {
      const series = x <= -20 ? Math.exp(x) * (1 - Math.exp(x)) : 1 / (1 + Math.exp(-x));
      assert.ok(Math.abs(sigmoid(x) / series - 1) < 1e-15, `sigmoid(${x})`);
    }
    assert.equal(sigmoid(Infinity), 1);
    assert.equal(sigmoid(-Infinity), 0);
  });
});

function softmaxAttention({ Q, K, V }: Made['inputs']): number[] {
  const [B = 0, H = 0, N = 0, D = 0] = Q.dims;
  const [, , M = 0, E = 0] = V.dims;
  const Y: number[] = [];
  for (let b = 0; b < B; b++)
    for (let h = 0; h < H; h++)
      for (let i = 0; i < N; i++) {
        const e = Array.from({ length: M }, (_, j) => {
          let s = 0;
          for (let d = 0; d < D; d++) s += at(Q, [b, h, i, d]) * at(K, [b, h, j, d]);
          return Math.exp(s / Math.sqrt(D));
        });
        const total = e.reduce((sum, x) => sum + x, 0);
        for (let d = 0; d < E; d++)
          Y.push(e.reduce((sum, x, j) => sum + (x / total) * at(V, [b, h, j, d]), 0));
      }
  return Y;
}

describe('reference: one result in two ways', () => {
  it('adds up over disjoint keys', () => {
    const { inputs } = make();
    const { Q, K, V } = inputs;
    const part = (from: number, to: number): Float64Array =>
      evaluate({ Q, K: sliceKeys(K, from, to), V: sliceKeys(V, from, to) }, { bias: -2 });
    const [left, right] = [part(0, 3), part(3, 7)];
    assertClose(
      evaluate(inputs, { bias: -2 }),
      left.map((y, index) => y + right[index]!),
    );
  });

  it('sees a past as keys and values in front of the others, with the offset P', () => {
    const { inputs } = make({ past: 4 });
    const { Q, K, V, past_key, past_value } = inputs;
    const concatenated = (past: Tensor, fresh: Tensor): Tensor => {
      const [b = 0, h = 0, , d = 0] = fresh.dims;
      return build('float', [b, h, 7, d], ([i = 0, j = 0, n = 0, k = 0]) =>
        n < 4 ? at(past, [i, j, n, k]) : at(fresh, [i, j, n - 4, k]),
      );
    };
    const whole = { Q, K: concatenated(past_key!, K), V: concatenated(past_value!, V) };
    const outputs = sigmoidAttention(inputs, { is_causal: true });
    assertClose(outputs.Y.data, evaluate({ ...whole, attn_mask: boolMask(5, 7, (i, j) => j <= i + 4) }));
    assert.deepEqual(outputs.present_key, whole.K);
    assert.deepEqual(outputs.present_value, whole.V);
  });

  it('repeats kv heads for groups of query heads', () => {
    const { inputs } = make({}, sizes(2, 6, 2, 5, 7, 8, 6));
    const repeated = (tensor: Tensor): Tensor => {
      const [b = 0, , n = 0, d = 0] = tensor.dims;
      return build('float', [b, 6, n, d], ([i = 0, h = 0, j = 0, k = 0]) =>
        at(tensor, [i, Math.floor(h / 3), j, k]),
      );
    };
    assertClose(evaluate(inputs), evaluate({ ...inputs, K: repeated(inputs.K), V: repeated(inputs.V) }));
  });

  it('reads [B,N,H*D] as [B,H,N,D] with heads inside rows', () => {
    const { inputs } = make({ headGain: true });
    const inside = (tensor: Tensor): Tensor => {
      const [b = 0, h = 0, n = 0, d = 0] = tensor.dims;
      return { ...transpose(tensor, [0, 2, 1, 3]), dims: [b, n, h * d] } as Tensor;
    };
    const rank3 = { ...inputs, Q: inside(inputs.Q), K: inside(inputs.K), V: inside(inputs.V) };
    const outputs = sigmoidAttention(rank3, { q_num_heads: 4, kv_num_heads: 4 });
    const rank4 = sigmoidAttention(inputs);
    assert.deepEqual(outputs.Y.dims, [2, 5, 24]);
    const wanted: number[] = [];
    for (let b = 0; b < 2; b++)
      for (let i = 0; i < 5; i++)
        for (let h = 0; h < 4; h++)
          for (let d = 0; d < 6; d++) wanted.push(rank4.Y.data[((b * 4 + h) * 5 + i) * 6 + d]!);
    assertClose(outputs.Y.data, wanted);
    assert.deepEqual(outputs.present_key, rank4.present_key);
  });

  it('carries a permutation of the heads through', () => {
    const { inputs } = make({ headBias: 'H' });
    const order = [2, 0, 3, 1];
    const permuted = (tensor: Tensor): Tensor =>
      build('float', tensor.dims, ([b = 0, h = 0, n = 0, d = 0]) => at(tensor, [b, order[h]!, n, d]));
    const found = evaluate({
      Q: permuted(inputs.Q),
      K: permuted(inputs.K),
      V: permuted(inputs.V),
      head_bias: build('float', [4], ([h = 0]) => at(inputs.head_bias!, [order[h]!])),
    });
    const original = evaluate(inputs);
    const wanted = found.map((_, index) => {
      const [b, h] = [Math.floor(index / 120), Math.floor(index / 30) % 4];
      return original[b * 120 + order[h]! * 30 + (index % 30)]!;
    });
    assertClose(found, wanted);
  });

  const visible: [string, Attributes, (i: number, j: number) => boolean][] = [
    ['is_causal', { is_causal: true }, (i, j) => j <= i],
    ['left_window_size', { left_window_size: 1 }, (i, j) => j >= i - 1],
    ['right_window_size', { right_window_size: 2 }, (i, j) => j <= i + 2],
    ['both windows', { left_window_size: 2, right_window_size: 0 }, (i, j) => j >= i - 2 && j <= i],
  ];
  for (const [name, attributes, sees] of visible)
    it(`hides with ${name} what a mask hides`, () => {
      const { inputs } = make();
      const attn_mask = boolMask(5, 7, sees);
      assertClose(evaluate(inputs, attributes), evaluate({ ...inputs, attn_mask }));
      const count = (i: number): number => [0, 1, 2, 3, 4, 5, 6].filter((j) => sees(i, j)).length;
      const rowBias = build('float', [5, 1], ([i = 0]) => -Math.log(count(i)));
      assertClose(
        evaluate({ ...inputs, attn_mask }, { ...attributes, bias_mode: 'neg_log_visible' }),
        evaluate({ ...inputs, attn_mask: rowBias }, attributes),
        1e-6,
      );
    });

  it('hides with nonpad_kv_seqlen what a mask hides, and aligns to its end', () => {
    const { inputs } = make({ nonpad: [6, 3] });
    const [first, second] = [6, 3].map((valid) => boolMask(5, 7, (i, j) => j < valid && j <= i + valid - 5));
    const data = Uint8Array.from([...(first!.data as Uint8Array), ...(second!.data as Uint8Array)]);
    const { nonpad_kv_seqlen, ...others } = inputs;
    assert.ok(nonpad_kv_seqlen);
    assertClose(
      evaluate(inputs, { is_causal: true }),
      evaluate({ ...others, attn_mask: { type: 'bool', dims: [2, 1, 5, 7], data } }),
    );
    assertClose(
      evaluate(inputs, { bias_mode: 'neg_log_valid', is_causal: true }),
      evaluate(
        {
          ...inputs,
          head_bias: build('float', [2, 4], ([b = 0]) => -Math.log([6, 3][b]!)),
        },
        { is_causal: true },
      ),
      1e-6,
    );
  });

  it('adds alibi_slopes and head_bias as a mask of numbers would', () => {
    const { inputs } = make({ alibi: 'H', headBias: 'BH' });
    const { Q, K, V, alibi_slopes, head_bias } = inputs;
    const attn_mask = build(
      'float',
      [2, 4, 5, 7],
      ([b = 0, h = 0, i = 0, j = 0]) => at(head_bias!, [b, h]) - at(alibi_slopes!, [h]) * Math.abs(i - j),
    );
    assertClose(evaluate(inputs), evaluate({ Q, K, V, attn_mask }), 1e-6);
  });

  it('scales scores with head_scale and rows with head_gain', () => {
    const { inputs } = make({ headScale: true, headGain: true });
    const { Q, K, V, head_scale, head_gain } = inputs;
    const scaledQ = build(
      'float',
      Q.dims,
      ([b = 0, h = 0, i = 0, d = 0]) => at(Q, [b, h, i, d]) * at(head_scale!, [h]),
    );
    const scaledV = build(
      'float',
      V.dims,
      ([b = 0, h = 0, j = 0, d = 0]) => at(V, [b, h, j, d]) * at(head_gain!, [h]),
    );
    assertClose(evaluate(inputs), evaluate({ Q: scaledQ, K, V: scaledV }), 1e-5);
  });

  it('leaves scores alone under a huge softcap and bounds them by a small one', () => {
    const { inputs } = make({ spread: 30 });
    assertClose(evaluate(inputs, { softcap: 2 ** 20 }), evaluate(inputs), 1e-5);
    const ones = fromNumbers('float', inputs.V.dims, new Float32Array(336).fill(1));
    const sums = evaluate({ ...inputs, V: ones }, { softcap: 0.5 });
    assert.ok(sums.every((sum) => sum >= 7 * sigmoid(-0.5) && sum <= 7 * sigmoid(0.5)));
  });

  it('makes normalized weights sum to 1 and leaves rows without visible keys at 0', () => {
    const { inputs } = make({ nonpad: [7, 0] });
    const ones = fromNumbers('float', inputs.V.dims, new Float32Array(336).fill(1));
    const sums = evaluate({ ...inputs, V: ones }, { normalize: true, bias: -7 });
    assertClose(sums, [...new Float64Array(120).fill(1), ...new Float64Array(120)]);
  });

  it('lets no NaN or Inf of a hidden key or value through, and those of visible ones', () => {
    const hidden = [5, 6];
    for (const value of [NaN, Infinity, -Infinity])
      for (const input of ['K', 'V'] as const) {
        const clean = make({ mask: { type: 'bool', dims: 'QK', hides: 'tail' } });
        const poisoned = make({
          mask: { type: 'bool', dims: 'QK', hides: 'tail' },
          poison: [{ input, rows: hidden, value }],
        });
        assertClose(evaluate(poisoned.inputs), evaluate(clean.inputs));
      }
    const visibleNaN = evaluate(make({ poison: [{ input: 'V', rows: [0], value: NaN }] }).inputs);
    assert.ok(visibleNaN.every(Number.isNaN));
  });
});

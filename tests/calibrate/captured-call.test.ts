/** Captured calls agree with the float64 reference on what is added to each score, whatever the layout and options. */
import assert from 'node:assert/strict';
import { AttentionCall } from '../../op/reference.js';
import type { AttentionInputs } from '../../op/constraints.js';
import type { Attributes } from '../../op/schema.js';
import { fromNumbers, sizeOf, type Tensor } from '../../op/tensor.js';
import { CapturedCall, rowScores } from '../../converter/calibrate/captured-call.js';
import { RandomNumbers } from '../../converter/data/random-numbers.js';

const random = new RandomNumbers(3);
const normal = (...dims: number[]): Tensor =>
  fromNumbers(
    'float',
    dims,
    Array.from({ length: sizeOf(dims) }, () => random.normal()),
  );
const [B, H, G, N, D] = [2, 4, 2, 5, 3];

const cases: readonly [string, AttentionInputs, Attributes][] = [
  ['plain', { Q: normal(B, H, N, D), K: normal(B, H, 7, D), V: normal(B, H, 7, 2) }, {}],
  [
    'causal, kv heads shared',
    { Q: normal(B, H, N, D), K: normal(B, G, N, D), V: normal(B, G, N, D) },
    { is_causal: true, bias_mode: 'neg_log_visible' },
  ],
  [
    'rank 3',
    { Q: normal(B, N, H * D), K: normal(B, N, G * D), V: normal(B, N, G * 2) },
    { q_num_heads: H, kv_num_heads: G, scale: 0.3 },
  ],
  [
    'window',
    { Q: normal(B, H, N, D), K: normal(B, H, N, D), V: normal(B, H, N, D) },
    { left_window_size: 1, right_window_size: 2, bias_mode: 'neg_log_visible' },
  ],
  [
    'past',
    {
      Q: normal(B, H, 2, D),
      K: normal(B, G, 2, D),
      V: normal(B, G, 2, D),
      past_key: normal(B, G, 3, D),
      past_value: normal(B, G, 3, D),
    },
    { is_causal: true, bias_mode: 'neg_log_visible' },
  ],
  [
    'padding',
    {
      Q: normal(B, H, N, D),
      K: normal(B, H, N, D),
      V: normal(B, H, N, D),
      nonpad_kv_seqlen: { type: 'int64', dims: [B], data: BigInt64Array.of(3n, 5n) },
    },
    { is_causal: true, bias_mode: 'neg_log_valid' },
  ],
  [
    'mask and alibi',
    {
      Q: normal(B, H, N, D),
      K: normal(B, H, N, D),
      V: normal(B, H, N, D),
      attn_mask: normal(H, 1, N),
      alibi_slopes: normal(H),
    },
    { bias_mode: 'neg_log_total' },
  ],
  [
    'bool mask',
    {
      Q: normal(B, H, N, D),
      K: normal(B, H, N, D),
      V: normal(B, H, N, D),
      attn_mask: {
        type: 'bool',
        dims: [N, N],
        data: Uint8Array.from({ length: N * N }, (_, i) => (i % 3 === 0 ? 0 : 1)),
      },
    },
    {},
  ],
];

describe('captured calls', () => {
  for (const [name, inputs, attributes] of cases) {
    it(`give the reference's logits: ${name}`, () => {
      const call = new CapturedCall(inputs, attributes);
      let rows = 0;
      const reference = new AttentionCall(inputs, attributes);
      for (const { b, h, i, logits } of reference.rows()) {
        const scores = rowScores(call.head(b, h), i, call.sizes.headSize, call.scale);
        const addends = call.addends(b, h, i);
        const bias = call.rowBias(attributes.bias_mode, b, i);
        for (let j = 0; j < scores.length; j++) {
          const addend = addends?.[j] ?? 0;
          assert.equal(addend !== -Infinity, reference.takesPart(b, h, i, j), `row ${b} ${h} ${i}, key ${j}`);
          if (addend === -Infinity) continue;
          assert.ok(Math.abs(scores[j]! + addend + bias - logits[j]!) < 1e-5, `row ${b} ${h} ${i}, key ${j}`);
        }
        rows++;
      }
      assert.equal(rows, call.sizes.batch * call.sizes.queryHeads * call.sizes.queryLength);
    });
  }

  it('give values of the head that a query head reads', () => {
    const [, inputs, attributes] = cases[1]!;
    const call = new CapturedCall(inputs, attributes);
    const reference = new AttentionCall(inputs, attributes);
    const { values } = call.head(1, 3);
    for (let j = 0; j < N; j++)
      for (let d = 0; d < D; d++) assert.equal(values[j * D + d], reference.value(1, 3, j, d));
  });
});

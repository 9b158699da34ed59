/**
 * Every sentence of docs/errors.md, provoked through onnxruntime-node: at creation where the model tells, at run where
 * only the fed tensors do.
 */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import * as ort from 'onnxruntime-node';
import '../../op/node/index.js';
import { ATTRIBUTES, INPUTS } from '../../op/schema.js';
import {
  encode,
  failure,
  feeds,
  Float,
  FLOAT,
  FLOAT16,
  floats,
  type NodeModel,
  qkv,
  QUIET,
  type Value,
} from './models.js';

const INT64 = 7;
const STRING = 8;
const BOOL = 9;

const value = (dims: Value['dims'], type = FLOAT): Value => ({ type, dims });

/** Q, K and V of rank 3. */
const flat = (q: number, k: number, v: number): Record<'Q' | 'K' | 'V', Value> => ({
  Q: value(['B', 'N', q]),
  K: value(['B', 'M', k]),
  V: value(['B', 'M', v]),
});

type Inputs = NodeModel['inputs'];
type Attributes = NonNullable<NodeModel['attributes']>;

/** What is wrong, found when the session is created: model inputs, attributes, sentence. */
const AT_CREATION: readonly [Inputs, Attributes, string][] = [
  [qkv(), { softcap: 1 }, 'softcap is an int, must be a float.'],
  [qkv(), { is_causal: new Float(1) }, 'is_causal is a float, must be an int.'],
  [qkv(), { bias_mode: 2 }, 'bias_mode is an int, must be a string.'],
  [qkv(), { q_num_heads: 'four' }, 'q_num_heads is a string, must be an int.'],
  [
    qkv(),
    { bias_mode: 'log' },
    'bias_mode is "log", must be "none", "neg_log_total", "neg_log_valid" or "neg_log_visible".',
  ],
  [qkv(), { softcap: new Float(-1) }, 'softcap is -1, must be 0 (none) or a positive finite number.'],
  [qkv(), { softcap: new Float(NaN) }, 'softcap is nan, must be 0 (none) or a positive finite number.'],
  [qkv(), { scale: new Float(Infinity) }, 'scale is inf, must be a finite number.'],
  [qkv(), { bias: new Float(-Infinity) }, 'bias is -inf, must be a finite number.'],
  [qkv(), { is_causal: 2 }, 'is_causal is 2, must be 0 or 1.'],
  [qkv(), { normalize: -1 }, 'normalize is -1, must be 0 or 1.'],
  [qkv(), { left_window_size: -2 }, 'left_window_size is -2, must be -1 (unbounded) or more.'],
  [qkv(), { right_window_size: -5 }, 'right_window_size is -5, must be -1 (unbounded) or more.'],
  [qkv(), { q_num_heads: 0 }, 'q_num_heads is 0, must be at least 1.'],
  [qkv(), { kv_num_heads: -3 }, 'kv_num_heads is -3, must be at least 1.'],
  [
    flat(24, 16, 16),
    { q_num_heads: 3, kv_num_heads: 2 },
    'q_num_heads is 3, must be a multiple of kv_num_heads, which is 2.',
  ],

  [qkv(4, 2, 8, 11), {}, 'Q is double, must be float, float16 or bfloat16.'],
  [qkv(4, 2, 8, STRING), {}, 'Q is string, must be float, float16 or bfloat16.'],
  [{ ...qkv(), K: value(undefined, FLOAT16) }, {}, 'K is float16, must be float, the type of Q.'],
  [{ ...qkv(), V: value(undefined, INT64) }, {}, 'V is int64, must be float, the type of Q.'],
  [
    { ...qkv(), past_key: value(undefined, FLOAT16) },
    {},
    'past_key is float16, must be float, the type of Q.',
  ],
  [{ ...qkv(), attn_mask: value(['N', 'M'], INT64) }, {}, 'attn_mask is int64, must be float or bool.'],
  [
    { ...qkv(4, 2, 8, FLOAT16), attn_mask: value(['N', 'M'], 6) },
    {},
    'attn_mask is int32, must be float16 (the type of Q), float or bool.',
  ],
  [{ ...qkv(), nonpad_kv_seqlen: value(['B'], 6) }, {}, 'nonpad_kv_seqlen is int32, must be int64.'],
  [{ ...qkv(), head_bias: value([4], FLOAT16) }, {}, 'head_bias is float16, must be float.'],
  [{ ...qkv(), alibi_slopes: value([4], 11) }, {}, 'alibi_slopes is double, must be float.'],

  [{ ...qkv(), Q: value([4, 8]) }, {}, 'Q has rank 2, must be 3 or 4.'],
  [{ ...qkv(), Q: value(undefined), K: value([8]) }, {}, 'K has rank 1, must be 3 or 4.'],
  [{ ...qkv(), K: value(['B', 'M', 16]) }, {}, 'K has rank 3, must be 4, the rank of Q.'],
  [flat(32, 16, 16), {}, 'q_num_heads is missing, must be given when Q has rank 3.'],
  [flat(32, 16, 16), { q_num_heads: 4 }, 'kv_num_heads is missing, must be given when K has rank 3.'],
  [
    flat(33, 16, 16),
    { q_num_heads: 4, kv_num_heads: 2 },
    'Q has last dimension 33, must be a multiple of q_num_heads, which is 4.',
  ],
  [
    flat(32, 16, 15),
    { q_num_heads: 4, kv_num_heads: 2 },
    'V has last dimension 15, must be a multiple of kv_num_heads, which is 2.',
  ],
  [qkv(), { q_num_heads: 8 }, 'q_num_heads is 8, must be 4, the number of heads of Q, or be left out.'],
  [qkv(), { kv_num_heads: 1 }, 'kv_num_heads is 1, must be 2, the number of heads of K, or be left out.'],
  [qkv(0, 2), {}, 'Q has 0 heads, must have at least 1.'],
  [qkv(4, 0), {}, 'K has 0 heads, must have at least 1.'],
  [qkv(4, 2, 0), {}, 'Q has head size 0, must be at least 1.'],
  [
    { ...qkv(), Q: value([2, 4, 'N', 8]), K: value([3, 2, 'M', 8]) },
    {},
    'K has batch size 3, must be 2, the batch size of Q.',
  ],
  [{ ...qkv(), K: value(['B', 2, 'M', 16]) }, {}, 'K has head size 16, must be 8, the head size of Q.'],
  [{ ...qkv(), V: value(['B', 4, 'M', 8]) }, {}, 'V has 4 heads, must have 2, as many as K.'],
  [
    { ...qkv(), K: value(['B', 2, 5, 8]), V: value(['B', 2, 6, 8]) },
    {},
    'V has 6 rows per head, must have 5, as many as K.',
  ],
  [qkv(4, 3), {}, 'Q has 4 heads, must be a multiple of the number of heads of K, which is 3.'],
  [
    { ...qkv(), past_key: value(['B', 2, 'P', 8]) },
    {},
    'past_value is missing, must be given together with past_key.',
  ],
  [
    { ...qkv(), past_value: value(['B', 2, 'P', 8]) },
    {},
    'past_key is missing, must be given together with past_value.',
  ],
  [
    { ...qkv(), past_key: value([1, 4, 'P', 8]), past_value: value(undefined) },
    {},
    'past_key has shape [1,4,?,8], must be [?,2,past length,8].',
  ],
  [
    { ...qkv(), past_key: value([1, 2, 3, 8]), past_value: value([1, 2, 4, 8]) },
    {},
    'past_value has shape [1,2,4,8], must be [1,2,3,8].',
  ],
  [{ ...qkv(), attn_mask: value([1, 1, 1, 1, 1]) }, {}, 'attn_mask has rank 5, must be at most 4.'],
  [
    { ...qkv(), attn_mask: value([3, 'N', 'M']) },
    {},
    'attn_mask has shape [3,?,?], must be broadcastable to [?,4,?,?] (batch, heads, query length, key length).',
  ],
  [
    { ...qkv(), Q: value([2, 4, 'N', 8]), nonpad_kv_seqlen: value([3], INT64) },
    {},
    'nonpad_kv_seqlen has shape [3], must be [2].',
  ],
  [{ ...qkv(), head_scale: value([5]) }, {}, 'head_scale has shape [5], must be [4].'],
  [{ ...qkv(), head_gain: value([1, 4]) }, {}, 'head_gain has shape [1,4], must be [4].'],
  [{ ...qkv(), head_bias: value([4, 1]) }, {}, 'head_bias has shape [4,1], must be [4] or [?,4].'],
  [{ ...qkv(), alibi_slopes: value([2]) }, {}, 'alibi_slopes has shape [2], must be [4] or [?,4].'],
  [
    { ...qkv(), Q: value([2 ** 40, 4, 2 ** 40, 8]) },
    {},
    `Q has shape [${2 ** 40},4,${2 ** 40},8], must take less than 2^63 bytes.`,
  ],
  [
    {
      ...qkv(),
      K: value([1, 2, 2 ** 50, 8]),
      past_key: value([1, 2, 2 ** 62, 8]),
      past_value: value([1, 2, 2 ** 62, 8]),
    },
    {},
    `K with its past has shape [1,2,${2n ** 62n + 2n ** 50n},8], must take less than 2^63 bytes.`,
  ],
];

/** Nothing is declared, so that all is found at run: the tensors fed, attributes, sentence. */
const AT_RUN: readonly [Record<string, ort.Tensor>, Attributes, string][] = [
  [{ ...feeds(), Q: floats([3, 8]) }, {}, 'Q has rank 2, must be 3 or 4.'],
  [{ ...feeds(), Q: floats([]) }, {}, 'Q has rank 0, must be 3 or 4.'],
  [{ ...feeds(), Q: floats([1, 1, 1, 1, 1, 1, 1, 1, 1, 1]) }, {}, 'Q has rank 10, must be 3 or 4.'],
  [{ ...feeds(), V: floats([1, 2, 6, 8]) }, {}, 'V has 6 rows per head, must have 5, as many as K.'],
  [{ ...feeds(), K: floats([2, 2, 5, 8]) }, {}, 'K has batch size 2, must be 1, the batch size of Q.'],
  [
    { ...feeds({ kvHeads: 3 }) },
    {},
    'Q has 4 heads, must be a multiple of the number of heads of K, which is 3.',
  ],
  [
    { ...feeds(), attn_mask: new ort.Tensor('bool', new Uint8Array(6), [6]) },
    {},
    'attn_mask has shape [6], must be broadcastable to [1,4,3,5] (batch, heads, query length, key length).',
  ],
  [
    { ...feeds(), past_key: floats([1, 2, 2, 8]), past_value: floats([1, 2, 2, 9]) },
    {},
    'past_value has shape [1,2,2,9], must be [1,2,2,8].',
  ],
  [
    { ...feeds(), nonpad_kv_seqlen: new ort.Tensor('int64', [6n], [1]) },
    {},
    'nonpad_kv_seqlen[0] is 6, must be from 0 to 5, the key length.',
  ],
  [
    { ...feeds({ batch: 2 }), nonpad_kv_seqlen: new ort.Tensor('int64', [5n, -1n], [2]) },
    {},
    'nonpad_kv_seqlen[1] is -1, must be from 0 to 5, the key length.',
  ],
  [{ ...feeds(), head_gain: floats([3]) }, {}, 'head_gain has shape [3], must be [4].'],
  [{ ...feeds(), alibi_slopes: floats([2, 4]) }, {}, 'alibi_slopes has shape [2,4], must be [4] or [1,4].'],
  [
    { ...feeds(), Q: floats([1, 4, 3, 0]), K: floats([1, 2, 5, 0]) },
    {},
    'Q has head size 0, must be at least 1.',
  ],
];

const DECLARED_TYPES: Readonly<Record<string, number>> = { int64: INT64, bool: BOOL };

describe('errors of the operator', () => {
  for (const [inputs, attributes, sentence] of AT_CREATION) {
    it(`at creation: ${sentence}`, async () => {
      const model = encode({ inputs, attributes });
      const { message } = await failure(ort.InferenceSession.create(model, QUIET));
      assert.equal(message, `Exception during initialization: SigmoidAttention node 'attn': ${sentence}`);
    });
  }

  for (const [given, attributes, sentence] of AT_RUN) {
    it(`at run: ${sentence}`, async () => {
      const declared = Object.entries(given).map(([name, tensor]) => [
        name,
        value(undefined, DECLARED_TYPES[tensor.type] ?? FLOAT),
      ]);
      const model = encode({ inputs: Object.fromEntries(declared) as Inputs, attributes });
      const session = await ort.InferenceSession.create(model, QUIET);
      const { message } = await failure(session.run(given));
      assert.equal(
        message,
        `Non-zero status code returned while running SigmoidAttention node. Name:'attn' ` +
          `Status Message: SigmoidAttention: ${sentence}`,
      );
    });
  }

  it('are all in docs/errors.md', () => {
    const documented = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8')
      .split('\n')
      .flatMap((line) => /^\| `([^`]+)`/.exec(line)?.slice(1) ?? []);
    // The table gives each sentence for one name; other names of the same sentence are in its remark.
    const names = [...INPUTS, ...ATTRIBUTES].map(({ name }) => `\\b${name}\\b`).join('|');
    const open = new RegExp(`‹[^›]*›|${names}`);
    const patterns = documented.map((text) => new RegExp(`^${text.split(open).map(escape).join('.+')}$`));
    for (const [, , sentence] of [...AT_CREATION, ...AT_RUN]) {
      assert.ok(
        patterns.some((pattern) => pattern.test(sentence)),
        `docs/errors.md lacks: ${sentence}`,
      );
    }
  });

  it('of ONNX Runtime cover a missing V and an input too many', async () => {
    const { Q, K } = qkv();
    await assert.rejects(
      ort.InferenceSession.create(encode({ inputs: { Q, K } }), QUIET),
      /input size 2 not in range/,
    );
  });
});

function escape(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

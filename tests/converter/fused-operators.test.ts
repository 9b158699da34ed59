/** Attention that is one operator already, in the forms that ONNX and ONNX Runtime define: all compute the same afterwards. */
import assert from 'node:assert/strict';
import * as ort from 'onnxruntime-node';
import { checkModel } from '../../proving/check-model.js';
import type { Feeds, Sample } from '../../converter/data/tensor.js';
import { convert, inspect, openModel } from '../../converter/index.js';
import { Random } from './generator/random.js';
import { BOOL, FLOAT, INT32, INT64, ModelBuilder, type AttributeValue } from '../../proving/model-builder.js';

const random = new Random(11);

interface Input {
  readonly name: string;
  readonly sample: Sample;
}

const floats = (name: string, dims: readonly number[], deviation = 1): Input => ({
  name,
  sample: {
    type: 'float32',
    dims,
    data: Float32Array.from(
      random.normals(
        dims.reduce((a, b) => a * b, 1),
        deviation,
      ),
    ),
  },
});
const int32s = (name: string, dims: readonly number[], values: readonly number[]): Input => ({
  name,
  sample: { type: 'int32', dims, data: Int32Array.from(values) },
});
const flags = (name: string, dims: readonly number[], values: readonly number[]): Input => ({
  name,
  sample: { type: 'bool', dims, data: Uint8Array.from(values) },
});

const ELEMENT_TYPES = { float32: FLOAT, int32: INT32, int64: INT64, bool: BOOL } as const;

interface Case {
  readonly title: string;
  readonly opType: string;
  readonly domain?: string;
  readonly opset?: number;
  readonly inputs: readonly (Input | null)[];
  readonly outputs?: readonly string[];
  /** Outputs of the node that are outputs of the model; all by default. */
  readonly reported?: readonly string[];
  readonly attributes?: Readonly<Record<string, AttributeValue>>;
}

function build(entry: Case): { bytes: Uint8Array; feeds: Feeds } {
  const b = new ModelBuilder(entry.opset ?? 23);
  const feeds: Record<string, Sample> = {};
  for (const input of entry.inputs) {
    if (input === null) continue;
    b.input(input.name, ELEMENT_TYPES[input.sample.type as keyof typeof ELEMENT_TYPES], input.sample.dims);
    feeds[input.name] = input.sample;
  }
  const outputs = entry.outputs ?? ['y'];
  b.node(
    entry.opType,
    entry.inputs.map((input) => input?.name ?? ''),
    outputs,
    entry.attributes ?? {},
    entry.domain ?? '',
  );
  for (const output of entry.reported ?? outputs) if (output !== '') b.output(output);
  return { bytes: b.toBytes(), feeds };
}

const [B, H, K, N, M, D] = [2, 4, 2, 5, 7, 8];
const microsoft = { domain: 'com.microsoft', opset: 17 } as const;
const some = (count: number): number[] =>
  Array.from({ length: count }, (_, i) => (i % M === 0 || i % 3 > 0 ? 1 : 0));

/**
 * GroupQueryAttention of `fresh` new positions per batch entry over a buffer of `length` positions. Numbers in the buffer
 * beyond the past must not matter: there lie large ones, so only the result is compared.
 */
function groupQuery(
  fresh: number,
  length: number,
  seqlens: readonly number[],
  total: number,
  attributes: Case['attributes'] = {},
  batch: number = seqlens.length,
): Omit<Case, 'title'> {
  const size = attributes['do_rotary'] === 1 ? 16 : D;
  const buffer = (name: string): Input => {
    const entry = floats(name, [batch, K, length, size]);
    const data = entry.sample.data as Float32Array;
    data.forEach((value, i) => {
      const position = Math.floor(i / size) % length;
      const past = fresh === total ? 0 : seqlens[Math.floor(i / (size * length * K))]! + 1 - fresh;
      if (position >= past) data[i] = 100 * value;
    });
    return entry;
  };
  return {
    ...microsoft,
    opType: 'GroupQueryAttention',
    inputs: [
      floats('q', [batch, fresh, H * size]),
      floats('k', [batch, fresh, K * size]),
      floats('v', [batch, fresh, K * size]),
      buffer('pk'),
      buffer('pv'),
      int32s('seqlens', [batch], seqlens),
      int32s('total', [], [total]),
      ...(attributes['do_rotary'] === 1 ? [floats('cos', [32, 8]), floats('sin', [32, 8])] : []),
    ],
    outputs: ['y', 'present_key', 'present_value'],
    reported: ['y'],
    attributes: { num_heads: H, kv_num_heads: K, ...attributes },
  };
}

const CASES: readonly Case[] = [
  {
    title: 'Attention of rank 4',
    opType: 'Attention',
    inputs: [floats('q', [B, H, N, D]), floats('k', [B, H, M, D]), floats('v', [B, H, M, 6])],
  },
  {
    title: 'Attention of rank 3 with shared key heads',
    opType: 'Attention',
    inputs: [floats('q', [B, N, H * D]), floats('k', [B, M, K * D]), floats('v', [B, M, K * 6])],
    attributes: { q_num_heads: H, kv_num_heads: K },
  },
  {
    title: 'Attention with a boolean mask and a soft cap',
    opType: 'Attention',
    inputs: [
      floats('q', [B, H, N, D]),
      floats('k', [B, K, M, D]),
      floats('v', [B, K, M, D]),
      flags('mask', [N, M], some(N * M)),
    ],
    attributes: { softcap: { float: 3 } },
  },
  {
    title: 'Attention with a number mask and its own scale',
    opType: 'Attention',
    inputs: [
      floats('q', [B, H, N, D]),
      floats('k', [B, H, M, D]),
      floats('v', [B, H, M, D]),
      floats('mask', [B, 1, N, M]),
    ],
    attributes: { scale: { float: 0.3 } },
  },
  {
    title: 'causal Attention with a past',
    opType: 'Attention',
    inputs: [
      floats('q', [B, H, N, D]),
      floats('k', [B, K, N, D]),
      floats('v', [B, K, N, D]),
      null,
      floats('pk', [B, K, 3, D]),
      floats('pv', [B, K, 3, D]),
    ],
    outputs: ['y', 'present_key', 'present_value'],
    attributes: { is_causal: 1 },
  },
  {
    title: 'causal Attention of opset 25',
    opType: 'Attention',
    opset: 25,
    inputs: [floats('q', [B, H, N, D]), floats('k', [B, H, N, D]), floats('v', [B, H, N, D])],
    attributes: { is_causal: 1 },
  },
  {
    title: 'Attention of opset 24 with key counts',
    opType: 'Attention',
    opset: 24,
    inputs: [
      floats('q', [B, H, N, D]),
      floats('k', [B, H, M, D]),
      floats('v', [B, H, M, D]),
      null,
      null,
      null,
      { name: 'nonpad', sample: { type: 'int64', dims: [B], data: BigInt64Array.of(6n, 7n) } },
    ],
  },
  {
    title: 'contrib Attention with a mask of 0 and 1',
    ...microsoft,
    opType: 'Attention',
    inputs: [
      floats('x', [B, M, 16]),
      floats('w', [16, 96], 0.25),
      floats('bias', [96]),
      int32s('mask', [B, M], some(B * M)),
    ],
    attributes: { num_heads: H },
  },
  {
    title: 'contrib Attention with key lengths',
    ...microsoft,
    opType: 'Attention',
    inputs: [
      floats('x', [B, M, 16]),
      floats('w', [16, 96], 0.25),
      floats('bias', [96]),
      int32s('mask', [B], [4, 7]),
    ],
    attributes: { num_heads: H },
  },
  {
    title: 'one-directional contrib Attention with a past',
    ...microsoft,
    opType: 'Attention',
    inputs: [
      floats('x', [B, N, 16]),
      floats('w', [16, 96], 0.25),
      floats('bias', [96]),
      null,
      floats('past', [2, B, H, 3, 8]),
    ],
    outputs: ['y', 'present'],
    attributes: { num_heads: H, unidirectional: 1 },
  },
  {
    title: 'MultiHeadAttention with biases and a padding mask',
    ...microsoft,
    opType: 'MultiHeadAttention',
    inputs: [
      floats('q', [B, N, H * D]),
      floats('k', [B, M, H * D]),
      floats('v', [B, M, H * D]),
      floats('bias', [3 * H * D]),
      int32s('mask', [B, M], some(B * M)),
    ],
    attributes: { num_heads: H },
  },
  {
    title: 'MultiHeadAttention over cached keys with an attention bias',
    ...microsoft,
    opType: 'MultiHeadAttention',
    inputs: [
      floats('q', [B, N, H * D]),
      floats('k', [B, H, M, D]),
      floats('v', [B, H, M, D]),
      null,
      null,
      floats('bias', [1, H, N, M]),
    ],
    attributes: { num_heads: H },
  },
  {
    title: 'MultiHeadAttention with a past',
    ...microsoft,
    opType: 'MultiHeadAttention',
    inputs: [
      floats('q', [B, N, H * D]),
      floats('k', [B, N, H * D]),
      floats('v', [B, N, H * D]),
      null,
      null,
      null,
      floats('pk', [B, H, 3, D]),
      floats('pv', [B, H, 3, D]),
    ],
    outputs: ['y', 'present_key', 'present_value'],
    attributes: { num_heads: H, unidirectional: 1 },
  },
  {
    title: 'GroupQueryAttention with a past',
    ...microsoft,
    opType: 'GroupQueryAttention',
    inputs: [
      floats('q', [B, 1, H * D]),
      floats('k', [B, 1, K * D]),
      floats('v', [B, 1, K * D]),
      floats('pk', [B, K, 3, D]),
      floats('pv', [B, K, 3, D]),
      int32s('seqlens', [B], [3, 3]),
      int32s('total', [], [4]),
    ],
    outputs: ['y', 'present_key', 'present_value'],
    attributes: { num_heads: H, kv_num_heads: K },
  },
  {
    title: 'GroupQueryAttention over a buffer longer than past and new keys, of entries of unequal length',
    ...groupQuery(1, 12, [3, 7], 8),
  },
  {
    title: 'GroupQueryAttention over a buffer with a local window',
    ...groupQuery(1, 12, [9, 5], 10, { local_window_size: 3 }),
  },
  {
    title: 'GroupQueryAttention over a buffer with a soft cap and its own scale',
    ...groupQuery(1, 9, [8, 2], 9, { softcap: { float: 2 }, scale: { float: 0.2 } }),
  },
  { title: 'GroupQueryAttention of a prompt that fits its buffer', ...groupQuery(5, 12, [4, 4], 5) },
  { title: 'GroupQueryAttention of a prompt longer than its buffer', ...groupQuery(5, 3, [4, 4], 5) },
  { title: 'GroupQueryAttention over a past of unequal lengths', ...groupQuery(1, 6, [6, 2], 7) },
  {
    title: 'GroupQueryAttention of several new positions over a buffer',
    ...groupQuery(3, 11, [7], 8, {}, 1),
  },
  {
    title: 'rotary GroupQueryAttention over a buffer',
    ...groupQuery(1, 12, [3, 7], 8, { do_rotary: 1 }),
  },
  {
    title: 'rotary, interleaved GroupQueryAttention of several new positions',
    ...groupQuery(3, 11, [7], 8, { do_rotary: 1, rotary_interleaved: 1 }, 1),
  },
  {
    title: 'GroupQueryAttention of a prompt with a local window',
    ...microsoft,
    opType: 'GroupQueryAttention',
    inputs: [
      floats('q', [1, 9, H * D]),
      floats('k', [1, 9, K * D]),
      floats('v', [1, 9, K * D]),
      null,
      null,
      int32s('seqlens', [1], [8]),
      int32s('total', [], [9]),
    ],
    outputs: ['y', 'present_key', 'present_value'],
    attributes: { num_heads: H, kv_num_heads: K, local_window_size: 3 },
  },
  {
    title: 'packed GroupQueryAttention with rotary positions',
    ...microsoft,
    opType: 'GroupQueryAttention',
    inputs: [
      floats('qkv', [1, 1, (H + 2 * K) * 16]),
      null,
      null,
      floats('pk', [1, K, 3, 16]),
      floats('pv', [1, K, 3, 16]),
      int32s('seqlens', [1], [3]),
      int32s('total', [], [4]),
      floats('cos', [16, 8]),
      floats('sin', [16, 8]),
    ],
    outputs: ['y', 'present_key', 'present_value'],
    attributes: { num_heads: H, kv_num_heads: K, do_rotary: 1 },
  },
];

interface PackedSizes {
  readonly tokens: number;
  readonly heads: number;
  readonly headSize: number;
  readonly valueHeadSize: number;
}

/** softmax(Q K^T / sqrt(D)) V of each sequence by itself, tokens `bounds[s]` to before `bounds[s + 1]`, in float64. */
function packedAttention(
  { q, k, v }: Readonly<Record<'q' | 'k' | 'v', Float64Array>>,
  { tokens, heads, headSize, valueHeadSize }: PackedSizes,
  bounds: readonly number[],
): Float64Array {
  const y = new Float64Array(tokens * heads * valueHeadSize);
  for (let s = 0; s + 1 < bounds.length; s++) {
    const own = Array.from({ length: bounds[s + 1]! - bounds[s]! }, (_, i) => bounds[s]! + i);
    for (const row of own) {
      for (let h = 0; h < heads; h++) {
        const part = (token: number): number => (token * heads + h) * headSize;
        const scores = own.map((token) => {
          let sum = 0;
          for (let d = 0; d < headSize; d++) sum += q[part(row) + d]! * k[part(token) + d]!;
          return sum / Math.sqrt(headSize);
        });
        const top = Math.max(...scores);
        const weights = scores.map((score) => Math.exp(score - top));
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        for (let d = 0; d < valueHeadSize; d++) {
          const at = (token: number): number => (token * heads + h) * valueHeadSize + d;
          y[at(row)] = own.reduce((sum, token, i) => sum + (weights[i]! / total) * v[at(token)]!, 0);
        }
      }
    }
  }
  return y;
}

describe('converter on fused attention operators', () => {
  for (const entry of CASES) {
    it(`keeps ${entry.title}`, async () => {
      const { bytes, feeds } = build(entry);
      const outcome = await checkModel(bytes, [feeds], { mode: 'faithful' });
      assert.equal(outcome.failure, null);
      assert.deepEqual(outcome.refused, []);
      assert.equal(outcome.replaced, 1);
      assert.ok(outcome.error !== null && outcome.error < 1e-4, `error ${outcome.error}`);
    });
  }

  it('keeps layers of GroupQueryAttention with open sizes, which share their positions', async () => {
    const b = new ModelBuilder(17);
    b.input('x', FLOAT, ['batch', 'n', H * D]);
    b.input('attention_mask', INT64, ['batch', 'total']);
    const mask = b.op('Cast', [b.reduce('ReduceSum', 'attention_mask', 1, 0)], { to: INT32 });
    const seqlens = b.op('Sub', [mask, b.scalar(INT32, 1)]);
    const width = b.op('Gather', [b.op('Shape', ['attention_mask']), b.scalar(INT64, 1)]);
    const total = b.op('Cast', [width], { to: INT32 });
    let x = 'x';
    for (const layer of [0, 1]) {
      const project = (columns: number): string =>
        b.op('MatMul', [x, b.constant(FLOAT, [H * D, columns], random.normals(H * D * columns, 0.2))]);
      const pasts = ['key', 'value'].map((name) =>
        b.input(`past.${layer}.${name}`, FLOAT, ['batch', K, 'past', D]),
      );
      const outputs = [`y${layer}`, `present.${layer}.key`, `present.${layer}.value`];
      b.node(
        'GroupQueryAttention',
        [project(H * D), project(K * D), project(K * D), ...pasts, seqlens, total],
        outputs,
        { num_heads: H, kv_num_heads: K },
        'com.microsoft',
      );
      for (const name of outputs.slice(1)) b.output(name, FLOAT, ['batch', K, 'kept', D]);
      x = b.op('Add', [x, outputs[0]!]);
    }
    b.op('Identity', [x], {}, 'y');
    b.output('y');
    const feedsOf = (fresh: number, past: number, total: number): Feeds => {
      const filled = total - fresh;
      const buffer = (): Sample => {
        const entry = floats('', [2, K, past, D]).sample;
        const data = entry.data as Float32Array;
        data.forEach((_, i) => {
          if (Math.floor(i / D) % past >= filled) data[i] = 0;
        });
        return entry;
      };
      return {
        x: floats('', [2, fresh, H * D]).sample,
        attention_mask: { type: 'int64', dims: [2, total], data: new BigInt64Array(2 * total).fill(1n) },
        ...Object.fromEntries(
          [0, 1].flatMap((layer) => ['key', 'value'].map((name) => [`past.${layer}.${name}`, buffer()])),
        ),
      };
    };
    const bytes = b.toBytes();
    const outcome = await checkModel(bytes, [feedsOf(1, 6, 7), feedsOf(1, 32, 9), feedsOf(4, 16, 4)], {
      mode: 'faithful',
    });
    assert.equal(outcome.failure, null);
    assert.equal(outcome.replaced, 2);
    assert.ok(outcome.error !== null && outcome.error < 1e-5, `error ${outcome.error}`);
    const converted = openModel(convert(openModel(bytes), { mode: 'faithful' }).toBytes());
    const ranges = converted.graph.nodes.filter(({ opType }) => opType === 'Range');
    assert.equal(ranges.length, 2, 'positions and mask are worked out once');
    assert.equal(inspect(openModel(bytes)).sites[0]?.cacheForm, 'past in a buffer');
  });

  it('takes packed MultiHeadAttention apart, which ONNX Runtime runs on a GPU only', async () => {
    const numbers = floats('qkv', [B, N, H, 3, D]);
    const packed = build({
      title: '',
      ...microsoft,
      opType: 'MultiHeadAttention',
      inputs: [numbers],
      attributes: { num_heads: H },
    });
    const conversion = convert(openModel(packed.bytes), { mode: 'faithful' });
    assert.equal(conversion.replaced.length, 1);
    const part = (name: string, index: number): Input => {
      const all = numbers.sample.data as Float32Array;
      const data = Float32Array.from(
        { length: B * N * H * D },
        (_, i) => all[(Math.floor(i / D) * 3 + index) * D + (i % D)]!,
      );
      return { name, sample: { type: 'float32', dims: [B, N, H * D], data } };
    };
    const apart = build({
      title: '',
      ...microsoft,
      opType: 'MultiHeadAttention',
      inputs: [part('q', 0), part('k', 1), part('v', 2)],
      attributes: { num_heads: H },
    });
    const run = async (bytes: Uint8Array, feeds: Feeds): Promise<Float32Array> => {
      const session = await ort.InferenceSession.create(bytes, { logSeverityLevel: 4 });
      const inputs = Object.entries(feeds).map(
        ([name, { data, dims }]) =>
          [name, new ort.Tensor('float32', data as Float32Array, [...dims])] as const,
      );
      const { y } = await session.run(Object.fromEntries(inputs));
      await session.release();
      return y!.data as Float32Array;
    };
    const found = await run(conversion.toBytes(), packed.feeds);
    const expected = await run(apart.bytes, apart.feeds);
    expected.forEach((value, i) =>
      assert.ok(Math.abs(value - found[i]!) < 1e-4, `element ${i}: ${found[i]} instead of ${value}`),
    );
  });

  for (const [title, bounds] of [
    ['two sequences', [0, 4, 9]],
    ['an empty sequence and one of a single token', [0, 0, 1, 7, 9]],
    ['one sequence', [0, 9]],
  ] as const) {
    it(`computes PackedMultiHeadAttention over ${title}, which ONNX Runtime runs on a GPU only`, async () => {
      const [T, Dv] = [9, 6];
      const parts = [floats('q', [T, H * D]), floats('k', [T, H * D]), floats('v', [T, H * Dv])] as const;
      const { bytes, feeds } = build({
        title: '',
        ...microsoft,
        opType: 'PackedMultiHeadAttention',
        inputs: [
          ...parts,
          null,
          int32s('offset', [bounds.length - 1, T], new Array<number>((bounds.length - 1) * T).fill(0)),
          int32s('bounds', [bounds.length], bounds),
        ],
        attributes: { num_heads: H },
      });
      const [site] = inspect(openModel(bytes)).sites;
      assert.equal(site?.kind, 'fused');
      assert.equal(site.heads, H);
      const conversion = convert(openModel(bytes), { mode: 'faithful' });
      assert.equal(conversion.replaced.length, 1);
      const session = await ort.InferenceSession.create(conversion.toBytes(), { logSeverityLevel: 4 });
      const tensors = session.inputNames.map((name) => {
        const { type, data, dims } = feeds[name]!;
        return [name, new ort.Tensor(type, data as Float32Array, [...dims])] as const;
      });
      const { y } = await session.run(Object.fromEntries(tensors));
      await session.release();
      const [q, k, v] = parts.map(({ sample }) => Float64Array.from(sample.data as Float32Array)) as [
        Float64Array,
        Float64Array,
        Float64Array,
      ];
      const expected = packedAttention(
        { q, k, v },
        { tokens: T, heads: H, headSize: D, valueHeadSize: Dv },
        bounds,
      );
      assert.deepEqual(y!.dims, [T, H * Dv]);
      expected.forEach((value, i) => {
        const found = Number(y!.data[i]);
        assert.ok(Math.abs(value - found) < 1e-5, `element ${i}: ${found} instead of ${value}`);
      });
    });
  }

  it('refuses sinks, quantised caches and scores as output, each with its reason', () => {
    const base = CASES.find(({ title }) => title === 'GroupQueryAttention with a past')!;
    const reason = (entry: Case): string | null | undefined =>
      inspect(openModel(build(entry).bytes)).sites[0]?.reason;
    assert.equal(
      reason({ ...base, attributes: { ...base.attributes, smooth_softmax: 1 } }),
      'attention-sink',
    );
    assert.equal(
      reason({ ...base, attributes: { ...base.attributes, k_quant_type: 'PER_TENSOR' } }),
      'quantized',
    );
    assert.equal(reason({ ...CASES[0]!, outputs: ['y', '', '', 'scores'] }), 'unsupported-outputs');
  });
});

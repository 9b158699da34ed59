/**
 * Attention in bfloat16, which ONNX Runtime has no kernels for on the CPU: what is left after conversion runs there, on the
 * operator's kernel and on its portable function, and is compared with a float64 computation on the rounded inputs.
 */
import assert from 'node:assert/strict';
import * as ort from 'onnxruntime-node';
import { convert, openModel, type Mode } from '../../converter/index.js';
import { bfloat16ToNumber, numberToBfloat16 } from '../../op/half.js';
import { BFLOAT16, BOOL, FLOAT, ModelBuilder } from '../../proving/model-builder.js';
import { Random } from './generator/random.js';

const random = new Random(41);
const [B, H, K, N, M, D] = [2, 4, 2, 5, 7, 8];
const rounded = (value: number): number => bfloat16ToNumber(numberToBfloat16(value));

/** An input of the model: numbers, or truth values. */
interface Input {
  readonly dims: readonly number[];
  readonly data: readonly number[];
  readonly isBool: boolean;
}

const numbers = (dims: readonly number[], values?: (at: number) => number): Input => {
  const count = dims.reduce((a, b) => a * b, 1);
  const data = values ? Array.from({ length: count }, (_, at) => values(at)) : random.normals(count);
  return { dims, data: data.map(rounded), isBool: false };
};

interface Case {
  readonly title: string;
  readonly mode: Mode;
  readonly inputs?: Readonly<Record<string, Input>>;
  /** What follows the scaled scores, up to the weights. */
  readonly weigh: (b: ModelBuilder, scores: string) => string;
  /** The weight of one score, given all scores of its row, before they are divided by a sum. */
  readonly scores?: (score: number, place: Place) => number;
  readonly isSigmoid?: boolean;
  readonly gain?: number;
}

interface Place {
  readonly batch: number;
  readonly head: number;
  readonly row: number;
  readonly key: number;
}

const softmax = (b: ModelBuilder, scores: string): string => b.op('Softmax', [scores], { axis: -1 });
const shown = (at: number): boolean => at % M === 0 || at % 3 > 0;

const CASES: readonly Case[] = [
  { title: 'softmax', mode: 'faithful', weigh: softmax },
  {
    title: 'softmax in float between casts',
    mode: 'faithful',
    weigh: (b, scores) => b.op('Cast', [softmax(b, b.op('Cast', [scores], { to: FLOAT }))], { to: BFLOAT16 }),
  },
  {
    title: 'softmax under a mask of numbers',
    mode: 'faithful',
    inputs: { mask: numbers([B, 1, 1, M], (at) => (shown(at) ? 0 : -30000)) },
    weigh: (b, scores) => softmax(b, b.op('Add', [scores, 'mask'])),
    scores: (score, { batch, key }) => (shown(batch * M + key) ? score : -Infinity),
  },
  {
    title: 'softmax under a mask of truth values',
    mode: 'faithful',
    inputs: {
      mask: { dims: [N, M], data: Array.from({ length: N * M }, (_, at) => Number(shown(at))), isBool: true },
    },
    weigh: (b, scores) => softmax(b, b.op('Where', ['mask', scores, b.scalar(BFLOAT16, -Infinity)])),
    scores: (score, { row, key }) => (shown(row * M + key) ? score : -Infinity),
  },
  {
    title: 'softmax under two masks of numbers',
    mode: 'faithful',
    inputs: {
      mask: numbers([B, 1, 1, M], (at) => (shown(at) ? 0 : -30000)),
      bias: numbers([1, H, N, M], (at) => (at % 8) / 4),
    },
    weigh: (b, scores) => softmax(b, b.op('Add', [b.op('Add', [scores, 'bias']), 'mask'])),
    scores: (score, { batch, head, row, key }) =>
      shown(batch * M + key) ? score + (((head * N + row) * M + key) % 8) / 4 : -Infinity,
  },
  {
    title: 'softmax whose weights are scaled',
    mode: 'faithful',
    weigh: (b, scores) => b.op('Mul', [softmax(b, scores), b.scalar(BFLOAT16, 0.5)]),
    gain: 0.5,
  },
  {
    title: 'sigmoid with a bias',
    mode: 'fuse',
    weigh: (b, scores) => b.op('Sigmoid', [b.op('Add', [scores, b.scalar(BFLOAT16, -2)])]),
    scores: (score) => score - 2,
    isSigmoid: true,
  },
  {
    title: 'sigmoid written out, with a bias per head',
    mode: 'fuse',
    weigh: (b, scores) => {
      const bias = b.constant(BFLOAT16, [H, 1, 1], [-1, -2, -3, -4]);
      const power = b.op('Exp', [b.op('Neg', [b.op('Add', [scores, bias])])]);
      const one = b.scalar(BFLOAT16, 1);
      return b.op('Div', [one, b.op('Add', [one, power])]);
    },
    scores: (score, { head }) => score - 1 - head,
    isSigmoid: true,
  },
];

type Tensors = Readonly<Record<string, Input>>;

/** [B,H,N,D] queries over two kv heads that Expand repeats, all in bfloat16. */
function build({ weigh, inputs = {} }: Case, tensors: Tensors): Uint8Array {
  const b = new ModelBuilder(17);
  const narrow = (name: string, { dims, isBool }: Input): void => {
    if (isBool) b.input(name, BOOL, dims);
    else b.op('Cast', [b.input(`${name}_float`, FLOAT, dims)], { to: BFLOAT16 }, name);
  };
  for (const [name, input] of Object.entries({ ...tensors, ...inputs })) narrow(name, input);
  const repeat = (name: string): string => {
    const wide = b.op('Expand', [b.unsqueeze(name, [2]), b.ints([B, K, H / K, M, D])]);
    return b.op('Reshape', [wide, b.ints([B, H, M, D])]);
  };
  const product = b.op('MatMul', ['q', b.op('Transpose', [repeat('k')], { perm: [0, 1, 3, 2] })]);
  const scores = b.op('Mul', [product, b.scalar(BFLOAT16, 0.375)]);
  const y = b.op('MatMul', [weigh(b, scores), repeat('v')]);
  b.op('Cast', [y], { to: FLOAT }, 'y');
  b.output('y');
  return b.toBytes();
}

function expected(
  { scores = (score) => score, isSigmoid = false, gain = 1 }: Case,
  tensors: Tensors,
): number[] {
  const { q, k, v } = tensors as Readonly<Record<'q' | 'k' | 'v', Input>>;
  const out: number[] = [];
  for (let batch = 0; batch < B; batch++) {
    for (let head = 0; head < H; head++) {
      const kv = (batch * K + Math.floor(head / (H / K))) * M * D;
      for (let row = 0; row < N; row++) {
        const logits = Array.from({ length: M }, (_, key) => {
          let sum = 0;
          for (let d = 0; d < D; d++)
            sum += q.data[((batch * H + head) * N + row) * D + d]! * k.data[kv + key * D + d]!;
          return scores(0.375 * sum, { batch, head, row, key });
        });
        const top = Math.max(...logits);
        const weights = logits.map((logit) =>
          isSigmoid ? 1 / (1 + Math.exp(-logit)) : Math.exp(logit - top),
        );
        const total = isSigmoid ? 1 : weights.reduce((a, c) => a + c, 0);
        for (let d = 0; d < D; d++)
          out.push(gain * weights.reduce((sum, w, key) => sum + (w / total) * v.data[kv + key * D + d]!, 0));
      }
    }
  }
  return out;
}

async function run(bytes: Uint8Array, inputs: Tensors): Promise<Float32Array> {
  const session = await ort.InferenceSession.create(bytes, { intraOpNumThreads: 1, logSeverityLevel: 4 });
  const feeds = Object.entries(inputs).map(([name, { dims, data, isBool }]) =>
    isBool
      ? ([name, new ort.Tensor('bool', Uint8Array.from(data), [...dims])] as const)
      : ([`${name}_float`, new ort.Tensor('float32', Float32Array.from(data), [...dims])] as const),
  );
  const { y } = await session.run(Object.fromEntries(feeds));
  await session.release();
  return y!.data as Float32Array;
}

describe('converter on bfloat16', () => {
  before(() => import('../../op/node/index.js'));

  for (const entry of CASES) {
    it(`leaves ${entry.title} within the rounding of its result`, async () => {
      const tensors = {
        q: numbers([B, H, N, D]),
        k: numbers([B, K, M, D]),
        v: numbers([B, K, M, D]),
      };
      const model = openModel(build(entry, tensors));
      const wanted = expected(entry, tensors);
      const largest = Math.max(...wanted.map(Math.abs));
      for (const withoutFunction of [true, false]) {
        const conversion = convert(model, { mode: entry.mode, withoutFunction });
        assert.equal(conversion.replaced.length, 1, JSON.stringify(conversion.refused));
        assert.equal(conversion.replaced[0]?.site.dtype, 'bfloat16');
        assert.equal(conversion.replaced[0].site.kvHeads, K);
        const found = await run(conversion.toBytes(), { ...tensors, ...entry.inputs });
        wanted.forEach((value, i) =>
          assert.ok(
            Math.abs(value - found[i]!) <= 2 ** -7 * largest,
            `element ${i}: ${found[i]} instead of ${value}`,
          ),
        );
      }
    });
  }
});
